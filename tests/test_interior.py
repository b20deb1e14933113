"""The interior in numbers: costs, skips, feature maps, the time embedding, and ablations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import traces

from diffusionlab.analysis.ablations import ablate
from diffusionlab.analysis.anatomy import costs, joins, short_name, skip_check
from diffusionlab.analysis.interior import (
    at_step,
    feature_taps,
    features,
    principal_colours,
    step_near,
    time_embedding,
)
from diffusionlab.errors import InputError
from diffusionlab.plan import Stage
from diffusionlab.trace import Anatomy, Block, Skip, Trace


def small_anatomy() -> Anatomy:
    """Two levels over a latent of 6 rows and 8 columns; costs in round numbers."""
    kinds = {"convolution": 60, "linear": 30, "attention": 10}
    blocks = (
        Block("time_embedding", "time", (32, 1, 1), 100, 0, {}),
        Block("conv_in", "in", (8, 6, 8), 100, 100, {"convolution": 100}),
        Block("down_blocks.0", "down", (8, 3, 4), 200, 100, kinds, 1, 1),
        Block("mid_block", "mid", (16, 3, 4), 300, 200, {"convolution": 200}, 2, 0),
        Block("up_blocks.0", "up", (8, 6, 8), 200, 500, {"convolution": 500}, 3, 0),
        Block("conv_out", "out", (4, 6, 8), 100, 100, {"convolution": 100}),
    )
    skips = (
        Skip("skip", (8, 6, 8), "conv_in", "up_blocks.0"),
        Skip("down_blocks.0.skips.0", (8, 6, 8), "down_blocks.0", "up_blocks.0"),
        Skip("down_blocks.0.skips.1", (8, 6, 8), "down_blocks.0", "up_blocks.0"),
    )
    cross = {"down_blocks.0.attentions.0.transformer_blocks.0.attn2.probabilities": (2, 6, 8)}
    return Anatomy("tiny", (4, 6, 8), blocks, skips, cross, {}, 12)


# Stable Diffusion 1.5 at 512 pixels, as `anatomy` counts it: name, kind, output shape, parameters,
# operations (convolution, linear, attention), residual blocks, transformers.
LARGE = (
    ("time_embedding", "time", (1280, 1, 1), 2050560, (0, 4096000, 0), 0, 0),
    ("conv_in", "in", (320, 64, 64), 11840, (94371840, 0, 0), 0, 0),
    ("down_blocks.0", "down", (320, 32, 32), 10524480,
     (32086425600, 33707458560, 43757076480), 2, 2),
    ("down_blocks.1", "down", (640, 16, 16), 36818560,
     (28730982400, 33860485120, 5772410880), 2, 2),
    ("down_blocks.2", "down", (1280, 8, 8), 139992320, (28730982400, 34166538240, 872939520), 2, 2),
    ("down_blocks.3", "down", (1280, 8, 8), 62277120, (7549747200, 6553600, 0), 2, 0),
    ("mid_block", "mid", (1280, 8, 8), 97038080, (7549747200, 4503633920, 46202880), 2, 1),
    ("up_blocks.0", "up", (1280, 16, 16), 162241280, (25794969600, 9830400, 0), 3, 0),
    ("up_blocks.1", "up", (1280, 32, 32), 258330880, (98985574400, 51249807360, 1309409280), 3, 3),
    ("up_blocks.2", "up", (640, 64, 64), 71413120, (107374182400, 50790727680, 8658616320), 3, 3),
    ("up_blocks.3", "up", (320, 64, 64), 18810560, (81369497600, 50561187840, 65635614720), 3, 3),
    ("conv_out", "out", (4, 64, 64), 12164, (94371840, 0, 0), 0, 0),
)  # fmt: skip
LARGE_SKIPS = (
    ("skip", (320, 64, 64), "conv_in", "up_blocks.3"),
    ("down_blocks.0.skips.0", (320, 64, 64), "down_blocks.0", "up_blocks.3"),
    ("down_blocks.0.skips.1", (320, 64, 64), "down_blocks.0", "up_blocks.3"),
    ("down_blocks.0.skips.2", (320, 32, 32), "down_blocks.0", "up_blocks.2"),
    ("down_blocks.1.skips.0", (640, 32, 32), "down_blocks.1", "up_blocks.2"),
    ("down_blocks.1.skips.1", (640, 32, 32), "down_blocks.1", "up_blocks.2"),
    ("down_blocks.1.skips.2", (640, 16, 16), "down_blocks.1", "up_blocks.1"),
    ("down_blocks.2.skips.0", (1280, 16, 16), "down_blocks.2", "up_blocks.1"),
    ("down_blocks.2.skips.1", (1280, 16, 16), "down_blocks.2", "up_blocks.1"),
    ("down_blocks.2.skips.2", (1280, 8, 8), "down_blocks.2", "up_blocks.0"),
    ("down_blocks.3.skips.0", (1280, 8, 8), "down_blocks.3", "up_blocks.0"),
    ("down_blocks.3.skips.1", (1280, 8, 8), "down_blocks.3", "up_blocks.0"),
)


def large_anatomy() -> Anatomy:
    """Four levels and twelve skips: Stable Diffusion 1.5."""
    kinds = ("convolution", "linear", "attention")
    blocks = tuple(
        Block(name, kind, shape, weights, sum(work), dict(zip(kinds, work, strict=True)), *parts)
        for name, kind, shape, weights, work, *parts in LARGE
    )
    skips = tuple(Skip(*skip) for skip in LARGE_SKIPS)
    return Anatomy("stable-diffusion-v1-5", (4, 64, 64), blocks, skips, {}, {}, 77)


def recorded(num_steps: int = 5, channels: int = 6) -> Trace:
    """A run with blocks, a skip and the time recorded: channel c of step i is (i + 1) · c · row.

    Beside them lie attention maps, which are no feature maps.
    """
    rows = np.arange(3.0)[None, None, :, None] * np.ones((1, 1, 1, 4))
    calls = np.arange(1.0, num_steps + 1)[:, None, None, None]
    values = (calls * np.arange(channels)[None, :, None, None] * rows).astype(np.float32)
    angles = np.linspace(0, np.pi / 2, num_steps)
    time = np.stack([3 * np.cos(angles), 3 * np.sin(angles)], axis=1).astype(np.float32)
    base = traces.trace(num_steps)
    kept = {"time": time, "down_blocks.0.output": values, "up_blocks.0.output": -values,
            "down_blocks.0.skips.0": values[:, :2]}  # fmt: skip
    return replace(base, attention=base.attention | kept)


# ---- the build ---------------------------------------------------------------------------------
def test_costs_by_hand():
    found = costs(small_anatomy())
    assert found.names == ("time", "in", "down 0", "mid", "up 0", "out")
    assert found.flops == pytest.approx((0, 0.1, 0.1, 0.2, 0.5, 0.1), rel=1e-12)
    assert found.parameters == pytest.approx((0.1, 0.1, 0.2, 0.3, 0.2, 0.1), rel=1e-12)
    assert found.kinds == pytest.approx({"convolution": 0.96, "linear": 0.03, "attention": 0.01})
    assert found.check.holds


def test_costs_of_stable_diffusion():
    found = costs(large_anatomy())
    assert large_anatomy().parameters == 859_520_964  # as in its checkpoint
    assert found.check.holds and sum(found.flops) == pytest.approx(1)
    share = dict(zip(found.names, found.flops, strict=True))
    assert share["up 3"] == pytest.approx(197.566 / 803.268, rel=1e-5)
    assert found.kinds["attention"] == pytest.approx(126.052 / 803.268, rel=1e-4)


def test_kinds_that_do_not_add_up_are_found():
    anatomy = small_anatomy()
    blocks = list(anatomy.blocks)
    blocks[3] = replace(blocks[3], flops_by_kind={"convolution": 150})
    found = costs(replace(anatomy, blocks=tuple(blocks))).check
    assert not found.holds and found.relative == pytest.approx(0.05)
    with pytest.raises(InputError, match=r"make it with anatomy\(model\)"):
        costs(replace(anatomy, blocks=()))


def test_skips_of_one_shape_and_way_are_one_bridge():
    found = joins(small_anatomy())
    assert [(j.source, j.target, j.count) for j in found] == [(2, 4, 2), (1, 4, 1)]
    large = joins(large_anatomy())
    assert len(large) == 8 and sum(join.count for join in large) == 12
    assert [j.target - j.source for j in large] == sorted(j.target - j.source for j in large)
    assert not skip_check(small_anatomy()) and not skip_check(large_anatomy())
    lost = replace(small_anatomy(), skips=small_anatomy().skips[:2])
    assert skip_check(lost) == "CHECK FAILED: 2 skips, 3 needed"
    foreign = replace(lost, skips=(replace(lost.skips[0], target="up_blocks.9"),))
    with pytest.raises(InputError, match="'up_blocks.9'; the blocks are time_embedding, conv_in"):
        joins(foreign)


def test_short_names():
    names = ("conv_in", "down_blocks.2", "mid_block", "up_blocks.0.output", "skip",
             "down_blocks.0.skips.1", "time_embedding", "head 3")  # fmt: skip
    wanted = ["in", "down 2", "mid", "up 0", "in skip", "down 0 skip 1", "time", "head 3"]
    assert [short_name(name) for name in names] == wanted


def test_the_built_network_agrees_with_its_anatomy(tiny_model):
    from diffusionlab.inside.anatomy import anatomy

    built = anatomy(tiny_model, height=48, width=64)
    assert costs(built).check.holds and not skip_check(built)
    assert sum(join.count for join in joins(built)) == len(built.skips) > 0


# ---- feature maps ------------------------------------------------------------------------------
def test_the_liveliest_channels_by_hand():
    found = features(recorded(), "down_blocks.0.output", step=1, most=3)
    assert found.channels == (5, 4, 3) and found.shape == (6, 3, 4) and found.step == 1
    assert found.maps[0] == pytest.approx(2 * 5 * np.arange(3.0)[:, None] * np.ones((3, 4)))
    squares = np.arange(6.0) ** 2
    assert found.variances == pytest.approx(squares[[5, 4, 3]] / squares.sum(), rel=1e-6)
    assert found.explained == pytest.approx([1, 0, 0], abs=1e-9)  # all channels are one picture
    assert found.colours[..., 0] == pytest.approx(np.repeat([[0.0], [0.5], [1.0]], 4, axis=1))
    assert not found.colours[..., 1:].any()  # rounding is not stretched into a picture
    one = np.sqrt(np.mean(squares) * np.mean([0, 1, 4]))
    assert found.energies == pytest.approx(one * np.arange(1, 6), rel=1e-6) and found.bad == 0


def test_principal_components_by_hand():
    values = np.zeros((1, 4, 2, 2))
    values[0, 0] = [[-2, 2], [-2, 2]]  # columns in channel 0, rows, half as strong, in channel 2
    values[0, 2] = [[1, 1], [-1, -1]]
    colours, explained = principal_colours(values)
    assert explained == pytest.approx([0.8, 0.2, 0.0], abs=1e-12)
    assert colours[0, :, :, 0] == pytest.approx(np.array([[0, 1], [0, 1]]))
    assert colours[0, :, :, 1] == pytest.approx(np.array([[1, 1], [0, 0]]))
    wide = np.random.default_rng(0).normal(size=(2, 40, 3, 4))  # more channels than places
    colours, explained = principal_colours(wide)
    flat = np.moveaxis(wide, 1, -1).reshape(-1, 40)
    singular = np.linalg.svd(flat - flat.mean(axis=0), compute_uv=False) ** 2
    assert explained == pytest.approx(singular[:3] / singular.sum(), rel=1e-9)
    assert colours.shape == (2, 3, 4, 3) and colours.min() == 0 and colours.max() == 1
    assert principal_colours(np.ones((1, 2, 1, 1)))[1] == pytest.approx([0, 0, 0])


def test_a_step_of_several_calls_shows_its_first():
    run = recorded(2)
    steps = tuple(replace(s, stages=(Stage(s.level), Stage(s.level))) for s in run.steps)
    values = np.arange(4.0).reshape(4, 1, 1, 1) * np.ones((1, 2, 3, 4))
    twice = replace(run, steps=steps, attention={"mid_block.output": values})
    assert np.all(at_step(twice, "mid_block.output", 0) == 0)
    assert np.all(at_step(twice, "mid_block.output", 1) == 2)
    assert features(twice, "mid_block.output", 0).energies == pytest.approx([0, 2])
    with pytest.raises(InputError, match="4 entries for 2 network calls"):
        at_step(replace(twice, steps=run.steps), "mid_block.output", 0)


def test_the_step_is_that_of_equal_signal_and_noise_unless_given():
    run = recorded()
    sigmas = run.karras_sigmas[:-1]
    assert step_near(run) == int(np.argmin(np.abs(np.log(sigmas))))
    assert step_near(run, 14.6) == 0 and features(run, "up_blocks.0.output").step == step_near(run)


def test_taps_are_found_by_pattern_and_attention_is_none():
    run = recorded()
    assert feature_taps(run) == ["down_blocks.0.output", "up_blocks.0.output"]
    assert feature_taps(run, "*skips*") == ["down_blocks.0.skips.0"]
    with pytest.raises(InputError, match='run again with record={"predictions", "blocks"}'):
        feature_taps(traces.trace(3))
    with pytest.raises(InputError, match="recorded down_blocks.0.output, up_blocks.0.output"):
        feature_taps(run, "*probabilities")
    with pytest.raises(InputError, match="did you mean 'up_blocks.0.output'"):
        features(run, "up_blocks.0.outptu")
    for step in (5, -1, True, "1"):
        with pytest.raises(InputError, match="steps 0 to 4"):
            features(run, "up_blocks.0.output", step)
    for most in (0, 21, 2.5, True):
        with pytest.raises(InputError, match="1 to 20 channels"):
            features(run, "up_blocks.0.output", 1, most)
    with pytest.raises(InputError, match="stopped before the first"):
        features(replace(run, steps=()), "up_blocks.0.output")


def test_a_nan_in_a_feature_is_counted():
    run = recorded()
    values = run.attention["down_blocks.0.output"].copy()
    values[1, 5, 0, 0] = np.nan
    broken = replace(run, attention={"down_blocks.0.output": values})
    found = features(broken, "down_blocks.0.output", 1, most=6)
    assert found.bad == 1 and found.channels[0] == 4 and found.channels[-1] == 5
    assert np.isnan(found.energies[1])
    lost = np.isnan(found.colours).all(axis=2)  # no colour, instead of a plausible one
    assert lost[0, 0] and lost.sum() == 1 and np.isfinite(found.colours[~lost]).all()
    at_another = features(broken, "down_blocks.0.output", 0)
    assert at_another.bad == 1 and np.isfinite(at_another.colours).all()
    assert np.isnan(principal_colours(values[1:2] * np.nan)[0]).all()


# ---- the time ----------------------------------------------------------------------------------
def test_time_embedding_by_hand():
    found = time_embedding(recorded())
    assert found.values.shape == (5, 2) and list(found.order) == [0, 1]  # cosine falls, sine rises
    angles = np.linspace(0, np.pi / 2, 5)
    wanted = np.cos(angles[:, None] - angles[None, :])
    assert found.similarity == pytest.approx(wanted, abs=1e-6) and found.check.holds
    assert found.timesteps.tolist() == [s.level.timestep for s in recorded().steps]
    with pytest.raises(InputError, match='record={"predictions", "time"}'):
        time_embedding(traces.trace(3))
    zero = replace(recorded(), attention={"time": np.zeros((5, 2))})
    assert not time_embedding(zero).check.holds


# ---- ablations ---------------------------------------------------------------------------------
def moved(base: Trace, share: float, first: int = 1, **changes) -> Trace:
    """A run whose latents are longer by a share after step `first` - 1."""
    points = [x * np.float32(1 + share * (i >= first)) for i, x in enumerate(base.latents)]
    steps = tuple(
        replace(s, latent=points[i], next_latent=points[i + 1]) for i, s in enumerate(base.steps)
    )
    return replace(base, steps=steps, **changes)


SHARES = {"skip": 0.02, "down_blocks.0.skips.0": 0.5, "down_blocks.1.skips.0": 0.1}


def test_an_ablation_by_hand():
    base = traces.trace(5)
    found = ablate(base, lambda name: moved(base, SHARES[name], first=3), list(SHARES))
    assert [c.name for c in found.changed] == [
        "down_blocks.0.skips.0", "down_blocks.1.skips.0", "skip"
    ]  # fmt: skip
    assert [c.final for c in found.changed] == pytest.approx([0.5, 0.1, 0.02], rel=1e-5)
    assert [c.parting.at for c in found.changed] == [3, 3, None] and found.start.holds
    half = 0.5 / np.sqrt((1 + 1.5**2) / 2)  # over the mean of both sizes
    assert found.changed[0].differences == pytest.approx([0, 0, 0, half, half, half], rel=1e-5)


def test_another_start_noise_fails_the_check():
    base = traces.trace(5)
    assert not ablate(base, lambda name: moved(base, 0.01, first=0), ["skip"]).start.holds


def test_an_ablation_refuses_what_it_cannot_compare():
    base = traces.trace(5)
    for names in ([], "skip", [3], None):
        with pytest.raises(InputError, match="at least one name"):
            ablate(base, lambda name: base, names)
    with pytest.raises(InputError, match="made 3 steps"):
        ablate(base, lambda name: replace(base, steps=base.steps[:3]), ["skip"])
    with pytest.raises(InputError, match="let run return what generate returns"):
        ablate(base, lambda name: None, ["skip"])
    with pytest.raises(InputError, match="stopped before the first"):
        ablate(replace(base, steps=()), lambda name: base, ["skip"])
    broken = moved(base, np.nan, first=2)
    found = ablate(base, lambda name: broken if name == "skip" else moved(base, 0.1), ["a", "skip"])
    assert found.changed[0].name == "skip"  # what broke the run comes first


def test_a_skip_is_taken_out_of_a_real_network(tiny_model):
    from diffusionlab.generate import generate
    from diffusionlab.inside.anatomy import anatomy
    from diffusionlab.inside.interventions import zero_tap

    def run(name=None):
        return generate(tiny_model, "a red car", num_steps=2, seed=3, progress=False)

    def without(name):
        with zero_tap(tiny_model, name):
            return run()

    found = ablate(run(), without, [skip.tap for skip in anatomy(tiny_model).skips])
    assert found.start.holds and all(changed.final > 1e-4 for changed in found.changed)
