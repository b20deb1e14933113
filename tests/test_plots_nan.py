"""No plot hides a number that is not one: NaN is planted in every array of every plot's record."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from test_plots import NAMES, RECORDS
from test_plots_guidance import RUN as TRACE
from test_plots_guidance import run_at
from test_plots_latents import RUN

from diffusionlab import plots
from diffusionlab.analysis.guidance import dial
from diffusionlab.errors import InputError, NumericsError
from diffusionlab.plan import Step
from diffusionlab.plots.figure import colour

TOLD = ("NaN", "infinite", "CHECK FAILED")


# ---- planting ---------------------------------------------------------------------------------
def places(value: Any) -> Iterator[tuple]:
    """The way to every array of floats in a record, as keys of `planted`."""
    if isinstance(value, np.ndarray):
        if value.size and np.issubdtype(value.dtype, np.floating):
            yield ()
        return
    for key, part in parts(value):
        yield from ((key, *rest) for rest in places(part))


def parts(value: Any) -> list[tuple[Any, Any]]:
    if is_dataclass(value):
        return [(f.name, getattr(value, f.name)) for f in fields(value) if f.init]
    if isinstance(value, dict):
        return list(value.items())
    if isinstance(value, (tuple, list)):
        row = list(enumerate(value))  # of like records one is enough, of the steps the last too
        ends = row[-1:] if row and isinstance(row[-1][1], Step) else []
        return row if len(row) <= 2 else row[1:2] + ends
    return []


def planted(value: Any, way: tuple) -> Any:
    """A copy of a record whose array at the end of the way begins with NaN."""
    if not way:
        array = value.copy()
        array.flat[0] = np.nan
        return array
    key, *rest = way
    if is_dataclass(value):
        return replace(value, **{key: planted(getattr(value, key), rest)})
    if isinstance(value, dict):
        return {k: planted(part, rest) if k == key else part for k, part in value.items()}
    changed = [planted(part, rest) if i == key else part for i, part in enumerate(value)]
    return type(value)(changed)


# ---- what was drawn ---------------------------------------------------------------------------
def drawn(figure: Any) -> list[Any]:
    """The numbers and words of everything that a figure shows."""
    found: list[Any] = [text.get_text() for text in words(figure)]
    for axes in all_axes(figure):
        found += [np.asarray(image.get_array()) for image in axes.images]
        found += [line.get_xydata() for line in axes.lines]
        found += [axes.get_xlim(), axes.get_ylim()]
        for patch in axes.patches:
            found += [patch.get_path().vertices, patch.get_transform().frozen().get_matrix()[:2]]
            found.append(patch.get_facecolor())
        for some in axes.collections:
            found += [np.asarray(some.get_offsets()), some.get_facecolor()]
            found += [path.vertices for path in some.get_paths()]
    return found


def all_axes(figure: Any) -> list[Any]:
    """The Axes of a figure and those inside them."""
    found = list(figure.axes)
    for axes in found:
        found += [child for child in axes.child_axes if isinstance(child, Axes)]
    return found


def words(figure: Any) -> list[Any]:
    """All texts but those at the ticks, which take long to make."""
    found = list(figure.texts)
    for axes in all_axes(figure):
        found += [axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
        found += axes.get_legend().get_texts() if axes.get_legend() else []
    return found


def alike(some: list[Any], others: list[Any]) -> bool:
    pairs = list(zip(some, others, strict=False))
    return len(some) == len(others) and all(
        np.array_equal(a, b, equal_nan=not isinstance(a, str)) for a, b in pairs
    )


def red(figure: Any) -> str:
    """All that is written in vermilion."""
    return " ".join(t.get_text() for t in words(figure) if t.get_color() == colour("vermilion"))


def bare(run: Any) -> Any:
    """A run that is drawn from its latents."""
    return replace(run, image=None, frames=())


def cases() -> list[Any]:
    """Every plot's record, and those that show other parts of it: (plot, record, options)."""
    found = [pytest.param(name, RECORDS[name], {}, id=name) for name in NAMES]
    runs, honesty = RECORDS["plot_sampler_grid"], RECORDS["plot_honesty"]
    others = [
        ("plot_commitment", replace(bare(RUN), steps=RUN.steps[:4]), {}),
        ("plot_difference", replace(runs, traces=tuple(bare(run) for run in runs.traces)), {}),
        ("plot_features", RECORDS["plot_features"], {"steps": [0, 2]}),
        ("plot_guidance", RECORDS["plot_guidance"], {"channels": True, "steps": [0, 2]}),
        ("plot_guidance_dial", dial(TRACE, 1, [0, 4], run=run_at), {}),
        ("plot_honesty", replace(honesty, what="latents", images=()), {}),
        ("plot_latent_histogram", RECORDS["plot_trace"], {"step": 2}),
        ("plot_sampler_grid", replace(runs, traces=tuple(bare(run) for run in runs.traces)), {}),
    ]
    for number, (name, record, options) in enumerate(others):
        found.append(pytest.param(name, record, options, id=f"{name}-{number}"))
    return found


@pytest.mark.parametrize(("name", "record", "options"), cases())
def test_no_plot_hides_a_number_that_is_not_one(name, record, options):
    plot, hidden, changed = getattr(plots, name), [], None
    before = drawn(plot(record, **options))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for way in places(record):
            try:
                figure = plot(planted(record, way), **options)
            except (InputError, NumericsError) as error:
                told = str(error)
            else:
                if alike(before, drawn(figure)):
                    continue
                told, changed = red(figure), figure
            if not any(word in told for word in TOLD):
                hidden.append((way, told[:80]))
        if changed is not None:
            changed.to_png(dpi=20)  # drawing warns of nothing
    assert not hidden


def test_a_hidden_number_is_found():
    record = RECORDS["plot_latent"]
    way = ("values",)
    assert list(places(record))[0] == way and math.isnan(planted(record, way).values[0, 0, 0])
    assert not math.isnan(record.values[0, 0, 0])
    figure = plots.plot_latent(planted(record, way))
    assert "NaN" in red(figure) and not alike(drawn(plots.plot_latent(record)), drawn(figure))
    assert alike(drawn(figure), drawn(plots.plot_latent(planted(record, way))))
