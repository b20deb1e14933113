"""Recording: the size is known before the run, the picture does not feel it, the file is whole."""

from __future__ import annotations

import importlib
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import traces
from test_trace import same

from diffusionlab import memory_limit
from diffusionlab.budget import recording_size
from diffusionlab.errors import InputError, MemoryExceeded
from diffusionlab.generate import generate
from diffusionlab.models import VAE, UNet, UNetConfig, VAEConfig
from diffusionlab.pipeline import LatentDiffusion, load
from diffusionlab.plan import denoise
from diffusionlab.samplers import make_plan
from diffusionlab.schedule import NoiseSchedule
from diffusionlab.side_by_side import compare
from diffusionlab.taps import find_taps, watching
from diffusionlab.trace import Guidance, TextEmbedding, Trace, byte_count

generating = importlib.import_module("diffusionlab.generate")
ROOT = Path(__file__).parents[1]
FAST = dict(seed=5, num_steps=3, progress=False)
WIDE = dict(height=64, width=96)  # latents (4, 8, 12)
KINDS = [
    ("predictions",), ("attention",), ("heads",), ("self_attention",), ("blocks",),
    ("predictions", "frames"), ("time", "*skips*"), ("self_attention", "heads"),
]  # fmt: skip
EVERYTHING = tuple(sorted({name for kinds in KINDS for name in kinds}))
SAMPLERS = ["ddim", "heun", "ddpm"]  # one call a step, two, one with noise


@pytest.fixture(autouse=True)
def no_watcher_is_left(tiny_model):
    yield
    assert not any(tap.watched for tap in find_taps(tiny_model.unet).values())


def run(model, record=("predictions",), **changed) -> Trace:
    return generate(model, "a red car", **(FAST | dict(record=record) | changed))


# ---- the size is known before ----------------------------------------------------------------
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("record", [(), *KINDS, EVERYTHING], ids="+".join)
def test_the_size_is_that_of_the_finished_record(tiny_model, record, sampler):
    size = recording_size(tiny_model, record=record, num_steps=3, sampler=sampler, **WIDE)
    trace = run(tiny_model, record, sampler=sampler, **WIDE)
    assert size.total == byte_count(trace)
    assert (size.num_steps, size.network_calls) == (3, trace.network_calls)
    inside = sum(array.nbytes for array in trace.attention.values())
    assert sum(size.inside.values()) == inside and bool(inside) == bool(size.inside)


@pytest.mark.parametrize("scale", [0.0, 1.0, Guidance(3.0, (0.5, 5.0), 0.7), Guidance(1.0)])
def test_the_size_knows_where_one_branch_is_run(tiny_model, scale):
    asked = dict(num_steps=4, sampler="heun", guidance_scale=scale)
    trace = run(tiny_model, ("predictions", "attention"), **asked)
    size = recording_size(tiny_model, record=("predictions", "attention"), **asked)
    assert size.total == byte_count(trace)
    single = sum(call.uncond is None for call in trace.predictions)
    assert single == {0.0: 0, 1.0: 7}.get(getattr(scale, "scale", scale), single)
    if isinstance(scale, Guidance) and scale.interval:
        assert 0 < single < 7


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_size_knows_the_type_of_the_model(tiny_folder, dtype):
    model = load(tiny_folder, device="cpu", dtype=dtype)
    size = recording_size(model, record=EVERYTHING, num_steps=3)
    assert size.total == byte_count(run(model, EVERYTHING))
    other = recording_size(load(tiny_folder, device="cpu"), record=EVERYTHING, num_steps=3)
    assert (size.total < other.total) == (dtype == torch.float16)  # bfloat16 is kept as float32


def test_the_size_counts_a_given_text_embedding(tiny_model):
    given = run(tiny_model).text_embedding
    bare = TextEmbedding(hidden=(given.hidden[0].astype(np.float64),), tokens=given.tokens)
    trace = run(tiny_model, text_embedding=bare)
    size = recording_size(tiny_model, num_steps=3, text_embedding=bare)
    assert size.total == byte_count(trace) != recording_size(tiny_model, num_steps=3).total


