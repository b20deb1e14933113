"""What notebooks need beside the package: self-checks, sources, pictures with captions."""

from __future__ import annotations

from diffusionlab.course.checks import Check, check
from diffusionlab.course.pictures import Pictures, show_pictures
from diffusionlab.course.sources import Source, show_source

__all__ = ["Check", "Pictures", "Source", "check", "show_pictures", "show_source"]
