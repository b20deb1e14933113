"""Numbers of latents, paths, spectra, commitment, the autoencoder and noising: answers by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
import traces
from PIL import Image
from runs_of_x0 import SHAPE, noising, run_of, wave

import diffusionlab as dl
from diffusionlab.analysis.autoencoder import Edit, latent_edits, psnr, roundtrip, standard_edits
from diffusionlab.analysis.commitment import commitment, similarity_to_final
from diffusionlab.analysis.latents import (
    Residual,
    eps_spread,
    normality,
    worst,
)
from diffusionlab.analysis.noising import noising_curve
from diffusionlab.analysis.similarity import structural_similarity
from diffusionlab.analysis.spectrum import (
    radial_spectrum,
    rank_correlation,
    ring_power,
    rings,
)
from diffusionlab.analysis.trajectories import changes, ending, for_good, stopped, trajectory
from diffusionlab.analysis.updates import path_check
from diffusionlab.errors import InputError
from diffusionlab.images import to_image
from diffusionlab.schedule import NoiseLevel
from diffusionlab.trace import Latent

RANDOM = np.random.default_rng(0)
END = RANDOM.normal(size=SHAPE)


def spoilt(run, index, **views):
    """The run with the cached views of one prediction replaced."""
    call = replace(run.steps[index].predictions[0])
    call.__dict__.update(views)
    steps = list(run.steps)
    steps[index] = replace(steps[index], predictions=(call,))
    return replace(run, steps=tuple(steps))


# ---- checks of a run ----------------------------------------------------------------------------
def test_the_worst_check_is_the_one_that_is_nan():
    checks = [Residual(0.5, 1e-3), Residual(math.nan, 1e-3), Residual(0.1, 1e-3)]
    assert math.isnan(worst(checks).relative) and not worst(checks).holds
    assert worst(checks[::2]).relative == 0.5


def test_the_path_of_a_run_is_replayed():
    run = run_of([END, 2 * END, END, END])
    assert path_check(run).relative < 1e-12
    for where, changed, told in (
        (1, {"next_latent": run.latents[2][:, ::-1]}, "step 1 replayed"),
        (2, {"latent": run.latents[2][..., ::-1]}, "step 2"),
        (2, {"predictions": (replace(run.predictions[2], cond=END[:, ::-1]),)}, "step 2 replayed"),
    ):
        assert not path_check(changed_step(run, where, **changed)).holds
        assert told in str(path_check(changed_step(run, where, **changed)))
    bare = replace(run, steps=tuple(replace(step, predictions=()) for step in run.steps))
    with pytest.raises(InputError, match="predictions"):
        path_check(bare)


def test_a_path_with_a_gap_or_a_call_from_elsewhere_is_found():
    """What the replay of single steps cannot see."""
    run = run_of([END] * 4)
    first, second, third, last = run.steps
    elsewhere = replace(run, steps=(first, third, last))
    assert "step 2 begins where the last ended" in str(path_check(renumbered(elsewhere)))
    call = replace(second.predictions[0], latent=second.latent + 1, cond=END)  # x0 is the same
    moved = changed_step(run, 1, predictions=(call,))
    assert "asked at x_t of step 1" in str(path_check(moved))
    stage = replace(second.stages[0], update=replace(second.update, a=0.5))  # a call from elsewhere
    assert path_check(changed_step(moved, 1, stages=(stage,))).holds


def changed_step(run, where, **parts):
    steps = list(run.steps)
    steps[where] = replace(steps[where], **parts)
    return replace(run, steps=tuple(steps))


def renumbered(run):
    """The same with updates that count the calls of this run."""
    steps = []
    for i, step in enumerate(run.steps):
        terms = tuple(replace(term, call=i) for term in step.update.terms)
        steps.append(replace(step, update=replace(step.update, terms=terms)))
    return replace(run, steps=tuple(steps))


def test_a_check_tells_its_name():
    assert str(Residual(0.5, 1e-3, "rows sum to 1")) == "CHECK FAILED: off by 0.5 (rows sum to 1)"
    assert str(Residual(0.5, 1e-3)) == "CHECK FAILED: off by 0.5" and not str(Residual(0, 1, "x"))


def test_eps_has_unit_spread_or_a_warning():
    run = run_of([END] * 3)
    stds, warning = eps_spread(run)
    assert stds == pytest.approx([np.std(call.eps) for call in run.predictions]) and not warning
    eps = run.eps[1] / run.eps[1].std() * 1.3
    assert "std of eps-hat leaves 0.75 … 1.25" in eps_spread(spoilt(run, 1, eps=eps))[1]


# ---- Gaussian or not ----------------------------------------------------------------------------
def quantiles(count):
    """The numbers that lie on N(0, 1)'s own quantiles: as Gaussian as can be."""
    return np.array([NormalDist().inv_cdf((i + 0.5) / count) for i in range(count)])


