"""Every view, and the playground, made of real runs of Stable Diffusion: folders and one file.

The checkpoints are narrow and random. Toyland has nothing of what they have: a schedule that ends
in a little noise, no preview map, two text encoders.
"""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import pytest
from PIL import Image
from real_kinds import KINDS, small
from test_plots_guidance import on_the_page, overlapping, panels, texts
from test_views import TEMPLATE, addresses, state_of
from views_cases import Structure, public

import diffusionlab as dl
from diffusionlab import plots, views
from diffusionlab.analysis.convergence import Convergence
from diffusionlab.analysis.ladder import climb
from diffusionlab.playground import playground
from diffusionlab.trace import Trace
from diffusionlab.views import View

PROMPT, STEPS = "a red car in the city at night", 4
TOLD = {  # what the network of each predicts, and the last karras_sigma of a run
    "SDXL folder": ("eps", "0"),
    "SD1 file": ("eps", "0.029"),
    "SD1 folder": ("eps", "0.029"),
    "SD2v folder": ("v", "0.029"),
}
RECORD = {"predictions", "attention", "frames"}
BAD = re.compile(r"NaN|infinity|No picture|not recorded|cannot be shown|CHECK FAILED")
PACKED = re.compile(r"data:\S+|[A-Za-z0-9+/]{100,}=*")  # a picture, or numbers: letters by chance


@dataclass
class Lab:
    """A model and what the views are made of."""

    model: Any
    predicts: str
    ends: str

    @cached_property
    def run(self):
        """`run(PROMPT)`, `run(PROMPT, sampler="heun")`: a run with everything that a view shows."""
        return partial(dl.generate, self.model, seed=1, num_steps=STEPS, record=RECORD)

    @cached_property
    def runs(self):
        return dl.compare(self.model, PROMPT, samplers=["ddim", "heun"], seed=1, num_steps=STEPS,
                          record=RECORD, progress=False)  # fmt: skip

    @property
    def trace(self) -> Trace:
        return self.runs.traces[0]

    @cached_property
    def layers(self):
        return dl.embed_layers(self.model, dl.tokenize(self.model, PROMPT))

    @cached_property
    def noising(self):
        return dl.noise_image(self.model, self.trace.image, [100, 500, 900], prompt=PROMPT)


def quiz(lab: Lab) -> View:
    """A question whose numbers are the run's own."""
    choices = [f"{sigma:.3g}" for sigma in lab.trace.karras_sigmas[:3]]
    asks = f"At which karras_sigma does the run of {lab.model.name} begin?"
    return views.quiz([dict(asks=asks, choices=choices, right=0, because="It is the noisiest.")])


VIEWS = {
    "diff": lambda lab: views.diff(*lab.runs.traces),
    "exhibit": lambda lab: views.exhibit(lab.trace),
    "explore": lambda lab: views.explore(lab.trace),
    "explore_schedule": lambda lab: views.explore_schedule(
        lab.model.schedule, noising=lab.noising, steps=(10, 20)
    ),
    "explore_text": lambda lab: views.explore_text(lab.trace, layers=lab.layers),
    "quiz": quiz,
    "race": lambda lab: views.race(lab.runs),
}
# x_t, x0-hat and eps-hat of each step, and the end; the exhibit's squares that grow finer
PICTURES = {"diff": 18, "exhibit": 13, "explore": 13, "explore_schedule": 3, "race": 18}


@pytest.fixture(scope="module", params=KINDS)
def lab(request, tmp_path_factory):
    place = tmp_path_factory.mktemp("views")
    with pytest.MonkeyPatch.context() as patch:
        model = dl.load(small(request.param, place, patch), device="cpu")
    return Lab(model, *TOLD[request.param])


@pytest.fixture(scope="module")
def made(lab) -> dict[str, View]:
    return {name: make(lab) for name, make in VIEWS.items()}


def strings(data: Any) -> list[str]:
    """Every text in the data of a view."""
    if isinstance(data, dict):
        return [text for value in data.values() for text in strings(value)]
    if isinstance(data, (list, tuple)):
        return [text for value in data for text in strings(value)]
    return [data] if isinstance(data, str) else []


def pictures_in(view: View) -> list[Image.Image]:
    found = [text for text in strings(view.data) if text.startswith("data:image/")]
    sent = (base64.b64decode(text.partition(",")[2]) for text in found)
    return [Image.open(io.BytesIO(one)).convert("RGB") for one in sent]


