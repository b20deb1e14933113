"""Names of k-diffusion, diffusers, AUTOMATIC1111 and ComfyUI are translated, or refused with help.

Where a tool's name means other options than our defaults (UniPC of order 3, DEIS of order 2), the
translation says them.
"""

from __future__ import annotations

import dataclasses

import pytest

from diffusionlab import samplers
from diffusionlab.errors import InputError
from diffusionlab.samplers import SAMPLERS, as_sampler, make_plan, translate_name
from diffusionlab.samplers.names import ABSENT, MEANT, SPACING_KEYS, SPACING_WORDS, plain_name
from diffusionlab.schedule import SPACINGS, NoiseSchedule

BH1 = {"solver_type": "bh1", "lower_order_final": True}
LOWERED = {"lower_order_final": True}
NAMES = {
    # k-diffusion
    "sample_euler": ("euler", {}, None),
    "sample_euler_ancestral": ("euler_ancestral", {}, None),
    "sample_heun": ("heun", {}, None),
    "sample_dpm_2": ("dpm2", {}, None),
    "sample_dpm_2_ancestral": ("dpm2_ancestral", {}, None),
    "sample_lms": ("lms", {}, None),
    "sample_dpmpp_2s_ancestral": ("dpmpp_2s_ancestral", {}, None),
    "sample_dpmpp_sde": ("dpmpp_sde", {}, None),
    "sample_dpmpp_2m": ("dpmpp_2m", {}, None),
    "sample_dpmpp_2m_sde": ("dpmpp_2m_sde", {}, None),
    "sample_dpmpp_3m_sde": ("dpmpp_3m_sde", {}, None),
    "k_euler_a": ("euler_ancestral", {}, None),
    "k_dpmpp_2m": ("dpmpp_2m", {}, None),
    # AUTOMATIC1111
    "Euler a": ("euler_ancestral", {}, None),
    "DPM2": ("dpm2", {}, None),
    "DPM2 a Karras": ("dpm2_ancestral", {}, "karras"),
    "DPM++ 2S a": ("dpmpp_2s_ancestral", {}, None),
    "DPM++ 2S a Karras": ("dpmpp_2s_ancestral", {}, "karras"),
    "DPM++ 2M": ("dpmpp_2m", {}, None),
    "DPM++ 2M Karras": ("dpmpp_2m", {}, "karras"),
    "DPM++ SDE Karras": ("dpmpp_sde", {}, "karras"),
    "DPM++ 2M SDE Exponential": ("dpmpp_2m_sde", {}, "exponential"),
    "DPM++ 2M SDE Heun": ("dpmpp_2m_sde", {"solver_type": "heun"}, None),
    "DPM++ 2M SDE Heun Karras": ("dpmpp_2m_sde", {"solver_type": "heun"}, "karras"),
    "DPM++ 3M SDE": ("dpmpp_3m_sde", {}, None),
    "DPM++ 3M SDE Exponential": ("dpmpp_3m_sde", {}, "exponential"),
    "LMS Karras": ("lms", {}, "karras"),
    "DDIM": ("ddim", {}, None),
    "PLMS": ("plms", {}, None),
    "UniPC": ("unipc_3", BH1, None),
    "LCM": ("lcm", {}, None),
    "TCD": ("tcd", {}, None),
    # ComfyUI
    "euler a": ("euler_ancestral", {}, None),
    "dpmpp_sde_gpu": ("dpmpp_sde", {}, None),
    "dpmpp_2m_sde_gpu": ("dpmpp_2m_sde", {}, None),
    "dpmpp_2m_sde_heun_gpu": ("dpmpp_2m_sde", {"solver_type": "heun"}, None),
    "dpmpp_3m_sde_gpu": ("dpmpp_3m_sde", {}, None),
    "uni_pc": ("unipc_3", BH1, None),
    "uni_pc_bh2": ("unipc_3", LOWERED, None),
    "ipndm": ("ipndm", {}, None),
    "deis beta": ("deis", {}, "beta"),
    "dpmpp_2m sgm_uniform": ("dpmpp_2m", {}, "trailing"),
    "euler ddim_uniform": ("euler", {}, "leading"),
    # diffusers
    "DDIMScheduler": ("ddim", {}, None),
    "DDPMScheduler": ("ddpm", {}, None),
    "PNDMScheduler": ("pndm", {}, None),
    "EulerDiscreteScheduler": ("euler", {}, None),
    "EulerAncestralDiscreteScheduler": ("euler_ancestral", {}, None),
    "FlowMatchEulerDiscreteScheduler": ("euler", {}, None),
    "FlowMatchHeunDiscreteScheduler": ("heun_flow", {}, None),
    "HeunDiscreteScheduler": ("heun", {}, None),
    "KDPM2DiscreteScheduler": ("dpm2", {}, None),
    "KDPM2AncestralDiscreteScheduler": ("dpm2_ancestral", {}, None),
    "LMSDiscreteScheduler": ("lms", {}, None),
    "DPMSolverMultistepScheduler": ("dpmpp_2m", {}, None),
    "DPMSolverSinglestepScheduler": ("dpmpp_2s", {}, None),
    "DPMSolverSDEScheduler": ("dpmpp_sde", {}, None),
    "DEISMultistepScheduler": ("deis", {"order": 2}, None),
    "UniPCMultistepScheduler": ("unipc_2", LOWERED, None),
    "LCMScheduler": ("lcm", {}, None),
    "TCDScheduler": ("tcd", {}, None),
    # diffusers, with the options that choose the solver
    "DPMSolverMultistepScheduler(use_karras_sigmas=True)": ("dpmpp_2m", {}, "karras"),
    "DPMSolverMultistepScheduler(solver_order=3)": ("dpmpp_3m_shipped", {}, None),
    "DPMSolverMultistepScheduler(algorithm_type='sde-dpmsolver++', use_karras_sigmas=True)": (
        "dpmpp_2m_sde", {}, "karras"
    ),
    "DPMSolverMultistepScheduler(solver_type='heun', timestep_spacing='trailing')": (
        "dpmpp_2m", {"solver_type": "heun"}, "trailing"
    ),
    "DPMSolverSinglestepScheduler(solver_order=3, algorithm_type='dpmsolver')": ("dpm3", {}, None),
    "UniPCMultistepScheduler(solver_order=3, solver_type='bh1')": ("unipc_3", BH1, None),
    "DEISMultistepScheduler(solver_order=3)": ("deis", {"order": 3}, None),
    "PNDMScheduler(skip_prk_steps=True, steps_offset=1)": ("plms", {}, None),
    "TCDScheduler(eta=0.2)": ("tcd", {"gamma": 0.2}, None),
    # papers
    "DPM-Solver-1": ("euler", {}, None),
    "DPM-Solver-2": ("dpm2", {}, None),
    "DPM-Solver-3": ("dpm3", {}, None),
    "DPM-Solver++(2M)": ("dpmpp_2m", {}, None),
}  # fmt: skip


