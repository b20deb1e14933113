"""The schedule explorer without a browser: its numbers, its sentences, its page, its errors."""

from __future__ import annotations

import base64
import math
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import traces
from runs_of_x0 import noising as constructed

from diffusionlab.analysis.bands import band_shares
from diffusionlab.analysis.noising import noising_curve
from diffusionlab.errors import InputError
from diffusionlab.samplers import ddim, make_plan
from diffusionlab.schedule import NoiseSchedule, custom_spacing
from diffusionlab.views import explore_schedule
from diffusionlab.views.forward import drawing, latent_mix, pixel_mix


def unpacked(value: dict) -> np.ndarray:
    kind = np.dtype(value["kind"]).newbyteorder("<")
    return np.frombuffer(base64.b64decode(value["data"]), kind).reshape(value["shape"])


def row_of(view, name: str) -> dict:
    return next(row for row in view.data["rows"] if row["name"] == name)


def run_of(view, name: str, steps: int) -> dict:
    return row_of(view, name)["runs"][view.data["steps"].index(steps)]


# ---- numbers ----------------------------------------------------------------------------------
def test_the_levels_and_shares_are_the_schedule_s():
    schedule = traces.schedule()
    view = explore_schedule(schedule)
    assert view.data["rows"][0]["name"] == schedule.spacing and view.data["rows"][0]["own"]
    for name in ("trailing", "karras"):
        for steps in (5, 50):
            levels, run = schedule.levels(steps, name), run_of(view, name, steps)
            known = [[x.timestep, x.karras_sigma] for x in levels]
            assert np.allclose([x[:2] for x in run["levels"]], known, rtol=1e-12)
            logs = [x.log_snr for x in levels[:-1]]
            assert np.allclose([x[2] for x in run["levels"][:-1]], logs, atol=1e-12)
            assert run["levels"][-1][2] == "∞"  # the clean level
            assert run["shares"] == list(band_shares(levels))


def test_the_scrubber_s_stops_have_every_spelling_of_their_level():
    schedule = traces.schedule()
    places = explore_schedule(schedule).data["places"]
    times = [place["timestep"] for place in places]
    assert times == sorted(times, reverse=True) and (times[0], times[-1]) == (999, 0)
    for place in places[::10]:
        level = schedule.level_at(timestep=place["timestep"])
        assert place["alpha"] == level.alpha and place["sigma"] == level.sigma
        assert place["snr"] == level.snr and place["karras_sigma"] == level.karras_sigma
        assert place["log_snr"] == level.log_snr
        known = schedule.alpha_bar[int(level.timestep)]
        assert math.isclose(place["alpha_bar"], known, rel_tol=1e-12)


def test_a_check_of_numbers_can_fail():
    run = run_of(explore_schedule(traces.schedule()), "karras", 10)
    wrong = [[x.timestep, x.karras_sigma] for x in traces.schedule().levels(10, "exponential")]
    assert not np.allclose([x[:2] for x in run["levels"]], wrong, rtol=1e-12)


def test_solvers_have_their_calls_and_their_numbers():
    schedule = traces.schedule()
    view = explore_schedule(schedule, samplers=["heun", "dpmpp_2m", ddim(eta=0.5)], num_steps=7)
    assert view.data["samplers"] == ["heun", "dpmpp_2m", "ddim(eta=0.5)"]
    assert view.data["steps"] == [5, 7, 10, 20, 50] and view.live["steps"] == 1
    levels = schedule.levels(7, "karras")
    heun, second, noisy = run_of(view, "karras", 7)["plans"]
    assert (heun["calls"], second["calls"]) == (13, 7)
    planned = make_plan("heun", levels, schedule)
    for told, step in zip(heun["steps"], planned, strict=True):
        assert told["at"] == [stage.level.log_snr for stage in step.stages]
        assert told["a"] == step.update.a
        assert [t["weight"] for t in told["terms"]] == [t.weight for t in step.update.terms]
    assert [t["ago"] for t in heun["steps"][1]["terms"]] == [0, -1]  # this call, its second one
    assert sorted(t["ago"] for t in second["steps"][2]["terms"]) == [0, 1]
    assert noisy["steps"][2]["noise"][0]["weight"] > 0


