"""What a notebook shows: a picture with alt text for each record, and no user text as HTML."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import traces
from runs_of_x0 import noising
from test_interior import small_anatomy as anatomy
from test_lesson import learning, named
from test_text import layers

from diffusionlab.display import TABLE, escaped, html_of
from diffusionlab.plan import PlannedStep
from diffusionlab.trace import Comparison, Latent, Merge, Merges

RUN = traces.trace(3)


def records(prompt: str = "a red sky scraper") -> list:
    """One record of every kind in the table, with the prompt in all its texts."""
    run = traces.trace(3, prompt=prompt)
    settings = replace(
        run.settings, negative_prompt=prompt, model=prompt, notices=(prompt,),
        sampler={"name": prompt, "options": {prompt: prompt}}, spacing=prompt,
    )  # fmt: skip
    tokens = replace(
        run.tokens, words=(prompt,) * 4, pieces=(prompt,) * 12, dropped_words=(prompt,),
        notices=(prompt,),
    )  # fmt: skip
    run = replace(run, settings=settings, tokens=tokens, attention={prompt: traces.attention(3)})
    step = run.steps[1]
    return [
        run,
        settings,
        tokens,
        replace(run.text_embedding, tokens=tokens),
        step,
        PlannedStep(step.level, step.next_level, step.stages, step.update),
        replace(run.predictions[0], preview=run.preview),
        Latent(run.latents[0], None, prompt, run.preview),
        replace(traces.schedule(), name=prompt),
        Comparison(prompt, (prompt, 2), (run, replace(run, image=None))),
        replace(noising(), prompt=prompt),
        replace(layers(), tokens=replace(layers().tokens, prompt=prompt)),
        replace(anatomy(), model=prompt),
        replace(learning(), model=prompt, prompts=(prompt, prompt)),
        replace(named(), network=prompt, names=("nothing", prompt, "car")),
        Merges(prompt, (prompt,), (Merge(prompt, prompt, 1, (prompt,)),), 1),
    ]


class Structure(HTMLParser):
    """The elements and attribute names of a page."""

    def __init__(self, page: str):
        super().__init__()
        self.found: Counter = Counter()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found[(tag, tuple(name for name, _ in attrs))] += 1

    def handle_data(self, data):
        self.text += data


def test_the_table_is_complete_here():
    assert {type(record) for record in records()} == set(TABLE)


@pytest.mark.parametrize("record", records(), ids=lambda r: type(r).__name__)
def test_every_record_shows_a_picture_or_a_table_and_its_numbers(record):
    page = html_of(record)
    tags = {tag for tag, _ in Structure(page).found}
    assert "table" in tags or {"figure", "img", "details"} <= tags
    assert repr(record).splitlines()[0] in Structure(page).text
    assert len(page) < 200_000 and "script" not in tags
    if hasattr(record, "_repr_html_"):
        assert record._repr_html_() == page


def test_hostile_texts_change_no_element_and_no_attribute():
    for harmless, hostile in zip(records("x"), records(" ".join(traces.HOSTILE)), strict=True):
        assert Structure(html_of(hostile)).found == Structure(html_of(harmless)).found


@pytest.mark.parametrize("payload", traces.HOSTILE)
def test_each_payload_alone_is_text(payload):
    settings = next(record for record in records(payload) if hasattr(record, "sampler_text"))
    page = Structure(html_of(settings))
    assert {tag for tag, _ in page.found} == {"div", "table", "tr", "th", "td", "bdi", "pre"}
    assert payload in page.text


def test_the_structure_check_can_fail():
    honest = Structure(f'<p title="{escaped(traces.HOSTILE[1])}">x</p>').found
    assert honest == Structure('<p title="y">x</p>').found
    assert Structure(f'<p title="{traces.HOSTILE[1]}">x</p>').found != honest


def test_alt_text_is_the_whole_prompt_in_words():
    page = html_of(RUN)
    assert "a red sky scraper" in page and "karras_sigma falls from 14.6 to 0" in page


def test_what_cannot_be_drawn_says_why():
    page = html_of(replace(RUN, preview=None, frames=()))
    assert "No picture" in page and "preview map" in page and "<pre" in page
    assert "stopped after 0 steps" in html_of(replace(RUN, steps=()))
    assert (
        html_of("<b>") == '<div><pre style="white-space:pre-wrap">&#x27;&lt;b&gt;&#x27;</pre></div>'
    )


def test_nan_is_told():
    values = np.full((4, 2, 2), np.nan, np.float32)
    assert "4 of 16" not in html_of(Latent(values))
    assert "no finite value among 16" in html_of(Latent(values, None, "draw_noise", RUN.preview))


def test_a_page_keeps_only_small_data():
    assert len(html_of(traces.trace(50))) < 200_000
