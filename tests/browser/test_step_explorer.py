"""The step explorer in Chromium."""

from __future__ import annotations

import pytest
import traces
from hosts import HOSTS

from diffusionlab.views import explore


@pytest.mark.parametrize("host", HOSTS)
def test_the_slider_moves_by_keyboard(opened, host):
    view = opened(explore(traces.trace()), host)
    slider = view.frame.locator("input[type=range]")
    slider.focus()
    view.press("End")
    assert slider.get_attribute("aria-valuetext").startswith("step 4 of 4")
