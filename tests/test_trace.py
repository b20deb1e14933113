"""Records and their file: views with known answers, exact round trips, damage is noticed."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tracemalloc
from dataclasses import FrozenInstanceError, fields, is_dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import traces
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors import numpy as safetensors
from safetensors import safe_open

from diffusionlab.errors import InputError, TraceError
from diffusionlab.trace import (
    Comparison,
    Latent,
    Prediction,
    Trace,
    byte_count,
    filmstrip_of,
    statistics,
    to_numpy,
)
from diffusionlab.trace import file as trace_file
from diffusionlab.trace import spool as trace_spool
from diffusionlab.trace import writer as trace_writer
from diffusionlab.trace.codec import Packer, unpack
from diffusionlab.trace.file import from_bytes, pack_file, to_bytes


def same(a, b) -> bool:
    """Equal records: types, arrays bit by bit with their dtype, images by pixel."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, Image.Image):
        return a.size == b.size and a.tobytes() == b.tobytes()
    if is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    return a == b or (a != a and b != b)


# ---- views -----------------------------------------------------------------------------------
def test_stacked_views_have_their_lengths_and_values():
    run = traces.trace(5)
    assert run.latents.shape == (6, 4, 6, 8) and run.x0s.shape == run.eps.shape == (5, 4, 6, 8)
    assert np.array_equal(run.latents[0], run.steps[0].latent)
    assert np.array_equal(run.latents[-1], run.steps[-1].next_latent)
    assert run.karras_sigmas[0] == pytest.approx(14.6146, rel=1e-4) and run.karras_sigmas[-1] == 0
    assert np.all(np.diff(run.karras_sigmas) < 0)
    assert np.abs(run.x0s - run.latents[-1]).max() < 1e-4  # the network is always right
    assert len(run.predictions) == run.network_calls == 5
    with pytest.raises(ValueError, match="read-only"):
        run.latents[0] = 0


def test_guided_prediction_and_its_readings():
    run = traces.trace(3)
    call = run.predictions[1]
    expected = call.uncond + 4.0 * (call.cond - call.uncond)
    assert np.array_equal(call.guided, expected) and call.guided is call.guided
    back = call.level.alpha * call.x0 + call.level.sigma * call.eps
    assert np.abs(back - call.latent).max() < 1e-5
    assert np.abs(call.v - (call.level.alpha * call.eps - call.level.sigma * call.x0)).max() < 1e-4
    assert replace(call, guidance_scale=1.0).guided is call.cond
    with pytest.raises(InputError, match="the unconditional pass was not run"):
        replace(call, uncond=None).guided  # noqa: B018
    assert np.array_equal(replace(call, guidance_scale=0.0).guided, call.uncond)
    assert not np.array_equal(replace(call, guidance_scale=4.1).guided, expected)


def test_a_stopped_or_bare_run_says_what_is_missing():
    bare = traces.trace(3)
    bare = replace(bare, steps=tuple(replace(s, predictions=()) for s in bare.steps))
    assert bare.latents.shape[0] == 4 and bare.predictions == ()
    with pytest.raises(InputError, match='record=\\("predictions",\\)'):
        _ = bare.x0s
    empty = replace(bare, steps=(), image=None)
    assert "stopped after 0 steps" in repr(empty)
    with pytest.raises(InputError, match="0 steps"):
        _ = empty.latents


def test_records_are_frozen_and_comparison_counts():
    run = traces.trace(2)
    with pytest.raises(FrozenInstanceError):
        run.settings = None
    assert "over seed: 1, 2" in repr(Comparison("seed", (1, 2), (run, run)))
    with pytest.raises(InputError, match="one value per trace"):
        Comparison("seed", (1,), (run, run))


def test_reprs_are_short_and_tell_what_they_should():
    run = traces.trace(5)
    for record in (run, run.settings, run.tokens, run.text_embedding, run.predictions[0]):
        assert 20 < len(repr(record)) < 1000
    latent = repr(Latent(run.latents[0], run.steps[0].level, "draw_noise"))
    for part in (
        "channels, height / 8",
        "(4, 6, 8)",
        "float32",
        "range",
        "mean",
        "std",
        "x_t = alpha",
    ):
        assert part in latent
    assert "made by draw_noise" in latent and "kB of arrays" in repr(run)
    assert "3 dropped" in repr(run.tokens)


