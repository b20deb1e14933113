"""A lesson of a minute: a small U-Net that learns to draw, with everything else kept frozen.

The pictures are scenes of Toyland, drawn small and encoded once by the model's autoencoder; the
captions are embedded once by its text encoder. What is left is one batch, one network call, one
squared error and one step of the optimiser, again and again (Ho et al. 2020, arXiv 2006.11239,
algorithm 1; Rombach et al. 2022, arXiv 2112.10752, Eq. 3), until the time is over.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from PIL import Image
from torch import nn

from ..conditioning import branch_texts, stacked
from ..errors import InputError, notice, shown
from ..models import UNet, UNetConfig
from ..models.conditioning import TextInput
from ..pipeline import LatentDiffusion
from ..side_by_side import compare
from ..stages import decode, embed, tokenize
from ..trace import Guidance, Learning, Moment
from .denoiser import draw_timesteps
from .lesson_world import (
    CELLS,
    EMPTY,
    PROMPTS,
    captions,
    drawn_scene,
    told_at,
    unet_config,
)
from .loop import Average, rate_factor
from .pictures import latents_of

MOST, HELD_BACK, PREPARING = 384, 32, 10.0  # pictures to learn from, to test on; seconds to encode
BATCH, DROPPED, RATE, WARMUP = 32, 0.1, 3e-3, 50
LEVELS, LOOKS = 8, (0.0, 0.04, 0.15, 0.4)  # noise levels of a look; shares of the time, and the end
SHOWN_STEPS, GUIDANCE = 10, 3.0  # of the pictures of a look
CHUNK = 16  # pictures encoded at once
REST = 6.0  # times as long as a record was looked at, before the next one comes


class Lesson:
    """A fresh small U-Net with a model's frozen parts around it, and pictures to learn from.

    Parameters: model, whose autoencoder, text encoder and schedule are used; seed, of the weights
    and of all dice. `learn` teaches it; `model` is the whole with the network as it is now.
    Encoding stops after ten seconds, so a slow autoencoder leaves fewer pictures.
    """

    def __init__(self, model: LatentDiffusion, *, seed: int = 0):
        self.seed, self.size = seed, CELLS * model.size_factor
        self.calls: dict[str, Counter] = {k: Counter() for k in ("preparing", "learning", "looks")}
        config = unet_config(model)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.unet = UNet(UNetConfig.from_dict(config)).to(model.device)
        shown_unet = UNet(UNetConfig.from_dict(config)).to(model.device, model.dtype).eval()
        named = {"unet": config, "name": f"a lesson on {model.name}"}
        self.teacher = model
        self._whole = dataclasses.replace(model, unet=shown_unet, config=model.config | named)
        self._average = Average(self.unet, 0.99)
        self._optimiser = torch.optim.AdamW(
            self.unet.parameters(), lr=RATE, betas=(0.9, 0.99), weight_decay=0.01, fused=True
        )
        self._dice = np.random.default_rng([11, seed])
        self._noise = torch.Generator().manual_seed(seed)
        self._losses: list[float] = []
        self._seconds: list[float] = []
        self._moments: list[Moment] = []
        self._prepare()

    # ---- what is prepared once ----------------------------------------------------------------
    def _prepare(self) -> None:
        """Draw, encode and embed; the first pictures are held back for the looks."""
        told = captions()
        with self._counting("preparing"), torch.inference_mode():
            made = [embed(self._whole, tokenize(self._whole, text), height=self.size,
                          width=self.size) for text, _ in told]  # fmt: skip
            empty = embed(self._whole, tokenize(self._whole, ""), negative=True, height=self.size,
                          width=self.size)  # fmt: skip
            drawn, latents = self._encoded([words for _, words in told])
            self.best = tuple(decode(self._whole, latents[told_at(p)]) for p in PROMPTS)
        one = [branch_texts(self._whole, e, None, Guidance(1.0), 1.0) for e in (*made, empty)]
        texts, rows = stacked(one), np.arange(len(latents)) % len(told)
        self._texts = texts.to(torch.float32)
        latents = latents.clone()
        self.drawn, self._test = drawn[HELD_BACK:], (latents[:HELD_BACK], rows[:HELD_BACK])
        self._clean, self._rows = latents[HELD_BACK:], rows[HELD_BACK:]

    def _encoded(self, words: list[dict[str, str]]) -> tuple[np.ndarray, torch.Tensor]:
        """Scenes of these words in turn, drawn and encoded, as many as there is time for."""
        started, drawn, found = time.monotonic(), [], []
        while len(drawn) < HELD_BACK + MOST:
            late = time.monotonic() - started > PREPARING
            if late and len(drawn) >= HELD_BACK + BATCH:
                break
            first = len(drawn)
            some = [
                drawn_scene(first + i, words[(first + i) % len(words)], self.size)
                for i in range(CHUNK)
            ]
            found.append(latents_of(self._whole, np.stack(some)))
            drawn += some
        return np.stack(drawn), torch.cat(found)

    # ---- learning -----------------------------------------------------------------------------
    @property
    def model(self) -> LatentDiffusion:
        """The model with the averaged weights of the lesson's network, as they are now."""
        self._whole.unet.load_state_dict(self._average.values)
        return self._whole

    def learn(
        self, seconds: float = 45.0, *, steps: int | None = None, every: float = 3.0
    ) -> Iterator[Learning]:
        """Teach for so many seconds, or steps if fewer, and yield the record now and then.

        The seconds are those of the steps: looking at the network and drawing it do not count.
        A record comes every `every` seconds (less often where drawing it is slow), at each look,
        and at the end. Ctrl-C (a notebook's "interrupt") ends the lesson early with its record.
        Called again, it goes on learning.
        Errors: InputError for a time or a number of steps that is not above 0.
        """
        for name, value in (("seconds", seconds), ("steps", 1 if steps is None else steps)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
                raise InputError(f"{name} is {shown(value)}; a number above 0 is allowed, e.g. 45")
        return self._lesson(float(seconds), steps or math.inf, every)

    def _lesson(self, seconds: float, steps: float, every: float) -> Iterator[Learning]:
        before = self._seconds[-1] if self._seconds else 0.0
        spent, done, stopped, looks = 0.0, 0, False, list(LOOKS)
        shown, rest = time.monotonic(), every
        try:
            while (share := max(spent / seconds, done / steps)) < 1 or not done:
                if looks and share >= looks[0]:
                    looks = [at for at in looks if at > share]
                    self._look(before + spent)
                    shown -= rest  # its pictures are shown at once
                if time.monotonic() - shown >= rest:
                    began = time.monotonic()
                    yield self.record()
                    shown = time.monotonic()
                    rest = max(every, REST * (shown - began))
                began = time.monotonic()
                self.step(share)
                spent, done = spent + time.monotonic() - began, done + 1
                self._seconds.append(before + spent)
        except KeyboardInterrupt:
            stopped = True
            notice("the lesson was stopped; its record so far is kept")
        self._look(before + spent)
        yield self.record(stopped)

    def step(self, share: float) -> None:
        """One batch, one call, one squared error, one step of the optimiser.

        `share` of the lesson is over, which sets the rate of learning.
        """
        picked = self._dice.integers(len(self._clean), size=BATCH)
        texts = np.where(self._dice.random(BATCH) < DROPPED, EMPTY, self._rows[picked])
        timesteps = draw_timesteps(self._whole.schedule, BATCH, self._dice)
        with self._counting("learning"):
            loss = self.errors(self.unet, self._clean[picked], texts, timesteps, self._noise).mean()
        self._optimiser.zero_grad()
        loss.backward()
        self._move(share)
        self._losses.append(float(loss.detach()))

    def _move(self, share: float) -> None:
        """Move the weights along their gradients, and the averaged ones after them."""
        for group in self._optimiser.param_groups:
            group["lr"] = RATE * rate_factor(share, len(self._losses), WARMUP, 0.02)
        nn.utils.clip_grad_norm_(self.unet.parameters(), 1.0)
        self._optimiser.step()
        self._average.update(self.unet)

    def errors(
        self,
        unet: UNet,
        clean: torch.Tensor,
        texts: np.ndarray,
        timesteps: np.ndarray,
        dice: torch.Generator,
    ) -> torch.Tensor:
        """The mean squared error of each picture (n,) at its timestep, with fresh noise.

        clean (n, channels, h, w); `texts` are places among the captions, EMPTY for none.
        """
        schedule = self._whole.schedule
        alpha, sigma = (_each(values[timesteps], clean.device)
                        for values in (schedule.alpha, schedule.sigma))  # fmt: skip
        eps = torch.randn(clean.shape, generator=dice).to(clean.device)
        noisy = alpha * clean + sigma * eps
        truth = {"x0": clean, "eps": eps, "v": alpha * eps - sigma * clean}
        answer = self._asked(unet, noisy, timesteps, texts)
        return (answer - truth[schedule.prediction_type]).square().flatten(1).mean(dim=1)

    def _asked(self, unet: UNet, noisy, timesteps, texts) -> torch.Tensor:
        """One call of a network, in its own dtype; the answer in float32."""
        kind = unet.conv_in.weight.dtype
        told = torch.tensor(timesteps, dtype=torch.float32, device=noisy.device)
        return unet(noisy.to(kind), told, rows_of(self._texts, texts).to(kind)).float()

    # ---- looking ------------------------------------------------------------------------------
    def _look(self, seconds: float) -> None:
        """The loss at each level on the pictures held back, and a picture of each prompt."""
        with self._counting("looks"), torch.no_grad():
            losses = [self._test_loss(int(t)) for t in self._test_levels()]
            seeds = [self.seed + i for i in range(len(PROMPTS))]
            drawn = compare(self.model, prompts=PROMPTS, seeds=seeds, num_steps=SHOWN_STEPS,
                            guidance_scale=GUIDANCE, record=(), progress=False)  # fmt: skip
        images = tuple(trace.image for trace in drawn.traces)
        self._moments.append(Moment(seconds, len(self._losses), np.array(losses), images))

    def _test_loss(self, timestep: int) -> float:
        clean, rows = self._test
        dice = torch.Generator().manual_seed(self.seed + timestep)
        times = np.full(len(clean), timestep)
        return float(self.errors(self.model.unet, clean, rows, times, dice).mean())

    def _test_levels(self) -> np.ndarray:
        """Timesteps of levels evenly spread in the logarithm of karras_sigma."""
        table = self._whole.schedule.karras_sigma
        last = min(float(table[-1]), 20.0)
        wanted = np.geomspace(max(0.1, float(table[0])), last, LEVELS)
        return np.clip(np.searchsorted(table, wanted), 0, len(table) - 1)

    def record(self, stopped: bool = False) -> Learning:
        """All that happened so far."""
        parts = self._parts()
        done = min(len(self._seconds), len(self._losses))  # Ctrl-C comes between any two lines
        return Learning(
            model=self.teacher.name,
            prediction_type=self._whole.schedule.prediction_type,
            prompts=PROMPTS,
            best=self.best,
            pictures=len(self._clean),
            batch=BATCH,
            karras_sigmas=self._whole.schedule.karras_sigma[self._test_levels()],
            seconds=np.array(self._seconds[:done]),
            losses=np.array(self._losses[:done]),
            moments=tuple(self._moments),
            weights={name: sum(map(_weights, some)) for name, some in parts.items()},
            learning={name: _share(some) for name, some in parts.items()},
            calls={name: dict(counts) for name, counts in self.calls.items()},
            stopped=stopped,
        )

    @property
    def examples(self) -> dict[str, Image.Image]:
        """One drawn picture of each of the prompts that the looks draw, by its caption."""
        first = {p: int((self._rows == told_at(p)).argmax()) for p in PROMPTS}
        return {prompt: Image.fromarray(self.drawn[at]) for prompt, at in first.items()}

    # ---- what takes part ----------------------------------------------------------------------
    def _parts(self) -> dict[str, tuple[nn.Module, ...]]:
        vae = self._whole.vae
        return {
            "U-Net": (self.unet,),
            "encoder": (vae.encoder,),
            "decoder": (vae.decoder,),
            "text encoder": tuple(self._whole.text_encoders),
        }

    @contextmanager
    def _counting(self, what: str) -> Iterator[None]:
        """Count how often each part runs forward while the block lasts."""
        counts = self.calls[what]
        with ExitStack() as stack:
            for name, some in (self._parts() | {"U-Net": (self.unet, self._whole.unet)}).items():
                for part in some:
                    hook = part.register_forward_hook(lambda *_, name=name: _more(counts, name))
                    stack.callback(hook.remove)
            yield


def _more(counts: Counter, name: str) -> None:
    counts[name] += 1


def _each(values: np.ndarray, device: torch.device) -> torch.Tensor:
    """One number for each picture, float32 (n, 1, 1, 1)."""
    return torch.tensor(values, dtype=torch.float32, device=device).view(-1, 1, 1, 1)


def rows_of(texts: TextInput, rows: np.ndarray) -> TextInput:
    """Some rows of a batch of texts."""
    picked = torch.from_numpy(np.asarray(rows))
    fields = ((f.name, getattr(texts, f.name)) for f in dataclasses.fields(texts))
    return TextInput(**{name: None if v is None else v[picked.to(v.device)] for name, v in fields})


def _weights(part: nn.Module) -> int:
    return sum(values.numel() for values in part.parameters())


def _share(parts: tuple[nn.Module, ...]) -> float:
    """The share of the parts' weights that have a gradient."""
    values = [v for part in parts for v in part.parameters()]
    return sum(v.numel() for v in values if v.grad is not None) / sum(v.numel() for v in values)