def test_a_tap_that_two_patterns_select_is_kept_once(tiny_model):
    once = run(tiny_model, ("attention",))
    twice = run(tiny_model, ("attention", "*attn2.prob*", "mid_block*attn2.prob*"))
    assert list(once.attention) == list(twice.attention)
    assert all(np.array_equal(once.attention[n], twice.attention[n]) for n in once.attention)
    assert recording_size(tiny_model, record=("attention", "*attn2.prob*"), num_steps=3).total == (
        byte_count(once)
    )


def test_counting_leaves_the_model_and_the_dice_alone(tiny_model):
    seen, state = [], torch.get_rng_state()
    with watching(tiny_model.unet, {"*": lambda name, value: seen.append(name)}):
        size = recording_size(tiny_model, record=EVERYTHING, height=80, width=72)
    assert size.total > 1e5 and not seen
    assert torch.equal(torch.get_rng_state(), state)


def test_the_size_shows_itself_as_a_small_table(tiny_model):
    size = recording_size(tiny_model, record=("attention",), num_steps=3)
    assert size.parts["latents"] == 4 * 4 * 8 * 8 * 4 and size.parts["image"] == 3 * 64 * 64
    grows = size.parts["latents"] + size.parts["attention"]
    assert size.per_step == pytest.approx(grows / 3)
    told = repr(size).splitlines()
    assert told[0] == "RecordingSize of 3 steps, 3 network calls" and len(told) < 9
    assert any(line.split()[0] == "attention" for line in told)
    assert "a step (attention " in str(size)


@pytest.fixture(scope="module")
def large_model():
    """Stable Diffusion 1.5's sizes without its weights: everything on torch's meta device."""
    with torch.device("meta"):
        unet, vae = UNet(UNetConfig(cross_attention_dim=768, sample_size=64)), VAE(VAEConfig(
            block_out_channels=(8, 8, 8, 8), norm_num_groups=4,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4))  # fmt: skip
    encoder = torch.nn.Linear(1, 1)
    encoder.config = SimpleNamespace(hidden_size=768, max_position_embeddings=77)
    schedule = NoiseSchedule.scaled_linear(prediction_type="eps")
    return LatentDiffusion(None, (encoder,), unet, vae, schedule, None, {"name": "large"}, ROOT)


def test_the_default_of_attention_keeps_four_megabytes_a_step(large_model):
    """4.15 MB of head means; 8 heads are 8 times that, self-attention 1.4 GB."""
    each = {name: recording_size(large_model, record=(name,), num_steps=50).parts[name] / 50
            for name in ("attention", "heads", "self_attention")}  # fmt: skip
    assert each["attention"] == 4_149_376 <= 4.2e6
    assert each["heads"] == 8 * each["attention"]
    assert each["self_attention"] == pytest.approx(1.43e9 / 8, rel=0.02)  # of the mean


# ---- saying it, refusing it --------------------------------------------------------------------
def test_one_line_says_what_will_be_kept_and_stands_in_the_record(tiny_model, capsys):
    trace = run(tiny_model, ("attention", "self_attention"))
    told = capsys.readouterr().err
    (line,) = [line for line in told.splitlines() if "will keep" in line]
    size = recording_size(tiny_model, record=("attention", "self_attention"), num_steps=3)
    assert str(size) in line and "self_attention" in line and " a step" in line
    assert trace.settings.notices[-1] in line
    assert not run(tiny_model).settings.notices and "keep" not in capsys.readouterr().err


def test_a_comparison_says_it_once_for_all_its_runs(tiny_model, capsys):
    asked = dict(num_steps=2, record=("attention",), progress=False)
    both = compare(tiny_model, "a", seeds=[1, 2, 3], **asked)
    told = capsys.readouterr().err
    assert told.count("will keep") == 1 and "these 3 runs" in told
    assert all("will keep" in trace.settings.notices[-1] for trace in both.traces)
    generate(tiny_model, "a", seed=1, **asked)
    assert capsys.readouterr().err.count("will keep") == 1  # the next run says it again