def test_statistics_count_what_is_not_finite_and_do_not_overflow():
    found = statistics(np.array([1.0, np.nan, 3.0, np.inf]))
    assert (found.low, found.high, found.mean, found.bad) == (1.0, 3.0, 2.0, 2)
    assert "2 of 4" in str(found)
    big = statistics(np.full(5000, 60000, np.float16))
    assert big.mean == 60000 and big.std == 0
    assert "no finite value" in str(statistics(np.array([np.nan])))


def test_byte_count_counts_shared_arrays_once():
    array = np.zeros(1000, np.float32)
    assert byte_count((array, array)) == 4000 != byte_count((array, array.copy()))


def test_to_numpy_is_duck_typed_and_keeps_half():
    class Tensor:
        dtype = "torch.bfloat16"

        def __init__(self):
            self.calls = []

        def detach(self):
            return self

        def float(self):
            self.calls.append("float")
            return self

        def cpu(self):
            return self

        def numpy(self):
            return np.ones(2, np.float32)

    tensor = Tensor()
    assert to_numpy(tensor).dtype == np.float32 and tensor.calls == ["float"]
    assert to_numpy(np.ones(1, np.float16)).dtype == np.float16


# ---- the file --------------------------------------------------------------------------------
def test_round_trip_is_exact(tmp_path):
    run = traces.trace(4)
    path = run.save(tmp_path / "run.safetensors")
    again = Trace.load(path)
    assert same(run, again) and byte_count(again) <= byte_count(run)  # equal arrays are one now
    assert repr(run).splitlines()[:-1] == repr(again).splitlines()[:-1]
    assert not same(run, replace(again, versions={}))  # the comparison can fail
    assert [p.name for p in tmp_path.iterdir()] == ["run.safetensors"]


def test_round_trip_of_odd_values(tmp_path):
    run = traces.trace(2)
    odd = replace(
        run,
        settings=replace(run.settings, prompt='\u2028</script> 🐧 "', sampler={
            "name": "future", "options": {"list": [1, [2]], "none": None, "x": -math.inf}}),
        versions={"a": (1, (2.5, "b")), "nan": math.nan, "deep": {"yes": True}},
        image=None, frames=(), preview=None, tokens=None,
        attention={"x": np.zeros((2, 0, 3), np.float16), "y": np.array(3, np.int64)},
    )  # fmt: skip
    again = Trace.load(odd.save(tmp_path / "odd"))
    assert same(odd, again)
    assert same(replace(run, steps=()), from_bytes(to_bytes(replace(run, steps=()))))


def test_safetensors_itself_reads_the_file_and_equal_arrays_are_stored_once(tmp_path):
    run = traces.trace(4)
    path = run.save(tmp_path / "run.safetensors")
    with safe_open(path, "numpy") as file:
        metadata, names = file.metadata(), list(file.keys())
    assert metadata["format"] == "diffusionlab.trace" and metadata["format_version"] == "1.0"
    assert json.loads(metadata["record"])["$record"] == "Trace"
    latents = sum(a.shape == (4, 6, 8) for a in safetensors.load_file(path).values())
    assert latents == 5 + 2  # five levels, cond and uncond the same at each step
    assert len(names) < 20


def test_records_of_older_versions_have_words_without_their_places(tmp_path):
    run = traces.trace(2)
    spans = ((0, 1), (2, 5), (6, 9), (10, 17))
    run = replace(run, tokens=replace(run.tokens, spans=spans))
    assert Trace.load(run.save(tmp_path / "new")).tokens == run.tokens
    packer = Packer()
    packed = packer.pack(run.tokens)
    assert packed["spans"] == [list(span) for span in spans]
    assert unpack(packed, {}, "a record") == run.tokens
    del packed["spans"]
    old = unpack(packed, {}, "a record")
    assert old.spans == () and old == replace(run.tokens, spans=())


def test_redacted_file_holds_nothing_of_the_prompt(tmp_path):
    run = traces.trace(2, prompt="xyzzy plugh")
    run = replace(run, settings=replace(run.settings, negative_prompt="frotz", notices=("xyzzy",)))
    data = run.save(tmp_path / "r", redact_prompt=True).read_bytes()
    assert not any(word in data for word in (b"xyzzy", b"plugh", b"frotz", b"scra"))
    again = Trace.load(tmp_path / "r")
    assert again.tokens is None and again.text_embedding is None
    assert np.array_equal(again.latents, run.latents)
    assert b"xyzzy" in run.save(tmp_path / "r").read_bytes()  # the search can find it