def test_the_distance_from_a_gaussian_is_known():
    latent = np.broadcast_to(quantiles(48).reshape(6, 8), SHAPE)
    found = normality(Latent(latent))
    assert found.distances == pytest.approx([0.5 / 48] * 4, rel=1e-9)
    assert found.distance == pytest.approx(0.5 / 48, rel=1e-9) and found.gaussian
    assert found.count == 192 and found.bound == pytest.approx(
        1.358 / (math.sqrt(192) + 0.12 + 0.11 / math.sqrt(192)), rel=1e-12
    )
    area = found.densities.sum(axis=1) * np.diff(found.edges)[0]
    assert area == pytest.approx(np.ones(4), rel=1e-12)
    shifted = normality(latent + 1)
    assert shifted.distance == pytest.approx(2 * NormalDist().cdf(0.5) - 1, abs=0.5 / 48)
    assert shifted.means == pytest.approx(np.ones(4), abs=1e-9)
    assert not shifted.gaussian and "is not N(0, 1)" in str(shifted)
    for far in (-9, 9):  # all of the values on one side
        assert normality(np.full(SHAPE, far)).distance == pytest.approx(1, abs=1e-9)


def test_draws_of_a_gaussian_pass_one_time_in_twenty_not():
    passed = [normality(np.random.default_rng(i).normal(size=SHAPE)).gaussian for i in range(400)]
    assert 0.92 <= np.mean(passed) <= 0.98
    assert not normality(np.random.default_rng(0).uniform(-1.7, 1.7, (4, 16, 16))).gaussian


def test_what_is_not_finite_is_counted_and_other_shapes_are_refused():
    latent = np.full(SHAPE, np.nan)
    assert normality(latent).bad == 192 and not normality(latent).gaussian
    latent = RANDOM.normal(size=SHAPE)
    latent[0, 0, 0] = np.inf
    assert normality(latent).bad == 1 and normality(latent).count == 191
    with pytest.raises(InputError, match=r"\(channels, h, w\) is allowed"):
        normality(np.zeros((2, 4, 6, 8)))


# ---- paths --------------------------------------------------------------------------------------
def test_for_good_means_to_the_end():
    holds = np.array([[1, 0, 0, 1], [0, 1, 0, 1], [1, 1, 0, 1]], bool)
    assert for_good(holds).tolist() == [2, 1, 3, 0]


def test_the_end_of_a_run_is_told():
    run = run_of([END, END, 2 * END])
    assert np.allclose(ending(run)[0], 2 * END) and ending(run)[1] == "the final latent"
    short = run_of([END, 3 * END, END], stopped=2)
    assert np.allclose(ending(short)[0], 3 * END)
    assert ending(short)[1] == "the last x0-hat: stopped after 2 of 3 steps"
    assert stopped(short) == "stopped after 2 of 3 steps" and not stopped(run)
    # Stable Diffusion's own DDIM ends at the table's first entry: finished, with a little noise
    noisy = replace(run, steps=run.steps[:-1], settings=replace(run.settings, num_steps=2))
    left = run.karras_sigmas[2]
    assert ending(noisy)[1] == f"the last x0-hat: the run ends at karras_sigma {left:.2g}"
    assert not stopped(noisy)
    with pytest.raises(InputError, match="0 steps"):
        ending(replace(run, steps=()))