def never(*_, **__):
    raise AssertionError("the network ran")


@pytest.fixture
def tight(monkeypatch):
    """A limit between what the steps keep and what the inside of the network keeps."""
    monkeypatch.setattr(memory_limit, "MOST_MEMORY", 300_000)
    monkeypatch.setattr(generating, "predict", never)
    monkeypatch.setattr(generating, "embed", never)


def test_too_large_a_record_is_refused_with_three_cheaper_choices(tiny_model, tight):
    asked = dict(record={"predictions", "heads", "self_attention"}, num_steps=20)
    size = recording_size(tiny_model, **asked)
    with pytest.raises(MemoryExceeded) as refused:
        generate(tiny_model, "a", progress=False, **asked)
    told = str(refused.value)
    assert str(size) in told and "at most 300 kB" in told and "save_to=" in told
    assert told.count(" keeps ") == 3
    assert "self_attention" not in told.split("Cheaper")[1] and "num_steps=" in told


def test_what_the_cheaper_choices_promise_is_true(tiny_model, monkeypatch):
    asked = dict(record=("heads", "predictions", "self_attention"), num_steps=20, sampler="heun")
    given = ("a", "", 0, 20, "heun", None, 4.0, None, None, asked["record"], "sequential")
    settings, _, _ = generating.checked(tiny_model, *given)
    choices = memory_limit.cheaper(tiny_model, settings, 300_000)
    assert len(choices) == 3
    for typed, size in choices:
        changed = asked | eval(f"dict({typed})")  # noqa: S307 - our own text, as a reader types it
        assert recording_size(tiny_model, **changed) == size
        assert size.total <= 300_000 < recording_size(tiny_model, **asked).total
        assert byte_count(generate(tiny_model, "a", progress=False, **changed)) == size.total


def test_all_runs_of_a_comparison_count_together(tiny_model, tight):
    record = {"predictions", "attention"}
    size = recording_size(tiny_model, record=record, num_steps=3).total
    assert size < 300_000 < 20 * size
    with pytest.raises(MemoryExceeded, match="each of 20 runs"):
        compare(tiny_model, "a", seeds=range(20), num_steps=3, record=record, progress=False)


def test_a_large_model_is_refused_before_any_work(large_model):
    with pytest.raises(MemoryExceeded, match=r"self_attention 8\.\d+ GB.*at most 2 GB"):
        generate(large_model, "a", num_steps=50, record={"self_attention"})


def test_a_file_takes_what_memory_may_not(tiny_model, monkeypatch, tmp_path):
    monkeypatch.setattr(memory_limit, "MOST_MEMORY", 1000)
    with pytest.raises(MemoryExceeded):
        run(tiny_model)
    assert run(tiny_model, save_to=tmp_path / "run").image is not None


# ---- recording changes nothing, and shares nothing ---------------------------------------------
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_picture_is_bit_identical_whatever_is_recorded(tiny_model, sampler, tmp_path):
    plain = run(tiny_model, (), sampler=sampler)
    for record in (*KINDS, EVERYTHING):
        trace = run(tiny_model, record, sampler=sampler)
        assert trace.image.tobytes() == plain.image.tobytes()
        assert np.array_equal(trace.latents, plain.latents)
    filed = run(tiny_model, EVERYTHING, sampler=sampler, save_to=tmp_path / "run")
    assert filed.image.tobytes() == plain.image.tobytes()
    assert np.array_equal(filed.latents, plain.latents)
    other = run(tiny_model, (), sampler=sampler, seed=6)
    assert other.image.tobytes() != plain.image.tobytes()


