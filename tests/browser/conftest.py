"""The fixtures of `hosts.py`, for every test of this folder."""

from hosts import browser, opened  # noqa: F401
