"""Names of other tools for our samplers: k-diffusion, diffusers, AUTOMATIC1111, ComfyUI.

Those names often say two things at once, a solver and a spacing of its levels ("DPM++ 2M Karras"),
and a diffusers class says its solver in its options. One spelling is accepted as `sampler=`; this
module translates the others, and the error for a foreign name says the translation.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from typing import Any

from diffusionlab.errors import InputError, close_matches, shown
from diffusionlab.samplers.catalogue import SAMPLERS
from diffusionlab.samplers.rule import Sampler


@dataclass(frozen=True)
class Translation:
    """Our sampler (with the options that the name asks for) and, where the name says one, a
    spacing."""

    sampler: Sampler
    spacing: str | None = None

    def words(self) -> str:
        """What to write instead: 'dpmpp_2m' with spacing='karras'."""
        options = self.sampler.options
        chosen = ", ".join(f"{key}={value!r}" for key, value in options.items())
        name = f"{self.sampler.name}({chosen})" if chosen else repr(self.sampler.name)
        return f"{name} with spacing={self.spacing!r}" if self.spacing else name


# ---- tables -----------------------------------------------------------------------------------
# Endings of a name that mean a spacing, longest first.
SPACING_WORDS = {
    "alignyoursteps": "ays",
    "ddimuniform": "leading",
    "exponential": "exponential",
    "sgmuniform": "trailing",
    "karras": "karras",
    "normal": "linspace",
    "beta": "beta",
    "ays": "ays",
}
# Names whose tool means something else than the rule's defaults: plain name -> (rule, options).
UNIPC_THERE = {"lower_order_final": True}  # at every number of steps
MEANT: dict[str, tuple[str, dict[str, Any]]] = {
    "unipc": ("unipc_3", {"solver_type": "bh1"} | UNIPC_THERE),
    "unipcbh2": ("unipc_3", UNIPC_THERE),
    "unipcmultistep": ("unipc_2", UNIPC_THERE),
    "deismultistep": ("deis", {"order": 2}),
    "dpmpp2msdeheun": ("dpmpp_2m_sde", {"solver_type": "heun"}),
    "edmeuler": ("euler", {}),
    "edmdpmsolvermultistep": ("dpmpp_2m", {}),
    "cosinedpmsolvermultistep": ("dpmpp_2m_sde", {}),
    "rectifiedflow": ("euler", {}),
    "flowmatcheuler": ("euler", {}),
    "dpmsolver1": ("euler", {}),
    "dpmsolverpp1": ("euler", {}),
    "dpmsolverpp2m": ("dpmpp_2m", {}),
    "dpmsolverpp2s": ("dpmpp_2s", {}),
    "dpmsolvermultisteppp": ("dpmpp_2m", {}),
}
# Names of what is not here: plain name -> what to take instead, or why.
SEVERAL = (
    "use 'dpmpp_3m_corrected' (third order) or 'dpmpp_3m_shipped' (as common code has it: second)"
)
ABSENT = {
    "dpmpp3m": f"'dpmpp_3m' is two samplers here: {SEVERAL}",
    "dpm3m": f"'dpmpp_3m' is two samplers here: {SEVERAL}",
    "dpmfast": "it mixes DPM-Solver steps of orders 1 to 3; use 'dpm3'",
    "dpmadaptive": "steps of adaptive length are not here; use 'dpm3'",
    "restart": "Restart is not here; use 'heun' or 'heun_churn'",
    "heunpp2": "use 'heun'",
    "ipndmv": "iPNDM for unequal steps is 'lms'",
    "sasolver": "SA-Solver is not here; use 'dpmpp_2m_sde' or 'dpmpp_3m_sde'",
    "sasolverpece": "SA-Solver is not here; use 'dpmpp_2m_sde' or 'dpmpp_3m_sde'",
    "resmultistep": "use 'dpmpp_2m'",
    "resmultistepancestral": "use 'dpmpp_2s_ancestral' or 'dpmpp_2m_sde'",
    "gradientestimation": "use 'dpmpp_2m'",
    "ersde": "use 'dpmpp_3m_sde'",
    "seeds2": "use 'dpmpp_sde'",
    "seeds3": "use 'dpmpp_sde'",
}
# Keys of a diffusers config that choose a spacing.
SPACING_KEYS = {
    "use_karras_sigmas": "karras",
    "use_exponential_sigmas": "exponential",
    "use_beta_sigmas": "beta",
    "use_lu_lambdas": "exponential",
}


# ---- translation --------------------------------------------------------------------------------
def translate_name(name: str) -> Translation:
    """What another tool's sampler name means here; our own names give themselves.

    Knows k-diffusion functions, diffusers classes (also with the options that choose their solver:
    "DPMSolverMultistepScheduler(solver_order=3, use_karras_sigmas=True)"), and the menus of
    AUTOMATIC1111 and ComfyUI. Raises InputError with close matches for anything else, and with the
    reason for solvers that are not here.
    """
    if not isinstance(name, str):
        raise InputError(f"sampler {shown(name)} is no name; use text such as 'dpmpp_2m'")
    head, config = _split_config(name)
    plain = plain_name(head)
    for known in _readings(plain):
        for word, spacing in [("", None), *SPACING_WORDS.items()]:
            found = _rules().get(known.removesuffix(word)) if known.endswith(word) else None
            if found:
                made = Translation(Sampler(found[0], dict(found[1])), spacing)
                return _configured(name, made, config)
    raise InputError(f"sampler {shown(name)} is unknown: {_why(plain, head)}")


def plain_name(name: str) -> str:
    """A name without case, punctuation and the words around it: sample_…, …Scheduler."""
    letters = "".join(c for c in name.lower().replace("+", "p") if c.isalnum())
    return letters.removeprefix("sample").removesuffix("scheduler")


def _readings(plain: str) -> list[str]:
    """The plain name, and without marks that change no formula: k_…, …_gpu, Brownian trees."""
    found = [plain]
    for cut in (
        lambda text: text.removesuffix("gpu"),
        lambda text: text.removeprefix("k"),
        lambda text: text.replace("ancestral", "a"),
        lambda text: text.removeprefix("flowmatch").removesuffix("discrete"),
    ):
        found += [cut(text) for text in found if cut(text) not in found]
    return found


@cache
def _rules() -> dict[str, tuple[str, dict[str, Any]]]:
    """Plain name -> (rule, options): the rules' names and synonyms, then what others mean."""
    known = {
        plain_name(word): (rule.name, {})
        for rule in SAMPLERS.values()
        for word in (rule.name, *rule.synonyms)
    }
    return known | MEANT