def test_changes_are_root_mean_squares():
    run = run_of([np.full(SHAPE, k + 1.0) for k in range(4)])
    found = changes(run)
    assert found.absolute == pytest.approx([1, 1, 1], rel=1e-9)
    assert found.relative == pytest.approx([1 / 2, 1 / 3, 1 / 4], rel=1e-9)
    assert found.steps.tolist() == found.calls.tolist() == [1, 2, 3]
    assert found.karras_sigmas == pytest.approx(run.karras_sigmas[1:-1])
    twice = tuple(replace(s, predictions=s.predictions * 2, stages=s.stages * 2) for s in run.steps)
    assert changes(replace(run, steps=twice)).calls.tolist() == [2, 4, 6]
    with pytest.raises(InputError, match="2 or more"):
        changes(run_of([END]))


def test_a_detour_has_its_distance_from_the_chord():
    along, across = np.zeros(SHAPE), np.zeros(SHAPE)
    along[0, 0, 0], across[1, 2, 3] = 2.0, 1.0
    found = trajectory(run_of([0 * along, 0.25 * along + 0.5 * across, along])).x0
    assert found.off == pytest.approx([0, 0.25, 0], abs=1e-12)
    straight = trajectory(run_of([0 * along, 0.7 * along, along])).x0
    assert straight.off == pytest.approx(np.zeros(3), abs=1e-7)
    assert straight.shares == pytest.approx([1, 0], abs=1e-12)
    gaps = np.abs(np.diff(straight.scores[:, 0]))
    assert gaps == pytest.approx([1.4, 0.6], rel=1e-9)


def test_two_main_directions_hold_a_path_in_a_plane():
    angles = np.linspace(0, np.pi, 7)
    planes = RANDOM.normal(size=(2, *SHAPE))
    x0s = [np.cos(a) * planes[0] + np.sin(a) * planes[1] for a in angles]
    found = trajectory(run_of(x0s)).x0
    assert found.shares.sum() == pytest.approx(1, rel=1e-12)
    points = np.array(x0s).reshape(7, -1)
    wanted = np.linalg.norm(points - points[0], axis=1)
    assert np.linalg.norm(found.scores - found.scores[0], axis=1) == pytest.approx(wanted, rel=1e-9)


def test_a_path_that_does_not_move_is_zero_and_shows_only_the_noise_scale():
    found = trajectory(run_of([END] * 6))  # x_t / alpha = x0 + karras_sigma · eps: a line
    assert not found.x0.off.any() and not found.x0.scores.any() and not found.x0.shares.any()
    assert found.noise_scale == pytest.approx(1, abs=1e-9) and found.only_noise
    assert found.latent.off == pytest.approx(np.zeros(7), abs=1e-6)  # straight in flow coordinates
    wild = trajectory(run_of(60 * RANDOM.normal(size=(6, *SHAPE))))
    assert wild.noise_scale < 0.99 and not wild.only_noise


def test_pure_noise_has_no_place_in_sigma_and_nan_stays_nan():
    zero = replace(traces.schedule(), prediction_type="v").zero_terminal_snr()
    levels = zero.levels(4, "trailing", "clean")
    run = run_of([END, 2 * END, END, END])
    steps = tuple(
        replace(s, level=levels[i], next_level=levels[i + 1]) for i, s in enumerate(run.steps)
    )
    found = trajectory(replace(run, steps=steps))
    assert np.isnan(found.latent.scores[0]).all() and np.isfinite(found.latent.scores[1:]).all()
    bad = END.copy()
    bad[0, 0, 0] = np.nan
    assert np.isnan(trajectory(run_of([END, bad, END])).x0.off).any()
    with pytest.raises(InputError, match="2 or more"):
        trajectory(run_of([END]))


# ---- spectrum -----------------------------------------------------------------------------------
def test_a_wave_lies_in_its_own_ring_on_an_oblong_picture():
    for cycles, power in ((0, 1.0), (1, 0.5), (2, 0.5), (3, 0.5), (4, 1.0)):
        wanted = np.zeros(6)
        wanted[cycles] = power  # a cosine has mean square 1/2, its highest frequency ±1
        assert ring_power(wave(0, cycles))[0] == pytest.approx(wanted, abs=1e-12)
    down = ring_power(wave(1, 0))[0]  # 1 cycle over 6 rows: 4/3 over 8
    assert down == pytest.approx([0, 0.5, 0, 0, 0, 0], abs=1e-12)
    assert ring_power(wave(3, 4))[0][5] == pytest.approx(1, rel=1e-12)  # the corner
    assert rings(6, 8).shape == (6, 8) and rings(6, 8).max() == 5 and rings(5, 5).max() == 3