def test_no_solvers_on_request():
    view = explore_schedule(traces.schedule(), samplers=())
    assert view.data["samplers"] == [] and run_of(view, "karras", 20)["plans"] == []


# ---- sentences --------------------------------------------------------------------------------
def test_the_sentence_is_about_the_band_that_differs_most():
    view = explore_schedule(replace(traces.schedule(), spacing="trailing"))
    told = run_of(view, "karras", 20)["told"]
    assert told == (
        "karras begins 5 of 20 steps below karras_sigma 0.2; trailing, the checkpoint's own, "
        "0 of 20."
    )
    assert "the checkpoint's own spacing, begins 8 of 20" in run_of(view, "trailing", 20)["told"]


def test_a_run_that_never_sees_the_noisiest_level_says_so():
    view = explore_schedule(traces.schedule())
    start = run_of(view, "leading", 20)["start"]
    assert "begins at karras_sigma 11 (timestep 950), not at the noisiest level 14.6 (999)" in start
    assert run_of(view, "trailing", 20)["start"] == ""


def test_what_cannot_be_laid_says_why_in_its_row():
    text = custom_spacing(timesteps=[999, 500, 100])
    view = explore_schedule(traces.schedule(), spacings=["karras", text], samplers=["pndm"])
    assert "custom list of 3 steps" in run_of(view, text, 20)["error"]
    view = explore_schedule(traces.schedule(), steps=(3, 20), samplers=["pndm"])
    assert "pndm needs at least 4 steps" in run_of(view, "karras", 3)["plans"][0]["error"]
    assert "equal steps" in run_of(view, "karras", 20)["plans"][0]["error"]
    assert "error" not in run_of(view, "trailing", 20)["plans"][0]


def test_pure_noise_stands_at_the_edge_and_nothing_is_not_a_number():
    schedule = replace(traces.schedule(), prediction_type="v").zero_terminal_snr()
    view = explore_schedule(schedule)
    assert view.data["places"][0]["log_snr"] == "−∞"
    assert view.data["places"][0]["karras_sigma"] == "∞"
    assert run_of(view, "trailing", 20)["levels"][0][2] == "−∞"
    assert all(math.isfinite(end) for end in view.data["ends"])
    assert '"NaN"' not in view.page.split('id="state"')[1].split("</script>")[0]


# ---- pictures ---------------------------------------------------------------------------------
def test_the_built_in_drawing_is_the_same_twice_and_in_range():
    first, second = (explore_schedule(traces.schedule()).data["pictures"] for _ in range(2))
    assert first == second and "built-in drawing" in first["told"]
    picture = drawing()
    assert picture.shape == (96, 96, 3) and 0 <= picture.min() < 0.2 < 0.9 < picture.max() <= 1
    noise = unpacked(first["mixes"][0]["noise"]) * 2
    assert abs(noise.std() - 1) < 0.02


def test_a_noising_is_mixed_as_the_record_has_it():
    record = constructed()
    view = explore_schedule(record_schedule(record), noising=record)
    pixels, latent = view.data["pictures"]["mixes"]
    for i, level in enumerate(record.levels):
        clean, noise = unpacked(pixels["clean"]), unpacked(pixels["noise"])
        mixed = 2 * (level.alpha * clean.astype(float) + level.sigma * noise)
        assert np.allclose(mixed, record.noisy_pixels[i], atol=5e-3)
        x_t = level.alpha * unpacked(latent["clean"]) + level.sigma * unpacked(latent["noise"])
        seen = np.clip(x_t + latent["bias"], 0, 1) * 255
        assert np.abs(seen - record.preview.rgb(record.latents[i])).max() <= 0.51
    assert np.allclose(view.data["pictures"]["off"], noising_curve(record).x0_errors, rtol=1e-12)
    assert [place["timestep"] for place in view.data["places"]].count(record.levels[0].timestep)


def record_schedule(record) -> NoiseSchedule:
    schedule = traces.schedule()
    for level in record.levels:
        assert math.isclose(schedule.level_at(timestep=level.timestep).alpha, level.alpha)
    return schedule


def test_each_stop_shows_the_nearest_level_that_was_asked():
    record = constructed()
    view = explore_schedule(traces.schedule(), noising=record)
    shown = view.data["pictures"]
    for place, nearest in zip(view.data["places"], shown["nearest"], strict=True):
        gaps = [abs(place["timestep"] - asked) for asked in shown["asked"]]
        assert gaps[nearest] == min(gaps)
    assert len(shown["guesses"]["sources"]) == len(record.levels)


