"""How well a Toyland checkpoint does what its prompts say, by judges that did not train it.

`python benchmarks/quality.py [--model toyland|FOLDER] [--prompts 1000] [--sheets DIR]` measures
- adherence on one-object prompts (half of held-out triples) and binding on two-object prompts,
  beside the judges' ceiling on real renders, the VAE's round trip and chance;
- where the cross-attention of the object's word points, on rendered and on generated pictures;
- the VAE's PSNR, paraphrases, and how near the nearest training latent is.
It prints the gate table, writes it into the checkpoint's model card and everything into
results/quality.json; `--sheets` adds pictures.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from overhead import machine

from diffusionlab import load
from diffusionlab.errors import InputError
from diffusionlab.training import card, quality
from diffusionlab.training.judge_nets import judge, load_judges
from diffusionlab.training.localisation import on_generated, teacher_forced
from diffusionlab.training.pictures import GUIDANCE, STEPS, Drawn, draw
from diffusionlab.training.prompted import Prompt, one_object_prompts, two_object_prompts
from diffusionlab.training.sheets import pair_sheet, verdict_sheet

RESULTS = Path(__file__).parent / "results"
SMALLEST = 600  # prompts, so that half of them are at least 300 unseen ones
PAIRS, MAPS = 200, 320  # two-object prompts; scenes whose attention is compared with masks
PACKAGES = ("torch", "transformers", "numpy", "safetensors")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--model", default="toyland", help="'toyland' or a checkpoint folder")
    made.add_argument("--judges", type=Path, help="folder of the judges (default: the shipped)")
    made.add_argument("--prompts", type=int, default=1000, help=f"at least {SMALLEST}")
    made.add_argument("--device", default="cpu")
    made.add_argument("--sheets", type=Path, help="folder for contact sheets (PNG)")
    made.add_argument("--out", type=Path, default=RESULTS / "quality.json")
    return made


def told(name: str, measure: Callable):
    """What `measure` returns, and one printed line that says how long it took."""
    start = time.perf_counter()
    found = measure()
    print(f"{name:12} {time.perf_counter() - start:6.1f} s", flush=True)
    return found


def spread(prompts: list[Prompt], count: int) -> list[int]:
    """Indices of `count` prompts evenly over all, so that seen and unseen keep their shares."""
    return np.linspace(0, len(prompts) - 1, min(count, len(prompts))).astype(int).tolist()


def chosen(drawn: Drawn, rows: list[int]) -> Drawn:
    """The same record for some of the prompts."""
    return Drawn(drawn.pictures[rows], drawn.finest[rows], drawn.every[rows])


def measure(model, judges, count: int, sheets: Path | None) -> dict:
    """Every figure, by name."""
    (classifier, segmenter), share = judges, quality.share_of(model)
    prompts = told("prompts", lambda: one_object_prompts(share, count))
    pairs = two_object_prompts(share, PAIRS)
    spans = [prompt.caption.claims[0].kind_span for prompt in prompts]
    drawn = told("pictures", lambda: draw(model, [p.text for p in prompts], spans))
    two = told("pairs", lambda: draw(model, [p.text for p in pairs], first_seed=count))
    table = partial(quality.verdict_table, model, classifier)
    rows = spread(prompts, MAPS)
    some = [prompts[i] for i in rows]
    memory, near = told("memory", lambda: quality.memorisation(model, share, prompts, drawn))
    result = {
        "adherence": told("adherence", lambda: table(prompts, drawn.pictures, quality.adherence)),
        "binding": told("binding", lambda: table(pairs, two.pictures, quality.binding)),
        "localisation": told("attention", lambda: teacher_forced(model, some)),
        "localisation_generated": on_generated(chosen(drawn, rows), some, segmenter),
        "vae": told("vae", lambda: quality.vae_quality(model, share)),
        "paraphrase": told("paraphrase", lambda: quality.paraphrase(model, share)),
        "memorisation": memory,
    }
    if sheets:
        first = spread(prompts, 32)
        seen = judge(classifier, drawn.pictures[first])
        verdict_sheet(sheets / "prompts.png", [prompts[i] for i in first],
                      drawn.pictures[first], seen)  # fmt: skip
        verdict_sheet(sheets / "two_objects.png", pairs[:32], two.pictures[:32],
                      judge(classifier, two.pictures[:32]))  # fmt: skip
        pair_sheet(sheets / "nearest.png", near)
    return result


def print_table(result: dict) -> None:
    """The gates, then what stands beside adherence."""
    print(f"\n{'gate':28} {'measured':>9} {'CPU':>14} {'accelerator':>14}")
    for row in result["gates"]:
        columns = [f"{row[c] or '':>6} {row[f'{c}_holds']:>7}" for c in ("cpu", "accelerator")]
        print(f"{row['gate']:28} {row['measured']:9.3f} {columns[0]} {columns[1]}")
    for part, groups in (("adherence", ("seen", "unseen")), ("binding", (None,))):
        print(f"\n{part}")
        for source, found in result[part].items():
            for group in groups:
                values = found[group] if group else found
                shares = " ".join(f"{k} {v:g}" for k, v in values.items())
                print(f"  {source:10} {group or '':7} {shares}")
    for part in ("localisation_generated", "vae", "paraphrase", "memorisation"):
        print(f"{part}: {result[part]}")


def main() -> None:
    """Load, measure, print, write."""
    given = parser().parse_args()
    if given.prompts < SMALLEST:
        raise InputError(f"--prompts is {given.prompts}; {SMALLEST} or more are allowed")
    start = time.perf_counter()
    model = load(given.model, device=given.device)
    judges = tuple(net.to(given.device) for net in load_judges(given.judges))
    measured = measure(model, judges, given.prompts, given.sheets)
    result = {
        "machine": machine(given.device),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
        "task": {
            "model": model.name,
            "share": quality.share_of(model).name,
            "prompts": given.prompts,
            "sampler": "ddim",
            "steps": STEPS,
            "guidance_scale": GUIDANCE,
            "threads": torch.get_num_threads(),
        },
        "gates": quality.gate_table(measured),
        **measured,
        "seconds": round(time.perf_counter() - start, 1),
    }
    print_table(result)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if model.path and (about := Path(model.path) / "README.md").exists():
        card.write_gates(about, result)
    print(f"\nwritten: {given.out.name} and the model card, {result['seconds']} s in all")


if __name__ == "__main__":
    main()
