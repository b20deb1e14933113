"""Teaching checkpoints by name: the table, what `load` asks the hub for, and where copies are."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from huggingface_hub import errors
from safetensors.torch import load_file, save_file

import diffusionlab as dl
from diffusionlab.errors import CheckpointError
from diffusionlab.pipeline import folder, hub, registry
from diffusionlab.pipeline.registry import CHECKPOINTS, checkpoints, elsewhere, named_by_the_end


# ---- the table ---------------------------------------------------------------------------------
def test_every_entry_is_whole():
    for name, entry in CHECKPOINTS.items():
        assert name == entry.name and "/" not in name
        repos = [entry.repo, *entry.removed, *entry.copies]
        repos += [CHECKPOINTS[p].repo if p in CHECKPOINTS else p for p in entry.parts.values()]
        assert all(hub.HUB_ID.fullmatch(repo) for repo in repos)
        assert entry.licence and entry.family and entry.size in (512, 768, 1024)
        assert entry.gigabytes[0] >= entry.gigabytes[1] > 0
        if not entry.part:
            assert entry.settings["sampler"] in dl.SAMPLERS
            assert set(entry.settings) == {"sampler", "num_steps", "guidance_scale"}


class Cells(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.cells = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)

    def handle_data(self, data):
        self.cells.append(data)


def test_the_table_shows_every_checkpoint():
    table = checkpoints()
    assert len(table) == len(CHECKPOINTS) == len(list(table)) and table["sd15"].family == "SD 1"
    lines = repr(table).splitlines()
    assert len(lines) == len(table) + 1 and all(len(line) < 100 for line in lines)
    for entry in table:
        line = next(line for line in lines if line.split()[0] == entry.name)
        assert entry.family in line and f"{entry.gigabytes[0]:g} / " in line
        assert entry.settings.get("sampler", f"vae='{entry.name}'") in line
        told = repr(table[entry.name])
        assert entry.repo in told and entry.licence in told and entry.note in told
    page = Cells(table._repr_html_())
    assert page.tags.count("tr") == len(table) + 1 and set(page.tags) == {"table", "tr", "th", "td"}
    assert all({entry.family, entry.name} <= set(page.cells) for entry in table)


def test_a_name_that_the_table_has_not_is_told_with_its_near_ones():
    with pytest.raises(KeyError, match=r"no checkpoint 'sd1.5'; did you mean 'sd15'.*allowed are"):
        checkpoints()["sd1.5"]
    with pytest.raises(KeyError, match="no checkpoint 3; allowed are sd15, "):
        checkpoints()[3]


def test_the_table_escapes_what_it_shows(monkeypatch):
    hostile = registry.Checkpoint("<script>", "a/b", "<b>", 512, (1, 1), "", note='"><img src=x>')
    monkeypatch.setitem(CHECKPOINTS, "x", hostile)
    assert set(Cells(checkpoints()._repr_html_()).tags) == {"table", "tr", "th", "td"}


# ---- loading by name ---------------------------------------------------------------------------
@pytest.fixture
def asked(monkeypatch, tiny_folder, tmp_path):
    """The hub's answers are the tiny checkpoint; returns what was asked for."""
    calls, snapshot = [], tmp_path / "snapshots" / "c0ffee"
    shutil.copytree(tiny_folder, snapshot)

    def fake(repo, **options):
        calls.append((repo, options))
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fake)
    return calls, snapshot


def test_a_name_asks_for_its_repository(asked, monkeypatch, tmp_path):
    calls, _ = asked
    assert dl.load("sd15", device="cpu").name == "sd15"
    assert {repo for repo, _ in calls} == {CHECKPOINTS["sd15"].repo}
    calls.clear()
    dl.load("tiny-sd", device="cpu")
    assert [options["revision"] for _, options in calls] == ["refs/pr/1", "c0ffee"]
    calls.clear()
    dl.load("tiny-sd", device="cpu", revision="v1")
    assert calls[0][1]["revision"] == "v1"
    monkeypatch.chdir(tmp_path)
    shutil.copytree(asked[1], tmp_path / "sd15")
    calls.clear()
    assert dl.load("sd15", device="cpu").path == Path("sd15") and not calls  # a folder wins


def test_parts_of_a_name_are_fetched_and_the_replaced_ones_are_not(asked):
    calls, _ = asked
    dl.load("lcm-sdxl", device="cpu")
    repos = [repo for repo, _ in calls]
    assert repos[0] == "latent-consistency/lcm-sdxl" and repos[-1] == CHECKPOINTS["sdxl"].repo
    wanted = calls[-1][1]["allow_patterns"]
    assert not any(name.startswith("unet/diff") for name in wanted)
    assert any(name.startswith("vae/diff") for name in wanted)
    calls.clear()
    dl.load("sd15", device="cpu", vae="taesd")
    assert calls[0][0] == "madebyollin/taesd"
    assert "config.json" in calls[0][1]["allow_patterns"]


