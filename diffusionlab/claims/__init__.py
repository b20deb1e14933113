"""What textbooks and articles say, each as an experiment whose verdict is computed.

    from diffusionlab import claims
    claims.examine(model, "A20")          # one claim on this model, as a box in a notebook
    claims.examine(model, "G1", samples=64)
    claims.board(model, 2)                # all claims of the second notebook

A claim is split into parts; each part is a number measured on the model, with its interval, and the
bar that the claim puts it to. The verdict follows from the parts; nowhere is one written down.
"""

from __future__ import annotations

from diffusionlab.claims.bench import Bench
from diffusionlab.claims.board import Board, board
from diffusionlab.claims.catalogue import CLAIMS, examine, find
from diffusionlab.claims.claim import Claim, Finding, Part

__all__ = ["CLAIMS", "Bench", "Board", "Claim", "Finding", "Part", "board", "examine", "find"]
