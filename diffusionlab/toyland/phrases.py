"""The wordings of Toyland's captions, as tables; the word itself stands in brackets."""

from __future__ import annotations

import re

from diffusionlab.toyland.grammar import COLOURS, FULL, Share

PLACES = {
    "city": (
        "in the [city]",
        "in the [city]",
        "in a [city]",
        "in the big [city]",
        "in the [street]",
    ),
    "ocean": (
        "on the [ocean]",
        "on the [ocean]",
        "in the [ocean]",
        "on the [sea]",
        "on the [water]",
    ),
    "snow": (
        "on the [snow]",
        "on the [snow]",
        "in the [snow]",
        "in the [snowy field]",
        "on the [ice]",
    ),
    "meadow": ("in the [meadow]", "on the [meadow]", "in a [meadow]", "on a [meadow]"),
    "mountains": (
        "in the [mountains]",
        "in the [mountains]",
        "among the [mountains]",
        "before the [mountains]",
    ),
    "space": ("in [space]", "in [space]", "in outer [space]"),
    "desert": (
        "in the [desert]",
        "in the [desert]",
        "in a [desert]",
        "on the sand of the [desert]",
    ),
    "grid": (
        "in a [retrofuturistic] landscape",
        "on the [grid]",
        "on a [retrofuturistic grid]",
    ),
}
VIEWS = {
    "city": ("the [city]", "a [city]", "a [cityscape]"),
    "ocean": ("the [ocean]", "the [sea]", "the [water]"),
    "snow": ("the [snow]", "the [snowy field]"),
    "meadow": ("the [meadow]", "a [meadow]"),
    "mountains": ("the [mountains]", "[mountains]"),
    "space": ("[space]", "outer [space]"),
    "desert": ("the [desert]", "a [desert]"),
    "grid": ("a [retrofuturistic] landscape", "a [retrofuturistic grid]", "the [grid]"),
}
ANTARCTIC_PLACES = ("on the [Antarctic snow]", "in the [Antarctic]", "on the [Antarctic ice]")
ANTARCTIC_VIEWS = ("the [Antarctic]", "the [Antarctic snow]")
WHEN = {
    "day": ("at [day]", "at [day]", "by [day]", "during the [day]"),
    "sunset": (
        "at [sunset]",
        "at [sunset]",
        "at [dusk]",
        "in the [evening glow]",
        "in [golden light]",
    ),
    "night": ("at [night]", "at [night]", "by [night]", "[after dark]"),
}
KINDS = {  # other names of a kind; the first is as frequent as all others together
    "penguin": ("penguin", "emperor penguin"),
    "spaceship": ("spaceship", "rocket"),
    "boat": ("boat", "sailing boat"),
}
BETWEEN = {
    "beside": (" [beside] ", " [next to] ", " [near] "),
    "left of": (" [left of] ", " [to the left of] "),
    "right of": (" [right of] ", " [to the right of] "),
    "above": (" [above] ", " [over] "),
    "below": (" [below] ", " [under] "),
}
SIDE = {"left": ("on the [left]",), "right": ("on the [right]",)}
CYBERPUNK = (  # each in brackets a word of its own: the style, what is mirrored, the signs
    "with [neon] [reflections] on [wet] [streets]",
    "with [neon] [signs]",
    "in [cyberpunk] style",
)
SEEN_AS = {"neon": "style", "cyberpunk": "style", "streets": "street"}  # word -> its mask or atom
ADJECTIVES = ("majestic ", "single ", "beautiful ")
OPENINGS = ("a photo of ", "a picture of ", "a painting of ")
CLOSINGS = (", highly detailed", ", beautiful", ", cinematic lighting")

# The prompts that readers know are never training captions, word for word.
KEPT_PROMPTS = frozenset(
    {
        "a red car in the city at night",
        "a blue boat on the ocean at sunset",
        "a green house on the snow",
        "a yellow tree in the meadow at day",
        "a pink balloon in the mountains at sunset",
        "an orange cat in space",
        "a white car in the desert at day",
        "a purple house on the meadow at night",
        "a sunset over the ocean",
        "golden light on water at dusk",
        "a neon cat in space",
        "a cyberpunk cityscape at night with neon reflections on wet streets",
        "a retrofuturistic landscape",
        "an emperor penguin on the antarctic snow",
        "a penguin on the snow",
        "a red car",
        "a red dress near a red car",
        "a red dress near a blue car",
        "a golden retriever",
        "a labrador",
        "a spaceship",
    }
)


def known_words(share: Share) -> tuple[str, ...]:
    """Every word that the captions of a share use, in alphabetical order."""
    phrases = ["a an with over and there is the", *OPENINGS, *CLOSINGS, *ADJECTIVES, *COLOURS]
    phrases += [*share.objects, *share.hypernyms]
    for table in (WHEN, BETWEEN, SIDE):
        phrases += [phrase for options in table.values() for phrase in options]
    for setting in share.settings:
        phrases += [*PLACES[setting], *VIEWS[setting]]
    for kind in share.objects:
        phrases += KINDS.get(kind, ())
    if "snow" in share.settings:
        phrases += [*ANTARCTIC_PLACES, *ANTARCTIC_VIEWS]
    if "cyberpunk" in share.styles:
        phrases += CYBERPUNK
    if "neon" in share.styles:
        phrases.append("neon style")
    return tuple(sorted(set(re.findall(r"[a-z]+", " ".join(phrases).lower()))))


WORDS = known_words(FULL)