def test_a_part_alone_and_a_near_miss_are_told():
    with pytest.raises(CheckpointError, match=r"is a vae alone.*load\('sd15', vae='taesd'\)"):
        dl.load("taesd")
    with pytest.raises(CheckpointError, match="did you mean 'sd15'"):
        dl.load("sd-15")


@pytest.mark.parametrize(
    ("listed", "fetched"),
    [
        (["transformers", "CLIPVisionModelWithProjection"], True),
        ([None, None], False),
        ([], False),
        ("image_encoder", False),
        (None, False),
    ],
)
def test_the_image_tower_is_fetched_where_the_index_lists_it(asked, listed, fetched):
    calls, snapshot = asked
    index = json.loads((snapshot / "model_index.json").read_text())
    index = {key: value for key, value in index.items() if key != "image_encoder"}
    index |= {} if listed is None else {"image_encoder": listed}
    (snapshot / "model_index.json").write_text(json.dumps(index))
    dl.load("sd15", device="cpu", variant=None)
    configs, all_files = (set(options["allow_patterns"]) for _, options in calls)
    tower = {"image_encoder/config.json", "image_encoder/model.safetensors",
             "feature_extractor/preprocessor_config.json"}  # fmt: skip
    assert not any(name.startswith("image_encoder") for name in configs)
    assert tower <= all_files if fetched else not tower & all_files


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_one_variant_of_a_part_is_fetched(asked, variant):
    calls, snapshot = asked
    hub.download_part("text_encoder_2", "org/name", variant=variant, token=None)
    names = [n for _, options in calls for n in options["allow_patterns"]]
    assert "text_encoder_2/model.safetensors" in names
    assert len(calls) == (2 if variant else 1)  # the tiny checkpoint has no variant
    (snapshot / "text_encoder_2").mkdir()
    (snapshot / "text_encoder_2" / "model.fp16.safetensors").write_bytes(b"")
    calls.clear()
    hub.download_part("text_encoder_2", "org/name", variant="fp16", token=None)
    assert "text_encoder_2/model.safetensors" not in calls[0][1]["allow_patterns"]


# ---- what is asked for -------------------------------------------------------------------------
def matching(patterns: list[str], name: str) -> bool:
    from fnmatch import fnmatch

    return any(fnmatch(name, pattern) for pattern in patterns)


@pytest.mark.parametrize("part", hub.STEMS.values())
def test_patterns_take_one_variant_whole_or_in_shards(part):
    plain, half = hub.weight_files(), hub.weight_files("fp16")
    files = {
        "": (f"{part}.safetensors", f"{part}-00001-of-00002.safetensors",
             f"{part}.safetensors.index.json"),
        "fp16": (f"{part}.fp16.safetensors", f"{part}.fp16-00001-of-00002.safetensors",
                 f"{part}-00001-of-00002.fp16.safetensors",
                 f"{part}.safetensors.index.fp16.json"),
    }  # fmt: skip
    for name in files[""]:
        assert matching(plain, name) and not matching(half, name)
    for name in files["fp16"]:
        assert matching(half, name) and not matching(plain, name)
    for suffix in (".bin", ".onnx", ".msgpack", ".non_ema.safetensors"):
        assert not matching(plain + half, part + suffix)


def test_a_sharded_variant_that_diffusers_and_transformers_wrote_loads(tmp_path):
    """SDXL's own U-Net is one file; bigger copies come as shards of a variant."""
    from original_layout import pipeline

    pipe = pipeline("SDXL")
    pipe.save_pretrained(tmp_path / "whole")
    whole = tmp_path / "shards"
    pipe.save_pretrained(whole, variant="fp16", max_shard_size="400KB")
    names = {path.name for path in whole.rglob("*.safetensors*")}
    assert any(re.search(r"\.fp16-0000\d-of-", name) for name in names), names
    model = dl.load(whole, device="cpu", variant="fp16")
    plain = dl.load(tmp_path / "whole", device="cpu")
    for ours, theirs in zip(
        (model.unet, *model.text_encoders), (plain.unet, *plain.text_encoders), strict=True
    ):
        state = theirs.state_dict()
        assert all(bool((t == state[n]).all()) for n, t in ours.state_dict().items())


