"""Every scheduler class that a config may name gives the levels of diffusers' class.

All spacings, offsets, spacings by sigma, ends and rescaled betas that the class itself reads.
"""

from __future__ import annotations

import inspect
import itertools
import json
import math
import shutil
import sys
import types

import numpy as np
import pytest

import diffusionlab as dl
from diffusionlab.errors import CheckpointError
from diffusionlab.schedule import NoiseSchedule
from diffusionlab.scheduler_config import DPM, KNOWN, modernised

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
COUNTS = (5, 20, 50)
SCALED = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
KEYS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
CHOICES = {
    "timestep_spacing": ("leading", "trailing", "linspace"),
    "steps_offset": (0, 1),
    "set_alpha_to_one": (True, False),
    "final_sigmas_type": ("zero", "sigma_min"),
}
TWO_CALLS = ("HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler",
             "DPMSolverSDEScheduler")  # fmt: skip


@pytest.fixture(params=KNOWN)
def kind(request, monkeypatch):
    """A class of diffusers; DPMSolverSDE's is hidden there unless torchsde is installed."""
    if request.param == "DPMSolverSDEScheduler":
        monkeypatch.setitem(sys.modules, "torchsde", types.ModuleType("torchsde"))
        from diffusers.schedulers.scheduling_dpmsolver_sde import DPMSolverSDEScheduler

        return DPMSolverSDEScheduler
    return getattr(diffusers, request.param)


def combinations(kind):
    """All options that a class reads of CHOICES, one spacing by sigma at most."""
    read = set(inspect.signature(kind.__init__).parameters)
    choices = {key: values for key, values in CHOICES.items() if key in read}
    base = SCALED | ({"skip_prk_steps": True} if "skip_prk_steps" in read else {})
    for values in itertools.product(*choices.values()):
        chosen = dict(zip(choices, values, strict=True))
        if chosen.get("steps_offset") and chosen["timestep_spacing"] != "leading":
            continue  # read there only
        for key in (None, *(key for key in KEYS if key in read)):
            yield base | chosen | ({key: True} if key else {})


def ours_of(theirs, kind) -> NoiseSchedule:
    return NoiseSchedule.from_config(dict(theirs.config) | {"_class_name": kind.__name__})


def levels_of(theirs, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The timesteps of diffusers' class and its sigmas, the final one too; each level once."""
    times = theirs.timesteps.numpy().astype(float)
    sigmas = theirs.sigmas.numpy().astype(float) if hasattr(theirs, "sigmas") else None
    if name == "PNDMScheduler":  # which asks once twice
        times = np.delete(times, 1)
    if name in TWO_CALLS:  # a level stands twice, or between two stands their middle
        times = np.concatenate([times[:1], times[2::2]])
        sigmas = np.concatenate([sigmas[:1], sigmas[1:-1:2], sigmas[-1:]])[: len(times) + 1]
    return times, sigmas


def deviations(ours: NoiseSchedule, theirs, kind, num_steps: int) -> tuple[float, float]:
    """Largest difference of a timestep, and of a finite sigma relative to it."""
    theirs.set_timesteps(num_steps)
    times, sigmas = levels_of(theirs, kind.__name__)
    levels = ours.levels(num_steps)
    if ours.final == "first" and levels[-1].timestep == times[-1] == 0:
        # a step from the first training level to itself, which is left out here
        times, sigmas = times[:-1], None if sigmas is None else sigmas[:-1]
    assert len(levels) == len(times) + 1
    mine = np.array([level.timestep for level in levels[:-1]])
    if sigmas is None:
        return np.abs(mine - times).max(), 0.0
    known = np.array([level.karras_sigma for level in levels])
    finite = np.isfinite(known)  # diffusers puts 4096 in the place of infinity
    apart = np.abs(known - sigmas)[finite] / np.maximum(sigmas[finite], 1e-3)
    return np.abs(mine - times).max(), apart.max()


def test_the_levels_are_those_of_the_class(kind):
    for options in combinations(kind):
        theirs = kind(**options)
        ours = ours_of(theirs, kind)
        # DPM-Solver's classes tell the network a cut timestep; ours is the level's own
        cut = kind.__name__ in DPM and any(key in options for key in KEYS)
        for num_steps in COUNTS:
            time, sigma = deviations(ours, theirs, kind, num_steps)
            assert time <= (1.01 if cut else 0.51), (options, num_steps, time)
            assert sigma < 2e-3, (options, num_steps, sigma)


def test_betas_and_levels_without_any_key_are_the_defaults_of_the_class(kind):
    theirs = kind(skip_prk_steps=True) if kind.__name__ == "PNDMScheduler" else kind()
    ours = NoiseSchedule.from_config({"_class_name": kind.__name__})
    assert np.allclose(ours.alpha_bar, theirs.alphas_cumprod, rtol=2e-4)
    time, sigma = deviations(ours, theirs, kind, 20)
    assert time <= 0.51 and sigma < 2e-3


def test_rescaled_betas_are_those_of_the_class(kind):
    if "rescale_betas_zero_snr" not in inspect.signature(kind.__init__).parameters:
        pytest.skip(
            "the class does not read it; here the training schedule is rescaled all the same"
        )
    for options in combinations(kind):
        if any(key in options for key in KEYS):
            continue
        v = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
        theirs = kind(**options | v)
        ours = ours_of(theirs, kind)
        assert ours.alpha_bar[-1] == 0 and ours.prediction_type == "v"
        for num_steps in COUNTS:
            time, sigma = deviations(ours, theirs, kind, num_steps)
            assert time <= 0.51 and sigma < 2e-3, (options, num_steps, time, sigma)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "DPMSolverMultistepScheduler"])
