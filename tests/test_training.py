"""The training programs: the smoke preset learns, stops in time, resumes and exports."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from accelerate import PartialState
from torch import nn

import diffusionlab as dl
from diffusionlab.errors import InputError
from diffusionlab.schedule import NoiseSchedule
from diffusionlab.toyland import KEPT_PROMPTS, SMALL, Caption, Claim, caption, is_true, scene
from diffusionlab.training.__main__ import PARTS, main, parser, run_part
from diffusionlab.training.clip import every_word, siglip_loss
from diffusionlab.training.data import SEEDS, Facts, World, truth
from diffusionlab.training.denoiser import draw_timesteps, noised
from diffusionlab.training.export import export
from diffusionlab.training.loop import (
    Average,
    Training,
    begin_with,
    rate_factor,
)
from diffusionlab.training.presets import SCALED_LINEAR, preset
from diffusionlab.training.written import write_atomically


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One whole smoke run."""
    folder = tmp_path_factory.mktemp("training") / "smoke"
    main(["all", "--preset", "smoke", "--run", str(folder)])
    return folder


def logged(run, part) -> list[float]:
    state = json.loads((run / part / "state.json").read_text(encoding="utf-8"))
    return [entry["values"]["loss"] for entry in state["log"]]


@pytest.mark.parametrize("part", ["clip", "vae", "denoiser", "judges"])  # others only go on
def test_the_smoke_run_learns_something_measurable(run, part):
    losses = logged(run, part)
    assert len(losses) >= 2
    assert min(losses[-2:]) < 0.95 * losses[0]
    assert (run / part / "curve.png").read_bytes().startswith(b"\x89PNG")
    drawn = part in ("vae", "denoiser")
    assert (run / part / "samples.png").exists() == drawn


def test_what_it_exports_is_a_checkpoint_that_loads_and_runs(run):
    model = dl.load(run / "checkpoint", device="cpu")
    trace = dl.generate(model, "a red car", num_steps=2, progress=False)
    assert trace.image.size == (64, 64)
    assert (run / "checkpoint" / "README.md").read_text(encoding="utf-8").count("|") > 20


def test_the_card_says_what_the_run_began_with(run, tmp_path):
    small = preset("smoke")
    world = World.rendered(run.parent / "data", small.pictures, small.size, small.share)
    start = run / "start.json"
    try:
        start.write_text('{"folder": "an_earlier_one"}', encoding="utf-8")
        card = export(run, tmp_path / "out", small, world) / "README.md"
    finally:
        start.unlink()
    told = "began with the weights of the checkpoint `an_earlier_one`"
    assert told in card.read_text(encoding="utf-8")
    first = (run / "checkpoint" / "README.md").read_text(encoding="utf-8")
    assert told not in first and "All weights began as random numbers." in first


@pytest.mark.slow
def test_the_accelerator_preset_goes_the_whole_way_at_smoke_size(tmp_path):
    """Its own networks and all parts; few pictures, small batches, seconds instead of minutes."""
    whole = preset("accelerator")
    small = dataclasses.replace(
        whole,
        pictures=64,
        minutes=dict.fromkeys(whole.minutes, 0.1),
        text_batch=16,
        vae_batch=4,
        vae_crop=64,
        unet_batch=8,
        device="cpu",
        bfloat16=False,
    )
    run = tmp_path / "run"
    world = World.rendered(tmp_path / "data", small.pictures, small.size, small.share)
    arguments = parser().parse_args(["all", "--run", str(run)])
    for name in PARTS:
        run_part(name, arguments, small, world)
    model = dl.load(run / "checkpoint", device="cpu")
    assert sum(p.numel() for p in model.unet.parameters()) == 8_219_684
    assert model.config["toyland"]["share"] == "full"
    trace = dl.generate(model, "a neon cat in space", num_steps=2, progress=False)
    assert trace.image.size == (128, 128) and not trace.tokens.notices


TWO = """
import json
import sys
from pathlib import Path
import torch
from torch import nn
from diffusionlab.training.loop import Training
from diffusionlab.training.team import processes
torch.set_num_threads(1)
torch.manual_seed(0)
module = nn.Linear(3, 1)
training = Training(Path(sys.argv[1]), module, 1e-2, 0.0, 0.03)
for _ in training.steps("two"):  # each process has another target, and the same weights
    training.learn((module(torch.ones(1, 3)) - training.rank).square().mean())
module.weight.grad = torch.full((1, 3), float(training.rank))
training._share_gradients()
told = training.processes, module.weight.grad.tolist(), module.weight.tolist(), training.step
# a file each: what two processes print together may be mixed within a line
Path(f"{sys.argv[1]}.{training.rank}").write_text(json.dumps(told), encoding="utf-8")
processes(cpu=True).destroy_process_group()
tasks = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
assert not any("gloo" in task for task in tasks), tasks
"""