def about(view: View) -> list[str]:
    """What is wrong with a view of a sound run: a page of another build, gaps, blank pictures."""
    told = [] if Structure(view.page).found == TEMPLATE else ["the page is not the template"]
    told += [f"asks for {address}" for address in addresses(view.page)]
    told += [f"says {text!r}" for text in [view.alt, *strings(view.data)]
             if not PACKED.fullmatch(text) and BAD.search(text)]  # fmt: skip
    told += ["a blank picture" for picture in pictures_in(view) if picture.getcolors(1)]
    return told + (["a large page"] if len(view.page) > 1_500_000 else [])


# ---- every view --------------------------------------------------------------------------------
def test_every_view_is_here():
    assert sorted(VIEWS) == public() and set(PICTURES) < set(VIEWS)


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_is_whole(name, made):
    view = made[name]
    assert about(view) == []
    assert len(pictures_in(view)) == PICTURES.get(name, 0)
    assert state_of(view.page)["data"] == json.loads(json.dumps(view.data))
    assert name in ("explore_schedule", "explore_text", "quiz") or PROMPT in view.alt
    assert view.widget().data == view.data


@pytest.mark.parametrize("name", VIEWS)
def test_a_still_has_room_for_its_words(name, made):
    figure = made[name].to_figure()
    assert on_the_page(figure) and not overlapping(figure)
    assert len(figure.alt) > 30 and len(figure.to_png(dpi=40)) > 1000


def test_the_step_explorer_tells_this_run(lab, made):
    data, trace = made["explore"].data, lab.trace
    sigmas = [step["level"]["karras_sigma"] for step in data["steps"]]
    assert sigmas == pytest.approx(trace.karras_sigmas[:-1])
    assert data["settings"]["prediction_type"] == lab.predicts
    assert data["check"]["warning"] == "" and data["check"]["path"].startswith("Replayed: every")
    assert data["attention"]["words"] == ["<start>", *PROMPT.split(), "<end>", "<pad>"]
    assert data["attention"]["choices"][0]["label"].startswith("all: ")
    assert all(top > 0 for top in data["difference"]["tops"])
    assert data["dial"]["missing"].startswith("This checkpoint has no preview map to colour x0-hat")


def test_a_fitted_preview_map_colours_what_was_grey(lab, made):
    """What the view tells to do, done: x_t in colour, and a dial."""
    assert "dl.fit_preview makes one" in made["explore"].data["dial"]["missing"]
    model = lab.model.with_parts(preview=dl.fit_preview(lab.model))
    trace = dl.generate(model, PROMPT, seed=1, num_steps=STEPS, record=RECORD, progress=False)
    assert np.array_equal(trace.latents, lab.trace.latents)
    data = views.explore(trace).data
    assert data["dial"]["missing"] == "" and "no preview map" not in json.dumps(data["reels"])


def test_the_exhibit_tells_this_run(lab, made):
    data, tokens = made["exhibit"].data, lab.trace.tokens
    assert [card["word"] for card in data["words"]] == PROMPT.split()
    ids = [number for card in data["words"] for number in card["ids"]]
    assert ids == [i for i, kind in zip(tokens.ids, tokens.kinds, strict=True) if kind == "word"]
    assert [panel["name"] for panel in data["panels"]][2:4] == ["Denoising", "Decoding"]
    assert len(data["panels"][2]["said"]) == STEPS and data["panels"][2]["attention"]["check"] == ""


def test_race_and_difference_tell_that_the_sampler_alone_differs(lab, made):
    race, diff = made["race"].data, made["diff"].data
    # where the last level is not clean, heun asks twice in its last step, too
    heun = 2 * STEPS - (lab.ends == "0")
    assert [run["calls"] for run in race["runs"]] == [STEPS, heun]
    assert race["start"] == "All runs started from the same noise." and race["known"]
    assert [row[0] for row in diff["differ"]] == ["sampler"]
    assert ["prediction type", lab.predicts] in diff["same"]
    assert f"{lab.trace.karras_sigmas[-1]:.2g}" == lab.ends


