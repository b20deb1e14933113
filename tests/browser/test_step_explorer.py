"""The step explorer in Chromium: what stands on the page is what the trace holds at that step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import traces
from hosts import HOSTS

from diffusionlab.analysis.attention import attention_maps
from diffusionlab.analysis.attention_tokens import words_at
from diffusionlab.analysis.guidance import recombine
from diffusionlab.analysis.updates import coefficients
from diffusionlab.trace import Guidance
from diffusionlab.views import explore

TAP = "mid_block.attn2.probabilities"
SIZES = ((1024, 768), (1920, 1080), (390, 844))


def run(**changes):
    """Five steps without frames, whose maps have no two equal cells."""
    maps = np.random.default_rng(3).random((5, 3, 4, 12)) ** 3
    maps = (maps / maps.sum(axis=-1, keepdims=True)).astype(np.float16)
    return traces.trace(**({"frames": (), "attention": {TAP: maps}} | changes))


def until(view, check, what: str = "the page never got there"):
    """Wait until a check holds; returns what it found."""
    for _ in range(400):
        found = check()
        if found:
            return found
        view.page.wait_for_timeout(25)
    raise AssertionError(what)


def pixels(view, figure: int, overlay: bool = False) -> np.ndarray:
    """What a visible picture of the row shows: uint8 (h, w, 4)."""
    place = f".pictures figure:visible >> nth={figure}"
    canvas = view.frame.locator(f"{place} >> canvas.overlay" if overlay else
                                f"{place} >> canvas[role=img]")  # fmt: skip
    wide, tall, data = canvas.evaluate(
        "c => [c.width, c.height, "
        "[...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]]"
    )
    return np.array(data, np.uint8).reshape(tall, wide, 4)


def shows(view, figure: int, wanted: np.ndarray) -> None:
    """The picture is that one to the last bit (it may still be being decoded)."""
    until(view, lambda: np.array_equal(pixels(view, figure)[..., :3], wanted), f"picture {figure}")


def equation(trace, step: int) -> str:
    names = {"x_t": "x_t", "x0": "x0-hat"}
    terms = [f"{float(f'{c.weight:.3g}'):g} · {names[c.kind]}"
             for c in coefficients(trace.steps[step])]  # fmt: skip
    return "x_next = " + " + ".join(terms)


def at_step(view, trace, step: int) -> None:
    """Pictures, equation, facts and slider are those of the step."""
    level = trace.steps[step].level
    slider = view.frame.locator(".player input[type=range]")
    wanted = f"step {step} of 4, timestep {level.timestep:.4g}"
    until(view, lambda: slider.get_attribute("aria-valuetext").startswith(wanted), wanted)
    shows(view, 0, trace.preview.rgb(trace.steps[step].latent))
    shows(view, 1, trace.preview.rgb(trace.x0s[step]))
    assert view.frame.locator(".equation").text_content() == equation(trace, step)
    facts = dict(view.js("[...document.querySelectorAll('.facts div')].map("
                         "(d) => [...d.children].map((c) => c.textContent))"))  # fmt: skip
    assert facts["network calls"] == f"{step + 1} of 5"
    for name in ("alpha", "sigma", "karras_sigma"):
        assert float(facts[name]) == pytest.approx(getattr(level, name), rel=6e-3), name
    label = view.frame.locator(".pictures canvas[role=img]").first.get_attribute("aria-label")
    assert label.startswith(f"x_t at {wanted}")


# ---- scrubbing ---------------------------------------------------------------------------------
@pytest.mark.parametrize("host", HOSTS)
def test_scrubbing_by_keyboard_and_mouse(opened, host):
    trace = run()
    view = opened(explore(trace), host)
    slider = view.frame.locator(".player input[type=range]")
    at_step(view, trace, 0)
    slider.focus()
    for key, step in (("ArrowRight", 1), ("End", 4), ("ArrowLeft", 3), ("Home", 0), ("PageUp", 4)):
        view.press(key)
        at_step(view, trace, step)
    box = slider.bounding_box()
    slider.click(position={"x": box["width"] / 2, "y": box["height"] / 2})
    at_step(view, trace, 2)
    view.frame.locator(".strip button").nth(1).click()
    at_step(view, trace, 1)


def test_a_small_picture_ends_the_playing(opened):
    view = opened(explore(run()), clock=True)
    view.frame.locator(".play").click()
    view.page.clock.run_for(600)
    view.frame.locator(".strip button").nth(3).click()
    view.page.clock.run_for(5000)
    assert view.frame.locator(".player output").text_content() == "step 3 of 4"
    view.page.keyboard.press("ArrowLeft")
    assert view.frame.locator(".player output").text_content() == "step 2 of 4"


def test_a_chosen_word_leaves_the_arrows_to_the_steps_and_shows_its_pieces(opened):
    view = opened(explore(run()))
    line = view.frame.locator(".word-pieces")
    assert "Choose a word" in line.text_content()
    view.frame.locator(".words .choice", has_text="scraper").click()
    assert line.text_content() == "scraper is read as scra 900 + per 901"
    view.page.keyboard.press("ArrowRight")
    assert view.frame.locator(".player output").text_content() == "step 1 of 4"
    assert "scraper" in line.text_content()


def test_a_rest_of_rounding_is_no_term(opened):
    trace = run()
    last = replace(trace.steps[4], update=replace(trace.steps[4].update, a=8.12e-10))
    view = opened(explore(replace(trace, steps=(*trace.steps[:4], last))))
    view.press("End")
    assert view.frame.locator(".equation").text_content().startswith("x_next = 0 · x_t + ")


def test_without_predictions_there_is_no_strip(opened):
    trace = run()
    bare = replace(trace, steps=tuple(replace(s, predictions=()) for s in trace.steps))
    view = opened(explore(bare))
    assert view.frame.locator(".strip").is_hidden()
    assert "guidance4" in view.frame.locator(".facts").text_content()
    assert "cut off: at night" in view.frame.locator(".dl").inner_text()


def test_that_comparison_can_fail(opened):
    trace = run()
    view = opened(explore(trace))
    at_step(view, trace, 0)
    with pytest.raises(AssertionError):
        assert view.frame.locator(".equation").text_content() == equation(trace, 1)
    assert not np.array_equal(pixels(view, 0)[..., :3], trace.preview.rgb(trace.latents[1]))


def test_keys_work_from_everywhere_and_tab_reaches_everything(opened):
    view = opened(explore(run()))
    seen = []
    for _ in range(24):
        view.page.keyboard.press("Tab")
        seen.append(view.js("(document.activeElement.getAttribute('aria-label') "
                            "|| document.activeElement.textContent).slice(0, 23)"))  # fmt: skip
    for wanted in ("x0-hat: arrow keys move", "final picture", "<start>", "behind the equation",
                   "play", "step", "speed of playing", "Present (p)"):  # fmt: skip
        assert wanted in seen, (wanted, seen)
    view.frame.locator(".words button").nth(2).focus()
    view.page.keyboard.press("PageUp")
    assert view.frame.locator(".player output").text_content() == "step 4 of 4"


@pytest.mark.parametrize("host", HOSTS)
def test_play_and_pause(opened, host):
    view = opened(explore(run()), host)
    number, play = view.frame.locator(".player output"), view.frame.locator(".player .play")
    assert number.text_content() == "step 0 of 4"  # nothing moves by itself
    view.frame.locator("select.speed").select_option("fast")
    play.click()
    assert play.get_attribute("aria-label") == "pause"
    until(view, lambda: number.text_content() != "step 0 of 4")
    play.click()
    if play.get_attribute("aria-label") == "play":
        stopped = number.text_content()
        view.page.wait_for_timeout(100)
        assert number.text_content() == stopped
    view.frame.locator(".player input").focus()
    view.press("Home")
    view.press("Space")
    until(view, lambda: number.text_content() == "step 4 of 4")
    until(view, lambda: play.get_attribute("aria-label") == "play", "it stops at the end")


# ---- attention ---------------------------------------------------------------------------------
@pytest.mark.parametrize("host", HOSTS)
def test_a_word_lights_its_map(opened, host):
    trace = run()
    view = opened(explore(trace), host)
    found = attention_maps(trace, by="step")
    button = view.frame.get_by_role("button", name="sky", exact=True)
    overlay = view.frame.locator(".pictures figure:visible >> nth=1 >> canvas.overlay")
    assert overlay.is_hidden()
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    view.frame.locator(".player input").focus()
    for step, key in ((0, "Home"), (3, "End")):
        view.press(key)
        if step == 3:
            view.press("ArrowLeft")
        lit(view, found.maps[found.words.index("sky"), step])
    legend = view.frame.locator(".pictures figure:visible >> nth=1 >> .scale")
    top = found.maps[found.words.index("sky"), 3].max()
    assert legend.text_content() == f"0{float(f'{top:.2g}'):g}probability of sky"
    button.click()
    until(view, lambda: overlay.is_hidden() or view.frame.evaluate("document.activeElement.blur()"))


def lit(view, wanted: np.ndarray) -> None:
    """The overlay of x0-hat rises with the map (viridis: its green); the final picture is clear."""
    green = pixels(view, 1, overlay=True)[..., 1].astype(float)
    assert green.shape == wanted.shape
    order = np.argsort(wanted.ravel())
    assert (np.diff(green.ravel()[order]) >= -2).all()
    assert green.max() > 220 and green.min() < 160
    assert not pixels(view, 2, overlay=True)[..., 3].any()


def test_hover_focus_and_tap_light_a_word_too(opened):
    view = opened(explore(run()), has_touch=True)
    overlay = view.frame.locator(".pictures figure:visible >> nth=1 >> canvas.overlay")
    buttons = view.frame.locator(".words .choice")
    buttons.nth(2).hover()
    assert overlay.is_visible()
    view.frame.locator("h2").hover()
    assert overlay.is_hidden()
    buttons.first.focus()
    assert overlay.is_visible()
    view.press("ArrowRight")  # moves on within the row, and not the step
    assert view.js("document.activeElement.textContent") == "a"
    assert view.frame.locator(".player output").text_content() == "step 0 of 4"
    view.js("document.activeElement.blur()")
    assert overlay.is_hidden()
    buttons.nth(3).tap()
    assert overlay.is_visible()
    assert buttons.nth(3).get_attribute("aria-pressed") == "true"


def ranking(view) -> list[tuple[str, float]]:
    """What the page says of a place: (name, percent)."""
    rows = view.js(
        "[...document.querySelectorAll('.ranked li')].map((li) => "
        "[li.querySelector('bdi').textContent, li.querySelector('b').textContent])"
    )
    return [(name, float(text.removesuffix(" %"))) for name, text in rows]


def says_words_of(view, trace, step: int, row: int, column: int) -> None:
    pixel = (column * 64 // 4 + 2, row * 48 // 3 + 2)  # the picture is 64 × 48, the map 4 × 3
    wanted = words_at(trace, pixel, steps=step)
    where = view.frame.locator(".ranked .where")
    until(view, lambda: where.text_content() == f"row {row}, column {column}:", where)
    found = ranking(view)
    order = np.argsort(-wanted.probabilities[0], kind="stable")
    assert [name for name, _ in found[:4]] == [wanted.words[i] for i in order]
    for (_, percent), i in zip(found, order, strict=False):
        assert percent == pytest.approx(100 * wanted.probabilities[0, i], abs=0.6)
    assert found[-1][1] == pytest.approx(100 * wanted.rest.sum(), abs=1)
    assert sum(percent for _, percent in found) == pytest.approx(100, abs=2)


def test_a_place_tells_its_words_by_pointer_and_by_keys(opened):
    trace = run()
    view = opened(explore(trace))
    glass = view.frame.locator(".pictures figure:visible >> nth=1 >> .glass")
    assert view.frame.locator(".ranked .where").text_content() == "everywhere:"
    box = glass.bounding_box()
    glass.hover(position={"x": box["width"] * 0.9, "y": box["height"] * 0.1})
    says_words_of(view, trace, 0, 0, 3)
    view.frame.locator("h2").hover()
    assert view.frame.locator(".ranked .where").text_content() == "everywhere:"
    glass.focus()
    for key, place in (("ArrowUp", (1, 2)), ("ArrowUp", (0, 2)), ("ArrowLeft", (0, 1)),
                       ("ArrowUp", (0, 1)), ("ArrowDown", (1, 1))):  # fmt: skip
        view.press(key)
        says_words_of(view, trace, 0, *place)
    assert view.frame.locator(".player output").text_content() == "step 0 of 4"
    view.press("End")
    says_words_of(view, trace, 4, 1, 1)
    view.press("Escape")
    assert view.frame.locator(".ranked .where").text_content() == "everywhere:"
    glass.click(position={"x": box["width"] * 0.1, "y": box["height"] * 0.9})
    view.frame.locator("h2").hover()
    says_words_of(view, trace, 4, 2, 0)


# ---- the third picture and the dial ------------------------------------------------------------
def test_the_third_picture(opened):
    trace = run()
    view = opened(explore(trace))
    shows(view, 2, np.asarray(trace.image))
    view.press("2")
    shows(view, 2, trace.preview.rgb(trace.eps[0]))
    view.press("End")
    shows(view, 2, trace.preview.rgb(trace.eps[4]))
    view.frame.get_by_role("radio", name="cond − uncond").click()
    assert pixels(view, 2).shape == (6, 8, 4)
    assert "|cond − uncond|" in view.frame.locator(
        ".pictures figure:visible >> nth=2 >> .scale >> visible=true").text_content()  # fmt: skip
    view.press("1")
    shows(view, 2, np.asarray(trace.image))


def rescaled(trace, guidance: Guidance):
    """The run as one with an interval and a rescale: step 0 is outside the interval."""

    def call(p):
        if guidance.at(p.level) == 1:
            return replace(p, uncond=None, guidance_scale=1.0)
        return replace(p, guidance_rescale=guidance.rescale)

    steps = [replace(s, predictions=tuple(map(call, s.predictions))) for s in trace.steps]
    settings = replace(trace.settings, guidance_interval=guidance.interval,
                       guidance_rescale=guidance.rescale)  # fmt: skip
    return replace(trace, steps=tuple(steps), settings=settings)


@pytest.mark.parametrize("guidance", [Guidance(4.0), Guidance(4.0, (0.3, 10.0), 0.7)], ids=str)
def test_the_dial_recombines_as_the_analysis_does(opened, guidance):
    trace = rescaled(run(), guidance)
    view = opened(explore(trace))
    view.press("4")
    slider = view.frame.get_by_label("guidance of this step alone")
    for step in range(5):
        view.press("Home") if step == 0 else view.frame.locator(".player input").press("ArrowRight")
        call = trace.steps[step].predictions[0]
        if call.uncond is None:
            assert slider.is_disabled()
            told = view.frame.locator(".pictures .missing:visible").text_content()
            assert "at karras_sigma" in told and "the unconditional pass was not run" in told
            continue
        for g in (0, 1, 4, 7.5, 12):
            slider.evaluate("(s, g) => { s.value = g; s.dispatchEvent(new Event('input')); }", g)
            wanted = recombine(call, Guidance(g, rescale=guidance.rescale)).x0
            off = pixels(view, 2)[..., :3].astype(int) - trace.preview.rgb(wanted).astype(int)
            assert np.abs(off).max() <= 1, (step, g)
        own = pixels(view, 1)[..., :3].astype(int) - trace.preview.rgb(call.x0).astype(int)
        assert np.abs(own).max() <= 1
        assert "not a new run" in view.frame.locator(".pictures figcaption:visible >> nth=2"
                                                     ).text_content()  # fmt: skip


def test_the_dial_by_keyboard_and_its_stops(opened):
    view = opened(explore(run()))
    view.press("4")
    slider = view.frame.get_by_label("guidance of this step alone")
    assert slider.get_attribute("aria-valuetext") == "guidance 4, the run's"
    slider.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == "guidance 4.1"
    assert view.frame.locator(".player output").text_content() == "step 0 of 4"
    for name, text in (
        ("0", "guidance 0"),
        ("1", "guidance 1"),
        ("4, the run's", "guidance 4, the run's"),
    ):
        view.frame.get_by_role("button", name=name, exact=True).click()
        assert slider.get_attribute("aria-valuetext") == text


# ---- what is missing ---------------------------------------------------------------------------
def test_what_is_not_there_is_said(opened):
    whole = run(preview=None, attention={})
    calls = [
        replace(
            s, predictions=tuple(replace(p, uncond=None, guidance_scale=1.0) for p in s.predictions)
        )
        for s in whole.steps[:3]
    ]
    trace = replace(whole, steps=tuple(calls), image=None,
                    settings=replace(whole.settings, guidance_scale=1.0))  # fmt: skip
    view = opened(explore(trace))
    text = view.frame.locator(".dl").inner_text()
    assert "the run was stopped after 3 of 5 steps" in text
    assert "No attention was recorded" in text
    assert all(view.js("[...document.querySelectorAll('.words button')].map((b) => b.disabled)"))
    for key in ("3", "4"):
        view.press(key)
        told = view.frame.locator(".pictures .missing:visible")
        assert told.text_content().startswith("This run has guidance 1")
    assert view.frame.get_by_label("guidance of this step alone").is_disabled()


def odd_runs():
    """Runs that a view could stumble over."""
    whole = run()
    bad = np.array(whole.steps[2].latent)
    bad[0, 1, 1] = np.nan
    call = replace(whole.steps[2].predictions[0], latent=bad)
    steps = list(whole.steps)
    steps[2] = replace(steps[2], latent=bad, predictions=(call,))
    maps = np.array(whole.attention[TAP])
    maps[1, 0, 0, 2] = np.nan
    text = "قطة حمراء 🐈‍⬛ في الليل"
    settings = replace(whole.settings, prompt=text)
    return {
        "one step": replace(whole, steps=whole.steps[:1], attention={TAP: maps[:1]}),
        "NaN": replace(whole, steps=tuple(steps), attention={TAP: maps}),
        "redacted": replace(whole, tokens=None),
        "no predictions": replace(
            whole, steps=tuple(replace(s, predictions=()) for s in whole.steps)
        ),
        "Arabic": replace(
            whole, settings=settings, tokens=replace(whole.tokens, words=tuple(text.split()[:4]))
        ),
    }


@pytest.mark.parametrize("name", odd_runs())
def test_odd_runs_open_and_scrub(opened, name):
    trace = odd_runs()[name]
    view = opened(explore(trace))
    last = len(trace.steps) - 1
    for key in ("2", "3", "4", *["ArrowRight"] * last, "1"):
        view.press(key)
    assert view.frame.locator(".player output").text_content() == f"step {last} of {last}"
    if name == "NaN":
        view.press("Home")
        view.frame.locator(".words .choice", has_text="red").click()
        view.frame.locator(".player input").press("ArrowRight")
        legend = view.frame.locator(".pictures .scale:visible").first.text_content()
        assert legend == "0–NaN or infinity in red"
        view.frame.locator(".player input").press("ArrowRight")
        told = view.frame.locator(".pictures .missing:visible").all_text_contents()
        assert len(told) == 2
        assert all("NaN or infinity" in text for text in told)
        assert "CHECK FAILED" in view.frame.locator(".warn").all_text_contents()[0]
    if name == "Arabic":
        assert trace.settings.prompt in view.frame.locator("h2").text_content()


# ---- how it looks ------------------------------------------------------------------------------
@pytest.mark.parametrize("host", HOSTS)
def test_present_mode(opened, host):
    view = opened(explore(run()), host)
    view.frame.locator(".player input").focus()
    view.press("p")
    until(view, lambda: view.js("document.querySelector('.dl').classList.contains('present')"))
    assert view.frame.locator(".facts").is_hidden()
    assert view.frame.locator(".equation").is_visible()
    size = "parseFloat(getComputedStyle(document.querySelector('.equation')).fontSize)"
    assert view.js(size) >= 20
    view.press("ArrowRight")
    assert view.frame.locator(".player output").text_content() == "step 1 of 4"
    view.press("p")
    until(view, lambda: view.frame.locator(".facts").is_visible())


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_it_fits_every_screen(opened, width, height):
    frames = run().frames or traces.trace().frames
    view = opened(explore(run(frames=frames)), width=width, height=height)
    view.press("PageUp")
    for name, keys in (("normal", ""), ("dark", "t"), ("present", "tp"), ("dial", "4")):
        for key in keys:
            view.press(key)
        wide = view.js("[document.documentElement.scrollWidth, innerWidth]")
        assert wide[0] <= wide[1], name
        player = view.frame.locator(".player").bounding_box()
        assert player["y"] + player["height"] <= height + 1, name
        if width > 400:
            assert view.js(
                "document.querySelector('.player').getBoundingClientRect().top >= "
                "document.querySelector('.equation').getBoundingClientRect().bottom"
            )