@pytest.mark.parametrize("size", [(6, 8), (8, 6), (5, 9), (1, 7), (16, 16)])
def test_the_rings_hold_all_power(size):
    picture = RANDOM.normal(size=size)
    assert ring_power(picture).sum() == pytest.approx((picture**2).mean(), rel=1e-12)
    assert ring_power(picture) == pytest.approx(ring_power(picture.T), rel=1e-9)


def waves_from(steps, count=8):
    """x0-hats with a wave in each ring 1 … 4, at half strength until its step."""
    return [
        sum((1.0 if k >= step else 0.5) * wave(0, ring + 1) for ring, step in enumerate(steps))
        for k in range(count)
    ]


@pytest.mark.parametrize(
    ("steps", "order"), [((1, 2, 4, 6), 1.0), ((6, 4, 2, 1), -1.0), ((2, 2, 2, 2), math.nan)]
)
def test_each_ring_comes_right_at_its_step(steps, order):
    found = radial_spectrum(run_of(waves_from(steps)))
    assert tuple(found.right[found.whole]) == steps == tuple(found.level_of_power[found.whole])
    assert found.order == pytest.approx(order, abs=1e-12, nan_ok=True)
    assert found.order_by_power == pytest.approx(order, abs=1e-12, nan_ok=True)
    assert found.power[0, 1:5] == pytest.approx(found.final[1:5] / 4, rel=1e-9)
    assert found.wrong_share[0, 1:5] == pytest.approx([0.25] * 4, rel=1e-9)
    assert found.parseval.relative < 1e-9 and found.parseval.holds


def test_the_right_power_may_be_of_the_wrong_wave():
    x0s = [wave(0, 1) * (1 if k >= 3 else -1) + wave(0, 2) for k in range(5)]
    found = radial_spectrum(run_of(x0s))
    assert found.level_of_power[1:3].tolist() == [0, 0] and found.right[1:3].tolist() == [3, 0]
    assert found.wrong_share[0, 1] == pytest.approx(4, rel=1e-9)


def test_power_that_is_not_counted_fails_the_check():
    from diffusionlab.analysis.spectrum import _parseval

    power = ring_power(END).mean(axis=0)
    assert _parseval(power, END).holds and not _parseval(power[:-1], END).holds


def test_one_position_has_no_frequency():
    with pytest.raises(InputError, match="a frequency needs two"):
        radial_spectrum(run_of(np.ones((3, 4, 1, 1))))


def test_equal_ranks_are_shared():
    assert rank_correlation(np.arange(4), np.array([1, 1, 2, 3])) == pytest.approx(
        4.5 / math.sqrt(22.5), rel=1e-12
    )
    assert math.isnan(rank_correlation(np.arange(4), np.ones(4)))


# ---- commitment ---------------------------------------------------------------------------------
def decided_at(steps, count=6, by=1.0):
    """x0-hats that are off by `by` spreads at each place until its step."""
    off = by * END.std()
    return [END + off * (k < np.asarray(steps)) for k in range(count)]


def test_each_place_is_decided_at_its_step():
    steps = np.arange(48).reshape(6, 8) % 5
    found = commitment(run_of(decided_at(steps)))
    assert np.array_equal(found.steps, steps) and found.open == 0
    assert found.share == pytest.approx([(steps <= k).mean() for k in range(6)])
    assert found.half == 2 and "at step 2, karras_sigma" in str(found)
    assert found.levels == pytest.approx(found.karras_sigmas[steps])
    assert found.never_falls.holds
    assert not commitment(run_of(decided_at(steps, by=0.2))).steps.any()
    assert np.array_equal(commitment(run_of(decided_at(steps, by=0.2)), 0.1).steps, steps)


