"""Which noise each run of a comparison consumed."""

from __future__ import annotations

from dataclasses import dataclass

from diffusionlab.trace import Comparison, Trace


@dataclass(frozen=True)
class NoiseUse:
    """One run's row: where its noise came from, and how much of it was drawn.

    `shared` says whether another run of the comparison has the same source and seed, so that both
    begin at the same noise; on one Brownian path their later draws are of the same path too.
    """

    run: str
    source: str
    seed: int
    draws: int
    from_karras_sigma: float | None
    to_karras_sigma: float | None
    network_calls: int
    shared: bool

    def __str__(self) -> str:
        dice = f"{self.draws} draws" if self.draws else "no draws after the start"
        if self.draws:
            reach = f"{self.from_karras_sigma:.4g} to {self.to_karras_sigma:.4g}"
            dice += f" over karras_sigma {reach}"
        start = "shared" if self.shared else "of its own"
        return (
            f"{self.run}: {self.source} noise of seed {self.seed}, start {start}, {dice}, "
            f"{self.network_calls} network calls"
        )


def noise_ledger(comparison: Comparison) -> tuple[NoiseUse, ...]:
    """One row for each run, in order."""
    keys = [_key(trace) for trace in comparison.traces]
    return tuple(
        _use(str(value), trace, keys.count(key) > 1)
        for value, trace, key in zip(comparison.values, comparison.traces, keys, strict=True)
    )


def _key(trace: Trace) -> tuple[str, int]:
    return trace.settings.noise, trace.settings.seed


def _use(run: str, trace: Trace, shared: bool) -> NoiseUse:
    noisy = [step for step in trace.steps if step.noises]
    return NoiseUse(
        run=run,
        source=trace.settings.noise,
        seed=trace.settings.seed,
        draws=sum(len(step.noises) for step in noisy),
        from_karras_sigma=noisy[0].level.karras_sigma if noisy else None,
        to_karras_sigma=noisy[-1].next_level.karras_sigma if noisy else None,
        network_calls=sum(step.network_calls for step in trace.steps),
        shared=shared,
    )
