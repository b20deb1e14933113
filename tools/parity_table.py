"""Write docs/parity.md: our samplers beside diffusers' classes and k-diffusion's functions.

    python tools/parity_table.py            (needs the test dependencies; about a minute)

The numbers come from the code of tests/test_parity_samplers.py and test_parity_k_diffusion.py.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs" / "parity.md"
sys.path.insert(0, str(ROOT / "tests"))
INTRO = """# Parity of the samplers

Written by `python tools/parity_table.py`; the same comparisons are tests. Largest error of a run:
over all inputs of the network and the end, relative to the largest value there, worst of the kinds
of network named (random eps, v or velocity). Both sides run at the same levels: the reference's own
list is made into ours. "=" means that our spacing of that name is that list. The bar is 1e-4.

## diffusers {version}

Their numbers are held in float64 (`in_float64`), so that a difference is one of rules and not of
digits; classes that cast to float32 themselves stay at 1e-7 to 1e-5. "float32" is the worst at 4
and 50 steps with the class as shipped.

| sampler | class | network | spacing | {counts} | = | float32 |
|---|---|---|---|{lines}---|---|
"""
K_INTRO = """
## k-diffusion {version}

At every level of an 8-step run, in float64, with its own numbers (tools/k_diffusion_numbers.py):
worst of variance-exploding, variance-preserving and flow pairs, of two grids and of the options
tried.

| sampler | function | runs | largest error |
|---|---|---|---|
"""


def main() -> None:
    warnings.simplefilter("ignore")
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    import diffusers
    from parity_pairs import COUNTS

    text = INTRO.format(version=diffusers.__version__, counts=" | ".join(
        f"{count} steps" for count in COUNTS), lines="---|" * len(COUNTS))  # fmt: skip
    text += "\n".join(diffusers_lines()) + "\n" + "\n".join(holes()) + "\n"
    for part in (k_diffusion, toyland):
        TARGET.write_text(text, encoding="utf-8")  # what is there, should the next take too long
        text += part()
    TARGET.write_text(text, encoding="utf-8")
    print(f"wrote {TARGET}")


def diffusers_lines() -> list[str]:
    """One line for each pair and spacing."""
    from parity_pairs import PAIRS

    return [line(pair, spacing) for pair in PAIRS for spacing in pair.spacings]


def line(pair, spacing: str) -> str:
    from parity_pairs import COUNTS, parity

    kinds = [kind for kind in pair.kinds if kind not in pair.holes]
    head = f"| {pair.sampler!r} | {pair.asked} | {', '.join(kinds)} | {spacing} | "
    if spacing in pair.holes:
        return head + " | ".join(["hole"] * len(COUNTS)) + " | | |"
    found = [[parity(pair, kind, spacing, count) for kind in kinds] for count in COUNTS]
    worst = [max(error for error, _ in each) for each in found]
    same = "=" if all(same for each in found for _, same in each) else ""
    shipped = max(parity(pair, kinds[0], spacing, count, wide=False)[0] for count in (4, 50))
    print(head, *(f"{error:.1e}" for error in worst), same, f"{shipped:.1e}", flush=True)
    return head + " | ".join(f"{error:.1e}" for error in worst) + f" | {same} | {shipped:.1e} |"


def holes() -> list[str]:
    """Every hole with its reason."""
    from parity_pairs import PAIRS, WITHOUT_CLASS, WITHOUT_SAMPLER

    found = defaultdict(list)
    for pair in PAIRS:
        for place, reason in pair.holes.items():
            where = f"{pair.scheduler} {place}"
            if where not in found[reason]:
                found[reason].append(where)
    lines = ["", "Holes:", ""]
    lines += [f"- {', '.join(places)}: {reason}." for reason, places in found.items()]
    lines += [f"- `{name}`: {reason}." for name, reason in WITHOUT_CLASS.items()]
    lines += [f"- {name} of theirs: {reason}." for name, reason in WITHOUT_SAMPLER.items()]
    return lines


def k_diffusion() -> str:
    from test_parity_k_diffusion import DATA, churned_to_zero, largest, sampler_of
    from worlds import flow, ve, vp

    found = defaultdict(list)
    for run in DATA["runs"]:
        if not churned_to_zero(run):
            sampler = sampler_of(run)
            worst = max(largest(run, sampler, pair) for pair in (ve, vp, flow))
            found[sampler.name, run["function"]].append(worst)
    lines = [f"| {name} | {function} | {len(errors)} | {max(errors):.1e} |"
             for (name, function), errors in found.items()]  # fmt: skip
    hole = ("\n\nHole: sample_heun with `s_churn` to sigma 0: theirs adds noise before the last "
            "step, ours does not (a test shows it).\n")  # fmt: skip
    return K_INTRO.format(version=DATA["k_diffusion"]) + "\n".join(lines) + hole


def toyland() -> str:
    """Ten steps of the shipped checkpoint, for every pair that reads its v."""
    from parity_pairs import PAIRS, parity, toyland_network

    network, shape = toyland_network()
    lines = ["", "## Toyland, 10 steps, float32", "",
             "The shipped checkpoint under the prompt of the tests, without guidance.", "",
             "| sampler | class | spacing | largest error |", "|---|---|---|---|"]  # fmt: skip
    for pair in PAIRS:
        if "v" in pair.kinds and "v" not in pair.holes:
            spacing = "trailing" if "trailing" in pair.spacings else pair.spacings[0]
            error, _ = parity(pair, "v", spacing, 10, network, shape)
            lines.append(f"| {pair.sampler!r} | {pair.asked} | {spacing} | {error:.1e} |")
            print(lines[-1], flush=True)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