def test_a_failed_save_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = traces.trace(2).save(tmp_path / "run")
    before = path.read_bytes()

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(trace_file.os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        traces.trace(3).save(path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["run"]


def test_what_a_file_cannot_hold_is_refused_before_writing(tmp_path):
    run = traces.trace(2)
    for wrong in ({"x": object()}, {"$record": "Trace"}, {"x": np.array([object()])}, {3: 1}):
        with pytest.raises(TraceError, match="cannot hold"):
            replace(run, versions=wrong).save(tmp_path / "x")
    assert not list(tmp_path.iterdir())


def packed(change=None, version="1.0", **tensors) -> bytes:
    """A file whose record was changed by hand, with fitting checksums."""
    packer = Packer()
    record = packer.pack(traces.trace(2))
    if change:
        change(record)
    return pack_file(json.dumps(record), packer.tensors | tensors, version)


def test_versions_newer_majors_are_refused_newer_minors_are_read():
    with pytest.raises(TraceError, match=r"written by .diffusionlab.*needs.*'2\.0'.*upgrade"):
        from_bytes(packed(version="2.0"))

    def newer(record):
        record["mood"] = {"happy": [1]}
        record["settings"]["weather"] = "rain"

    assert same(from_bytes(packed(newer, "1.7")), traces.trace(2))
    for wrong in ("", "1", "one.two", "²", "1.0.0x"):
        with pytest.raises(TraceError, match="format_version"):
            from_bytes(packed(version=wrong))


def put(*path_and_value):
    *path, value = path_and_value

    def change(record):
        for key in path[:-1]:
            record = record[key]
        record[path[-1]] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        put("settings", "seed", "seven"),
        put("settings", "height", True),
        put("settings", None),
        put("settings", "sampler", "ddim"),
        put("steps", "none"),
        put("steps", 0, "level", 3),
        put("steps", 0, "latent", {"$array": "missing"}),
        put("steps", 0, "latent", "text"),
        put("steps", 0, "latent", None),
        put("text_embedding", "hidden", [3]),
        put("attention", {"x": "y"}),
        put("image", {"$image": "array00000"}),
        put("image", {"$call": "os.system"}),
        put("image", {"$record": "os.system"}),
        put("image", {"$record": ["Trace"]}),
        put("image", {"$float": "1e400"}),
        put("$record", "Settings"),
        lambda record: record["settings"].pop("prompt"),
    ],
)
def test_malformed_records_are_trace_errors(change):
    with pytest.raises(TraceError):
        from_bytes(packed(change))


def test_latents_of_different_shapes_are_refused():
    with pytest.raises(TraceError, match="one shape is needed"):
        change = put("steps", 0, "latent", {"$array": "odd"})
        from_bytes(packed(change, odd=np.zeros((4, 6, 9), np.float32)))


def with_header(change) -> bytes:
    data = to_bytes(traces.trace(1))
    size = int.from_bytes(data[:8], "little")
    header = change(data[8 : 8 + size])
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x03\x04 a zip",
        (2**63).to_bytes(8, "little") + b"{}",
        (50).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (2).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"\xff\xfe",
        (9).to_bytes(8, "little") + b'{"a":NaN}',
        (40_000).to_bytes(8, "little") + b"[" * 40_000,
        with_header(lambda h: h.replace(b'"array00001"', b'"array00000"', 1)),
        with_header(lambda h: h.replace(b'"F32"', b'"Q32"', 1)),
        with_header(lambda h: h.replace(b'"data_offsets":[0,', b'"data_offsets":[-1,', 1)),
        with_header(lambda h: h.replace(b"[4,6,8]", b"[4,6,9]", 1)),
        with_header(lambda h: h.replace(b"array00001", b"x" * 300)),
        to_bytes(traces.trace(1)) + b"more",
        to_bytes(traces.trace(1))[:-1],
        safetensors.save({"weight": np.zeros(3, np.float32)}),
    ],
)
def test_malformed_files_are_trace_errors(data):
    with pytest.raises(TraceError):
        from_bytes(data)