def test_infinite_noise_and_a_spacing_by_sigma_is_told(name, key, capsys):
    config = SCALED | {"_class_name": name, "rescale_betas_zero_snr": True, key: True,
                       "prediction_type": "v_prediction"}  # fmt: skip
    levels = NoiseSchedule.from_config(config).levels(10)
    assert f"zero terminal SNR and {key}" in capsys.readouterr().err
    assert levels[0].alpha == 0 and np.isfinite(levels[1].karras_sigma)
    NoiseSchedule.from_config(config | {key: False})
    assert not capsys.readouterr().err


def test_a_class_that_knows_one_spacing_takes_no_other():
    config = SCALED | {"_class_name": "DPMSolverSinglestepScheduler"}
    read = [NoiseSchedule.from_config(config | {"timestep_spacing": spacing}).spacing
            for spacing in CHOICES["timestep_spacing"]]  # fmt: skip
    assert set(read) == {"linspace_dpm"}


@pytest.mark.parametrize(
    "name",
    ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler", "FlowMatchEulerDiscreteScheduler",
     "IPNDMScheduler", "SASolverScheduler", "CosineDPMSolverMultistepScheduler",
     "KarrasVeScheduler", "DDIMInverseScheduler", "CMStochasticIterativeScheduler",
     "UnCLIPScheduler"],
)  # fmt: skip
def test_other_classes_are_refused_by_name(name):
    assert hasattr(diffusers, name)
    with pytest.raises(CheckpointError, match=rf"_class_name = '{name}'; supported: 'DDIM.*Euler"):
        NoiseSchedule.from_config(SCALED | {"_class_name": name})


def test_the_file_that_a_class_writes_is_read(kind, tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", kind.__name__]
    (folder / "model_index.json").write_text(json.dumps(index))
    theirs = kind(**SCALED, **({"skip_prk_steps": True} if "PNDM" in kind.__name__ else {}))
    theirs.save_pretrained(folder / "scheduler")
    written = dict(theirs.config) | {"_class_name": kind.__name__}
    expected = NoiseSchedule.from_config(modernised(written, index["_class_name"]))
    found = dl.load(folder, device="cpu").schedule
    assert found.spacing == expected.spacing
    assert [level.timestep for level in found.levels(5)] == [
        level.timestep for level in expected.levels(5)
    ]


def test_timesteps_that_a_bound_leaves_out_are_told(capsys):
    config = SCALED | {"_class_name": "DPMSolverMultistepScheduler"}
    for bound in (-math.inf, None, -5.1):  # the last log-SNR of these betas is -2.7
        NoiseSchedule.from_config(config | {"lambda_min_clipped": bound})
    assert not capsys.readouterr().err
    NoiseSchedule.from_config(config | {"lambda_min_clipped": -2})
    assert "lambda_min_clipped = -2, which leaves out the noisiest" in capsys.readouterr().err
    zero = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    NoiseSchedule.from_config(config | zero | {"lambda_min_clipped": -5.1})
    assert "lambda_min_clipped = -5.1" in capsys.readouterr().err  # pure noise is beyond any bound


def test_the_comparison_can_fail():
    theirs = diffusers.EulerDiscreteScheduler(**SCALED, timestep_spacing="leading", steps_offset=1)
    ours = ours_of(theirs, diffusers.EulerDiscreteScheduler)
    other = NoiseSchedule.from_config(SCALED | {"_class_name": "EulerDiscreteScheduler"})
    kind = diffusers.EulerDiscreteScheduler
    assert deviations(ours, theirs, kind, 20) < (1e-2, 2e-3)
    time, sigma = deviations(other, theirs, kind, 20)
    assert time > 40 and sigma > 0.1