def test_a_place_is_judged_by_the_mean_over_its_channels():
    one = END.copy()
    one[2] += 0.4 * END.std()  # a root mean square of 0.2 over four channels
    assert not commitment(run_of([one, END])).steps.any()
    assert (commitment(run_of([one, END]), 0.19).steps == 1).all()


def test_exactly_half_is_half():
    steps = np.where(np.arange(8) < 4, 0, 4) * np.ones((6, 1), int)
    assert commitment(run_of(decided_at(steps))).half == 0


def test_a_place_that_comes_and_goes_is_decided_when_it_stays():
    x0s = [END, END + 1 * (np.indices((6, 8))[1] == 3), END, END]
    steps = commitment(run_of(x0s)).steps
    assert (steps[:, 3] == 2).all() and not np.delete(steps, 3, axis=1).any()


def test_what_is_never_decided_is_counted():
    run = run_of([END] * 3)
    bad = END.copy()
    bad[1, 2, 5] = np.nan
    found = commitment(spoilt(run, 2, x0=bad))
    assert found.open == 1 and found.steps[2, 5] == 3 and np.isnan(found.levels[2, 5])
    far = replace(run.steps[-1], next_latent=END + 9)
    lost = commitment(replace(run, steps=(*run.steps[:-1], far)))
    assert lost.open == 48 and "fewer than half" in str(lost)


@pytest.mark.parametrize("tolerance", [0, -1, math.nan, math.inf, True, "0.1"])
def test_a_tolerance_is_a_number_above_0(tolerance):
    with pytest.raises(InputError, match="above 0 is allowed, e.g. 0.25"):
        commitment(run_of([END] * 2), tolerance)


# ---- similarity ---------------------------------------------------------------------------------
def test_the_measures_are_known():
    flat = END - END.mean(axis=(1, 2), keepdims=True)
    scales = (-1.0, 0.5, 0.9, 1.0)
    found = similarity_to_final(run_of([scale * flat for scale in scales]))
    for name in ("values", "coarse", "edges"):
        assert found.measures[name] == pytest.approx([-1, 1, 1, 1], rel=1e-9)
    wanted = [1 - (1 - scale) ** 2 for scale in scales]
    assert found.measures["variance explained"] == pytest.approx(wanted, rel=1e-9)
    assert found.reached == {"values": 1, "coarse": 1, "edges": 1, "variance explained": 2}
    assert "at step 1 to 2 of 4" in str(found) and found.ends_at_one.holds
    assert "SSIM of the pictures" not in found.measures


def test_each_measure_looks_at_something_else():
    fine, coarse = wave(0, 4), wave(0, 1)
    found = similarity_to_final(run_of([coarse, coarse + fine]))
    assert found.measures["coarse"][0] == pytest.approx(1, rel=1e-9)
    assert found.measures["values"][0] == pytest.approx(0.5 / math.sqrt(0.5 * 1.5), rel=1e-9)
    assert found.measures["edges"][0] < found.measures["values"][0]  # the edges are fine
    shifted = similarity_to_final(run_of([END + 5, END]))
    assert shifted.measures["values"][0] == pytest.approx(1, rel=1e-9)
    assert shifted.measures["variance explained"][0] < -5


def test_what_the_measures_say_together():
    flat = END - END.mean(axis=(1, 2), keepdims=True)
    run = run_of([-flat, -flat, flat])
    assert str(similarity_to_final(run)).startswith("0.8 is reached at step 2 of 3 (karras_sigma")
    lost = replace(run, steps=(*run.steps[:-1], replace(run.steps[-1], next_latent=-flat)))
    assert str(similarity_to_final(lost)) == "no measure reaches 0.8 before the end"
    half = run_of([flat, 2.5 * flat])
    half = replace(half, steps=(*half.steps[:-1], replace(half.steps[-1], next_latent=flat)))
    assert "at step 0 or never, depending" in str(similarity_to_final(half))
    with pytest.raises(InputError, match="varies over its places"):
        similarity_to_final(run_of([np.ones(SHAPE)] * 2))


def test_x_t_is_the_contrast():
    run = run_of([END] * 8)
    noisy = similarity_to_final(run).noisy
    assert noisy[0] < 0.4 < 0.9 < noisy[-1] and (np.diff(noisy) > 0).all()


