"""Claims about symptoms: pictures and verdicts made by hand, and any checkpoint."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from asked import verdict
from PIL import Image

from diffusionlab.claims import CLAIMS, Bench, board, examine, symptoms
from diffusionlab.toyland import scene


@pytest.fixture(scope="module")
def tiny(tiny_model):
    return Bench(tiny_model, 4)


def picture(spread: float, step: int = 8) -> Image.Image:
    """Grey stripes of a width in pixels around the middle grey."""
    rows = (np.arange(64) // step % 2 - 0.5) * 2 * spread * 127
    return Image.fromarray(np.tile(np.uint8(127.5 + rows)[:, None, None], (1, 64, 3)))


def test_they_are_asked_of_any_checkpoint_or_say_why_not(tiny):
    found = {
        finding.claim.id: finding
        for finding in board(tiny, sorted(c.id for c in symptoms.CLAIMS)).findings
    }
    assert found["A10"].verdict == "not asked" and "toyland.json" in found["A10"].refused
    assert all(part.measured.count == 4 for n in ("B24", "F23") for part in found[n].parts)
    assert {claim.notebook for claim in symptoms.CLAIMS} == {10}
    assert examine(tiny, "F23").samples == 4


# ---- ignored -----------------------------------------------------------------------------------
class Heard:
    """A bench whose prompts ask for a red car and a blue boat, and whose judge sees `colours`."""

    def __init__(self, model, colours: dict, past: float = 0.0):
        self.model, self.colours, self.past = model, colours, past
        asked = SimpleNamespace(text="a red car", colours={"car": "red", "boat": "blue"})
        self.two_objects = [asked] * 100

    def run(self, prompt, **_):
        return SimpleNamespace(latents=[np.full(3, self.past * prompt.endswith("red"))])

    def pictures(self, texts, **_):
        return texts

    def judged(self, images):
        return [SimpleNamespace(colours=self.colours)] * len(images)


@pytest.mark.parametrize(
    ("colours", "past", "expected"),
    [
        ({"car": "red", "boat": "blue"}, 0.0, "true"),
        ({"car": "blue", "boat": "blue"}, 0.0, "partly"),
        ({"car": "red"}, 0.0, "partly"),
        ({"car": "red"}, 0.5, "false"),
    ],
)
def test_ignored_words(tiny_model, colours, past, expected):
    assert verdict("A10", Heard(tiny_model, colours, past)) == expected


def test_prompts_that_are_cut_are_not_counted(tiny_model, capsys):
    bench = Heard(tiny_model, {})
    cut = SimpleNamespace(text="a red car " * 200, colours={"car": "red"})
    bench.two_objects = [*bench.two_objects, cut]
    assert CLAIMS["A10"].ask(bench)[1].measured.count == 100


# ---- washed out --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("coder", "scale", "expected"),
    [(1.0, 0.5, "false"), (0.5, 1.0, "true"), (0.5, 0.5, "partly"), (1.0, 1.0, "partly")],
)
def test_washed_out(coder, scale, expected, tiny_model, monkeypatch):
    """`coder`: the contrast that the VAE leaves; `scale`: what half the latent's size leaves."""
    bench = SimpleNamespace(
        model=tiny_model, texts=["x"] * 4, scenes=[scene(i) for i in range(4)],
        traces=lambda texts: [SimpleNamespace(image=picture(1.0), latents=[np.ones(2)])] * 4,
    )  # fmt: skip

    def decoded(model, given):
        if isinstance(given, np.ndarray):
            return picture(scale)
        values = np.asarray(given, float)
        return Image.fromarray(np.uint8(values.mean() + coder * (values - values.mean())))

    monkeypatch.setattr(symptoms, "encode", lambda model, image: image)
    monkeypatch.setattr(symptoms, "decode", decoded)
    assert verdict("B24", bench) == expected


# ---- mushy -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("spreads", "expected"),
    [
        ((0.1, 0.3, 0.6, 0.9), "true"),
        ((0.1, 0.8, 0.8, 0.8), "partly"),
        ((0.8, 0.8, 0.8, 0.8), "false"),
    ],
)
def test_mushy(spreads, expected):
    lengths = dict(zip((1, 5, 20, 50), spreads, strict=True))
    bench = SimpleNamespace(
        texts=["x"] * 4, pictures=lambda texts, num_steps: [picture(lengths[num_steps], 1)] * 4
    )
    assert verdict("F23", bench) == expected
