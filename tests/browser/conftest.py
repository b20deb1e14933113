"""The fixtures of `hosts.py`, for every test of this folder."""

import pytest

pytest.register_assert_rewrite("hosts", "looking")

from hosts import browser, opened  # noqa: E402, F401
