"""What every training part shares: the clock, the rate, the average, the log, the checkpoint."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from tqdm import tqdm

from .team import team
from .written import write_atomically, write_json

LOG_EVERY = 10  # steps
FEWEST = 3 * LOG_EVERY  # steps of a run, however slow the machine


class Average:
    """The exponential moving average of a module's parameters, which is what ships.

    decay = min(limit, (1 + n) / (10 + n)) after n updates, so that early steps are forgotten.
    """

    def __init__(self, module: nn.Module, limit: float = 0.999):
        self.limit, self.updates = limit, 0
        self.values = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        self.updates += 1
        decay = min(self.limit, (1 + self.updates) / (10 + self.updates))
        state = module.state_dict()
        floats = [k for k, v in self.values.items() if v.is_floating_point()]
        torch._foreach_lerp_(
            [self.values[k] for k in floats], [state[k].float() for k in floats], 1 - decay
        )


def rate_factor(fraction: float, step: int, warmup: int = 100, floor: float = 0.01) -> float:
    """Warm-up by steps, then a cosine by the fraction of the wall-clock time that has passed."""
    cosine = floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(fraction, 1.0)))
    return min(1.0, (step + 1) / warmup) * cosine


class Clock:
    """The time budget of one part, counted over all the slices in which it ran."""

    def __init__(self, minutes: float, spent: float = 0.0):
        self.limit, self.spent, self.started = 60 * minutes, spent, time.monotonic()

    @property
    def seconds(self) -> float:
        return self.spent + time.monotonic() - self.started

    @property
    def fraction(self) -> float:
        return min(1.0, self.seconds / self.limit)


class Training:
    """One part in training: modules, optimiser, average, log; saved and resumed by `folder`.

    Adam's moments are not kept: they rebuild in about a hundred steps. Started in several processes
    (`torchrun`, which accelerate understands), each learns from its own batches and all share the
    mean gradient and the mean clock; the first one logs and saves.
    """

    def __init__(
        self,
        folder: Path,
        module: nn.Module,
        rate: float,
        decay: float,
        minutes: float,
        betas: tuple[float, float] = (0.9, 0.99),
        ema: float = 0.999,
    ):
        self.folder, self.module, self.rate = folder, module, rate
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.team = team(cpu=self.parameters[0].device.type == "cpu")
        self.rank, self.processes = self.team.process_index, self.team.num_processes
        self.average = Average(module, ema)
        self.log: list[dict] = []
        self.step, spent = self._resume()
        self.clock = Clock(minutes, spent)
        kinds = [[], []]
        for parameter in self.parameters:
            kinds[parameter.ndim < 2].append(parameter)
        groups = [
            {"params": kinds[0], "weight_decay": decay},
            {"params": kinds[1], "weight_decay": 0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=rate, betas=betas, fused=True)

    def _resume(self) -> tuple[int, float]:
        state, weights = self.folder / "state.json", self.folder / "weights.safetensors"
        if not (state.exists() and weights.exists()):
            return 0, 0.0
        loaded = load_file(weights)
        self.module.load_state_dict({k[4:]: v for k, v in loaded.items() if k[:4] == "raw."})
        self.average.values = {k[4:]: v for k, v in loaded.items() if k[:4] == "ema."}
        kept = json.loads(state.read_text(encoding="utf-8"))
        self.average.updates, self.log = kept["step"], kept["log"]
        return kept["step"], kept["seconds"]

    def save(self) -> None:
        """Raw and averaged weights, log and clock, each file atomically."""
        if self.rank:
            return
        raw = {f"raw.{k}": v.detach().contiguous() for k, v in self.module.state_dict().items()}
        ema = {f"ema.{k}": v.contiguous() for k, v in self.average.values.items()}
        write_atomically(self.folder / "weights.safetensors", lambda p: save_file(raw | ema, p))
        state = {"step": self.step, "seconds": self.clock.seconds, "log": self.log}
        write_json(self.folder / "state.json", state)

    def steps(self, title: str, save_every: float = 300.0) -> Iterator[int]:
        """Step numbers until the time is over, with a progress bar; saves now and then."""
        total, hidden = round(self.clock.limit), self.rank > 0
        bar = tqdm(total=total, unit="s", desc=title, mininterval=5, disable=hidden)
        saved = self.clock.seconds
        try:
            while (fraction := self._shared_fraction()) < 1.0:
                for group in self.optimiser.param_groups:
                    group["lr"] = self.rate * rate_factor(fraction, self.step)
                # a resumed run draws what an unbroken one draws
                torch.manual_seed(self.step * self.processes + self.rank)
                yield self.step
                self.step += 1
                bar.n = round(self.clock.seconds)
                last = self.log[-1]["values"] if self.log else {}
                bar.set_postfix(step=self.step, **last, refresh=False)
                bar.update(0)
                if self.clock.seconds - saved > save_every:
                    self.save()
                    saved = self.clock.seconds
        finally:
            bar.close()
            self.save()

    def _shared_fraction(self) -> float:
        """How much of the time (or of the fewest steps) is over, the same in every process."""
        passed = self.clock.fraction
        if self.step < FEWEST:
            passed = min(passed, self.step / FEWEST)
        if self.processes == 1:
            return passed
        mine = torch.tensor(passed, device=self.parameters[0].device)
        return float(self.team.reduce(mine, "mean"))

    def _share_gradients(self) -> None:
        """Replace every gradient by its mean over the processes."""
        if self.processes == 1:
            return
        for parameter in self.parameters:
            if parameter.grad is None:  # not every step reaches every part
                parameter.grad = torch.zeros_like(parameter)
        grads = [parameter.grad for parameter in self.parameters]
        mean = self.team.reduce(torch.cat([grad.flatten() for grad in grads]), "mean")
        for grad, part in zip(grads, mean.split([g.numel() for g in grads]), strict=True):
            grad.copy_(part.view_as(grad))

    def learn(self, loss: torch.Tensor, **values: float) -> None:
        """One optimiser step on `loss`, clipped at norm 1; logs it every LOG_EVERY steps."""
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self._share_gradients()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimiser.step()
        self.average.update(self.module)
        if self.step % LOG_EVERY == 0:
            entry = {
                k: float(torch.as_tensor(v).detach()) for k, v in {"loss": loss, **values}.items()
            }
            rounded = {k: round(v, 4) for k, v in entry.items()}
            self.log.append(
                {"step": self.step, "seconds": round(self.clock.seconds, 1), "values": rounded}
            )


def begin_with(module: nn.Module, state: dict[str, torch.Tensor]) -> int:
    """Copy the tensors whose name and shape agree; returns how many did."""
    own = module.state_dict()
    agreeing = {k: v for k, v in state.items() if k in own and v.shape == own[k].shape}
    module.load_state_dict(agreeing, strict=False)
    return len(agreeing)


def part_of(state: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """The tensors of one submodule, by their own names."""
    return {k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")}


def averaged(folder: Path) -> dict[str, torch.Tensor]:
    """The averaged weights that one part of a run saved, by their names in the module."""
    loaded = load_file(folder / "weights.safetensors")
    return {k[4:]: v for k, v in loaded.items() if k.startswith("ema.")}