@pytest.mark.parametrize("given, expected", NAMES.items(), ids=list(NAMES))
def test_translations(given, expected):
    found = translate_name(given)
    assert (found.sampler.name, found.sampler.options, found.spacing) == expected
    made = as_sampler(found.sampler)  # the options are ones that the rule takes
    assert len(make_plan(made, NoiseSchedule.scaled_linear().levels(10, "trailing"), None)) == 10


@pytest.mark.parametrize("given", [name for name in NAMES if name not in SAMPLERS])
def test_the_error_for_a_foreign_name_gives_its_translation(given):
    with pytest.raises(InputError) as error:
        as_sampler(given)
    rule, options, spacing = NAMES[given]
    text = str(error.value)
    assert "is called " in text and rule in text and all(name in text for name in SAMPLERS)
    assert all(f"{key}={value!r}" in text for key, value in options.items())
    assert (f"spacing={spacing!r}" in text) == (spacing is not None)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_our_own_names_and_synonyms_mean_their_rule(name):
    assert translate_name(name) == samplers.Translation(samplers.Sampler(name))
    for synonym in SAMPLERS[name].synonyms:
        assert translate_name(synonym).sampler.name == name, synonym


@pytest.mark.parametrize("given", ["dpmpp_3m", "DPM++ 3M", "DPM++ 3M Karras", "sample_dpmpp_3m"])
def test_a_bare_3m_is_two_samplers(given):
    for ask in (translate_name, as_sampler):
        with pytest.raises(InputError, match="dpmpp_3m_corrected.*dpmpp_3m_shipped"):
            ask(given)


@pytest.mark.parametrize(
    "given, words",
    [
        ("DPM fast", "dpm3"),
        ("dpm_adaptive", "adaptive"),
        ("Restart", "heun_churn"),
        ("ipndm_v", "lms"),
        ("sa_solver", "dpmpp_3m_sde"),
        ("SASolverScheduler", "dpmpp_3m_sde"),
        ("euler_cfg_pp", "CFG++"),
        ("ddmi", "'ddim'"),
        ("ddpn", "'ddpm'"),
        ("dpmpp_2n", "did you mean 'dpmpp_2"),
        ("eulr", "did you mean 'euler'"),
        ("nonsense", "use one of our names"),
        ("", "use one of our names"),
        ("DPMSolverMultistepScheduler(solver_order=7)", "solver_order 7"),
        (
            "DPMSolverMultistepScheduler(solver_order=3, algorithm_type='sde-dpmsolver++')",
            "order 2",
        ),
        ("TCDScheduler(eta=3)", "0 <= gamma <= 1"),
        ("Euler(__import__('os').x=1)", "unknown"),
        ("Euler(eta=open('x'))", "unknown"),
    ],
)
def test_unknown_names(given, words):
    for ask in (translate_name, as_sampler):
        with pytest.raises(InputError) as error:
            ask(given)
        assert words in str(error.value)


@pytest.mark.parametrize("wrong", [None, 3, b"ddim", ["ddim"]])
def test_what_is_no_name(wrong):
    with pytest.raises(InputError, match="is no name"):
        translate_name(wrong)


def test_the_tables_hold_plain_names_of_real_rules():
    for plain, (rule, options) in MEANT.items():
        assert plain == plain_name(plain)
        SAMPLERS[rule](**options)
    assert all(plain == plain_name(plain) and plain not in MEANT for plain in ABSENT)
    assert all(word == plain_name(word) for word in SPACING_WORDS)
    assert {*SPACING_WORDS.values(), *SPACING_KEYS.values()} <= set(SPACINGS)
    known = [plain for rule in SAMPLERS.values()
             for plain in {plain_name(word) for word in (rule.name, *rule.synonyms)}]  # fmt: skip
    assert len(known) == len(set(known))  # no synonym means two rules


def test_a_translation_is_a_record():
    found = translate_name("DPM++ 2M Karras")
    assert found.words() == "'dpmpp_2m' with spacing='karras'"
    assert translate_name("UniPC").words() == "unipc_3(solver_type='bh1', lower_order_final=True)"
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.spacing = None
