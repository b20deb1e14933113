"""No plot hides a number that is not one: NaN is planted in every array of every plot's record."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

import matplotlib
import numpy as np
import pytest
from test_plots import NAMES, RECORDS

from diffusionlab import plots
from diffusionlab.errors import InputError, NumericsError
from diffusionlab.plots.figure import colour

TOLD = ("NaN", "infinite", "CHECK FAILED")
ENDS = 2  # of a long row of like records, these many from each end


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
        row = list(enumerate(value))
        return row if len(row) <= 2 * ENDS else row[:ENDS] + row[-ENDS:]
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
    found: list[Any] = [t.get_text() for t in figure.findobj(matplotlib.text.Text)]
    found += [np.asarray(i.get_array()) for i in figure.findobj(matplotlib.image.AxesImage)]
    found += [line.get_xydata() for line in figure.findobj(matplotlib.lines.Line2D)]
    found += [p.get_path().vertices for p in figure.findobj(matplotlib.patches.PathPatch)]
    for bar in figure.findobj(matplotlib.patches.Rectangle):
        found += [bar.get_bbox().get_points(), bar.get_facecolor()]
    for some in figure.findobj(matplotlib.collections.Collection):
        found += [np.asarray(some.get_offsets()), some.get_facecolor()]
        found += [path.vertices for path in some.get_paths()]
    return found


def alike(some: list[Any], others: list[Any]) -> bool:
    pairs = list(zip(some, others, strict=False))
    return len(some) == len(others) and all(
        np.array_equal(a, b, equal_nan=not isinstance(a, str)) for a, b in pairs
    )


def red(figure: Any) -> str:
    """All that is written in vermilion."""
    found = figure.findobj(matplotlib.text.Text)
    return " ".join(t.get_text() for t in found if t.get_color() == colour("vermilion"))


@pytest.mark.parametrize("name", NAMES)
def test_no_plot_hides_a_number_that_is_not_one(name):
    plot, record = getattr(plots, name), RECORDS[name]
    before, hidden = drawn(plot(record)), []
    for way in places(record):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                figure = plot(planted(record, way))
            except (InputError, NumericsError) as error:
                told = str(error)
            else:
                told = red(figure)
                if alike(before, drawn(figure)):
                    continue
                figure.to_png(dpi=20)
        if not any(word in told for word in TOLD):
            hidden.append((way, told[:80]))
    assert not hidden


def test_a_hidden_number_is_found():
    record = RECORDS["plot_latent"]
    way = ("values",)
    assert list(places(record))[0] == way and math.isnan(planted(record, way).values[0, 0, 0])
    assert not math.isnan(record.values[0, 0, 0])
    figure = plots.plot_latent(planted(record, way))
    assert "NaN" in red(figure) and not alike(drawn(plots.plot_latent(record)), drawn(figure))
    assert alike(drawn(figure), drawn(plots.plot_latent(planted(record, way))))
