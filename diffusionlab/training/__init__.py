"""How Toyland was trained, as programs that anyone can run again.

`python -m diffusionlab.training PART --preset cpu`
runs one part after the other; each part needs only the files that the part before it left in
the run folder, stops at its time limit and continues from its own checkpoint when called again.
"""