def test_ssim_is_one_formula_on_flat_pictures_and_another_program_agrees():
    a, b = np.full((20, 24, 3), 0.3), np.full((20, 24, 3), 0.6)
    flat = (2 * 0.3 * 0.6 + 1e-4) / (0.3**2 + 0.6**2 + 1e-4)
    assert structural_similarity([a, b], b) == pytest.approx([flat, 1], rel=1e-9)
    x, y = RANDOM.uniform(size=(2, 13, 12, 3))
    places = np.arange(11) - 5
    window = np.exp(-(places[:, None] ** 2 + places**2) / (2 * 1.5**2))
    window /= window.sum()
    grey = [z @ [0.299, 0.587, 0.114] for z in (x, y)]
    found = []
    for top in range(3):
        for left in range(2):
            p, q = (z[top : top + 11, left : left + 11] for z in grey)
            mp, mq = (window * p).sum(), (window * q).sum()
            sp, sq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
            both = (window * (p - mp) * (q - mq)).sum()
            found.append((2 * mp * mq + 1e-4) * (2 * both + 9e-4)
                         / ((mp**2 + mq**2 + 1e-4) * (sp + sq + 9e-4)))  # fmt: skip
    assert structural_similarity([x], y) == pytest.approx([np.mean(found)], rel=1e-9)
    assert structural_similarity([1 - y], y)[0] < 0


def test_large_pictures_are_averaged_down_first():
    small = RANDOM.uniform(size=(256, 300, 3))
    other = np.clip(small + 0.1 * RANDOM.normal(size=small.shape), 0, 1)
    checks = 0.01 * (-1.0) ** np.indices((512, 600, 1)).sum(axis=0)  # mean 0 in every square
    double = [x.repeat(2, axis=0).repeat(2, axis=1) + checks for x in (small, other)]
    wanted = structural_similarity([small], other)
    assert structural_similarity(double[:1], double[1]) == pytest.approx(wanted, rel=1e-9)


def test_frames_are_compared_as_pictures():
    run = traces.trace(3)
    assert similarity_to_final(run).measures["SSIM of the pictures"] == pytest.approx([1] * 3)
    tiny = tuple(frame.resize((12, 9)) for frame in run.frames)
    assert "SSIM of the pictures" not in similarity_to_final(replace(run, frames=tiny)).measures


# ---- the autoencoder ----------------------------------------------------------------------------
PICTURE = to_image(RANDOM.uniform(0.2, 0.7, size=(48, 64, 3)))


def encode(image):
    """The mean of each 8 × 8 square, and its grey as a fourth channel."""
    cells = np.asarray(image, np.float64).reshape(6, 8, 8, 8, 3).mean(axis=(1, 3)) / 255
    return np.concatenate([cells, cells.mean(axis=2, keepdims=True)], axis=2).transpose(2, 0, 1)


def decode(latent):
    """Each position as a square of 8 × 8 pixels; the fourth channel is not looked at."""
    rgb = np.clip(np.asarray(latent)[:3].transpose(1, 2, 0), 0, 1)
    return to_image(rgb.repeat(8, axis=0).repeat(8, axis=1))


def test_a_roundtrip_that_keeps_everything():
    blocks = decode(encode(PICTURE))
    found = roundtrip(blocks, lambda image: Latent(encode(image)), decode)
    assert found.psnr == math.inf and not found.residual.any() and found.parseval.holds
    assert found.compression == 48 * 64 * 3 / (4 * 6 * 8) and found.cell == 8


def test_psnr_is_that_of_the_roundtrip():
    found = roundtrip(PICTURE, encode, decode)
    assert psnr(PICTURE, decode(encode(PICTURE))) == pytest.approx(found.psnr, rel=1e-12)
    assert psnr(PICTURE, PICTURE) == math.inf
    grey = [Image.new("RGB", (8, 8), (v, v, v)) for v in (100, 151)]  # a fifth of 255 apart
    assert psnr(*grey) == pytest.approx(-20 * math.log10(0.2), rel=1e-6)
    with pytest.raises(InputError, match="resize one"):
        psnr(PICTURE, grey[0])


