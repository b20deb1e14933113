"""The files of a checkpoint are data from a stranger: whatever is wrong is one CheckpointError."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import pickle
import shutil
import struct
import sys
import threading
import time
import weakref
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from diffusionlab.errors import CheckpointError
from diffusionlab.pipeline import load, parts, tensors
from diffusionlab.pipeline.files import foreign, inside, read_json, replacing, write_json
from diffusionlab.pipeline.tensors import open_tensors, read_tensors
from diffusionlab.pipeline.weights import (
    LARGEST_HEADER,
    compare_shapes,
    find_weights,
    read_header,
)

CPU = {"device": torch.device("cpu"), "dtype": torch.float32}


def raw(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(begin: int = 0, end: int = 8, shape=(2,), dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def saved(path: Path, **arrays) -> Path:
    save_file({name: np.asarray(a, np.float32) for name, a in arrays.items()}, path)
    return path


def read_all(path: Path) -> dict[str, torch.Tensor]:
    return read_tensors(read_header(path), **CPU)


# ---- headers ----------------------------------------------------------------------------------
def test_a_good_file_is_read_and_cast_once(tmp_path):
    path = saved(tmp_path / "a.safetensors", w=[[1.5, 2.5]], b=[3.0])
    entries = read_header(path)
    assert {name: entry.shape for name, entry in entries.items()} == {"w": (1, 2), "b": (1,)}
    found = read_tensors(entries, device=torch.device("cpu"), dtype=torch.float16)
    assert found["w"].dtype == torch.float16 and found["w"].tolist() == [[1.5, 2.5]]


MALFORMED = {
    "C04 header of 2^63 bytes": raw({}, length=2**63),
    "C04 header over the limit": raw({}, length=LARGEST_HEADER + 1),
    "C04 header past the end": raw({}, length=3),
    "empty file": b"",
    "seven bytes": b"1234567",
    "no text": b"\xff" * 40,
    "not UTF-8": raw(b'{"\xff": 1}'),
    "a list": raw([]),
    "not JSON": raw(b"{'a': 1}"),
    "NaN in the header": raw(b'{"a": NaN}'),
    "infinite number": raw(b'{"a": 1e999}'),
    "deep nesting": raw(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "an integer of 5000 digits": raw(b'{"a":' + b"9" * 5000 + b"}"),
    "C06 a name twice": raw(
        json.dumps({"a": tensor()})[:-1].encode() + b',"a":' + json.dumps(tensor()).encode() + b"}",
        bytes(8),
    ),
    "gap before the first": raw({"a": tensor(4, 12)}, bytes(12)),
    "overlap": raw({"a": tensor(0, 8), "b": tensor(4, 12)}, bytes(12)),
    "hole": raw({"a": tensor(0, 8), "b": tensor(12, 20)}, bytes(20)),
    "bytes after the last": raw({"a": tensor()}, bytes(9)),
    "bytes missing": raw({"a": tensor()}, bytes(7)),
    "size is not shape x dtype": raw({"a": tensor(0, 8, (3,))}, bytes(8)),
    "negative size": raw({"a": tensor(8, 0, (2,))}, bytes(8)),
    "negative dimension": raw({"a": tensor(0, 8, (-2, -1))}, bytes(8)),
    "dimension true": raw({"a": tensor(0, 4, (True,))}, bytes(4)),
    "fractional dimension": raw({"a": tensor(0, 8, (2.0,))}, bytes(8)),
    "product beyond 64 bits": raw({"a": tensor(0, 8, (2**62, 2**62))}, bytes(8)),
    "unknown dtype": raw({"a": tensor(dtype="F7")}, bytes(8)),
    "dtype is a list": raw({"a": tensor() | {"dtype": ["F32"]}}, bytes(8)),
    "three offsets": raw({"a": tensor() | {"data_offsets": [0, 8, 8]}}, bytes(8)),
    "a key too many": raw({"a": tensor() | {"code": "x"}}, bytes(8)),
    "not an object": raw({"a": [1, 2]}, bytes(8)),
    "a name of 600 letters": raw({"a" * 600: tensor()}, bytes(8)),
}


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED.keys())
def test_every_malformed_header_is_refused(tmp_path, content):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"'.*/bad\.safetensors' is not a whole safetensors"):
        read_header(path)


def test_the_well_formed_twin_of_the_malformed_headers_passes(tmp_path):
    """Shows that the check above can fail: the same builder, nothing wrong."""
    path = tmp_path / "good.safetensors"
    path.write_bytes(raw({"a": tensor(0, 8), "b": tensor(8, 16)}, bytes(16)))
    assert list(read_header(path)) == ["a", "b"]


GOOD = raw(
    {"__metadata__": {"format": "pt"}, "w": tensor(0, 16, (2, 2)), "b": tensor(16, 24)}, bytes(24)
)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("flip"), st.integers(0, len(GOOD) - 1), st.integers(1, 255)),
            st.tuples(st.just("cut"), st.integers(0, len(GOOD)), st.just(0)),
            st.tuples(st.just("insert"), st.integers(0, len(GOOD)), st.integers(0, 255)),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_fuzzed_files_raise_only_checkpoint_errors(tmp_path_factory, changes):
    data = bytearray(GOOD)
    for kind, at, byte in changes:
        if kind == "flip" and at < len(data):
            data[at] ^= byte
        elif kind == "cut":
            del data[at:]
        elif kind == "insert":
            data.insert(min(at, len(data)), byte)
    path = tmp_path_factory.getbasetemp() / "fuzz.safetensors"
    path.write_bytes(data)
    try:
        found = read_all(path)
    except CheckpointError:
        return
    assert all(torch.isfinite(t).all() for t in found.values())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_c08_weights_that_are_not_finite_are_named(tmp_path, value):
    path = saved(tmp_path / "a.safetensors", good=[1.0], **{"mid.bad": [0.0, value]})
    with pytest.raises(CheckpointError, match=r"not finite in float32: 'mid\.bad'"):
        read_all(path)


def test_a_cast_that_overflows_is_told(tmp_path):
    entries = read_header(saved(tmp_path / "a.safetensors", big=[1e6]))
    with pytest.raises(CheckpointError, match="not finite in float16: 'big'"):
        read_tensors(entries, device=torch.device("cpu"), dtype=torch.float16)


def test_a_cast_to_what_is_as_wide_overflows_too(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(raw({"big": tensor(0, 2, (1,), "BF16")}, struct.pack("<H", 0x47C3)))  # 1e5
    assert read_all(path)["big"].item() > 99_000
    with pytest.raises(CheckpointError, match="not finite in float16: 'big'"):
        read_tensors(read_header(path), device=CPU["device"], dtype=torch.float16)


def test_what_is_no_floating_point_is_left_out_and_parts_the_run_that_is_read_at_once(tmp_path):
    path, numbers = tmp_path / "a.safetensors", np.arange(6, dtype=np.float32)
    header = {"a": tensor(0, 8, (2,)), "ids": tensor(8, 12, (1,), "I32"),
              "b": tensor(12, 24, (3, 1)), "none": tensor(24, 24, (0,))}  # fmt: skip
    path.write_bytes(raw(header, numbers.tobytes()))
    found = read_all(path)
    assert list(found) == ["a", "b", "none"] and found["b"].shape == (3, 1)
    assert found["a"].tolist() == [0, 1] and found["b"].flatten().tolist() == [3, 4, 5]
    narrow = read_tensors(read_header(path), device=CPU["device"], dtype=torch.bfloat16)
    assert narrow["b"].dtype == torch.bfloat16 and narrow["b"].flatten().tolist() == [3, 4, 5]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_file_is_read_alike_in_blocks_of_any_size(tmp_path, monkeypatch, dtype):
    arrays = {f"w{i}": np.arange(i + 1) / 8 for i in range(9)}
    entries = read_header(saved(tmp_path / "a.safetensors", **arrays))
    for largest in (1, 12, 40, 10**6):
        monkeypatch.setattr(tensors, "LARGEST_BLOCK", largest)
        read = read_tensors(entries, device=CPU["device"], dtype=dtype)
        assert {n: t.tolist() for n, t in read.items()} == {
            n: a.tolist() for n, a in arrays.items()
        }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_one_number_is_found_among_many_and_large_ones_may_add_up_to_infinity(tmp_path, dtype):
    many = 3 * tensors.ROW + 5
    large = torch.full((many,), torch.finfo(dtype).max).numpy()
    arrays = dict(a=np.zeros(2 * many), large=large, b=np.zeros(many))
    entries = read_header(saved(tmp_path / "a.safetensors", **arrays))
    read = read_tensors(entries, device=CPU["device"], dtype=dtype)
    assert read["large"].isfinite().all() and len(read["large"]) == many
    for end in (2, tensors.ROW, many, 2 * many):
        for wrong in ([np.nan], [np.inf], [-np.inf], [np.inf, -np.inf]):
            arrays["a"][:] = 0
            arrays["a"][end - len(wrong) : end] = wrong
            entries = read_header(saved(tmp_path / "a.safetensors", **arrays))
            with pytest.raises(CheckpointError, match="not finite in .*: 'a';"):
                read_tensors(entries, device=CPU["device"], dtype=dtype)


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux what is mapped")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_file_whose_numbers_were_cast_is_let_go_of_before_the_next_is_read(tmp_path, dtype):
    found = {}
    for name in "abc":
        path = saved(tmp_path / f"{name}.safetensors", **{name: np.zeros(tensors.ROW + 3)})
        found |= read_header(path)
    weights, mapped = open_tensors(found, device=CPU["device"], dtype=dtype), []

    def stopped() -> bool:
        maps = Path("/proc/self/maps").read_text()
        mapped.append(sum(f"{tmp_path}/{name}.safetensors" in maps for name in "abc"))
        return False

    weights.settle(stopped)
    assert mapped[0] == 3 and mapped[-1] == 0 and len(set(mapped)) == 4


def test_all_that_is_not_finite_is_named_and_a_stop_leaves_the_rest(tmp_path, monkeypatch):
    monkeypatch.setattr(tensors, "LARGEST_BLOCK", 4)
    bad = dict(a=[1.0], b=[np.nan], c=[2.0], d=[np.inf])
    entries = read_header(saved(tmp_path / "a.safetensors", **bad))
    with pytest.raises(CheckpointError, match="not finite in float16: 'b', 'd'"):
        read_tensors(entries, device=CPU["device"], dtype=torch.float16)
    weights = open_tensors(entries, device=CPU["device"], dtype=torch.float16)
    weights.tensors["d"].zero_()
    asked = iter([False, False, False, True, True])
    weights.settle(lambda: next(asked))  # two of four were read, and the model is refused anyway
    assert weights.tensors["a"].tolist() == [1.0] and weights.tensors["d"].tolist() == [0.0]


def test_a_part_that_does_not_fit_is_told_before_all_of_it_is_read(tiny_folder, monkeypatch):
    """Mapped weights are being read while the network is made, and then let go of."""
    monkeypatch.setattr(tensors, "LARGEST_BLOCK", 4)
    read, reads, refused = [], threading.Event(), threading.Event()

    def sums(rows, first=tensors._sums):
        read.append(rows)
        reads.set()
        refused.wait(10)
        time.sleep(0.01)
        return first(rows)

    def compare(*given):
        reads.wait(10)
        refused.set()
        raise CheckpointError("does not fit")

    monkeypatch.setattr(tensors, "_sums", sums)
    monkeypatch.setattr(parts, "compare_shapes", compare)
    with pytest.raises(CheckpointError, match="does not fit"):
        load(tiny_folder, device="cpu")
    assert 0 < len(read) < 100


@pytest.mark.parametrize(("kind", "spaces"), [("F16", 0), ("F32", 1)])
def test_no_memory_is_given_to_weights_that_do_not_fit(
    tiny_folder, tmp_path, monkeypatch, kind, spaces
):
    """Half the numbers of a file that are cast, or begin between two places, need a copy."""
    folder = shutil.copytree(tiny_folder, tmp_path / "copy")
    (shape, size), file = ((1000,), 1000 * (2 if kind == "F16" else 4)), "diffusion_pytorch_model"
    header = json.dumps({"w": tensor(0, size, shape, kind)}).encode()
    header += b" " * (-len(header) % 8 + spaces)
    (folder / f"unet/{file}.safetensors").write_bytes(raw(header, bytes(size)))
    opened = []
    monkeypatch.setattr(parts, "open_tensors", lambda *given, **options: opened.append(given))
    with pytest.raises(CheckpointError, match="unexpected 'w'"):
        load(folder, device="cpu")
    assert not opened


def test_of_a_model_that_is_refused_nothing_is_held(tiny_folder, tmp_path, monkeypatch):
    folder = shutil.copytree(tiny_folder, tmp_path / "copy")
    path, made = folder / "unet/diffusion_pytorch_model.safetensors", []
    state = load_file(path)
    state["conv_in.bias"][0] = np.nan
    save_file(state, path)

    def module(name, settings, first=parts.empty_module):
        made.append(weakref.ref(built := first(name, settings)))
        return built

    monkeypatch.setattr(parts, "empty_module", module)
    gc.disable()
    try:
        with contextlib.suppress(CheckpointError):
            load(folder, device="cpu", dtype="float64")
        assert len(made) == 3 and not any(one() for one in made)
    finally:
        gc.enable()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_model_loaded_in_inference_mode_can_still_learn(tiny_folder, dtype):
    with torch.inference_mode():
        model = load(tiny_folder, device="cpu", dtype=dtype)
    modules = (model.unet, model.vae, *model.text_encoders)
    own = [t for module in modules for t in (*module.parameters(), *module.buffers())]
    assert own and not any(t.is_inference() for t in own)


@pytest.mark.parametrize("spaces", range(4))
def test_a_header_of_any_length_is_read(tmp_path, spaces):
    path = tmp_path / "a.safetensors"
    header = json.dumps({"w": tensor(0, 8, (2,))}).encode() + b" " * spaces
    path.write_bytes(raw(header, np.array([1.5, -2.5], np.float32).tobytes()))
    assert read_all(path)["w"].tolist() == [1.5, -2.5]


def test_neighbours_in_a_file_do_not_hear_of_each_others_changes(tmp_path):
    found = read_all(saved(tmp_path / "a.safetensors", a=[1.0], b=[2.0]))
    before = found["b"]._version
    found["a"] += 1
    assert found["b"].tolist() == [2.0] and found["b"]._version == before < found["a"]._version


def test_names_and_shapes_are_compared_from_the_header_alone(tmp_path):
    entries = read_header(saved(tmp_path / "a.safetensors", a=[1.0], b=[2.0], c=[3.0, 4.0]))
    compare_shapes("unet", entries, {"a": (1,), "b": (1,), "c": (2,)})
    with pytest.raises(CheckpointError, match="lack 'd' and have unexpected 'b', 'c'"):
        compare_shapes("unet", entries, {"a": (1,), "d": (1,)})
    with pytest.raises(CheckpointError, match=r"'c' is F32 of shape \[2\].*shape \[3\]"):
        compare_shapes("unet", entries, {"a": (1,), "b": (1,), "c": (3,)})


# ---- what is not safetensors ------------------------------------------------------------------
class Hostile:
    def __reduce__(self):
        return os.mkdir, (str(Hostile.trace),)


FOREIGN = {
    "version https://git-lfs.github.com/spec/v1\noid sha256:ab\n": "Git-LFS pointer",
    "\n <!DOCTYPE html><html><body>404</body></html>": "web page",
    "\ufeff<html>": "web page",
    "<?xml version='1.0'?><Error/>": "XML page",
    "\x1f\x8b not really": "gzip",
    "model:\n  base_learning_rate: 1.0e-4\n": r"is text, not weights: it begins with 'model:\\n",
    '{"_class_name": "StableDiffusionPipeline"}\r\n': "is text, not weights",
    "Größe: " + "ä" * 40: "is text, not weights",  # cut within a character
}


@pytest.mark.parametrize(("text", "what"), FOREIGN.items())
def test_c02_pointers_and_pages_are_recognised(tmp_path, text, what):
    path = tmp_path / "model.safetensors"
    path.write_bytes(text.encode("latin-1") if text.startswith("\x1f") else text.encode())
    with pytest.raises(CheckpointError, match=what):
        read_header(path)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_c12_a_hostile_pickle_is_recognised_by_content_and_leaves_no_trace(
    tmp_path, protocol, suffix
):
    Hostile.trace = tmp_path / "trace"
    path = tmp_path / f"model{suffix}"
    path.write_bytes(pickle.dumps(Hostile(), protocol=protocol))
    with pytest.raises(CheckpointError, match="a Python pickle; a pickle can run any program"):
        read_header(path)
    assert not Hostile.trace.exists()
    pickle.loads(path.read_bytes())  # noqa: S301  shows that the check can fail: it was armed
    assert Hostile.trace.exists()


def test_c10_c12_zip_archives_are_refused_deflated_or_not(tmp_path):
    path = tmp_path / "model.safetensors"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10_000_000))
    with pytest.raises(CheckpointError, match="zip archive, as torch.save writes"):
        read_header(path)
    torch.save({"a": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="zip archive, as torch.save writes"):
        read_header(path)


@pytest.mark.parametrize("suffix", [".ckpt", ".bin", ".pt", ".pth", ".pkl"])
def test_old_pickles_without_a_mark_are_known_by_name(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(pickle.dumps({"a": 1}, protocol=0))
    assert "a pickle by its name" in foreign(path)


def test_c12_safetensors_under_a_pickles_name_are_what_they_are(tmp_path):
    assert foreign(saved(tmp_path / "model.ckpt", w=[1.0])) is None


# ---- JSON -------------------------------------------------------------------------------------
BAD_JSON = {
    "": "not a JSON object",
    "[1]": "it holds a list",
    '{"a": 1, "a": 2}': "the name 'a' occurs twice",
    '{"a": NaN}': "not a finite number",
    '{"a": 1e999}': "not a finite number",
    '{"a": ' + "[" * 100_000: "not a JSON object",
    "version https://git-lfs.github.com/spec/v1": "Git-LFS pointer",
    "a: &a [x]\nb: [*a, *a]": "not a JSON object",
}


@pytest.mark.parametrize(("text", "what"), BAD_JSON.items())
def test_bad_json_is_refused_with_its_place(tmp_path, text, what):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=what) as caught:
        read_json(path)
    assert "/config.json'" in str(caught.value)


def test_an_endless_number_is_read_as_none_where_it_is_allowed(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"a": -Infinity, "b": Infinity, "c": 1.5}')
    assert read_json(path, endless=True) == {"a": None, "b": None, "c": 1.5}
    with pytest.raises(CheckpointError, match="'-Infinity' is not a finite number"):
        read_json(path)
    for text in ('{"a": NaN}', '{"a": 1e999}', '{"a": [-1e999]}'):
        path.write_text(text)
        with pytest.raises(CheckpointError, match="not a finite number"):
            read_json(path, endless=True)


def test_json_is_bounded_and_utf8(tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(CheckpointError, match="not UTF-8"):
        read_json(path)
    with path.open("wb") as file:
        file.truncate(10_000_001)  # sparse: takes no disk
    with pytest.raises(CheckpointError, match="at most 10000000 are read"):
        read_json(path)
    path.write_bytes(b"\xef\xbb\xbf{}")
    assert read_json(path) == {}


@given(st.binary(max_size=60))
def test_any_bytes_as_json_raise_only_checkpoint_errors(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzz.json"
    path.write_bytes(data)
    with contextlib.suppress(CheckpointError):
        assert isinstance(read_json(path), dict)


# ---- names and links --------------------------------------------------------------------------
def test_files_inside_and_links_within_are_followed(tmp_path):
    (tmp_path / "unet").mkdir()
    real = tmp_path / "unet" / "config.json"
    real.write_text("{}")
    (tmp_path / "link.json").symlink_to(real)
    assert inside(tmp_path, "unet/config.json") == real
    assert inside(tmp_path, "link.json") == tmp_path / "link.json"
    assert inside(tmp_path, "absent.json", optional=True) is None
    with pytest.raises(CheckpointError, match="has no file 'absent.json'"):
        inside(tmp_path, "absent.json")


def test_s3_links_that_leave_and_special_files_are_refused(tmp_path):
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    outside = tmp_path / "secret"
    outside.write_text("{}")
    (folder / "link").symlink_to(outside)
    (folder / "dangling").symlink_to(tmp_path / "nothing")
    os.mkfifo(folder / "fifo")
    with pytest.raises(CheckpointError, match="a link that leaves the checkpoint's folder"):
        inside(folder, "link", optional=True)
    with pytest.raises(CheckpointError, match="leaves"):
        inside(folder, "../secret")
    for name in ("fifo", "sub"):
        with pytest.raises(CheckpointError, match="no regular file"):
            inside(folder, name)
    for name in ("dangling", "nul\0byte", "x" * 5000, "link/below"):
        with pytest.raises(CheckpointError):
            inside(folder, name, optional=True)


def test_links_of_the_hub_cache_lead_to_its_blobs_only(tmp_path):
    snapshot, blobs = tmp_path / "models--a--b/snapshots/c0ffee", tmp_path / "models--a--b/blobs"
    snapshot.mkdir(parents=True), blobs.mkdir()
    (blobs / "1234").write_text("{}")
    (snapshot / "config.json").symlink_to("../../blobs/1234")
    assert inside(snapshot, "config.json")
    plain = snapshot.parents[1] / "other" / "c0ffee"  # beside the same blobs, but no snapshot
    plain.mkdir(parents=True), (plain / "config.json").symlink_to("../../blobs/1234")
    with pytest.raises(CheckpointError, match="leaves"):
        inside(plain, "config.json")
    (tmp_path / "secret").write_text("{}")
    (snapshot / "other.json").symlink_to("../../../secret")
    with pytest.raises(CheckpointError, match="leaves"):
        inside(snapshot, "other.json")


# ---- shards -----------------------------------------------------------------------------------
def sharded(folder: Path, weight_map: dict) -> Path:
    (folder / "unet").mkdir(parents=True, exist_ok=True)
    saved(folder / "unet" / "m-1.safetensors", a=[1.0], b=[2.0])
    saved(folder / "unet" / "m-2.safetensors", c=[3.0])
    index = folder / "unet" / "m.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


WHOLE = {"a": "m-1.safetensors", "b": "m-1.safetensors", "c": "m-2.safetensors"}


def test_shards_are_read_as_one(tmp_path):
    entries = find_weights(sharded(tmp_path, WHOLE), "unet/m")
    found = read_tensors(entries, **CPU)
    assert {name: t.item() for name, t in found.items()} == {"a": 1.0, "b": 2.0, "c": 3.0}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"d": "m-3.safetensors"}, "has no file 'unet/m-3.safetensors'"),
        ({"d": "m-1.safetensors"}, "disagree about 'd'"),
        ({"a": "m-2.safetensors"}, "disagree about 'a'"),
        ({"c": 7}, "no weight_map of names"),
        ({"c": "../m-2.safetensors"}, "names the shard"),
        ({"c": "..\\m-2.safetensors"}, "names the shard"),
        ({"c": "/etc/passwd"}, "names the shard"),
        ({"c": "m-2.bin"}, "names the shard"),
        ({"c": ".hidden.safetensors"}, "names the shard"),
        ({"c": "m-2.safetensors\n"}, "names the shard"),
    ],
)
def test_s3_c14_a_wrong_index_is_refused(tmp_path, change, what):
    with pytest.raises(CheckpointError, match=what):
        find_weights(sharded(tmp_path, WHOLE | change), "unet/m")


def test_c14_a_tensor_in_two_shards_is_refused(tmp_path):
    folder = sharded(tmp_path, WHOLE)
    saved(folder / "unet" / "m-2.safetensors", c=[3.0], a=[9.0])
    with pytest.raises(CheckpointError, match="disagree about 'a'"):
        find_weights(folder, "unet/m")


def test_absent_weights_say_what_lies_there_instead(tmp_path):
    (tmp_path / "unet").mkdir()
    with pytest.raises(CheckpointError, match="download the file again"):
        find_weights(tmp_path, "unet/m")
    (tmp_path / "unet" / "m.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match="the weights there are pickled"):
        find_weights(tmp_path, "unet/m")
    saved(tmp_path / "unet" / "m.fp16.safetensors", a=[1.0])
    with pytest.raises(CheckpointError, match=r"load\(..., variant='fp16'\)"):
        find_weights(tmp_path, "unet/m")
    assert list(find_weights(tmp_path, "unet/m", "fp16")) == ["a"]
    with pytest.raises(CheckpointError, match=r"load\(..., variant='fp16'\) takes 'm.fp16.safe"):
        find_weights(tmp_path, "unet/m", "bf16")
    index = tmp_path / "unet" / "m.safetensors.index.fp16.json"
    (tmp_path / "unet" / "m.fp16.safetensors").rename(tmp_path / "unet" / "m.fp16-1.safetensors")
    index.write_text(json.dumps({"weight_map": {"a": "m.fp16-1.safetensors"}}))
    for variant in (None, "bf16"):
        with pytest.raises(CheckpointError, match=rf"variant='fp16'\) takes '{index.name}'"):
            find_weights(tmp_path, "unet/m", variant)
    assert list(find_weights(tmp_path, "unet/m", "fp16")) == ["a"]


# ---- writing ----------------------------------------------------------------------------------
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "config.json"
    write_json(path, {"a": 1})
    for error in (KeyboardInterrupt, CheckpointError):
        with pytest.raises(error), replacing(path) as temporary:
            temporary.write_text("half")
            raise error
    with pytest.raises(CheckpointError, match="No space left"), replacing(path) as temporary:
        raise OSError(28, "No space left on device")
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": float("nan")})
    assert read_json(path) == {"a": 1} and list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot write"):
        write_json(tmp_path / "file" / "config.json", {})


def test_weights_are_given_frozen_and_uncopied_and_each_has_its_place(tiny_model):
    from diffusionlab.pipeline.parts import empty_module, give, settings_of

    config = tiny_model.config["unet"]
    state = {name: t.clone() for name, t in tiny_model.unet.state_dict().items()}
    settings = settings_of("unet", config)
    module = empty_module("unet", settings)
    give(module, state)
    own = dict(module.named_parameters())
    assert {n: p.data_ptr() for n, p in own.items()} == {n: state[n].data_ptr() for n in own}
    assert not any(p.requires_grad for p in own.values())
    assert set(module.state_dict()) == set(state)
    with pytest.raises(KeyError, match="conv_in.weight"):
        give(empty_module("unet", settings), {n: state[n] for n in state if n[:7] != "conv_in"})
    with pytest.raises(ValueError, match=r"without a place: \['strange'\]"):
        give(empty_module("unet", settings), state | {"strange": state["conv_in.bias"]})


@pytest.mark.parametrize("works", [True, False])
def test_the_collector_rests_while_a_model_is_made_and_then_is_as_before(
    works, tiny_folder, tmp_path, monkeypatch
):
    seen, read = [], parts.FolderPart.read
    monkeypatch.setattr(
        parts.FolderPart, "read", lambda *a: seen.append(gc.isenabled()) or read(*a)
    )
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    (gc.enable if works else gc.disable)()
    try:
        load(folder)
        assert gc.isenabled() == works
        (folder / "unet/diffusion_pytorch_model.safetensors").write_bytes(b"")
        with pytest.raises(CheckpointError):
            load(folder)
        assert gc.isenabled() == works
    finally:
        gc.enable()
    assert len(seen) > 3 and not any(seen)


def test_a_loaded_model_counts_as_old_and_what_was_frozen_stays_so(tiny_folder):
    """So the collector does not look through it at once, nor thaws what somebody froze."""
    model = load(tiny_folder)
    old = {id(found) for found in gc.get_objects(generation=2)}
    assert {id(module) for module in model.unet.modules()} <= old
    try:
        gc.freeze()
        load(tiny_folder)
        assert gc.get_freeze_count()
    finally:
        gc.unfreeze()
