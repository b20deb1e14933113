"""The plots of guidance, each on a run of the gallery's prompt."""

from __future__ import annotations

from lab import PROMPT, SETTINGS, Lab

import diffusionlab as dl
from diffusionlab.analysis.guidance import dial
from diffusionlab.analysis.guidance_sweep import sweep
from diffusionlab.trace import Guidance


def keeps_to_the_prompt(image) -> float:
    """Of object, colour, setting and time of the gallery's prompt, the share that a judge sees."""
    import numpy as np

    from diffusionlab.training.judges import judge, load_judges

    seen = judge(load_judges()[0], np.asarray(image)[None])[0]
    right = (seen.kinds == ("car",), "red" in seen.colours.values(), seen.setting == "city",
             seen.time == "night")  # fmt: skip
    return sum(right) / len(right)


def the_dial(lab: Lab):
    """Step 2, early enough for the scale to matter."""
    return dial(lab.trace, 2, [0, 1, 2, 4, 8, 16], run=lab.run, decode=lab.decode), {}


def options_on_the_dial(lab: Lab):
    """What an interval and a rescale do to a strong scale."""
    strong = [8, Guidance(8, rescale=0.7), Guidance(8, interval=(0.5, 6))]
    return dial(lab.trace, 2, [4, *strong], run=lab.run, decode=lab.decode), {}


def the_sweep(lab: Lab):
    """Six scales, four seeds each."""
    scales, seeds = [0, 1, 2, 4, 8, 16], [1, 2, 3, 4]
    shared = {k: v for k, v in SETTINGS.items() if k not in ("seed", "guidance_scale")}
    runs = dl.compare(
        lab.model, PROMPT, guidance_scales=[g for g in scales for _ in seeds],
        seeds=seeds * len(scales), **shared,
    )  # fmt: skip
    return sweep(runs, keeps_to_the_prompt, "prompt, as a judge sees it"), {}


def a_negative_prompt(lab: Lab):
    """The other branch is told something too."""
    return lab.run(negative_prompt="a blue car at day"), {"decode": lab.decode}


CASES = {
    "plot_guidance": lambda lab: (lab.trace, {}),
    "plot_guidance.decoded": lambda lab: (lab.trace, {"decode": lab.decode}),
    "plot_guidance.channels": lambda lab: (lab.trace, {"channels": True}),
    "plot_guidance.negative_prompt": a_negative_prompt,
    "plot_guidance_curves": lambda lab: (lab.trace, {}),
    "plot_guidance_curves.interval": lambda lab: (
        lab.run(guidance_scale=Guidance(8, interval=(0.5, 6))), {},
    ),
    "plot_guidance_dial": the_dial,
    "plot_guidance_dial.options": options_on_the_dial,
    "plot_guidance_sweep": the_sweep,
}  # fmt: skip
