"""tools/screenshots.py: every view is photographed, small, and not again where nothing changed."""

from __future__ import annotations

import importlib.util
import io
import re
import sys
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest

from diffusionlab import views
from diffusionlab.images import to_image

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tool():
    """The tool as a module; what it puts on the path goes again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.path", ["", *sys.path])
        place = ROOT / "tools" / "screenshots.py"
        spec = importlib.util.spec_from_file_location("screenshots", place)
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, "screenshots", module)
        spec.loader.exec_module(module)
        yield module


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    to_image(array).save(buffer, "PNG")
    return buffer.getvalue()


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def test_every_view_has_a_picture(tool):
    shown = {name.partition("-")[0] for name in tool.SHOTS}
    public = {name.removeprefix("explore_") for name in views.PLACES} - {"View"}
    assert public <= shown


def test_the_readme_shows_three_of_them_and_all_are_small(tool):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"\]\(docs/views/([\w-]+)\.png\)", text)
    assert len(named) == 3
    assert set(named) <= set(tool.SHOTS)
    pictures = {path.stem: path.stat().st_size for path in tool.PLACE.glob("*.png")}
    assert set(pictures) <= set(tool.SHOTS)
    assert max(pictures.values()) <= tool.LARGEST


def test_the_keys_are_pressed_after_the_click(tool):
    """So that a view that takes the arrows from who clicked a word is seen at the wrong step."""
    browser = MagicMock()
    page = browser.new_page.return_value
    page.screenshot.return_value = b"at rest"
    shot = tool.Shot(lambda runs: MagicMock(), ["ArrowRight"], click="button")
    assert tool.taken(browser, shot, None) == b"at rest"
    calls = [name for name, *_ in page.mock_calls]
    assert calls.index("locator().first.click") < calls.index("keyboard.press")


def test_a_picture_that_looks_the_same_is_left_alone(tool, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    path, picture = tmp_path / "one.png", noise(1)
    tool.keep(path, png(picture))
    before = path.read_bytes()
    nearly = picture.copy()
    nearly[0, 0] ^= 3
    tool.keep(path, png(nearly))
    assert path.read_bytes() == before
    tool.keep(path, png(noise(2)))
    assert path.read_bytes() != before
    assert "as before" in capsys.readouterr().out.split("\n")[1]


def test_a_picture_that_is_too_large_is_refused(tool, tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "LARGEST", 100)
    with pytest.raises(SystemExit, match="one.png has .* bytes; at most 100 are allowed"):
        tool.keep(tmp_path / "one.png", png(noise(1)))
    assert not (tmp_path / "one.png").exists()


def test_colours_stay_near(tool):
    ramp = np.linspace(0, 255, 60).astype(np.uint8)[None, :, None].repeat(40, 0).repeat(3, 2)
    assert tool.difference(png(ramp), tool.quantised(png(ramp))) == 0
    assert tool.difference(png(noise(1)), png(noise(2))) > 0.5
    changed = ramp.copy()
    changed[:2, :6] ^= 128  # a letter
    assert tool.difference(png(ramp), png(changed)) == pytest.approx(12 / 2400)
    assert tool.difference(png(ramp), png(ramp[:, :50])) == 1


def test_without_a_browser_it_says_what_to_install(tool, monkeypatch):
    monkeypatch.setattr(tool, "chromium", lambda: None)
    with pytest.raises(SystemExit, match="make chromium"):
        tool.main([])