def test_every_value_is_copied_once_and_shared_inside_the_record_only(tiny_model, monkeypatch):
    real, live = generating.predict, []
    monkeypatch.setattr(generating, "predict", lambda *given: live.append(real(*given)) or live[-1])
    trace = run(tiny_model, ("predictions", "attention"), sampler="heun")
    assert len(live) == len(trace.predictions) == 5
    for said, kept in zip(live, trace.predictions, strict=True):
        for name in ("latent", "cond", "uncond"):
            value, array = getattr(said, name).numpy(), getattr(kept, name)
            assert np.array_equal(value, array) and not np.shares_memory(value, array)
    for one, following in zip(trace.steps, trace.steps[1:], strict=False):
        assert one.next_latent is following.latent
    assert all(step.predictions[0].latent is step.latent for step in trace.steps)
    assert all(step.predictions[1].latent is not step.latent for step in trace.steps[:2])
    for name, maps in trace.attention.items():
        assert maps.dtype == np.float16 and maps.shape[0] == 5, name


@pytest.mark.parametrize("at", [0, 1, 4])
def test_a_stopped_run_keeps_what_was_done(tiny_model, monkeypatch, at):
    whole = run(tiny_model, EVERYTHING, sampler="heun")
    kept = stopped(tiny_model, monkeypatch, at, EVERYTHING).trace
    steps = at // 2
    assert len(kept.steps) == steps and kept.image is None and not kept.frames
    for name, maps in kept.attention.items():
        assert np.array_equal(maps, whole.attention[name][: 2 * steps])
    assert bool(kept.attention) == bool(steps)
    for one, other in zip(kept.steps, whole.steps, strict=False):
        assert same(one, other)


def stopped(model, monkeypatch, at, record, **changed) -> KeyboardInterrupt:
    """Ctrl-C at a network call."""
    real, calls = generating.predict, []

    def stopping(*given):
        calls.append(1)
        if len(calls) > at:
            raise KeyboardInterrupt
        return real(*given)

    with monkeypatch.context() as patch:
        patch.setattr(generating, "predict", stopping)
        with pytest.raises(KeyboardInterrupt) as caught:
            run(model, record, sampler="heun", **changed)
    return caught.value


def test_a_network_that_is_run_inside_a_run_is_noticed(tiny_model):
    ran = []

    def again(name, value):
        if not ran:
            ran.append(name)
            tiny_model.unet(torch.zeros(1, 4, 8, 8), torch.tensor(0.0), torch.zeros(1, 32, 32))

    told = "passed 2 times in a step of 1 network calls"
    with watching(tiny_model.unet, {"time": again}), pytest.raises(InputError, match=told):
        run(tiny_model, ("attention",), guidance_scale=1)


def test_a_walk_forgets_what_no_later_step_asks_for(tiny_model):
    """Live predictions are held as long as the plan refers to them, and no longer."""

    class Said:
        def __init__(self):
            self.x0 = self.eps = np.zeros(3)

    plan = make_plan("dpmpp_2m", tiny_model.schedule.levels(8), tiny_model.schedule)
    alive, most = [], 0

    def ask(latent, level):
        said = Said()
        alive.append(weakref.ref(said))
        return said

    for step in denoise(plan, np.zeros(3), ask, None):
        del step
        most = max(most, sum(ref() is not None for ref in alive))
    assert len(alive) == 8 and 2 <= most <= 3


# ---- a run in a file ---------------------------------------------------------------------------
def only(folder: Path, name: str = "run") -> bool:
    """Whether a folder holds this file and no leftovers."""
    return [path.name for path in folder.iterdir()] == [name]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_run_in_a_file_is_the_run_in_memory(tiny_model, tmp_path, sampler):
    asked = dict(record=EVERYTHING, sampler=sampler, **WIDE)
    memory, filed = run(tiny_model, **asked), run(tiny_model, save_to=tmp_path / "run", **asked)
    line = filed.settings.notices[-1]
    assert line.startswith(memory.settings.notices[-1]) and "'run'" in line
    assert str(tmp_path) not in line  # the record tells nobody's folders
    for name in ("steps", "attention", "frames", "image", "text_embedding", "tokens", "preview"):
        assert same(getattr(memory, name), getattr(filed, name)), name
    assert only(tmp_path) and same(Trace.load(tmp_path / "run"), filed)
    with pytest.raises(ValueError, match="read-only"):
        next(iter(filed.attention.values()))[0] = 0


