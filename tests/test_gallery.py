"""Every plot is drawn from real runs of checkpoints in the layouts of SDXL and Stable Diffusion."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from real_kinds import KINDS, small
from test_plots_guidance import on_the_page, overlapping

from diffusionlab import plots
from diffusionlab.errors import InputError

GALLERY = Path(__file__).parents[1] / "tools" / "gallery"


@pytest.fixture(scope="module")
def gallery():
    """The gallery's own modules, which import each other as files of one folder."""
    sys.path.insert(0, str(GALLERY))
    try:
        import cases
        import lab
    finally:
        sys.path.remove(str(GALLERY))
    return cases, lab


SELDOM = ("SD2v folder", "SDXL folder")  # `slow`; the others in every push


@pytest.fixture(
    scope="module",
    params=[pytest.param(kind, marks=pytest.mark.slow if kind in SELDOM else ()) for kind in KINDS],
)
def rooms(request, gallery, tmp_path_factory):
    """The cases, and the runs of a reduced checkpoint of random weights."""
    cases, lab = gallery
    place = tmp_path_factory.mktemp("gallery")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LESSON_SECONDS", "1")
        patch.setenv("DIFFUSIONLAB_MODEL", str(small(request.param, place, patch)))
        yield cases, lab.Lab()


def test_every_plot_has_a_case(gallery):
    drawn = {key.partition(".")[0] for key in gallery[0].made()}
    assert drawn == {name for name in plots.__all__ if name.startswith("plot_")}


def test_every_plot_is_drawn_of_a_stable_diffusion_checkpoint(rooms):
    cases, lab = rooms
    names = dict.fromkeys(key.partition(".")[0] for key in cases.made())
    undrawn = {name: why for name in names if (why := refused(cases, lab, name))}
    assert set(undrawn) <= {"plot_image_text"}, undrawn  # no image tower in such a folder


def refused(cases, lab, name: str) -> str:
    """Why none of a plot's cases is drawn; "" as soon as one is."""
    why = ""
    for key in (key for key in cases.made() if key.partition(".")[0] == name):
        try:
            figure = cases.draw(lab, key)
        except InputError as error:
            why = str(error)
            continue
        assert len(figure.alt) > 30 and len(figure.to_png(dpi=40)) > 1000
        assert on_the_page(figure) and not overlapping(figure), key
        return ""
    return why