def test_the_schedule_explorer_shows_the_checkpoint_s_own_levels(lab, made):
    data = made["explore_schedule"].data
    assert data["prediction_type"] == lab.predicts and data["count"] == 1000
    assert data["rows"][0]["name"] == "leading" and data["rows"][0]["own"]
    shown = data["rows"][0]["runs"][data["steps"].index(20)]["levels"]
    assert [level[1] for level in shown][:20] == pytest.approx(
        [level.karras_sigma for level in lab.model.schedule.levels(20)][:20]
    )
    assert data["pictures"]["guesses"]["label"] == "x0-hat, decoded"
    assert np.isfinite(data["pictures"]["off"]).all()


def test_the_text_explorer_shows_each_encoder(lab, made):
    data = made["explore_text"].data
    assert [piece["id"] for piece in data["pieces"]][:10] == list(lab.trace.tokens.ids[:10])
    assert data["pads"] == lab.model.context_length - 10 and not data["cut"]["dropped"]
    assert len(data["states"]["names"]) == len(lab.layers.hidden) + 1
    assert data["states"]["bad"] == "" and data["attention"]["checks"] == data["moves"]["checks"]
    for number in range(len(lab.model.text_encoders)):
        one = dl.embed_layers(lab.model, lab.trace.tokens, encoder=number)
        assert about(views.explore_text(one)) == []


# ---- a saved run, and the playground -----------------------------------------------------------
def test_a_saved_run_makes_the_same_views(lab, made, tmp_path):
    lab.trace.save(tmp_path / "run.safetensors")
    again = Trace.load(tmp_path / "run.safetensors")
    for name in ("explore", "exhibit"):
        assert getattr(views, name)(again).page == made[name].page


def test_the_playground_runs_it(lab):
    panel = playground(lab.run, prompt=PROMPT, num_steps=STEPS, guidance_scale=4.0, seed=1)
    try:
        panel.start().wait()
        panel.start(sampler="heun").wait()
        assert panel.error == "" and panel.numbers == (1, 2)
        assert np.array_equal(panel.runs[0].latents, lab.trace.latents)
        assert panel.view.script == "step_explorer" and not about(panel.view)
        panel.compare(1, 2)
        assert panel.view.script == "difference" and not about(panel.view)
        assert "dl.generate(model, 'a red car" in panel._repr_mimebundle_()["text/plain"]
    finally:
        panel.close()
        panel.wait()


# ---- plots of runs that end in a little noise --------------------------------------------------
def test_a_ladder_says_how_much_noise_its_short_runs_end_with(lab):
    figure = plots.plot_step_ladder(climb(partial(lab.run, PROMPT, progress=False), 2, [1, 2]))
    found = texts(figure).splitlines()
    assert f"1 step, σ̂ {lab.ends}" in found and f"2 steps, σ̂ {lab.ends}" in found


def test_words_that_are_looked_up_alike_are_named_below_the_heading(lab):
    figure = plots.plot_pixel_words(lab.trace)
    (panel,) = (one for one in panels(figure) if one.get_ylabel() == "probability")
    heights = sorted(text.get_position()[1] for text in panel.texts)
    assert len(heights) == 6 and heights[-1] < panel.get_ylim()[1]
    assert on_the_page(figure) and not overlapping(figure)


def test_numbers_of_steps_that_nearly_coincide_have_one_tick():
    """Such a schedule drops levels: a run of 20 steps beside one of 19."""
    grids = {"trailing": (5, 10, 20, 40), "karras": (4, 9, 19, 39)}
    results = [Convergence(name, name, steps, steps, (1.0, 0.5, 0.3, 0.1))
               for name, steps in grids.items()]  # fmt: skip
    assert list(plots.plot_convergence(results).axes[0].get_xticks()) == [4, 5, 10, 20, 40]


# ---- the checks can fail -----------------------------------------------------------------------
def test_gaps_blank_pictures_and_large_pages_are_told(lab, made):
    whole = made["explore"]
    assert "a blank picture" in about(views.explore(replace(lab.trace, image=grey(lab))))
    steps = tuple(replace(step, latent=np.full_like(step.latent, np.nan))
                  for step in lab.trace.steps)  # fmt: skip
    assert any("NaN" in line for line in about(views.explore(replace(lab.trace, steps=steps))))
    assert "a large page" in about(replace(whole, data=whole.data | {"more": "x" * 1_500_000}))


def grey(lab: Lab) -> Image.Image:
    return Image.new("RGB", lab.trace.image.size, "grey")
