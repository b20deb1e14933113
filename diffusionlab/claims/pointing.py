"""The maps behind claim H3, scene by scene, as a record that can be drawn."""

from __future__ import annotations

import numpy as np

from diffusionlab.analysis.pointing import Pointing, pointing_game
from diffusionlab.claims.attention import WORDS, maps_and_masks
from diffusionlab.claims.bench import Bench
from diffusionlab.claims.known_pictures import known


def pointing(bench: Bench, word: str = "object") -> Pointing:
    """Where the "object"'s or the "colour"'s word is looked up in drawn scenes of known masks.

    As many scenes as the bench has samples, noised to karras_sigma 2; means of the finest layers.
    Errors: InputError for a model of two text encoders.
    """
    (maps, masks), scenes = maps_and_masks(bench)[word], known(bench)
    pictures = np.stack([one.image for one in scenes.drawn])
    words = [WORDS[word](prompt) for prompt in scenes.prompts]
    return pointing_game(
        maps, masks, words, pictures=pictures, what="karras_sigma 2, finest layers"
    )
