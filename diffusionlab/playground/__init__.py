"""The playground: a live panel that makes runs, keeps them, and shows each in the explorer.

It is handed the callable that makes a run, and so needs no model of its own.
"""

from diffusionlab.playground.panel import Playground, playground
from diffusionlab.playground.request import Request

__all__ = ["Playground", "Request", "playground"]