@pytest.mark.slow
def test_two_processes_learn_from_the_mean_of_their_gradients(tmp_path):
    (tmp_path / "two.py").write_text(TWO, encoding="utf-8")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ran = subprocess.run(
        [sys.executable, *launch, str(tmp_path / "two.py"), str(tmp_path / "run")],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    told = [(tmp_path / f"run.{rank}").read_text(encoding="utf-8") for rank in (0, 1)]
    assert told[0] == told[1]
    processes, gradient, _, step = json.loads(told[0])
    assert (processes, gradient) == (2, [[0.5, 0.5, 0.5]])
    state = json.loads((tmp_path / "run" / "state.json").read_text(encoding="utf-8"))
    assert state["step"] == step > 0


def test_the_program_ends_the_group_of_its_processes(run, monkeypatch):
    ended = []
    monkeypatch.setattr(PartialState, "destroy_process_group", lambda team: ended.append(team))
    main(["data", "--preset", "smoke", "--run", str(run)])
    assert len(ended) == 1


def test_a_start_from_a_checkpoint_takes_what_fits(tmp_path):
    first, second = nn.Linear(2, 3), nn.Linear(2, 3)
    given = {"weight": first.weight.detach(), "bias": torch.zeros(7), "other": torch.ones(1)}
    bias = second.bias.detach().clone()
    assert begin_with(second, given) == 1
    assert torch.equal(second.weight, first.weight) and torch.equal(second.bias, bias)


def test_a_part_stops_at_its_time_and_goes_on_from_there(tmp_path):
    target = torch.ones(4)

    def slice_of(minutes):
        torch.manual_seed(0)
        training = Training(tmp_path, nn.Linear(4, 4), 1e-2, 0.0, minutes)
        first = training.step
        for _ in training.steps("test"):
            training.learn(((training.module(target) - target) ** 2).mean())
        return first, training

    first, one = slice_of(0.01)
    again, two = slice_of(0.02)
    assert first == 0 and again == one.step > 0
    assert 0.6 <= one.clock.seconds < 3 and two.clock.seconds >= 1.2
    assert two.log[-1]["values"]["loss"] < one.log[0]["values"]["loss"]
    assert slice_of(0.02)[0] == two.step  # nothing left to do


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "kept.txt"
    write_atomically(path, lambda part: part.write_text("old"))
    with pytest.raises(OSError, match="full"):
        write_atomically(path, lambda part: (_ for _ in ()).throw(OSError("disk full")))
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_truth_is_decided_by_the_graphs():
    scenes = [
        scene(1, object="car", colour="red", setting="city", time="night"),
        scene(2, object="car", colour="blue", other="cat", other_colour="red", setting="city"),
        scene(3, object="cat", colour="red", setting="space"),
    ]
    said = [
        Caption("", (Claim("car"),)),
        Caption("", (Claim("cat", "red"), Claim("vehicle"))),
        Caption("", (), {"setting": "city"}),
        Caption(""),
    ]
    expected = [[1, 1, 0], [0, 1, 0], [1, 1, 0], [1, 1, 1]]
    assert truth(said, Facts.of(scenes)).astype(int).tolist() == expected


def test_truth_of_many_agrees_with_truth_of_one():
    rng = np.random.default_rng(0)
    scenes = [scene(seed) for seed in range(90)]
    said = [caption(s, rng) for s in scenes] + every_word(SMALL)
    found = truth(said, Facts.of(scenes))
    assert found.tolist() == [[is_true(c, s) for s in scenes] for c in said]
    assert found[: len(scenes)].diagonal().all() and 0.01 < found.mean() < 0.2


def test_short_captions_hold_every_word_and_no_kept_prompt():
    said = every_word(SMALL)
    assert not {c.text for c in said} & KEPT_PROMPTS
    assert {claim.kind for c in said for claim in c.claims} == {*SMALL.objects, *SMALL.hypernyms}
    assert {c.atoms.get("setting") for c in said} == {None, *SMALL.settings}


def test_every_use_of_scenes_has_its_own_seeds():
    firsts = sorted(SEEDS.values())
    assert min(b - a for a, b in zip(firsts, firsts[1:], strict=False)) >= 10_000_000


def test_the_siglip_loss_is_small_only_for_right_labels():
    true = torch.eye(4, dtype=torch.bool)
    right = torch.where(true, 9.0, -9.0)
    assert siglip_loss(right, true) < 1e-3 < 5 < siglip_loss(-right, true)


def test_noise_and_target_agree_with_the_schedule():
    schedule = NoiseSchedule.from_config(SCALED_LINEAR)
    timesteps = draw_timesteps(schedule, 400, np.random.default_rng(0))
    assert timesteps.min() >= 0 and timesteps.max() <= 999 and len(timesteps) == 400
    clean = torch.randn(400, 4, 2, 2)
    noisy, v = noised(clean, schedule, timesteps)
    alpha, sigma = (
        torch.from_numpy(table[timesteps]).float().view(-1, 1, 1, 1)
        for table in (schedule.alpha, schedule.sigma)
    )
    torch.testing.assert_close(alpha * noisy - sigma * v, clean, rtol=1e-4, atol=1e-5)


def test_average_and_rate():
    module = nn.Linear(1, 1, bias=False)
    average = Average(module, limit=0.5)
    start = float(module.weight.detach())
    module.weight.data.fill_(start + 1)
    average.update(module)
    assert float(average.values["weight"]) == pytest.approx(start + 1 - 2 / 11, rel=1e-5)
    assert rate_factor(0, 0) < rate_factor(0, 99) == 1.0 > rate_factor(0.5, 500) > 0.01
    assert rate_factor(1, 500) == pytest.approx(0.01)


def test_bad_arguments_are_refused(capsys):
    with pytest.raises(InputError, match=r"smok.*did you mean 'smoke'"):
        preset("smok")
    with pytest.raises(InputError, match="above 0"):
        main(["vae", "--preset", "smoke", "--minutes", "-1"])
    with pytest.raises(SystemExit):
        main(["vea"])
    assert dataclasses.is_dataclass(preset("cpu"))