def test_a_path_that_cannot_be_read_is_a_trace_error(tmp_path):
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(TraceError, match="cannot be read"):
            Trace.load(path)


GOOD = to_bytes(traces.trace(1))


@settings(max_examples=150)
@given(st.integers(0, len(GOOD) - 1), st.integers(0, 7))
def test_a_flipped_bit_is_noticed(place, bit):
    data = bytearray(GOOD)
    data[place] ^= 1 << bit
    with pytest.raises(TraceError):
        from_bytes(bytes(data))


@settings(max_examples=60)
@given(st.integers(0, len(GOOD) - 1), st.integers(1, 40), st.binary(max_size=8))
def test_cuts_and_insertions_are_noticed(place, length, inserted):
    changed = GOOD[:place] + inserted + GOOD[place + length :]
    if changed == GOOD:
        return
    with pytest.raises(TraceError):
        from_bytes(changed)


@settings(max_examples=40)
@given(st.text(max_size=60), st.floats(), st.integers(0, 2**63 - 1))
def test_any_prompt_and_number_come_back(prompt, scale, seed):
    run = traces.trace(1)
    run = replace(
        run, settings=replace(run.settings, prompt=prompt, guidance_scale=scale, seed=seed)
    )
    assert same(from_bytes(to_bytes(run)), run)


# ---- the filmstrip, and what is imported -----------------------------------------------------
def test_filmstrip_says_whether_it_is_decoded_and_grows_with_the_steps():
    run = traces.trace(5)
    assert filmstrip_of(run, most=5).width > filmstrip_of(run, most=2).width
    one_row = filmstrip_of(replace(run, preview=None))
    assert one_row.height < filmstrip_of(run).height
    for nothing in (replace(run, preview=None, frames=()), replace(run, steps=())):
        with pytest.raises(InputError, match="trace"):
            filmstrip_of(nothing)
    with pytest.raises(InputError, match="one each"):
        filmstrip_of(run, x0_images=[run.image])


def test_a_trace_is_read_without_torch_or_a_model(tmp_path):
    path = traces.trace(2).save(tmp_path / "run")
    code = (
        "import sys; from diffusionlab.trace import Trace, filmstrip_of; "
        "run = Trace.load(sys.argv[1]); run.x0s; filmstrip_of(run); "
        "bad = {'torch', 'matplotlib', 'transformers', 'pickle5'} & set(sys.modules); "
        "sys.exit(f'loaded {bad}' if bad else 0)"
    )
    root = Path(__file__).parents[1]
    ran = subprocess.run([sys.executable, "-c", code, str(path)], cwd=root, capture_output=True)
    assert ran.returncode == 0, ran.stderr.decode()


def test_predictions_work_on_torch_and_numpy_alike():
    torch = pytest.importorskip("torch")
    call = traces.trace(2).predictions[0]
    parts = {n: torch.from_numpy(getattr(call, n).copy()) for n in ("latent", "cond", "uncond")}
    live = replace(call, **parts)
    assert isinstance(live, Prediction) and isinstance(live.x0, torch.Tensor)
    assert np.abs(to_numpy(live.x0) - call.x0).max() < 1e-5
    half = to_numpy(torch.ones(2, dtype=torch.bfloat16))
    assert half.dtype == np.float32 and "bfloat16" in repr(replace(live, cond=live.cond.bfloat16()))


# ---- in pieces, and mapped -------------------------------------------------------------------
def test_a_mapped_trace_is_the_trace(tmp_path):
    run = traces.trace(4)
    path = run.save(tmp_path / "run")
    mapped = Trace.load(path, mapped=True)
    assert same(run, mapped)
    with pytest.raises(ValueError, match="read-only"):
        mapped.steps[0].latent[...] = 0
    traces.trace(2).save(path)  # another file takes the name; the mapped one stays whole
    assert same(run, mapped) and len(Trace.load(path, mapped=True).steps) == 2
    assert same(mapped, Trace.load(mapped.save(path)))  # and may be saved over its own name


def test_a_file_is_the_same_whatever_the_size_of_the_pieces(monkeypatch):
    whole = to_bytes(traces.trace(2))
    for module in (trace_spool, trace_file):
        monkeypatch.setattr(module, "CHUNK", 7)
    assert to_bytes(traces.trace(2)) == whole and same(from_bytes(whole), traces.trace(2))


