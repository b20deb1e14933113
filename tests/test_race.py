"""Runs at common places: which step each shows, how far apart they are; what differs in two."""

from __future__ import annotations

from dataclasses import replace

import lane_runs
import numpy as np
import pytest
import traces

from diffusionlab.analysis.differing import differing
from diffusionlab.analysis.race import (
    MOST_PLACES,
    Lane,
    align,
    apart,
    arrival,
    lane,
    relative_distances,
    to_ends,
)
from diffusionlab.errors import InputError


def made(sigmas, calls=1, asked=None, every=1, end=0.0):
    """A lane from its levels, `calls` network calls a step."""
    count = len(sigmas)
    kept = np.array([*range(0, count - 1, every), count - 1])
    return Lane(kept, np.array(sigmas, float)[kept], kept * calls + 1, asked or count,
                count * calls, end)  # fmt: skip


# ---- lanes ------------------------------------------------------------------------------------
def test_a_lane_knows_levels_and_calls():
    found = lane(lane_runs.doubled(traces.trace()))
    assert found.steps.tolist() == [0, 1, 2, 3, 4]
    assert found.first_calls.tolist() == [1, 3, 5, 7, 9]
    assert (found.calls, found.asked, found.end) == (10, 5, 0.0)
    np.testing.assert_allclose(found.karras_sigmas, traces.trace().karras_sigmas[:-1], rtol=1e-12)


def test_every_second_step_keeps_the_last():
    assert lane(traces.trace(6), every=2).steps.tolist() == [0, 2, 4, 5]
    assert lane(traces.trace(5), every=2).steps.tolist() == [0, 2, 4]
    assert lane(traces.trace(1), every=3).steps.tolist() == [0]


def test_a_stopped_run_was_asked_for_more_steps():
    found = lane(lane_runs.stopped_after(traces.trace(), 3))
    assert (found.asked, len(found.steps)) == (5, 3)
    assert found.end > 0


@pytest.mark.parametrize("every", [0, -1, 1.5, True, "2"])
def test_every_must_be_a_whole_number(every):
    with pytest.raises(InputError, match="whole number from 1"):
        lane(traces.trace(), every)


def test_a_number_of_numpy_will_do():
    assert lane(traces.trace(), np.int64(2)).steps.tolist() == [0, 2, 4]


def test_a_run_without_steps_is_refused():
    with pytest.raises(InputError, match="0 steps"):
        lane(replace(traces.trace(), steps=()))


# ---- places -----------------------------------------------------------------------------------
def test_steps_of_equally_long_runs_are_places():
    found = align([made([9, 4, 2, 1]), made([8, 4, 2, 1])], "step")
    assert found.places.tolist() == [0, 1, 2, 3]
    assert found.shown.tolist() == [[0, 1, 2, 3]] * 2
    assert found.begun.all()
    assert not found.over.any()


def test_a_shorter_run_shows_the_step_at_the_same_fraction():
    found = align([made(np.geomspace(9, 1, 9)), made([9, 3, 1])], "step")
    assert found.shown[0].tolist() == list(range(9))
    assert found.shown[1].tolist() == [0, 0, 0, 1, 1, 1, 1, 2, 2]  # halves go down


def test_a_stopped_run_stays_at_its_last_step():
    found = align([made([9, 4, 2, 1]), made([9, 4], asked=4)], "step")
    assert found.shown[1].tolist() == [0, 1, 1, 1]
    assert found.over[1].tolist() == [False, False, True, True]


def test_levels_are_the_union_and_each_run_is_not_below_it():
    found = align([made([10, 5, 1]), made([10, 3, 2, 1]), made([4, 2])], "karras_sigma")
    assert found.places.tolist() == [10, 5, 4, 3, 2, 1]
    assert found.shown.tolist() == [[0, 1, 1, 1, 1, 2], [0, 0, 0, 1, 2, 3], [0, 0, 0, 0, 1, 1]]
    assert found.begun[2].tolist() == [False, False, True, True, True, True]
    assert found.begun[:2].all()