def test_a_large_picture_is_averaged_and_its_noise_stays_as_strong():
    random = np.random.default_rng(0)
    pixels, noise = random.uniform(-1, 1, (300, 400, 3)), random.normal(size=(300, 400, 3))
    found = pixel_mix("noisy", pixels, noise)
    assert (found["height"], found["width"]) == (75, 100) and "4 × 4" in found["label"]
    block = pixels[:4, :4].mean(axis=(0, 1)) / 2
    assert np.allclose(unpacked(found["clean"])[0, 0], block, atol=1e-3)
    assert abs(2 * unpacked(found["noise"]).std() - 1) < 0.02


def test_not_finite_pictures_say_so_and_no_preview_is_grey():
    random = np.random.default_rng(0)
    x0 = random.normal(size=(4, 6, 8))
    grey = latent_mix(x0, x0, None)
    assert "grey" in grey["label"] and np.ptp(unpacked(grey["clean"]), axis=-1).max() == 0
    x0[0, 0, 0] = np.nan
    assert "NaN" in latent_mix(x0, x0, None)["missing"]


# ---- errors -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"num_steps": 0}, "num_steps is 0; whole numbers from 1 to 200"),
        ({"num_steps": True}, "num_steps is True"),
        ({"steps": (5, 10**9)}, "steps is 1000000000; whole numbers from 1 to 200"),
        ({"steps": "many"}, "steps is 'many'"),
        ({"spacings": ["karas"]}, "did you mean 'karras'"),
        ({"spacings": []}, "spacings holds 0 names; 1 to 13"),
        ({"samplers": ["dim"]}, "ddim"),
        ({"samplers": ["ddim"] * 14}, "samplers holds 14; at most 13"),
        ({"noising": "x.png"}, "noising is str; a Noising"),
    ],
)
def test_bad_input_is_told(options, told):
    with pytest.raises(InputError, match=told):
        explore_schedule(traces.schedule(), **options)


def test_a_model_is_no_schedule_and_a_record_of_another_one_is_refused():
    with pytest.raises(InputError, match=r"pass model\.schedule"):
        explore_schedule("toyland")
    with pytest.raises(InputError, match="both must be of one model"):
        explore_schedule(NoiseSchedule.linear(), noising=constructed())


# ---- the page ---------------------------------------------------------------------------------
class Structure(HTMLParser):
    """Every element of a page with the names of its attributes."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, tuple(name for name, _ in attrs)))


@pytest.fixture(scope="module")
def harmless() -> list:
    """The structure of the page and of the notebook's output."""
    view = explore_schedule(traces.schedule(), noising=constructed())
    return structures(view)


def structures(view) -> list:
    return [Structure(text).found for text in (view.page, view._repr_mimebundle_()["text/html"])]


@pytest.mark.parametrize("text", traces.HOSTILE)
def test_a_hostile_name_and_prompt_change_no_element(text, harmless):
    record = replace(constructed(), prompt=text)
    assert structures(explore_schedule(
        replace(traces.schedule(), name=text), noising=record)) == harmless  # fmt: skip
    assert Structure(f"<b>{text}").found != harmless[0]


def test_the_page_is_small_and_its_sentence_is_made_from_numbers():
    view = explore_schedule(traces.schedule())
    assert len(view.page) < 700_000
    assert "14.6 down to 0.0292" in view.alt and view.alt.endswith(".")
    assert view.live["place"] == min(
        range(len(view.data["places"])), key=lambda i: abs(view.data["places"][i]["log_snr"])
    )


def test_the_still_is_the_plot_of_the_spacings():
    figure = explore_schedule(traces.schedule(), spacings=["karras", "trailing"]).to_figure()
    assert "Levels of 2 spacings" in figure.alt
    nothing = explore_schedule(
        traces.schedule(), spacings=[custom_spacing(timesteps=[999, 500])], num_steps=20
    )
    assert nothing.to_figure().alt


def test_widget_values_move_within_their_limits():
    widget = explore_schedule(traces.schedule()).widget()
    widget.place, widget.spacing = 3, 1
    with pytest.raises(Exception, match="spacing"):
        widget.spacing = 99