def test_xl_s_second_encoder_is_read_in_the_variant(tmp_path, tiny_folder, monkeypatch):
    from original_layout import pipeline

    pipeline("SDXL").save_pretrained(tmp_path, variant="fp16")
    assert (tmp_path / "text_encoder_2/model.fp16.safetensors").is_file()
    assert dl.load(tmp_path, device="cpu", variant="fp16").is_xl
    plain = tmp_path / "text_encoder_2/model.safetensors"
    save_file(load_file(plain.with_name("model.fp16.safetensors")), plain)
    plain.with_name("model.fp16.safetensors").unlink()
    messages = []
    monkeypatch.setattr(folder, "notice", messages.append)
    assert dl.load(tmp_path, device="cpu", variant="fp16").is_xl
    assert messages == ["no variant 'fp16' of text_encoder_2 is there: read without a variant"]
    with pytest.raises(CheckpointError, match="those without a variant are there: leave variant="):
        dl.load(tiny_folder, device="cpu", variant="fp16")


def test_a_part_without_the_variant_is_fetched_plain(tiny_folder, tmp_path, monkeypatch):
    calls, snapshot = [], shutil.copytree(tiny_folder, tmp_path / "c0ffee")
    weights = {p.relative_to(snapshot).as_posix() for p in snapshot.glob("*/*.safetensors")}
    kept = {name: (snapshot / name).read_bytes() for name in weights}
    unet = "unet/diffusion_pytorch_model.safetensors"

    def fake(repo, allow_patterns, **options):
        calls.append(allow_patterns)
        for name in weights:  # the hub has the variant of the U-Net only
            (snapshot / name).unlink(missing_ok=True)
            if len(calls) == 3 and name in allow_patterns:
                (snapshot / name).write_bytes(kept[name])
        if len(calls) > 1:
            (snapshot / unet.replace(".", ".fp16.", 1)).write_bytes(kept[unet])
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fake)
    dl.load("org/name", device="cpu", variant="fp16")
    assert len(calls) == 3 and unet not in calls[2] and weights - {unet} <= set(calls[2])


# ---- addresses that moved ----------------------------------------------------------------------
def test_removed_and_copied_addresses_are_known():
    assert elsewhere("runwayml/stable-diffusion-v1-5") == (CHECKPOINTS["sd15"].repo,)
    found = elsewhere("stabilityai/stable-diffusion-2-1-base")
    assert found == (CHECKPOINTS["sd21-base"].repo, *CHECKPOINTS["sd21-base"].copies)
    assert elsewhere("nota-ai/bk-sdm-tiny") == ("treksis/bk-sdm-tiny",)
    assert elsewhere("org/name") == ()


@pytest.mark.parametrize(
    ("source", "error", "what"),
    [
        ("runwayml/stable-diffusion-v1-5", "RepositoryNotFoundError",
         r"load\('stable-diffusion-v1-5/stable-diffusion-v1-5'\) has the same weights"),
        ("bk-sdm-small", "RepositoryNotFoundError", r"load\('treksis/bk-sdm-small'\)"),
        ("org/name", "RepositoryNotFoundError", "check the spelling"),
        ("sdxl", "GatedRepoError", "accept its licence .*hf auth login"),
        ("sd15", "OfflineModeIsEnabled", r"load\('stable-diffusion-v1-5/"),
        ("sd15", "LocalEntryNotFoundError", "where there is a network"),
    ],
)  # fmt: skip
def test_gated_moved_missing_and_offline_say_the_next_command(source, error, what, monkeypatch):
    def fake(repo, **options):
        kind = getattr(errors, error)
        raise kind.__new__(kind)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fake)
    with pytest.raises(CheckpointError, match=what):
        dl.load(source, device="cpu")


def test_a_full_disk_is_told(monkeypatch):
    def fake(repo, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fake)
    with pytest.raises(CheckpointError, match="does not fit on the disk; make room.*cache_dir="):
        dl.load("sd15", device="cpu")


@pytest.mark.parametrize(
    ("end", "name"),
    [
        ("stable-diffusion-v1-5", "sd15"),
        ("stable-diffusion-xl-base-1.0", "sdxl"),
        ("bk-sdm-tiny",) * 2,
    ],
)
def test_an_address_without_its_owner_is_told_the_short_name(end, name):
    assert named_by_the_end(end) == name
    if end not in CHECKPOINTS:
        with pytest.raises(CheckpointError, match=f"there is no folder.*did you mean '{name}'"):
            dl.load(end)
    assert named_by_the_end("v1-5") == named_by_the_end("") == ""