def test_a_comparison_has_no_single_file(tiny_model, tmp_path):
    with pytest.raises(InputError, match="a file holds one run"):
        compare(tiny_model, "a", seeds=[1, 2], save_to=tmp_path / "run")


@pytest.mark.parametrize("at", [0, 1, 4])
def test_ctrl_c_leaves_the_steps_so_far_in_the_file(tiny_model, monkeypatch, tmp_path, at):
    in_memory = stopped(tiny_model, monkeypatch, at, EVERYTHING).trace
    filed = stopped(tiny_model, monkeypatch, at, EVERYTHING, save_to=tmp_path / "run").trace
    assert only(tmp_path) and len(filed.steps) == at // 2
    assert same(in_memory.steps, filed.steps) and same(in_memory.attention, filed.attention)
    assert same(Trace.load(tmp_path / "run"), filed)


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_while_the_file_is_written_tears_nothing(tiny_model, monkeypatch, tmp_path, times):
    """Once: the record is written all the same. Twice: the old file stays. Never a torn one."""
    old = traces.trace(2)
    old.save(tmp_path / "run")
    real, left = os.fsync, [KeyboardInterrupt] * times

    def fsync(handle):
        if left:
            raise left.pop()
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(KeyboardInterrupt) as caught:
        run(tiny_model, ("predictions", "attention"), save_to=tmp_path / "run")
    assert only(tmp_path)
    found = Trace.load(tmp_path / "run")
    if times == 1:
        assert same(found, caught.value.trace) and found.image is not None
    else:
        assert same(found, old)


def test_ctrl_c_at_the_door_leaves_nothing(tiny_model, monkeypatch, tmp_path):
    recorder = importlib.import_module("diffusionlab.recorder")

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(recorder, "recording", stop)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_model, ("attention",), save_to=tmp_path / "run")
    assert not list(tmp_path.iterdir())


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="Linux lists open files")
def test_runs_in_files_leave_no_file_open(tiny_model, tmp_path):
    run(tiny_model, save_to=tmp_path / "run")
    before = open_files()
    for _ in range(3):
        kept = run(tiny_model, ("attention",), save_to=tmp_path / "run")
    assert open_files() == before + 1  # the map of the one that is kept
    del kept
    assert open_files() == before


def test_any_other_error_keeps_the_steps_too(tiny_model, monkeypatch, tmp_path):
    def broken(*_):
        raise RuntimeError("no decoder today")

    monkeypatch.setattr(generating, "decode", broken)
    with pytest.raises(RuntimeError, match="no decoder") as caught:
        run(tiny_model, save_to=tmp_path / "run")
    assert only(tmp_path) and len(caught.value.trace.steps) == 3
    assert caught.value.trace.image is None


@pytest.mark.parametrize("place", ["file/run", "file", "folder", "read-only/run"])
def test_a_file_that_cannot_be_written_is_named_before_the_run(
    tiny_model, monkeypatch, tmp_path, place
):
    monkeypatch.setattr(generating, "embed", never)
    (tmp_path / "folder").mkdir()
    (tmp_path / "read-only").mkdir()
    (tmp_path / "read-only").chmod(0o500)
    (tmp_path / "file").write_bytes(b"x")
    path = tmp_path / place
    if place == "file":
        path = Path("/proc/self/run")  # a folder where nobody may write
    if place.startswith("read-only") and os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError) as refused:
        run(tiny_model, save_to=path)
    assert str(path) in str(refused.value) and "cannot be written" in str(refused.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("wrong", [7, "", "a\0b", "x" * 300, b"run"])
def test_what_is_no_path_is_refused(tiny_model, monkeypatch, tmp_path, wrong):
    monkeypatch.setattr(generating, "embed", never)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="save_to is .* cannot be written"):
        run(tiny_model, save_to=wrong)
    assert not list(tmp_path.iterdir())