def test_a_roundtrip_that_is_off_by_a_tenth():
    darker = lambda latent: to_image(np.asarray(PICTURE) - np.uint8(51))  # noqa: E731
    found = roundtrip(PICTURE, encode, darker)
    assert found.psnr == pytest.approx(-20 * math.log10(0.2), rel=1e-6)
    assert np.nanmax(found.lost[1:]) < 1e-12 < found.lost[0]
    assert found.parseval.relative < 1e-9


def test_fine_structure_is_lost_and_coarse_is_kept():
    found = roundtrip(PICTURE, encode, decode)
    assert found.lost[1] < 0.3 < 0.9 < found.lost[-2]
    assert found.parseval.relative < 1e-9


def test_the_worst_place_is_found_beside_the_diagonal():
    array = np.array(PICTURE)
    array[16:24, 40:48] = 255 - array[16:24, 40:48]
    found = roundtrip(PICTURE, encode, lambda latent: to_image(array), worst=2)
    assert found.worst[0][:2] == (16, 40) and found.worst[1][2] == 0


def test_pictures_of_every_kind_are_read_as_they_look():
    clear = Image.new("RGBA", (64, 48), (255, 0, 0, 0))  # hidden red under full transparency
    assert (roundtrip(clear, encode, decode).before == 1).all()
    grey = Image.new("L", (64, 48), 51)
    assert np.allclose(roundtrip(grey, encode, decode).before, 0.2)
    with pytest.raises(InputError, match="PIL image is needed"):
        roundtrip(np.zeros((48, 64, 3)), encode, decode)
    with pytest.raises(InputError, match=r"came back as \(32, 24\); resize it"):
        roundtrip(PICTURE, encode, lambda latent: PICTURE.resize((32, 24)))


LATENT = RANDOM.uniform(0.3, 0.6, size=SHAPE).astype(np.float32)


def test_edits_change_what_they_say():
    cases = ((Edit("zero", 1), 0.0), (Edit("mean", 1), LATENT[1].mean()),
             (Edit("add", 1, -0.25), LATENT[1] - np.float32(0.25)))  # fmt: skip
    for edit, wanted in cases:
        new = edit.of(LATENT)
        assert np.allclose(new[1], wanted) and np.array_equal(new[[0, 2, 3]], LATENT[[0, 2, 3]])
    place = Edit("add", None, 1.0, (2, 5)).of(LATENT)
    assert np.argwhere((place != LATENT).any(axis=0)).tolist() == [[2, 5]]
    assert np.array_equal(Edit("add", None, 1.0, [2, 5]).of(LATENT), place)
    assert [str(edit) for edit in standard_edits(LATENT)[2:4]] == ["channel 0 −2", "channel 0 +2"]
    assert (
        str(standard_edits(LATENT)[-1]) == "all +4 at (3, 4)" and len(standard_edits(LATENT)) == 17
    )


def test_the_reach_of_one_position_is_its_box():
    found = latent_edits(LATENT, decode, [Edit("add", None, 0.3, (2, 5)), Edit("add", 3, 1.0)])
    one, blind = found.edits
    assert one.box == (16, 40, 8, 8) and one.share == 1 and found.cell == 8
    wanted = np.zeros((48, 64))
    wanted[16:24, 40:48] = np.abs(one.picture - found.picture)[16, 40].max()
    assert np.allclose(one.change, wanted) and wanted.max() == pytest.approx(0.3, abs=1 / 255)
    assert blind.box is None and blind.root_mean_square == 0 and math.isnan(blind.share)

    def smear(latent):
        sharp = np.asarray(decode(latent)) / 255
        return to_image((sharp + np.roll(sharp, 8, axis=1)) / 2)

    wide = latent_edits(LATENT, smear, [Edit("add", None, 0.3, (2, 5))]).edits[0]
    assert wide.box == (16, 40, 8, 16) and wide.share == pytest.approx(0.5, abs=0.03)


def test_a_decoder_that_does_not_repeat_is_found_out():
    assert latent_edits(LATENT, decode, [Edit("zero", 0)]).repeats.holds
    dice = np.random.default_rng(1)
    rolling = lambda latent: decode(latent + 0.1 * dice.normal(size=SHAPE))  # noqa: E731
    assert not latent_edits(LATENT, rolling, [Edit("zero", 0)]).repeats.holds