def test_levels_that_agree_to_rounding_are_one_place():
    found = align([made([10, 1]), made([10 * (1 + 1e-9), 1 - 1e-9])], "karras_sigma")
    assert len(found.places) == 2
    assert found.shown.tolist() == [[0, 1], [0, 1]]


def test_pure_noise_is_the_first_place():
    found = align([made([np.inf, 5, 1]), made([7, 1])], "karras_sigma")
    assert found.places.tolist() == [np.inf, 7, 5, 1]
    assert found.shown.tolist() == [[0, 0, 1, 2], [0, 0, 0, 1]]
    assert found.begun[1].tolist() == [False, True, True, True]


def test_a_run_that_ended_at_a_higher_level_is_over():
    found = align([made([10, 5, 2, 1]), made([10, 5], asked=4, end=2.0)], "karras_sigma")
    assert found.over[1].tolist() == [False, False, False, True]


def test_many_levels_are_thinned_out():
    lanes = [made(np.geomspace(100, 0.1, 80)), made(np.geomspace(90, 0.2, 80))]
    found = align(lanes, "karras_sigma")
    assert len(found.places) == MOST_PLACES
    assert found.places[0] == 100
    assert found.places[-1] == pytest.approx(0.1)
    assert (np.diff(found.places) < 0).all()


def test_calls_belong_to_steps():
    found = align([made([9, 4, 1], calls=2), made([9, 4, 1])], "network_calls")
    assert found.places.tolist() == [1, 2, 3, 4, 5, 6]
    assert found.shown.tolist() == [[0, 0, 1, 1, 2, 2], [0, 1, 2, 2, 2, 2]]
    assert found.over[1].tolist() == [False] * 3 + [True] * 3


@pytest.mark.parametrize("by", ["step", "karras_sigma", "network_calls"])
def test_only_kept_steps_are_shown(by):
    found = align([lane(traces.trace(7), every=3), lane(traces.trace(7), every=3)], by)
    assert found.shown.max() == 2
    assert (found.shown[0] == found.shown[1]).all()
    assert (np.diff(found.shown[0]) >= 0).all()


def test_an_unknown_alignment_is_named_with_the_known_ones():
    with pytest.raises(InputError, match="'sigma' is unknown.*network_calls"):
        align([made([1])], "sigma")
    with pytest.raises(InputError, match="0 runs"):
        align([], "step")


# ---- distances --------------------------------------------------------------------------------
def test_relative_distances_by_hand():
    a, b = np.array([[3.0, 4.0], [0.0, 0.0], [1.0, np.nan]]), np.array([[3.0, 0.0], [2, 0], [1, 1]])
    np.testing.assert_allclose(relative_distances(a, b), [4 / 3, 1.0, np.nan], rtol=1e-12)


@pytest.mark.parametrize("by", ["step", "karras_sigma", "network_calls"])
def test_distances_are_those_of_the_traces(by):
    runs = lane_runs.three().traces
    lanes = [lane(run) for run in runs]
    alignment = align(lanes, by)
    found = apart(runs, lanes, [alignment])[0]
    for reference, run, place in ((0, 1, 2), (1, 2, 4), (2, 0, 3)):
        i, j = alignment.shown[reference, place], alignment.shown[run, place]
        a, b = runs[run].x0s[j].astype(float), runs[reference].x0s[i].astype(float)
        wanted = np.linalg.norm(a - b) / np.linalg.norm(b)
        assert found.x0[reference, run, place] == pytest.approx(wanted, rel=1e-6)
    for i in range(3):
        assert (found.x0[i, i] == 0).all()
        assert (found.x_t[i, i] == 0).all()


