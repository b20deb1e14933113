"""How long each plot takes from its record to a PNG, beside an empty figure of the same size.

    python benchmarks/plots.py [--rounds 5] [plot_x plot_y.variant …]

The cases are those of the gallery, a run of 20 steps on Toyland. Each plot is drawn alternately
with an empty figure of its size, whose time is matplotlib's own; a decoder's time is left out. It
prints a table, marks what is over half a second, and writes results/plots.json; given names, their
rows alone.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from overhead import RESULTS, alternate, machine, ratio

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools" / "gallery"))

from cases import made  # noqa: E402
from lab import Lab  # noqa: E402

from diffusionlab import plots  # noqa: E402

LIMIT = 0.5  # seconds


def measured(lab: Lab, key: str, rounds: int) -> dict:
    """Median seconds of one plot, of the empty figure, and the median of their ratios."""
    record, options = made()[key](lab)
    if "decode" in options:
        options["decode"] = remembered(options["decode"])
    plot = getattr(plots, key.partition(".")[0])
    size = plot(record, **options).get_size_inches()

    def empty() -> None:
        figure = plots.Figure(figsize=size, layout="constrained")
        figure.add_subplot()
        figure.to_png()

    calls = {"plot": lambda: plot(record, **options).to_png(), "empty": empty}
    seconds = alternate(calls, rounds)
    medians = {name: round(statistics.median(found), 4) for name, found in seconds.items()}
    return medians | {"plot / empty": ratio(seconds, "plot", "empty")}


def remembered(decode: Callable) -> Callable:
    """The decoder, run once for each latent: its own time is not the plot's."""
    known: dict[bytes, object] = {}

    def decoded(latent):
        key = latent.tobytes()
        if key not in known:
            known[key] = decode(latent)
        return known[key]

    return decoded


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("keys", nargs="*", choices=[[], *made()], metavar="plot")
    given = parser.parse_args()
    lab, path, found = Lab(), RESULTS / "plots.json", {}
    if given.keys:
        found = json.loads(path.read_text(encoding="utf-8"))["plots"]
    print(f"{'plot':40} {'seconds':>8} {'empty':>8} {'ratio':>7}")
    for key in given.keys or made():
        found[key] = row = measured(lab, key, given.rounds)
        mark = "  over half a second" if row["plot"] > LIMIT else ""
        share = row["plot / empty"]["median_ratio"]
        print(f"{key:40} {row['plot']:8.3f} {row['empty']:8.3f} {share:7.2f}{mark}")
    result = {
        "machine": machine("cpu"),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("matplotlib", "numpy")},
        "rounds": given.rounds,
        "over_half_a_second": [key for key, row in found.items() if row["plot"] > LIMIT],
        "slowest": max(found, key=lambda key: found[key]["plot"]),
        "plots": found,
    }
    print(f"slowest: {result['slowest']}, {found[result['slowest']]['plot']:.3f} s")
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
