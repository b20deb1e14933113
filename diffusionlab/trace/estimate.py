"""The record of what a run will cost, made before it begins."""

from __future__ import annotations

from dataclasses import dataclass

from diffusionlab.trace.summary import Shown, lines, size_text


@dataclass(frozen=True)
class StageCost:
    """One stage of a run: how often its network is called, and what the largest call takes.

    `flops` of all calls together, a multiply-add counted as two; `weights` and `activations` in
    bytes, the latter the most that is alive at once besides the weights.
    """

    name: str
    calls: int
    flops: int
    weights: int
    activations: int


@dataclass(frozen=True, eq=False, repr=False)
class Estimate(Shown):
    """What a run will take on its model's device: an estimate, made by `estimate`.

    `rate` in FLOP a second is what a large matrix product reached there, or what was given (it is
    not `measured` then), `share` the part of it that whole networks reach; `free` are the device's
    free bytes on top of the loaded model, None where nobody tells; `record` are the bytes of the
    finished record, in the computer's memory. Of an `offloaded` model, whose parts take turns
    there, `free` counts none as loaded.
    """

    model: str
    device: str
    dtype: str
    size: tuple[int, int]
    num_steps: int
    stages: tuple[StageCost, ...]
    record: int
    rate: float
    share: float
    free: int | None = None
    offloaded: bool = False
    measured: bool = True

    @property
    def flops(self) -> int:
        """Of the whole run."""
        return sum(stage.flops for stage in self.stages)

    @property
    def seconds(self) -> float:
        """The arithmetic at the assumed share of the measured rate."""
        return self.flops / (self.rate * self.share)

    @property
    def weights(self) -> int:
        """Bytes of all parts."""
        return sum(stage.weights for stage in self.stages)

    @property
    def peak(self) -> int:
        """Bytes on the device at the worst moment, with all weights there."""
        return self.weights + max(stage.activations for stage in self.stages)

    @property
    def peak_offloaded(self) -> int:
        """The same with one part at a time on the device, as `offloaded` runs it."""
        return max(stage.weights + stage.activations for stage in self.stages)

    @property
    def fits(self) -> bool | None:
        """Whether the run fits beside what is on the device now; None where nobody tells."""
        needed = self.peak_offloaded if self.offloaded else self.peak - self.weights
        return None if self.free is None else needed <= self.free

    def __repr__(self) -> str:
        """A table: one line a stage."""
        height, width = self.size
        rows = [("stage", "calls", "GFLOP", "weights", "activations")]
        rows += [
            (s.name, str(s.calls), f"{s.flops / 1e9:,.3g}" if s.flops < 1e12 else
             f"{s.flops / 1e9:,.0f}", size_text(s.weights), size_text(s.activations))
            for s in self.stages
        ]  # fmt: skip
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = [
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
            for row in rows
        ]
        free = "" if self.free is None else (
            f"{size_text(self.free)} are free: it {'fits' if self.fits else 'does not fit'}"
        )  # fmt: skip
        most = [size_text(self.peak_offloaded), size_text(self.peak)]
        memory = (
            "memory at most {} on the device, one part at a time (offloaded); with all parts {}"
            if self.offloaded else
            "memory at most {1} on the device; with one part at a time (offloaded) {0}"
        ).format(*most)  # fmt: skip
        how = (
            "that a matrix product reached here" if self.measured else "that were given as its rate"
        )
        return lines(
            f"Estimate for {self.model!r} on {self.device}, {self.dtype}: one picture of "
            f"{height} × {width}, {self.num_steps} steps",
            *table,
            f"about {_duration(self.seconds)}: {self.flops / 1e12:.3g} TFLOP at {self.share:.0%} "
            f"of the {self.rate / 1e12:.3g} TFLOP/s {how}",
            memory,
            free,
            f"the record: {size_text(self.record)} in the computer's memory",
        )


def _duration(seconds: float) -> str:
    """Seconds for people, no more precise than an estimate is."""
    if seconds < 120:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
