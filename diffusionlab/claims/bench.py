"""What an experiment works with: the model, its runs (each made once) and the judges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from diffusionlab.errors import InputError, shown
from diffusionlab.generate import generate
from diffusionlab.pipeline import LatentDiffusion
from diffusionlab.side_by_side import MOST_RUNS, compare
from diffusionlab.taps import is_watched
from diffusionlab.toyland import FULL, Scene, Share, scene
from diffusionlab.trace import Trace
from diffusionlab.training.data import SEEDS
from diffusionlab.training.judge_nets import Verdict, judge, load_judges
from diffusionlab.training.prompted import Prompt, one_object_prompts, two_object_prompts
from diffusionlab.training.quality import share_of

PROMPT = "a red car in the city at night"
FEW, SEED = 12, 20_000  # samples in a notebook; the first seed, far from those of the notebooks
FEWER_STEPS = 10  # where the content of pictures is asked for, many are better than fine ones


class Bench:
    """One model under test. `samples` is how many pictures a sampled experiment may draw.

    Runs are kept, so that experiments which ask for the same one share it; `rng(name)` are the
    dice of an experiment, the same every time.
    """

    def __init__(self, model: LatentDiffusion, samples: int = FEW, prompt: str = PROMPT):
        if isinstance(samples, bool) or not isinstance(samples, int) or samples < 2:
            raise InputError(
                f"samples is {shown(samples)}; a whole number from 2 up is allowed, {FEW} is usual"
            )
        self.model, self.samples, self.prompt = model, samples, prompt
        self._runs: dict[Any, Any] = {}

    # ---- runs -----------------------------------------------------------------------------
    def run(self, prompt: str | None = None, **settings: Any) -> Trace:
        """One run of the model; `settings` are those of `generate`."""
        text = self.prompt if prompt is None else prompt
        settings = {"seed": SEED, "num_steps": 20, "record": ("predictions",)} | settings
        return self._once(
            (text,), settings, lambda: generate(self.model, text, progress=False, **settings)
        )

    def traces(
        self, prompts: Sequence[str], first_seed: int = SEED, **settings: Any
    ) -> tuple[Trace, ...]:
        """The run of each prompt, a seed each, in batches where that pays."""
        settings = {"num_steps": 20, "record": ("predictions",)} | settings
        return self._once(
            (*prompts, first_seed),
            settings,
            lambda: tuple(
                trace
                for i in range(0, len(prompts), MOST_RUNS)
                for trace in self._together(prompts[i : i + MOST_RUNS], first_seed + i, settings)
            ),
        )

    def _together(self, prompts: Sequence[str], first_seed: int, settings: dict) -> Sequence:
        seeds = list(range(first_seed, first_seed + len(prompts)))
        wanted = dict(prompts=list(prompts), seeds=seeds, progress=False)
        return compare(self.model, **wanted, **settings).traces

    def pictures(self, prompts: Sequence[str], first_seed: int = SEED, **settings: Any) -> list:
        """The image of each of `traces`."""
        return [trace.image for trace in self.traces(prompts, first_seed, **settings)]

    def kept(self, key: Any, make: Callable[[], Any]) -> Any:
        """What `make` returns, made once under this key."""
        if key not in self._runs:
            self._runs[key] = make()
        return self._runs[key]

    def _once(self, what: tuple, settings: dict, make: Callable[[], Any]) -> Any:
        """What `make` makes, kept for the next who asks; never of a network that is intervened in.

        A given text embedding has no name that it could be kept under.
        """
        if is_watched(self.model.unet) or "text_embedding" in settings:
            return make()
        return self.kept((*what, repr(sorted(settings.items(), key=str))), make)

    def rng(self, name: str) -> np.random.Generator:
        """The dice of an experiment."""
        return np.random.default_rng([SEED, *name.encode()])

    # ---- prompts and judges ---------------------------------------------------------------
    @cached_property
    def share(self) -> Share:
        """The part of Toyland's world that the model was shown; InputError for other models."""
        if "toyland" not in self.model.config:
            raise InputError(
                f"model {self.model.name} has no toyland.json, and the judges know Toyland alone; "
                "this is asked of dl.load(), other claims of any checkpoint"
            )
        return share_of(self.model)

    @cached_property
    def texts(self) -> list[str]:
        """As many prompts as samples, for what needs no judge: of Toyland, else the bench's own."""
        if "toyland" in self.model.config:
            return [prompt.text for prompt in self.one_object]
        return [self.prompt] * self.samples

    @cached_property
    def one_object(self) -> list[Prompt]:
        """Prompts of one object, as many as there may be samples."""
        return one_object_prompts(self.share, 2 * max(self.samples, 2))[: self.samples]

    @cached_property
    def two_objects(self) -> list[Prompt]:
        """Prompts of two objects in two colours."""
        return two_object_prompts(self.share, self.samples)

    @cached_property
    def scenes(self) -> list[Scene]:
        """Scenes of one object that were never trained on, as many as there may be samples.

        Any model may be shown their pictures; Toyland those of its own share of the world.
        """
        share = self.share if "toyland" in self.model.config else FULL
        first, found = SEEDS["test"] + 5_000_000, []
        while len(found) < self.samples:
            drawn = scene(first, share, style="plain")
            found += [drawn] if len(drawn.things) == 1 else []
            first += 1
        return found

    @cached_property
    def _judges(self) -> Any:
        return load_judges()

    def needs_judges(self) -> None:
        """InputError for a model that was trained on another world than Toyland."""
        _ = self.share

    def judged(self, images: Sequence[Any]) -> list[Verdict]:
        """What the classifier, which never conditions the model, sees in each picture.

        Errors: InputError for a model that was trained on another world than Toyland.
        """
        self.needs_judges()
        arrays = np.stack([np.asarray(image) for image in images])
        return judge(self._judges[0], arrays)

    def seen(self, traces: Sequence[Trace]) -> dict[str, Any]:
        """Pictures by captions: the seed, and the things in their colours as the judge sees them.

        "not judged" where the model is not Toyland's, which is the only world that the judge knows.
        """
        images = [trace.image for trace in traces]
        told = ["not judged"] * len(images)
        if "toyland" in self.model.config:
            told = [str(verdict).partition("\n")[0] for verdict in self.judged(images)]
        return {
            f"seed {trace.settings.seed}: {text}": image
            for trace, text, image in zip(traces, told, images, strict=True)
        }
