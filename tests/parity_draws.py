"""Handing a reference's draws to a plan of ours."""

from __future__ import annotations

import math


def in_order(plan, draws):
    """The noise source that hands out the reference's draws, one for each of ours.

    Where a step of ours draws twice (`dpmpp_sde`), ours are for (s, m) and (m, t), theirs for
    (s, m) and (s, t). One Brownian path sees both if z_st = r·z_sm + sqrt(1 - r²)·z_mt with the
    snr for clock, so that is solved for our second draw.
    """
    left, first = iter(draws), {}

    def noise(level, next_level):
        draw = next(left)
        if level not in first:
            first[next_level] = (level, draw)
            return draw
        start, drawn = first[level]
        r2 = (level.snr - start.snr) / (next_level.snr - start.snr)
        return (draw - math.sqrt(r2) * drawn) / math.sqrt(1.0 - r2)

    twice = any(len(step.draws) == 2 for step in plan)
    return noise if twice else (lambda level, next_level: next(left))