def test_x0_that_moved_by_a_number_is_that_far_away():
    runs = lane_runs.three().traces[:2]
    lanes = [lane(run) for run in runs]
    found = apart(runs, lanes, [align(lanes, "step")])[0]
    sizes = np.sqrt((runs[0].x0s.astype(float) ** 2).mean(axis=(1, 2, 3)))
    np.testing.assert_allclose(found.x0[0, 1], 0.1 / sizes, rtol=2e-3)  # eps over a small alpha


def test_what_cannot_be_compared_is_nan():
    base = traces.trace()
    runs = (base, lane_runs.cropped(base), lane_runs.unrecorded(base), lane_runs.bad_from(base, 3))
    lanes = [lane(run) for run in runs]
    found = apart(runs, lanes, [align(lanes, "step")])[0]
    assert np.isnan(found.x0[0, 1]).all()
    assert np.isnan(found.x_t[1, 0]).all()
    assert np.isnan(found.x0[0, 2]).all()
    assert (found.x_t[0, 2] == 0).all()
    assert np.isnan(found.x0[0, 3]).tolist() == [False, False, False, True, True]


@pytest.mark.parametrize("by", ["step", "karras_sigma", "network_calls"])
def test_x_t_of_different_levels_is_not_compared(by):
    runs = (traces.trace(10), traces.trace(5))
    lanes = [lane(run) for run in runs]
    alignment = align(lanes, by)
    found = apart(runs, lanes, [alignment])[0]
    ours, theirs = (one.karras_sigmas[at] for one, at in zip(lanes, alignment.shown, strict=True))
    same = np.abs(ours / theirs - 1) < 1e-6
    assert 0 < same.sum() < len(same)
    for pair in (found.x_t[0, 1], found.x_t[1, 0]):
        assert (np.isfinite(pair) == same).all()
    assert np.isfinite(found.x0[0, 1]).all()


def test_two_runs_from_pure_noise_are_at_one_level():
    runs = (traces.trace(), traces.trace())
    lanes = [replace(lane(run), karras_sigmas=np.array([np.inf, 4, 3, 2, 1])) for run in runs]
    assert (apart(runs, lanes, [align(lanes, "step")])[0].x_t[0, 1] == 0).all()


def test_distances_to_the_ends():
    runs = lane_runs.three().traces
    found = to_ends(runs)
    wanted = relative_distances(runs[1].x0s.astype(float),
                                np.stack([runs[0].latents[-1]] * 5).astype(float))  # fmt: skip
    np.testing.assert_allclose(found[0][1], wanted, rtol=1e-9)
    base = traces.trace()
    mixed = to_ends((base, lane_runs.cropped(base), lane_runs.unrecorded(base)))
    assert mixed[0][1] is None
    assert mixed[0][2] is None
    assert mixed[2] == [None, None, None]


def test_arrival_is_for_good():
    assert arrival(np.array([1.0, 0.05, 0.2, 0.1, 0.0])) == 3
    assert arrival(np.array([1.0, 0.05, 0.2])) is None
    assert arrival(np.array([0.0, np.nan, 0.0])) == 2


def test_a_wrong_distance_would_be_found():
    runs = lane_runs.three().traces
    lanes = [lane(run) for run in runs]
    found = apart(runs, lanes, [align(lanes, "step")])[0]
    assert found.x0[0, 1, 2] != pytest.approx(found.x0[0, 2, 2], rel=0.1)


# ---- settings of two runs ---------------------------------------------------------------------
def test_differing_settings_and_the_same_start():
    base = traces.trace()
    other = replace(base, settings=replace(base.settings, sampler={"name": "heun", "options": {}}))
    found = differing(base, other)
    assert found.differ == (("sampler", "ddim", "heun"),)
    assert ("seed", "7") in found.same
    assert ("guidance", "4") in found.same
    assert found.start == 0
    assert found.same_start


def test_another_start_and_another_shape():
    base = traces.trace()
    far = differing(base, lane_runs.moved(base, 1.0))
    assert not far.same_start
    assert far.start > 0
    assert differing(base, lane_runs.cropped(base)).start is None
    assert not differing(base, lane_runs.bad_from(base, 0)).same_start
