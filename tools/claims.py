"""Write docs/claims.md: every claim held against Toyland, and against the same network untrained.

    make claims                                  (64 samples; some ten minutes on two cores)
    python tools/claims.py --samples 24 --only A16,B4

With --only the other rows of a page that is there are kept. One process for each model. A verdict
that random weights give as well says nothing of training.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from diffusionlab.claims import CLAIMS, Bench, Claim, examine, find
from diffusionlab.claims.claim import UNASKED, VERDICTS

TARGET = Path(__file__).parents[1] / "docs" / "claims.md"
FULL = 64  # samples
INTRO = """# Claims, as experiments

Written by `make claims`. Each claim is one that texts about diffusion models make, in our words;
the kind of text is named. It is split into parts, each of them a number measured on the model and
the bar that the claim puts it to. The verdict is computed: *true* if every part holds, *false* if
none does, *partly* if some do, *open* if the samples do not decide. Intervals are at 95 % (Wilson's
for shares, a bootstrap widened for few samples for means, for differences of hits Student's of the
samples and one at either end), n is the sample size. In Python:
`claims.examine(model, "{first}")`.

**{count} claims: {tally}.** Of the {sampled} that draw samples, {flipped} come out differently
on the same networks with random weights ({decided} of them decided both times): those are about
what training made; the others are about noise, sizes or arithmetic, or are false of any network.

{samples} samples, {seconds:.0f} s together on two cores.

| | claim | kind of source | notebook | verdict | samples | random weights | measured |
|---|---|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Row:
    """One claim on one model, in words: what may cross from one process to another."""

    id: str
    verdict: str
    samples: int
    sentences: tuple[str, ...]


def asked(bench: Bench, name: str) -> Row:
    """One claim on one model; the reason in the place of the numbers where it cannot be asked."""
    found = examine(bench, name)
    return Row(name, found.verdict, found.samples, found.sentences)


def all_asked(trained: bool, names: Sequence[str], samples: int) -> list[Row]:
    """Every claim on Toyland, or on the same networks untrained; one line each as it goes."""
    import torch

    from diffusionlab import load
    from diffusionlab.claims.untrained import untrained

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        model = load() if trained else untrained(load(), Path(folder) / "random weights")
        bench, rows = Bench(model, samples), []
        for name in names:
            begun = time.perf_counter()
            rows.append(asked(bench, name))
            told = f"{name:4} {rows[-1].verdict:9} {time.perf_counter() - begun:6.1f} s"
            print(f"{told}  {model.name}", flush=True)
        return rows


def flips(rows: Sequence[Row], others: Sequence[Row], decided: bool = False) -> list[str]:
    """The sampled claims whose verdict another model changes; `decided`: neither may be open."""
    pairs = [(a, b) for a, b in zip(rows, others, strict=True) if find(a.id).sampled]
    left_open = {"open", UNASKED}
    return [
        a.id
        for a, b in pairs
        if a.verdict != b.verdict and not (decided and {a.verdict, b.verdict} & left_open)
    ]


def page(rows: Sequence[Row], others: Sequence[Row], samples: int, seconds: float) -> str:
    """docs/claims.md."""
    verdicts = [row.verdict for row in rows]
    counts = {word: verdicts.count(word) for word in (*VERDICTS, UNASKED)}
    intro = INTRO.format(
        count=len(rows),
        tally=", ".join(f"{count} {word}" for word, count in counts.items() if count),
        sampled=sum(find(row.id).sampled for row in rows),
        flipped=len(flips(rows, others)),
        decided=len(flips(rows, others, decided=True)),
        samples=samples,
        seconds=seconds,
        first=rows[0].id,
    )
    pairs = zip(rows, others, strict=True)
    return intro + "\n".join(line(find(a.id), a, b) for a, b in pairs) + "\n"


def line(claim: Claim, row: Row, other: Row) -> str:
    """One row of the table."""
    cells = (claim.id, claim.says, claim.source, claim.notebook, f"**{row.verdict}**",
             row.samples or "", other.verdict, "<br>".join(row.sentences))  # fmt: skip
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def read_rows(text: str) -> tuple[list[Row], list[Row]]:
    """The rows of a page for both models (the second without its numbers), of claims that exist."""
    rows, others = [], []
    for found in text.splitlines():
        cells = re.split(r"(?<!\\) \| ", found.removeprefix("| ").removesuffix(" |"))
        if len(cells) == 8 and cells[0] in CLAIMS:
            name, *_, verdict, count, other, told = (one.replace("\\|", "|") for one in cells)
            sentences = tuple(told.split("<br>"))
            rows.append(Row(name, verdict.strip("*"), int(count or 0), sentences))
            others.append(Row(name, other, 0, ()))
    return rows, others


def renewed(old: Sequence[Row], new: Sequence[Row]) -> list[Row]:
    """Old and new rows in the order of the claims, the new ones where both are there."""
    known = {row.id: row for row in (*old, *new)}
    return [known[name] for name in CLAIMS if name in known]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=FULL)
    parser.add_argument("--only", help="names of claims, with commas between them")
    parser.add_argument("--to", type=Path, default=TARGET)
    given = parser.parse_args()
    names = [find(name).id for name in given.only.split(",")] if given.only else list(CLAIMS)
    begun = time.perf_counter()
    with ProcessPoolExecutor(2, get_context("spawn")) as both:
        jobs = [both.submit(all_asked, trained, names, given.samples) for trained in (True, False)]
        rows, others = (job.result() for job in jobs)
    seconds = time.perf_counter() - begun
    if given.only and given.to.is_file():
        text = given.to.read_text(encoding="utf-8")
        kept = read_rows(text)
        rows, others = renewed(kept[0], rows), renewed(kept[1], others)
        seconds += float(re.search(r"samples, (\d+) s together", text)[1])
    given.to.parent.mkdir(parents=True, exist_ok=True)
    given.to.write_text(page(rows, others, given.samples, seconds), encoding="utf-8")
    print(f"wrote {given.to}: {len(rows)} claims, {len(flips(rows, others))} sampled ones flip, "
          f"{seconds:.0f} s")  # fmt: skip


if __name__ == "__main__":
    main()
