"""The gallery's cases of latents, paths, commitment, the autoencoder and noising."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from lab import OTHER, PROMPT, SETTINGS, Lab

import diffusionlab as dl
from diffusionlab.analysis.autoencoder import latent_edits, roundtrip
from diffusionlab.analysis.forward import small_steps
from diffusionlab.images import to_image
from diffusionlab.toyland import render, scene
from diffusionlab.trace import Latent


def _latent(lab: Lab, index: int) -> Latent:
    step = lab.trace.steps[index]
    return Latent(step.latent, step.level, "generate", lab.trace.preview)


def _noising(lab: Lab, **options):
    return dl.noise_image(lab.model, lab.trace.image, prompt=PROMPT, seed=1, **options)


def _scene(seed: int = 3):
    """A picture that Toyland's renderer drew, with edges that the autoencoder has to blur."""
    return to_image(render(scene(seed)).image)


def _fitted(lab: Lab):
    """A preview map fitted here and now on twenty drawn scenes, as for a checkpoint without one."""
    return dl.fit_preview(lab.model, [_scene(seed) for seed in range(20)])


def _untrained_run(lab: Lab):
    return dl.generate(lab.untrained, PROMPT, **SETTINGS, record={"predictions", "frames"})


def _broken(lab: Lab):
    """The noising with one level mixed wrongly, as a sign error would."""
    record = _noising(lab)
    return replace(record, latents=record.latents * np.float32(1.02))


def _nan(lab: Lab):
    """The run with NaN in one place of its tenth prediction."""
    steps = list(lab.trace.steps)
    call = steps[10].predictions[0]
    cond = call.cond.copy()
    cond[0, 5, 5] = np.nan
    steps[10] = replace(steps[10], predictions=(replace(call, cond=cond),))
    return replace(lab.trace, steps=tuple(steps))


CASES: dict[str, Callable[[Lab], tuple]] = {
    "plot_latent": lambda lab: (_latent(lab, 10), {}),
    "plot_latent_histogram": lambda lab: (lab.trace, {"step": 0}),
    "plot_latent_histogram.end": lambda lab: (lab.trace, {"step": len(lab.trace.steps)}),
    "plot_preview_fit": lambda lab: (lab.model.preview, {}),
    "plot_preview_fit.fitted": lambda lab: (_fitted(lab), {}),
    "plot_roundtrip": lambda lab: (roundtrip(lab.trace.image, lab.encode, lab.decode), {}),
    "plot_roundtrip.drawn": lambda lab: (roundtrip(_scene(), lab.encode, lab.decode), {}),
    "plot_latent_edits": lambda lab: (latent_edits(lab.trace.latents[-1], lab.decode), {}),
    "plot_filmstrip": lambda lab: (lab.trace, {}),
    "plot_filmstrip.decoded": lambda lab: (lab.trace, {"decode": lab.decode, "most": 6}),
    "plot_filmstrip.untrained": lambda lab: (_untrained_run(lab), {}),
    "plot_changes": lambda lab: (lab.trace, {}),
    "plot_changes.heun": lambda lab: (lab.run(sampler="heun"), {}),
    "plot_commitment": lambda lab: (lab.trace, {}),
    "plot_commitment.ancestral": lambda lab: (lab.run(sampler="euler_ancestral"), {}),
    "plot_commitment.nan": lambda lab: (_nan(lab), {}),
    "plot_spectrum": lambda lab: (lab.trace, {}),
    "plot_spectrum.one_branch": lambda lab: (lab.run(guidance_scale=1.0), {}),
    "plot_similarity_to_final": lambda lab: (lab.trace, {}),
    "plot_similarity_to_final.two_objects": lambda lab: (lab.run(prompt=OTHER), {}),
    "plot_trajectory": lambda lab: (lab.trace, {}),
    "plot_trajectory.ancestral": lambda lab: (lab.run(sampler="euler_ancestral"), {}),
    "plot_noising": lambda lab: (_noising(lab), {}),
    "plot_noising.no_prompt": lambda lab: (dl.noise_image(lab.model, _scene()), {}),
    "plot_noising.broken": lambda lab: (_broken(lab), {}),
    "plot_noising_curve": lambda lab: (_noising(lab), {"schedule": lab.model.schedule}),
    "plot_noising_curve.untrained": lambda lab: (
        dl.noise_image(lab.untrained, lab.trace.image, prompt=PROMPT, seed=1),
        {"schedule": lab.model.schedule},
    ),
    "plot_noising_spectrum": lambda lab: (dl.noise_image(lab.model, _scene(), decoded=False), {}),
    "plot_small_steps": lambda lab: (small_steps(lab.model.schedule), {}),
}