def test_a_disk_without_room_is_told_before_the_run(tiny_model, monkeypatch, tmp_path):
    monkeypatch.setattr(generating, "embed", never)
    free = SimpleNamespace(free=2 * recording_size(tiny_model, num_steps=3).total - 1)
    monkeypatch.setattr(memory_limit.shutil, "disk_usage", lambda path: free)
    with pytest.raises(MemoryExceeded, match="needs twice that on the disk"):
        run(tiny_model, save_to=tmp_path / "run")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("most", "record", "steps", "written"),
    [(60_000, EVERYTHING, 0, True), (90_000, ("predictions",), 20, False)],
)
def test_a_disk_that_fills_up_names_the_file_and_keeps_the_steps(
    tiny_model, tmp_path, capsys, most, record, steps, written
):
    """Files of this process may grow to so many bytes: too few for a step, or for the trace."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
        with pytest.raises(OSError, match="run") as caught:
            run(tiny_model, record, num_steps=20, save_to=tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    kept = caught.value.trace
    assert caught.value.filename == str(tmp_path / "run")
    assert len(kept.steps) == steps and (kept.image is not None) == bool(steps)
    if written:
        assert only(tmp_path) and same(Trace.load(tmp_path / "run"), kept)
    else:
        assert not list(tmp_path.iterdir()) and len(kept.predictions) == 20
        assert "cannot be written" in capsys.readouterr().err


MEMORY = """
    import importlib, sys
    from pathlib import Path
    import torch
    from diffusionlab.models import VAE, UNet, UNetConfig, VAEConfig
    from diffusionlab.pipeline import LatentDiffusion
    from diffusionlab.schedule import NoiseSchedule
    from diffusionlab.trace import TextEmbedding

    generating = importlib.import_module("diffusionlab.generate")
    generating.tokenize = lambda model, prompt: None
    generating.embed = lambda model, tokens, **rest: TextEmbedding((torch.zeros(8, 16),))
    unet = UNet(UNetConfig(
        sample_size=48, block_out_channels=(16, 16), layers_per_block=1, cross_attention_dim=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), norm_num_groups=4,
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=2)).eval()
    vae = VAE(VAEConfig(block_out_channels=(4, 4), norm_num_groups=4, latent_channels=4,
                        down_block_types=("DownEncoderBlock2D",) * 2,
                        up_block_types=("UpDecoderBlock2D",) * 2)).eval()
    from types import SimpleNamespace
    text = torch.nn.Linear(1, 1)
    text.config = SimpleNamespace(hidden_size=16, max_position_embeddings=8)
    model = LatentDiffusion(None, (text,), unet, vae, NoiseSchedule.scaled_linear(), None,
                            {"name": "small"}, Path())

    def peak(steps, **kept):
        generating.generate(model, "a", num_steps=steps, progress=False,
                            record={"self_attention"}, **kept)
        status = open("/proc/self/status").read()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    print(peak(3, save_to=sys.argv[1]), peak(24, save_to=sys.argv[1]), peak(24))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the peak")
def test_memory_stays_flat_when_a_long_run_goes_into_a_file(tmp_path):
    code = [sys.executable, "-c", textwrap.dedent(MEMORY), tmp_path / "run"]
    done = subprocess.run(code, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    short, long, memory = map(float, done.stdout.split())
    kept = (tmp_path / "run").stat().st_size / 1024**2
    print(short, long, memory, kept)
    assert kept > 40
    assert long - short < 0.25 * kept < 0.6 * kept < memory - long, (short, long, memory, kept)


KILLED = """
    import sys
    import traces
    one, other = traces.trace(2), traces.trace(40)
    print("ready", flush=True)
    while True:
        one.save(sys.argv[1])
        other.save(sys.argv[1])
"""


@pytest.mark.slow
def test_a_killed_writer_leaves_the_old_file_or_the_new_one(tmp_path):
    path, found = tmp_path / "run", set()
    traces.trace(2).save(path)
    path_to = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    for number in range(20):
        code = [sys.executable, "-c", textwrap.dedent(KILLED), path]
        writer = subprocess.Popen(code, stdout=subprocess.PIPE, env=os.environ | {
            "PYTHONPATH": path_to})  # fmt: skip
        writer.stdout.readline()
        time.sleep(0.003 * number)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        found.add(len(Trace.load(path).steps))
    assert found <= {2, 40}
