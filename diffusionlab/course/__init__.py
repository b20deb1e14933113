"""What notebooks need beside the package: checks, self-checks, sources, pictures, live records."""

from __future__ import annotations

from diffusionlab.analysis.guidance import needs_two_passes
from diffusionlab.course.checks import Check, check
from diffusionlab.course.live import watch
from diffusionlab.course.pictures import Pictures, show_pictures
from diffusionlab.course.refusals import Refusal, shown_or_told
from diffusionlab.course.self_checks import SelfCheck, self_check
from diffusionlab.course.sources import Source, show_source

__all__ = [
    "Check",
    "Pictures",
    "Refusal",
    "SelfCheck",
    "Source",
    "check",
    "needs_two_passes",
    "self_check",
    "show_pictures",
    "show_source",
    "shown_or_told",
    "watch",
]
