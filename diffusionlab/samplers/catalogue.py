"""Every sampler by name: a new solver is its rule in a file here and one line in this table."""

from __future__ import annotations

from diffusionlab.samplers.adams_bashforth import DEIS, LMS
from diffusionlab.samplers.consistency import LCM, TCD
from diffusionlab.samplers.dpmpp import (
    DPMPP_2M,
    DPMPP_2M_SDE,
    DPMPP_3M_CORRECTED,
    DPMPP_3M_SDE,
    DPMPP_3M_SHIPPED,
)
from diffusionlab.samplers.equal_steps import IPNDM, PLMS, PNDM
from diffusionlab.samplers.first_order import DDIM, DDPM, EULER, EULER_ANCESTRAL
from diffusionlab.samplers.noisy import DPM2_ANCESTRAL, DPMPP_2S_ANCESTRAL, DPMPP_SDE, HEUN_CHURN
from diffusionlab.samplers.rule import Rule
from diffusionlab.samplers.runge_kutta import DPM2, DPM3, DPMPP_2S, HEUN, HEUN_FLOW
from diffusionlab.samplers.unipc import UNIPC_1, UNIPC_2, UNIPC_3

SAMPLERS: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        DDIM,
        DDPM,
        EULER,
        EULER_ANCESTRAL,
        HEUN,
        HEUN_FLOW,
        HEUN_CHURN,
        DPM2,
        DPM2_ANCESTRAL,
        DPM3,
        DPMPP_2S,
        DPMPP_2S_ANCESTRAL,
        DPMPP_SDE,
        DPMPP_2M,
        DPMPP_2M_SDE,
        DPMPP_3M_CORRECTED,
        DPMPP_3M_SHIPPED,
        DPMPP_3M_SDE,
        LMS,
        DEIS,
        PLMS,
        IPNDM,
        PNDM,
        UNIPC_1,
        UNIPC_2,
        UNIPC_3,
        LCM,
        TCD,
    )
}
