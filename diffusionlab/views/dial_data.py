"""What a page needs to recombine the two branches of a step at any guidance, without the network.

paper ↔ name: guided = uncond + g · (cond − uncond) (arXiv 2207.12598, Eq. 6, w = g − 1), times
k = φ · std(cond) / std(guided) + 1 − φ (arXiv 2305.08891, Eqs. 15 and 16). x0 and the preview map
are both affine, so the picture at g is known from the run's own picture and the pull:

    rgb(g) = k · (own + (g − own g) · pull) + (1 − k) · point

`own` is the picture of x0-hat at the run's own g before the rescale, `pull` that of cond − uncond
in x0 (without the map's bias), `point` that of x0 where the output is 0 (only needed for φ > 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from diffusionlab.analysis.guidance import TOLD, is_told
from diffusionlab.analysis.latents import branch_x0, numbers
from diffusionlab.schedule import to_x0
from diffusionlab.trace import Prediction, Trace
from diffusionlab.trace.summary import size_text
from diffusionlab.views.attention_data import CELLS, pooled
from diffusionlab.views.page import packed, plain

MOST = 2_000_000  # bytes of the dial in a page
HALF = 65_000.0  # what a float16 holds
LOWEST_TOP = 12.0  # the slider reaches at least so far
NO_MAP = "This checkpoint has no preview map to colour x0-hat with; dl.fit_preview makes one."


# ---- how far the branches are apart ------------------------------------------------------------
def difference_data(trace: Trace, indexes: Sequence[int]) -> dict[str, Any]:
    """|cond − uncond| in x0 at each step, root mean square over channels, in 255ths of `tops`.

    `reasons` say why a step has none ("" where it has one).
    """
    reasons = [_reason(trace, index) for index in indexes]
    shape = trace.steps[0].latent.shape[1:]
    maps = np.zeros((len(indexes), *shape))
    for row, index in enumerate(indexes):
        if not reasons[row]:
            maps[row] = np.sqrt(np.square(_pull(trace.steps[index].predictions[0])).mean(axis=0))
    tops = maps.max(axis=(1, 2))
    units = maps / np.where(tops > 0, tops, 1)[:, None, None]
    return {
        "maps": packed(np.round(units * 255), "uint8"),
        "tops": [plain(top) for top in tops],
        "reasons": reasons,
    }


def _pull(call: Prediction) -> np.ndarray:
    return branch_x0(call, "cond") - branch_x0(call, "uncond")


def _reason(trace: Trace, index: int) -> str:
    """Why a step cannot be recombined, or ""."""
    calls = trace.steps[index].predictions
    if not calls:
        return 'The predictions were not recorded: run again with record={"predictions"}.'
    if calls[0].uncond is None:
        guidance, sigma = trace.settings.guidance, calls[0].level.karras_sigma
        if is_told(trace.settings):
            return f"This run has guidance {guidance}, but this model {TOLD}."
        if guidance.interval is None:
            return f"This run has guidance {guidance}: its unconditional pass was not run."
        return (
            f"Guidance of this run is {guidance}; at karras_sigma {sigma:.3g} it is off, and the "
            "unconditional pass was not run."
        )
    parts = (calls[0].latent, calls[0].cond, calls[0].uncond)
    if not all(np.isfinite(numbers(part)).all() for part in parts):
        return "The latent or the network's output holds NaN or infinity at this step."
    return ""


# ---- the dial ----------------------------------------------------------------------------------
def dial_data(trace: Trace, indexes: Sequence[int]) -> dict[str, Any]:
    """The dial of these steps, or `missing` says why there is none.

    `steps` hold the own scale, the rescale and its spreads, or the reason why that step has none;
    the arrays are float16 (steps, 3, h, w), averaged into at most 32 × 32 cells.
    """
    own = trace.settings.guidance_scale
    told = {"own": plain(own), "top": max(LOWEST_TOP, float(np.ceil(own))), "missing": ""}
    reasons = [_reason(trace, index) for index in indexes]
    if all(reasons):
        return told | {"missing": reasons[0]}
    if trace.preview is None:
        return told | {"missing": NO_MAP}
    names = ("own", "pull", "point") if trace.settings.guidance_rescale else ("own", "pull")
    h, w = (min(n, CELLS) for n in trace.steps[0].latent.shape[1:])
    needed = len(indexes) * len(names) * 3 * h * w * 2 * 4 // 3
    if needed > MOST:
        return told | {"missing": f"Left out of this page: it would take {size_text(needed)}. "
                       "Show fewer steps: explore(trace, every=2)."}  # fmt: skip
    rows = [None if why else _colours(trace, i) for i, why in zip(indexes, reasons, strict=True)]
    for i, row in enumerate(rows):
        if row is not None and max(np.abs(row[name]).max() for name in names) > HALF:
            rows[i], reasons[i] = None, "The numbers of this step are too large for this page."
    empty = np.zeros((3, h, w))
    arrays = {
        name: packed(np.stack([empty if row is None else row[name] for row in rows]), "float16")
        for name in names
    }
    steps = [
        {"reason": reason} if reason else _spreads(trace.steps[i].predictions[0])
        for i, reason in zip(indexes, reasons, strict=True)
    ]
    latent = trace.steps[0].latent.shape[1:]
    averaged = "" if (h, w) == latent else f", averaged into {h}×{w} cells"
    return told | {"steps": steps, "arrays": arrays, "averaged": averaged}


def _colours(trace: Trace, index: int) -> dict[str, np.ndarray]:
    """The three pictures of one step, float64 (3, h, w)."""
    call, preview = trace.steps[index].predictions[0], trace.preview
    uncond, pull = branch_x0(call, "uncond"), _pull(call)
    point = to_x0(np.zeros_like(uncond), numbers(call.latent), call.level, call.prediction_type)
    weight = np.asarray(preview.weight, np.float64)
    bias = np.asarray(preview.bias, np.float64)[:, None, None]

    def rgb(latent: np.ndarray) -> np.ndarray:
        return pooled(np.einsum("rc,chw->rhw", weight, latent))

    own = uncond + call.guidance_scale * pull
    return {"own": rgb(own) + bias, "pull": rgb(pull), "point": rgb(point) + bias}


def _spreads(call: Prediction) -> dict[str, Any]:
    """The own scale and rescale, and what std(guided) at any g is made of."""
    found = {
        "reason": "",
        "own": plain(call.guidance_scale),
        "rescale": plain(call.guidance_rescale),
    }
    if call.guidance_rescale:
        cond, uncond = numbers(call.cond), numbers(call.uncond)
        pull = cond - uncond
        found["cond"] = plain(cond.std())
        found["parts"] = [
            plain(uncond.var()),
            plain(((uncond - uncond.mean()) * (pull - pull.mean())).mean()),
            plain(pull.var()),
        ]
    return found
