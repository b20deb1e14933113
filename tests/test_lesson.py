"""A lesson of a minute: it learns, what is frozen stays, its record and its plot; named cells."""

from __future__ import annotations

import dataclasses
import re
from types import SimpleNamespace

import IPython
import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

import diffusionlab as dl
from diffusionlab.analysis.learning import level_losses, loss_curve
from diffusionlab.analysis.segmentation import ious, share_right
from diffusionlab.course import watch
from diffusionlab.errors import InputError
from diffusionlab.plots import plot_learning, plot_segmentation
from diffusionlab.toyland import SMALL, scene
from diffusionlab.trace import Learning, Moment, Segmentation
from diffusionlab.training import lesson as lessons
from diffusionlab.training.judge_nets import Segmenter
from diffusionlab.training.lesson import Lesson
from diffusionlab.training.segmented import name_cells, overlaps


def picture(shade: int) -> Image.Image:
    return Image.fromarray(np.full((8, 8, 3), shade, np.uint8))


def learning(steps: int = 4, looks: int = 3) -> Learning:
    """A record made by hand: the loss of step i is 1 / (i + 1), that of look j at level k j / k."""
    moments = tuple(
        Moment(10.0 * j, j, np.array([4.0, 2.0, 1.0]) / (j + 1), (picture(20 * j), picture(9)))
        for j in range(looks)
    )
    return Learning(
        model="<tiny>", prediction_type="v", prompts=("a red house in the meadow", "a <b>"),
        best=(picture(200), picture(220)), pictures=64, batch=8,
        karras_sigmas=np.array([0.1, 1.0, 10.0]), seconds=10.0 * np.arange(1, steps + 1),
        losses=1 / np.arange(1.0, steps + 1), moments=moments,
        weights={"U-Net": 1_500_000, "decoder": 20}, learning={"U-Net": 1.0, "decoder": 0.0},
        calls={"learning": {"U-Net": steps}, "looks": {"decoder": 6}},
    )  # fmt: skip


def named() -> Segmentation:
    """Four cells by four: a cat in the upper half, of which the right half is called a car."""
    true, found = np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    true[:2] = 1
    found[:2, :2], found[:2, 2:] = 1, 2
    return Segmentation(picture(90), ("nothing", "cat", "car"), found, true, "a <network>", 12)


RECORDS = {"plot_learning": learning(), "plot_segmentation": named()}


# ---- the lesson ------------------------------------------------------------------------------
@pytest.fixture(autouse=True)
def few_pictures(monkeypatch):
    monkeypatch.setattr(lessons, "MOST", 32)
    monkeypatch.setattr(lessons, "BATCH", 8)
    monkeypatch.setattr(lessons, "HELD_BACK", 16)
    monkeypatch.setattr(lessons, "WARMUP", 2)


def last(records) -> Learning:
    *_, record = records
    return record