@pytest.mark.parametrize(
    ("edits", "told"),
    [
        ([Edit("zero", 4)], "0 to 3 are allowed"),
        ([Edit("zero", -1)], "0 to 3 are allowed"),
        ([Edit("add", 0, 1.0, (6, 0))], r"0 to 5 and 0 to 7 is allowed"),
        *(
            ([Edit("add", 0, 1.0, place)], r"0 to 5 and 0 to 7 is allowed: choose one inside")
            for place in (5, (2,), (1, 2, 3), (1.5, 2), "25", "a", (None, 1))
        ),
        ([Edit("blur", 0)], "use one of zero, mean, add"),
        ([], "at least one is needed"),
    ],
)
def test_edits_of_what_is_not_there(edits, told):
    with pytest.raises(InputError, match=told):
        latent_edits(LATENT, decode, edits)


def test_edits_are_of_one_latent():
    with pytest.raises(InputError, match="take one latent"):
        latent_edits(LATENT[None], decode)


# ---- noising ------------------------------------------------------------------------------------
def test_the_errors_of_one_step_are_known():
    record = noising(error=0.1)
    found = noising_curve(record)
    sigmas = np.array([level.karras_sigma for level in record.levels])
    assert found.x0_errors == pytest.approx([0.1 / record.x0.std()] * 3, rel=1e-9)
    assert found.eps_errors == pytest.approx(0.1 / sigmas, rel=1e-9)
    assert found.snr == pytest.approx(1 / sigmas**2, rel=1e-9)
    assert found.mixes.relative < 1e-12 and found.agrees.relative < 1e-9 and not found.checks
    with pytest.raises(InputError, match="one is needed"):
        noising_curve(replace(record, levels=()))


def test_each_check_of_a_noising_can_fail():
    record = noising()
    swapped = replace(record, latents=record.latents[::-1])
    (told,) = noising_curve(swapped).checks
    assert "(x_t = alpha x0 + sigma eps)" in told
    pixels = replace(record, noisy_pixels=record.noisy_pixels * 1.001)
    assert not noising_curve(pixels).mixes.holds
    loud = replace(record, pixel_noise=record.pixel_noise * 1.1)
    assert not noising_curve(loud).unit.holds and noising_curve(record).unit.holds
    call = replace(record.predictions[0])
    call.__dict__["eps"] = call.eps * 1.2
    wrong = replace(record, predictions=(call, *record.predictions[1:]))
    assert not noising_curve(wrong).agrees.holds
    gone = replace(call, cond=call.cond * np.nan)
    lost = replace(record, predictions=(gone, *record.predictions[1:]))
    assert math.isnan(noising_curve(lost).agrees.relative)  # NaN is no agreement
    noise_alone = replace(record, levels=(*record.levels[:2], NoiseLevel(1000, 0.0, 1.0)))
    assert noising_curve(noise_alone).agrees.relative < 1e-9  # where eps-hat says nothing of x0


# ---- the shipped model ---------------------------------------------------------------------------
def test_on_toyland_every_check_holds():
    model = dl.load()
    run = dl.generate(model, "a red car in the city at night", seed=1, num_steps=8, progress=False)
    assert path_check(run).holds and not eps_spread(run)[1]
    assert normality(run.latents[0]).gaussian and not normality(run.latents[-1]).gaussian
    assert radial_spectrum(run).parseval.holds and radial_spectrum(run).order > 0.5
    assert trajectory(run).only_noise and commitment(run).open == 0
    assert similarity_to_final(run).ends_at_one.holds
    noised = dl.noise_image(model, run.image, (199, 799), prompt="a red car", decoded=False)
    found = noising_curve(noised)
    assert not found.checks and found.x0_errors[0] < found.x0_errors[1] < 1
    there = roundtrip(
        run.image, lambda image: dl.encode(model, image), lambda latent: dl.decode(model, latent)
    )
    assert there.psnr > 20 and there.parseval.holds and there.compression == 48
    with pytest.raises(InputError, match="image width"):
        roundtrip(PICTURE.resize((65, 48)), lambda image: dl.encode(model, image), decode)