def _why(plain: str, head: str) -> str:
    if plain.endswith("cfgpp"):
        return "CFG++ changes the guidance, not the solver, and is not here; use the plain solver"
    for known in _readings(plain):
        for word in ("", *SPACING_WORDS):
            if known.removesuffix(word) in ABSENT:
                return ABSENT[known.removesuffix(word)]
    theirs = {word: None for rule in SAMPLERS.values() for word in rule.synonyms}
    near = close_matches(head, SAMPLERS) or close_matches(head, theirs)
    return near + "use one of our names (SAMPLERS lists them)"


# ---- options of diffusers classes ---------------------------------------------------------------
def _split_config(name: str) -> tuple[str, dict[str, Any]]:
    """The class and the keywords of "Class(key=value)"; anything else is all name."""
    if "=" not in name or not name.strip().endswith(")"):
        return name, {}
    try:
        call = ast.parse(name.strip(), mode="eval").body
        return call.func.id, {word.arg: ast.literal_eval(word.value) for word in call.keywords}
    except (SyntaxError, ValueError, AttributeError, MemoryError, RecursionError):
        return name, {}


def _configured(name: str, found: Translation, config: dict[str, Any]) -> Translation:
    """The translation with a diffusers class's own options read in."""
    if not config:
        return found
    spacing = next((ours for key, ours in SPACING_KEYS.items() if config.get(key)), None)
    spacing = spacing or config.get("timestep_spacing") or found.spacing
    rule, options = found.sampler.name, dict(found.sampler.options)
    plain = plain_name(name.split("(")[0])
    if "solver_order" in config or "algorithm_type" in config:
        rule, options = _by_order(name, plain, rule, options, config)
    if plain == "pndm" and config.get("skip_prk_steps"):
        rule = "plms"
    for key, value in config.items():
        key = {"eta": "gamma"}.get(key, key) if rule == "tcd" else key
        if key in SAMPLERS[rule].options and key != "order":
            options[key] = value
    SAMPLERS[rule](**options)  # refuses values out of range
    return Translation(Sampler(rule, options), spacing)


def _by_order(
    name: str, plain: str, rule: str, options: dict[str, Any], config: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """The solver that a multistep class becomes by its solver_order and algorithm_type."""
    order, kind = config.get("solver_order", 2), config.get("algorithm_type", "dpmsolver++")
    if plain == "deismultistep":
        return "deis", {"order": order}
    table = {
        ("unipcmultistep", "dpmsolver++"): {1: "unipc_1", 2: "unipc_2", 3: "unipc_3"},
        ("dpmsolvermultistep", "dpmsolver++"): {1: "euler", 2: "dpmpp_2m", 3: "dpmpp_3m_shipped"},
        ("dpmsolvermultistep", "sde-dpmsolver++"): {2: "dpmpp_2m_sde"},
        ("dpmsolversinglestep", "dpmsolver++"): {1: "euler", 2: "dpmpp_2s"},
        ("dpmsolversinglestep", "dpmsolver"): {1: "euler", 2: "dpm2", 3: "dpm3"},
    }
    found = table.get((plain, kind), {}).get(order)
    if found is None:
        raise InputError(
            f"sampler {shown(name)}: solver_order {order!r} with algorithm_type {kind!r} is not "
            "here; translated are orders 1 to 3 of 'dpmsolver++' and order 2 of 'sde-dpmsolver++'"
        )
    return found, options if found.startswith("unipc") else {}