@pytest.fixture(scope="module")
def taught(tiny_model):
    """A lesson of 24 steps, its last record, and the model's frozen weights before and after."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in dict(MOST=32, BATCH=8, HELD_BACK=16, WARMUP=2).items():
            patch.setattr(lessons, name, value)
        before = frozen(tiny_model)
        made = Lesson(tiny_model, seed=3)
        record = last(made.learn(600, steps=24))
        return SimpleNamespace(lesson=made, record=record, before=before, model=tiny_model)


def frozen(model) -> list[torch.Tensor]:
    parts = (model.unet, model.vae, *model.text_encoders)
    return [values.detach().clone() for part in parts for values in part.parameters()]


def test_a_few_steps_lower_the_loss(taught):
    losses = taught.record.losses
    assert len(losses) == taught.record.steps == 24
    assert losses[-6:].mean() < 0.9 * losses[:6].mean()
    found = level_losses(taught.record)
    assert (found.left < 1).mean() > 0.8  # on pictures that were held back


def test_without_a_rate_nothing_is_learned(tiny_model, monkeypatch):
    monkeypatch.setattr(lessons, "RATE", 0.0)
    record = last(Lesson(tiny_model, seed=3).learn(600, steps=4))
    assert np.array_equal(record.moments[0].losses, record.moments[-1].losses)


def test_one_call_and_no_decoder_in_a_step_and_the_rest_is_frozen(taught):
    record = taught.record
    assert record.calls["learning"] == {"U-Net": 24}
    assert record.calls_per_step("U-Net") == 1 and record.calls_per_step("decoder") == 0
    assert record.calls["looks"]["decoder"] == len(record.moments) * len(record.prompts)
    assert record.learning["U-Net"] == 1
    assert {record.learning[part] for part in ("encoder", "decoder", "text encoder")} == {0}
    pairs = zip(taught.before, frozen(taught.model), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert record.weights["U-Net"] == sum(p.numel() for p in taught.lesson.unet.parameters())


def test_the_count_would_see_a_decoder(taught):
    before = dict(taught.lesson.calls["learning"])
    with taught.lesson._counting("learning"), torch.no_grad():
        dl.decode(taught.model, dl.draw_noise(taught.model, 0))
    assert taught.lesson.calls["learning"]["decoder"] == before.get("decoder", 0) + 1
    del taught.lesson.calls["learning"]["decoder"]
    hooks = [part._forward_hooks for part in taught.model.vae.modules()]
    assert not any(hooks)  # nothing of the counting stays


def test_the_dice_are_seeded(tiny_model):
    one, two, other = (
        last(Lesson(tiny_model, seed=seed).learn(600, steps=2)).losses for seed in (1, 1, 2)
    )
    assert np.array_equal(one, two) and not np.array_equal(one, other)


def test_what_was_taught_is_a_model_like_any_other(taught):
    whole, side = taught.lesson.model, taught.lesson.size
    trace = dl.generate(whole, lessons.PROMPTS[0], seed=1, num_steps=2, progress=False)
    assert trace.image.size == (side, side) and trace.settings.model.startswith("a lesson on")
    assert not any(part.training for part in whole.unet.modules())


def test_a_second_lesson_goes_on(tiny_model):
    made = Lesson(tiny_model, seed=1)
    first = last(made.learn(600, steps=2))
    both = last(made.learn(600, steps=3))
    assert both.steps == 5 and np.array_equal(both.losses[:2], first.losses)
    assert (np.diff(both.seconds) > 0).all() and len(both.moments) > len(first.moments)


def test_time_ends_a_lesson_and_records_come_in_between(tiny_model):
    records = list(Lesson(tiny_model, seed=1).learn(0.5, every=0.01))
    steps = [record.steps for record in records]
    assert steps == sorted(steps) and steps[0] == 0 and steps[-1] >= 1
    assert records[0].moments and not records[-1].stopped


@pytest.mark.parametrize("kind", ["eps", "v", "x0"])
def test_each_kind_of_prediction_has_its_target(tiny_model, kind):
    schedule = dataclasses.replace(tiny_model.schedule, prediction_type=kind)
    made = Lesson(dataclasses.replace(tiny_model, schedule=schedule))
    asked = {}

    class Knows(torch.nn.Module):
        """A network that is handed the answer: the target that belongs to its input."""

        def __init__(self):
            super().__init__()
            self.conv_in = made.unet.conv_in

        def forward(self, noisy, told, texts):
            alpha, sigma = schedule.alpha[500], schedule.sigma[500]
            eps = (noisy - alpha * asked["clean"]) / sigma
            v = alpha * eps - sigma * asked["clean"]
            return {"x0": asked["clean"], "eps": eps, "v": v}[kind]

    asked["clean"] = made._clean[:4]
    times, dice = np.full(4, 500), torch.Generator().manual_seed(1)
    errors = made.errors(Knows(), asked["clean"], made._rows[:4], times, dice)
    assert float(errors.detach().max()) < 1e-9
    other = made.errors(made.unet, asked["clean"], made._rows[:4], times, dice)
    assert float(other.detach().min()) > 0.01  # a network that knows nothing is told from it


def test_the_captions_are_known_and_the_prompts_among_them():
    texts = [text for text, _ in lessons.captions()]
    assert len(set(texts)) == len(texts) == 12 and set(lessons.PROMPTS) <= set(texts)
    assert all(set(text.split()) <= set(known()) for text in texts)


def known() -> list[str]:
    return dl.load().config["toyland"]["words"]


def test_an_interrupt_ends_it_with_its_record(tiny_model, capsys):
    records = Lesson(tiny_model, seed=1).learn(600, steps=50, every=1e-9)
    assert next(records).steps == 0
    stopped = records.throw(KeyboardInterrupt())
    assert stopped.stopped and stopped.moments and "its record so far is kept" in _told(capsys)
    assert not list(records)


def _told(capsys) -> str:
    heard = capsys.readouterr()
    return heard.out + heard.err


@pytest.mark.parametrize("given", [{"seconds": 0}, {"seconds": True}, {"steps": 0}, {"steps": "2"}])
def test_bad_times_are_refused(taught, given):
    with pytest.raises(InputError, match=r"a number above 0 is allowed, e\.g\. 45"):
        taught.lesson.learn(**given)


# ---- shown while it grows --------------------------------------------------------------------
def counting():
    yield from (1, 2, 3)


def test_without_a_page_the_last_record_comes_back(capsys):
    assert watch(counting()) == 3 and _told(capsys) == ""


def test_on_a_page_one_place_is_filled_again_and_again(monkeypatch):
    shown = []
    place = SimpleNamespace(update=lambda record: shown.append(("again", record)))

    def display(record, display_id):
        shown.append(("first", record))
        return place

    monkeypatch.setattr(IPython, "get_ipython", lambda: object())
    monkeypatch.setattr("IPython.display.display", display)
    assert watch(counting()) == 3
    assert shown == [("first", 1), ("again", 2), ("again", 3)]


def test_an_interrupt_while_drawing_keeps_what_there_is(monkeypatch):
    def grows():
        try:
            yield 1
            yield 2
        except KeyboardInterrupt:
            yield "the end"

    def interrupted(record, place):
        if record == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("diffusionlab.course.live._shown", interrupted)
    assert watch(grows()) == "the end"
    assert watch(iter_of(1, 2)) == 2  # this one does not listen; what came last is kept


def iter_of(*values):
    yield from values


def test_only_generators_of_something_are_watched():
    with pytest.raises(InputError, match="a generator of records is allowed"):
        watch([1, 2])
    with pytest.raises(InputError, match="ended before the first one"):
        watch(iter_of())


# ---- numbers and ink -------------------------------------------------------------------------
def test_the_running_mean_is_that_of_the_neighbours():
    curve = loss_curve(learning(steps=4))
    wanted = [(1 + 1 / 2) / 2, (1 + 1 / 2 + 1 / 3) / 3, (1 / 2 + 1 / 3 + 1 / 4) / 3, 7 / 24]
    assert np.allclose(curve.smooth, wanted, atol=1e-12)
    assert loss_curve(learning(steps=0)).smooth.size == 0


def test_the_loss_by_level_is_the_last_look_against_the_first():
    found = level_losses(learning(looks=3))
    assert np.allclose(found.left, 1 / 3) and found.before.tolist() == [4, 2, 1]
    assert found.best == 0.1
    with pytest.raises(InputError, match="no look"):
        level_losses(learning(looks=0))


def texts(figure) -> str:
    return "\n".join(t.get_text() for t in figure.findobj(matplotlib.text.Text))


def test_the_plot_shows_every_look_beside_the_aim():
    figure = plot_learning(learning())
    assert len(figure.findobj(matplotlib.image.AxesImage)) == 2 * (1 + 3)
    assert "the aim" in texts(figure) and "20 s\nstep 2" in texts(figure)
    assert "step 4, 40 s" in texts(figure) and "30.00" not in figure.alt
    assert "4.00 to 1.33 at karras_sigma 0.1" in figure.alt
    line = next(a for a in figure.findobj(matplotlib.lines.Line2D) if a.get_label() == "before")
    assert line.get_ydata().tolist() == [4, 2, 1]


def test_a_lesson_that_has_just_begun_is_drawn_too():
    figure = plot_learning(learning(steps=0, looks=1))
    assert "no step yet" in texts(figure) and "0 steps" in figure.alt
    many = plot_learning(learning(looks=9))
    assert len(many.findobj(matplotlib.image.AxesImage)) == 2 * 6  # the aim and five of the looks


def test_losses_that_are_not_finite_are_told():
    losses = np.array([1.0, np.nan, 0.5, 0.4])
    figure = plot_learning(dataclasses.replace(learning(), losses=losses))
    assert re.search(r"\b1 of \d+ values are NaN or infinite", texts(figure))
    assert "NaN" not in texts(plot_learning(learning()))


# ---- named cells -----------------------------------------------------------------------------
def test_overlap_known_by_hand():
    assert ious(named()) == {"cat": 0.5, "car": 0.0}
    assert share_right(named()) == 0.75
    same = dataclasses.replace(named(), found=named().true)
    assert ious(same) == {"cat": 1.0} and share_right(same) == 1
    with pytest.raises(InputError, match="both need one shape"):
        ious(dataclasses.replace(named(), found=np.zeros((2, 2))))


def test_the_plot_paints_what_was_found_beside_what_is_there():
    figure = plot_segmentation(named())
    _, found, true = (image.get_array() for image in figure.findobj(matplotlib.image.AxesImage))
    assert len(np.unique(found.reshape(-1, 3), axis=0)) == 3  # nothing, cat, car
    assert len(np.unique(true.reshape(-1, 3), axis=0)) == 2
    assert np.allclose(found[0, 0], true[0, 0]) and not np.allclose(found[0, 3], true[0, 3])
    assert "75% of the cells right" in texts(figure) and "cat 0.50, car 0.00" in figure.alt


def test_the_shipped_segmenter_names_what_it_was_shown():
    record = name_cells(scene(3, SMALL, object="car", colour="red", setting="city", time="day"))
    assert record.true.shape == record.found.shape == (64, 64)
    assert ious(record)["car"] > 0.5 and share_right(record) > 0.8
    shown = [scene(30_000_000 + i, SMALL, object="house") for i in range(3)]
    blind = Segmenter()
    with torch.no_grad():
        blind.classes.weight.zero_()
        blind.classes.bias.zero_()
    assert overlaps(shown).mean() > 0.5 and overlaps(shown, blind).mean() == 0


def test_the_examples_show_what_their_captions_say(taught):
    shown = taught.lesson.examples
    assert tuple(shown) == lessons.PROMPTS
    light = {text: np.asarray(image).mean() for text, image in shown.items()}
    day = min(value for text, value in light.items() if "day" in text)
    assert day > 1.5 * max(value for text, value in light.items() if "night" in text)
    red, blue = (np.asarray(shown[p]).mean(axis=(0, 1)) for p in lessons.PROMPTS[:2])
    assert red[0] - red[2] > blue[0] - blue[2]
