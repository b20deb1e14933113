"""Which diffusers class has the rule of which sampler, at which lists, and why some do not.

`PAIRS` feeds tests/test_parity_samplers.py and docs/parity.md (tools/parity_table.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from parity_samplers import (
    LAST_LEVEL,
    SCHEDULE,
    SHAPE,
    SPACINGS,
    in_float64,
    largest,
    levels_of,
    made,
    network,
    same_list,
)

from diffusionlab.samplers import Sampler, make_plan
from diffusionlab.schedule import NoiseLevel

COUNTS = (4, 10, 20, 50)


@dataclass(frozen=True)
class Pair:
    """A sampler of ours and the diffusers class that has the same rule.

    `options` go to the class, `step` to its `step`. `spacings` are its lists, as `SPACINGS`, or
    "own" where it knows only one. `holes`: spacing or kind of network -> why it cannot agree.
    """

    sampler: Sampler
    scheduler: str
    options: dict = field(default_factory=dict)
    step: dict = field(default_factory=dict)
    spacings: tuple[str, ...] = tuple(SPACINGS)
    kinds: tuple[str, ...] = ("eps", "v")
    holes: dict[str, str] = field(default_factory=dict)

    @property
    def asked(self) -> str:
        """The class with its options, without those that only keep it from clipping."""
        asked = {**self.options, **self.step}
        asked.pop("clip_sample", None)
        said = ", ".join(f"{key}={value}" for key, value in asked.items())
        return f"{self.scheduler}({said})"

    def __repr__(self) -> str:
        return f"{self.sampler!r} = {self.asked}"


STEPS_OF_ITS_OWN = (
    "each step of theirs goes from t to t - T // n, but the list has gaps of (T - 1)/(n - 1): the "
    "network is called at other levels than the update assumes"
)
MIXED_V = "theirs averages v of different levels and reads the sum at one; ours averages eps"
CLEAN_SAMPLE = {"clip_sample": False}
PLAIN = ("leading", "trailing", "linspace")
LISTS = ("karras", "exponential", "beta")
FLOW = dict(spacings=("own",), kinds=("flow",))
OWN = dict(spacings=("own",))
BH1, TO_FIRST, LOWERED = (
    {"solver_type": "bh1"}, {"final_sigmas_type": "sigma_min"}, {"lower_order_final": True},
)  # fmt: skip
BH1_AT_0 = (
    "with bh1 theirs is NaN in a step to sigma 0 (minus infinity times 0) and where these lists "
    "have their last sigma twice"
)
NO_FINAL = {"lower_order_final": False}
SDE = {"algorithm_type": "sde-dpmsolver++"}


def line(sampler, scheduler, options=None, ours=None, **rest):
    """A line of the table; `ours` are the options of our sampler."""
    return Pair(Sampler(sampler, ours or {}), f"{scheduler}Scheduler", options or {}, **rest)


def by_steps(**step):
    """What DDIM and PNDM share: lists of whole timesteps, linspace only by name."""
    return dict(step=step, spacings=PLAIN, holes={"linspace": STEPS_OF_ITS_OWN})


PAIRS = (
    line("ddim", "DDIM", CLEAN_SAMPLE, **by_steps()),
    line("ddim", "DDIM", CLEAN_SAMPLE, {"eta": 0.4}, **by_steps(eta=0.4)),
    line("ddpm", "DDPM", CLEAN_SAMPLE, spacings=PLAIN),
    line("euler", "EulerDiscrete"),
    line("euler", "DPMSolverMultistep", {"solver_order": 1}),
    line("euler", "FlowMatchEulerDiscrete", **FLOW),
    line("euler_ancestral", "EulerAncestralDiscrete", spacings=PLAIN),
    line("euler_ancestral", "DPMSolverMultistep", {**SDE, "solver_order": 1}),
    line("heun", "HeunDiscrete"),
    line("heun_flow", "FlowMatchHeunDiscrete", **FLOW),
    line("dpm2", "KDPM2Discrete"),
    line("dpm2_ancestral", "KDPM2AncestralDiscrete"),
    line("dpm3", "DPMSolverSinglestep", {**NO_FINAL, "solver_order": 3,
         "algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}),
    line("dpmpp_2s", "DPMSolverSinglestep", {"lower_order_final": True, "solver_order": 2,
         "final_sigmas_type": "zero"}),
    line("dpmpp_2m", "DPMSolverMultistep"),
    line("dpmpp_2m", "DPMSolverMultistep", {"solver_type": "heun"}, {"solver_type": "heun"}),
    line("dpmpp_2m", "DPMSolverMultistep", {"use_flow_sigmas": True}, **FLOW),
    line("dpmpp_3m_shipped", "DPMSolverMultistep", {"solver_order": 3}),
    line("dpmpp_2m_sde", "DPMSolverMultistep", SDE),
    line("dpmpp_sde", "DPMSolverSDE"),
    line("lms", "LMSDiscrete"),
    *[line("lms", "LMSDiscrete", {}, {"order": k}, step={"order": k}, spacings=("trailing",))
      for k in (1, 2, 3)],
    line("deis", "DEISMultistep", {"solver_order": 3}, spacings=PLAIN),
    line("deis", "DEISMultistep", {"solver_order": 3, **NO_FINAL}, NO_FINAL, spacings=LISTS),
    line("deis", "DEISMultistep", {"solver_order": 2}, {"order": 2}, spacings=PLAIN),
    line("plms", "PNDM", {"skip_prk_steps": True, "steps_offset": 1}, spacings=PLAIN,
         holes={"linspace": STEPS_OF_ITS_OWN, "v": MIXED_V}),
    line("pndm", "PNDM", {"skip_prk_steps": False, "steps_offset": 1}, spacings=PLAIN,
         holes={"linspace": STEPS_OF_ITS_OWN, "v": MIXED_V}),
    line("ipndm", "IPNDM", spacings=("own",), kinds=("v",)),
    *[line(f"unipc_{k}", "UniPCMultistep", {"solver_order": k}, LOWERED) for k in (1, 2, 3)],
    *[line(f"unipc_{k}", "UniPCMultistep", {"solver_order": k, **BH1, **TO_FIRST},
           {**BH1, **LOWERED}, holes=dict.fromkeys(LISTS, BH1_AT_0)) for k in (1, 2, 3)],
    line("unipc_2", "UniPCMultistep", {"use_flow_sigmas": True}, LOWERED,
         **FLOW),
    line("lcm", "LCM", CLEAN_SAMPLE, **OWN),
    line("tcd", "TCD", CLEAN_SAMPLE, {"gamma": 0.3}, step={"eta": 0.3}, **OWN),
)  # fmt: skip
WITHOUT_CLASS = {  # sampler -> why no class of diffusers stands beside it
    "dpmpp_2s_ancestral": "no class has it; compared with k-diffusion",
    "dpmpp_3m_corrected": "no class has the factor 2; equal to UniP-3 but for its start, and its "
    "order is measured",
    "dpmpp_3m_sde": "the third order of theirs has a sign wrong (see tests/test_differences.py); "
    "compared with k-diffusion",
    "heun_churn": "HeunDiscrete has no churn; compared with k-diffusion",
}
WITHOUT_SAMPLER = {  # class -> why no sampler stands beside it
    "DPMSolverMultistep algorithm_type=dpmsolver, sde-dpmsolver": "multistep in eps; ours in x0",
    "DPMSolverSinglestep dpmsolver++ order 3": "one solver_type for both of its formulas is not "
    "the paper's Algorithm; compared after switching it between calls (`dpm3`, in eps)",
    "SASolver, CosineDPMSolverMultistep": "not among our solvers",
    "EDMEuler, EDMDPMSolverMultistep": "the rules of euler and dpmpp_2m with EDM's "
    "preconditioning, which is no prediction type of ours",
    "FlowMatchLCM": "lcm without its boundary scaling",
}


# ---- a pair at its levels ---------------------------------------------------------------------
def parity(pair, kind, spacing, num_steps, network=network, shape=SHAPE, wide=True):
    """(largest error, whether our own spacing of this name gives the same levels)."""
    count = num_steps
    if is_singlestep(pair):  # it counts calls for steps
        count = 2 * num_steps - 1 if pair.options["solver_order"] == 2 else 3 * num_steps
    scheduler = made(pair.scheduler, kind, spacing, count, **pair.options)
    if wide:
        in_float64(scheduler)
    levels = levels_of(scheduler)
    if is_singlestep(pair):  # its inner points lie on its list: ours are put there
        final = "clean" if pair.options["final_sigmas_type"] == "zero" else "first"
        levels = SCHEDULE.levels(num_steps, spacing, final)
        plan = make_plan(pair.sampler, levels, SCHEDULE)
        feed(scheduler, plan)
        same = True
    else:
        plan = make_plan(pair.sampler, levels, SCHEDULE)
        same = same_list(own_levels(scheduler, spacing, num_steps), levels)
    return largest(plan, scheduler, kind, network=network, shape=shape, **pair.step), same


def is_singlestep(pair):
    return pair.scheduler == "DPMSolverSinglestepScheduler"


def feed(scheduler, plan):
    stages = [stage.level for step in plan for stage in step.stages]
    end = plan[-1].next_level.karras_sigma
    sigmas = [*(level.karras_sigma for level in stages), end]
    scheduler.sigmas = torch.tensor(sigmas, dtype=torch.float64)
    scheduler.timesteps = torch.tensor([level.timestep for level in stages])
    scheduler.set_begin_index(0)


def own_levels(scheduler, spacing, num_steps):
    """Our list of the same name, ending as theirs does; empty where we have none."""
    from diffusionlab.schedule import SPACINGS as OURS

    if spacing not in OURS:
        return ()
    name, first = type(scheduler).__name__, "first"
    final = "clean" if float(getattr(scheduler, "sigmas", torch.zeros(1))[-1]) == 0 else first
    if name in LAST_LEVEL:
        final = "clean" if float(LAST_LEVEL[name](scheduler)) == 1.0 else first
    schedule = replace(SCHEDULE, steps_offset=scheduler.config.get("steps_offset", 0))
    return schedule.levels(num_steps, spacing, final)


def toyland_network():
    """The U-Net of the shipped checkpoint with a prompt, as `network` is, and its shape."""
    import diffusionlab as dl

    model = dl.load(device="cpu")
    text = dl.embed(model, dl.tokenize(model, "a red car in the city at night"))

    def said(latent, timestep, kind):
        assert kind == model.schedule.prediction_type
        level = NoiseLevel(timestep, 1.0, 0.0)  # the network is told the timestep alone
        with torch.no_grad():
            return dl.predict(model, latent.float(), level, text, None, 1.0).cond.double()

    cells = model.unet.config.sample_size
    return said, (model.latent_channels, cells, cells)
