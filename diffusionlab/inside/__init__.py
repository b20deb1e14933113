"""The machine's side of seeing inside: what a model is built of, and what happens if it is changed.

`anatomy` and `embed_layers` describe, `noise_image` and `fit_preview` measure, the interventions
change one thing inside the network while a `with` block lasts. All hand out records in NumPy.
"""
