"""Fitting a model onto a device: weights lent for a while, pictures in tiles, memory that ran out.

Nothing here knows what a diffusion model is: modules, tensors and exceptions go in.
"""