@pytest.mark.parametrize("place", [3, 60, -1, -5000])
def test_a_flipped_bit_is_noticed_in_a_mapped_file(tmp_path, place):
    data = bytearray(GOOD)
    data[place] ^= 4
    (tmp_path / "run").write_bytes(data)
    with pytest.raises(TraceError):
        Trace.load(tmp_path / "run", mapped=True)
    (tmp_path / "run").write_bytes(GOOD)
    assert same(Trace.load(tmp_path / "run", mapped=True), traces.trace(1))


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 a zip", GOOD[:-1], GOOD + b"more"])
def test_malformed_files_are_trace_errors_when_mapped(tmp_path, data):
    (tmp_path / "run").write_bytes(data)
    with pytest.raises(TraceError):
        Trace.load(tmp_path / "run", mapped=True)
    with pytest.raises(TraceError, match="cannot be read"):
        Trace.load(tmp_path / "nothing", mapped=True)


def test_a_large_file_is_mapped_and_not_read(tmp_path, monkeypatch):
    path = traces.trace(2).save(tmp_path / "run")
    monkeypatch.setattr(trace_file, "MOST_BYTES", 1000)
    with pytest.raises(TraceError, match="mapped=True"):
        Trace.load(path)
    assert same(Trace.load(path, mapped=True), traces.trace(2))


def test_what_safetensors_itself_wrote_is_read(tmp_path):
    """As ours were written at first: its own order of tensors, its own header."""
    packer = Packer()
    record = json.dumps(packer.pack(traces.trace(3)))
    with_ours = pack_file(record, packer.tensors)
    size = int.from_bytes(with_ours[:8], "little")
    metadata = json.loads(with_ours[8 : 8 + size])["__metadata__"]
    (tmp_path / "run").write_bytes(safetensors.save(packer.tensors, metadata))
    for mapped in (False, True):
        assert same(Trace.load(tmp_path / "run", mapped=mapped), traces.trace(3))


def test_the_layout_is_the_one_of_safetensors():
    tensors = {"half": np.zeros(3, np.float16), "byte": np.arange(5, dtype=np.uint8),
               "double": np.ones(2), "none": np.zeros((0, 2), np.float32)}  # fmt: skip
    data = pack_file("{}", tensors)
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    assert size % 8 == 0 and [n for n in header if n != "__metadata__"] == [
        "double", "none", "half", "byte"]  # fmt: skip
    for name, array in safetensors.load(data).items():
        assert array.dtype == tensors[name].dtype and np.array_equal(array, tensors[name])


def test_saving_holds_one_piece_in_memory_and_not_the_file(tmp_path):
    big = np.random.default_rng(0).random((40, 1024, 128), np.float32)  # 21 MB
    run = replace(traces.trace(2), attention={"x": big, "y": big[::2], "z": big + 1})
    tracemalloc.start()
    run.save(tmp_path / "run")
    peak = tracemalloc.get_traced_memory()[1]
    mapped = Trace.load(tmp_path / "run", mapped=True)
    mapped_peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "run").stat().st_size > 5e7
    # "y" is no contiguous array: its copy is all that is made.
    assert peak < big.nbytes / 2 + 6e6 and mapped_peak == peak
    assert np.array_equal(mapped.attention["y"], big[::2])


def test_leftovers_of_killed_writers_are_swept_after_a_day(tmp_path):
    old, new = tmp_path / ".run.1.ab.spool.tmp", tmp_path / ".run.1.cd.tmp"
    foreign = tmp_path / ".other.1.ab.tmp"
    for path in (old, new, foreign):
        path.write_bytes(b"x")
    for path in (old, foreign):
        os.utime(path, (1, 1))
    traces.trace(1).save(tmp_path / "run")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["run", new.name, foreign.name])


def test_too_many_arrays_are_refused_when_they_are_written(monkeypatch, tmp_path):
    monkeypatch.setattr(trace_writer, "MOST_TENSORS", 10)
    with pytest.raises(TraceError, match="record fewer steps"):
        traces.trace(5).save(tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_full_names_the_file(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trace_file.os, "fsync", full)
    with pytest.raises(OSError, match="No space") as caught:
        traces.trace(1).save(tmp_path / "run")
    assert caught.value.filename == str(tmp_path / "run") and not list(tmp_path.iterdir())
