"""Taps: what watchers see, that looking changes nothing, and that replacing does."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from torch import nn

from diffusionlab import taps
from diffusionlab.errors import InputError
from diffusionlab.models import VAE, UNet, UNetConfig, VAEConfig
from diffusionlab.taps import Tap, find_taps, recording, rows, watching

CROSS, SELF = "*attn2.probabilities", "*attn1.probabilities"
FIRST = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.probabilities"


@pytest.fixture(scope="module")
def unet() -> UNet:
    """Two blocks, heads (2, 4), every parameter drawn, so that no branch adds nothing."""
    config = UNetConfig(
        block_out_channels=(16, 32), layers_per_block=1, attention_head_dim=(2, 4),
        down_block_types=("CrossAttnDownBlock2D",) * 2, norm_num_groups=8,
        up_block_types=("CrossAttnUpBlock2D",) * 2, cross_attention_dim=12,
    )  # fmt: skip
    draws = torch.Generator().manual_seed(0)
    net = UNet(config).eval().requires_grad_(False)
    for parameter in net.parameters():
        parameter += 0.2 * torch.randn(parameter.shape, generator=draws)
    return net


SAMPLE = torch.randn(2, 4, 8, 6, generator=torch.Generator().manual_seed(1))
TEXT = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(2))
SIZES = {FIRST: (8, 6), "mid_block.attentions.0.transformer_blocks.0.attn2.probabilities": (4, 3)}


def run(net: UNet) -> torch.Tensor:
    return net(SAMPLE, torch.tensor(700.0), TEXT)


def free(net: nn.Module) -> bool:
    return not any(tap.watched for tap in find_taps(net).values())


# ---- names -----------------------------------------------------------------------------------
def test_every_place_of_interest_has_a_tap(unet):
    names = list(find_taps(unet))
    assert len(names) == len(set(names)) == 2 + 4 * 14 + 5 + 3
    kinds = {"attn1.probabilities": 7, "attn2.probabilities": 7, "output": 5}
    kinds |= {"attn2.queries": 7, "attn2.keys": 7, "attn2.values": 7}
    assert {k: sum(n.endswith(k) for n in names) for k in kinds} == kinds
    assert {"time", "skip", "mid_block.output", "up_blocks.1.output", FIRST} <= set(names)
    assert [n for n in names if "skips" in n] == [
        "down_blocks.0.skips.0", "down_blocks.0.skips.1", "down_blocks.1.skips.0"]  # fmt: skip


def test_taps_are_neither_parameters_nor_submodules(unet):
    assert not any("output" in key or "probabilities" in key for key in unet.state_dict())
    copied = copy.deepcopy(unet)
    with watching(unet, {"*": lambda name, value: None}):
        assert free(copied)


def test_a_pattern_without_a_tap_names_near_ones(unet):
    told = r"'mid_blok.output' matches none of .* did you mean 'mid_block.output'"
    wrong = {"time": print, "mid_blok.output": print}
    with pytest.raises(InputError, match=told), watching(unet, wrong):
        pass
    assert free(unet)


@pytest.mark.parametrize("wrong", [CROSS, 7, None, [7], [b"*"]])
def test_recording_takes_a_list_of_names(unet, wrong):
    told = "(patterns is .* a list of tap names is allowed|matches none of)"
    with pytest.raises(InputError, match=told), recording(unet, wrong):
        pass


# ---- looking -----------------------------------------------------------------------------------
def test_recording_everything_leaves_the_output_bit_identical(unet):
    plain = run(unet)
    for heads in (False, True):
        with recording(unet, ["*"], heads=heads) as record:
            assert torch.equal(run(unet), plain)
        assert set(record) == set(find_taps(unet)) and all(len(v) == 1 for v in record.values())
    assert free(unet) and torch.equal(run(unet), plain)


@pytest.mark.parametrize("name", SIZES)
def test_probabilities_are_the_softmax_of_query_and_key(unet, name):
    layer = unet.get_submodule(name.removesuffix(".probabilities"))
    seen = {}
    hook = layer.to_q.register_forward_hook(lambda _, __, out: seen.update(query=out))
    with recording(unet, [name]) as mean, recording(unet, [name], heads=True) as each:
        run(unet)
    hook.remove()
    query = layer.split(seen["query"]).double()
    key = layer.split(layer.to_k(TEXT)).double()
    scores = torch.einsum("bhqd,bhkd->bhqk", query, key) / query.shape[-1] ** 0.5
    expected = scores.softmax(-1).unflatten(2, SIZES[name])  # (rows, heads, height, width, tokens)
    assert each[name][0].dtype == mean[name][0].dtype == torch.float16
    torch.testing.assert_close(each[name][0].double(), expected, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(mean[name][0].double(), expected.mean(1), rtol=1e-3, atol=1e-6)
    assert (mean[name][0].float().sum(-1) - 1).abs().max() < 5e-3
    assert (each[name][0].double() - expected.flip(-1)).abs().max() > 0.05  # the check can fail


def test_nobody_watching_costs_nothing(unet, monkeypatch):
    """An unwatched tap gives back the very object; attention then never forms probabilities."""
    assert Tap()(SAMPLE) is SAMPLE

    def never(*_given):
        raise RuntimeError("probabilities were formed")

    monkeypatch.setattr("diffusionlab.taps.AttentionTap.__call__", never)
    run(unet)
    with pytest.raises(RuntimeError, match="were formed"), recording(unet, [FIRST]):
        run(unet)


def test_the_autoencoder_has_taps_too():
    vae = VAE(VAEConfig.from_dict({"block_out_channels": [8], "norm_num_groups": 4})).eval()
    with recording(vae, ["encoder.*"]) as record, torch.no_grad():
        vae.encode(torch.zeros(1, 3, 6, 4))
    (weights,) = record["encoder.mid_block.attentions.0.probabilities"]
    assert weights.shape == (1, 6, 4, 24)
    assert "encoder.mid_block.output" in record


def test_prepared_text_shows_the_same_probabilities(unet):
    with recording(unet, [CROSS]) as plain:
        run(unet)
    with recording(unet, [CROSS]) as prepared:
        unet(SAMPLE, torch.tensor(700.0), unet.prepare_text(TEXT))
    assert all(torch.equal(plain[name][0], prepared[name][0]) for name in plain)


def test_self_attention_has_one_token_per_place(unet):
    with recording(unet, [SELF]) as record:
        run(unet)
    shapes = {tuple(v[0].shape) for v in record.values()}
    assert shapes == {(2, 8, 6, 48), (2, 4, 3, 12)}


def test_the_skips_are_what_the_way_up_receives(unet):
    received = []
    hooks = [
        block.register_forward_pre_hook(lambda _, given: received.append(list(given[1])))
        for block in unet.up_blocks
    ]
    with recording(unet, ["skip", "*skips*"]) as record:
        run(unet)
    for hook in hooks:
        hook.remove()
    assert list(record) == [n for n in find_taps(unet) if "skip" in n]
    for (kept,), given in zip(record.values(), received[0], strict=True):
        assert torch.equal(kept, given)


# ---- rows --------------------------------------------------------------------------------------
def test_rows_select_what_is_seen(unet):
    with recording(unet, ["*"]) as whole:
        run(unet)
    with recording(unet, ["*"]) as part, rows(slice(1, None)):
        run(unet)
    assert part.keys() == whole.keys()
    for name in part:
        torch.testing.assert_close(part[name][0], whole[name][0][1:], rtol=1e-3, atol=1e-6)


def test_an_empty_slice_shows_nothing(unet):
    with recording(unet, ["*"]) as record, rows(slice(0, 0)):
        run(unet)
    assert record == {}
    with pytest.raises(InputError, match="rows is 1; a slice"), rows(1):
        pass


def test_rows_belong_to_a_thread(unet):
    seen = []
    with watching(unet, {"mid_block.output": lambda _, v: seen.append(len(v))}), rows(slice(1)):
        thread = threading.Thread(target=run, args=(unet,))
        thread.start()
        thread.join()
        run(unet)
    assert seen == [2, 1]


def test_two_threads_show_their_own_rows(unet):
    """As two guidance branches in two threads do: one shows everything, the other nothing."""

    def branch(chosen):
        with rows(chosen):
            run(unet)

    with recording(unet, [CROSS]) as record:
        threads = [threading.Thread(target=branch, args=[s]) for s in (slice(0, 0), slice(1, 2))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {len(values) for values in record.values()} == {1}
    assert record[FIRST][0].shape == (1, 8, 6, 5)


# ---- replacing ---------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["time", "skip", "mid_block.output", "down_blocks.0.skips.1"])
def test_a_returned_tensor_replaces_the_activation_of_those_rows_only(unet, name):
    plain = run(unet)
    with watching(unet, {name: lambda _, value: value * 2}), rows(slice(1, None)):
        changed = run(unet)
    torch.testing.assert_close(changed[0], plain[0], rtol=1e-5, atol=1e-6)
    assert (changed[1] - plain[1]).abs().max() > 1e-2 * plain.abs().max()
    with watching(unet, {name: lambda _, value: value.clone()}):
        assert torch.equal(run(unet), plain)


def test_replaced_probabilities_are_what_the_layer_computes_with(unet):
    layer = unet.get_submodule(FIRST.removesuffix(".probabilities"))
    made = {}
    hook = layer.register_forward_hook(lambda _, __, out: made.update(out=out))
    first_token = lambda _, value: torch.eye(value.shape[-1])[0].expand(value.shape)  # noqa: E731
    for heads in (False, True):
        with watching(unet, {FIRST: first_token}, heads=heads), rows(slice(1, None)):
            run(unet)
        expected = layer.to_out[0](layer.to_v(TEXT))[1, :1].expand(48, -1)
        torch.testing.assert_close(made["out"][1], expected, rtol=1e-5, atol=1e-6)
        assert (made["out"][0] - layer.to_out[0](layer.to_v(TEXT))[0, :1]).abs().max() > 1e-2
    hook.remove()


def test_handing_all_heads_back_changes_no_more_than_float16(unet):
    plain = run(unet)
    with watching(unet, {CROSS: lambda _, value: value.clone()}, heads=True):
        again = run(unet)
    assert 0 < (again - plain).abs().max() < 5e-3 * plain.abs().max()
    with watching(unet, {CROSS: lambda _, value: value.clone()}):  # the mean, in every head
        assert (run(unet) - plain).abs().max() > 5e-3 * plain.abs().max()


def test_watchers_nest_and_see_what_the_one_before_left(unet):
    seen = []
    with watching(unet, {"mid_block.output": lambda _, v: torch.zeros_like(v)}):
        with watching(unet, {"mid_block.output": lambda _, v: seen.append(v.abs().max().item())}):
            run(unet)
        changed = run(unet)
    run(unet)
    assert seen == [0.0] and free(unet)
    assert not torch.equal(changed, run(unet))
    zero = {FIRST: lambda _, v: torch.zeros_like(v)}
    with watching(unet, zero), recording(unet, [FIRST]) as record:
        run(unet)
    assert record[FIRST][0].count_nonzero() == 0


# ---- errors ------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["mid_block.output", FIRST])
@pytest.mark.parametrize("answer", [torch.zeros(3), 1.0, "x"])
def test_a_wrong_answer_is_refused_with_the_name_of_the_tap(unet, name, answer):
    told = f"tap {name} returned .* tensor of shape"
    with pytest.raises(InputError, match=told), watching(unet, {name: lambda _, __: answer}):
        run(unet)
    assert free(unet)


def test_a_raising_watcher_is_passed_on_and_taken_away(unet):
    def fail(name, value):
        raise KeyError(name)

    plain = run(unet)
    with recording(unet, ["time"]) as record:
        with pytest.raises(KeyError, match="mid_block.output"), watching(unet, {"mid_*put": fail}):
            run(unet)
        assert torch.equal(run(unet), plain)
    assert len(record["time"]) == 2 and free(unet)


def test_heads_of_a_large_layer_are_taken_one_by_one_with_the_same_mean(unet, monkeypatch):
    names = ["*probabilities"]
    with recording(unet, names) as at_once:
        plain = run(unet)
    monkeypatch.setattr(taps, "MOST_AT_ONCE", 1)
    with recording(unet, names) as one_by_one:
        again = run(unet)
    assert torch.equal(plain, again)
    for name, (maps,) in one_by_one.items():
        torch.testing.assert_close(maps, at_once[name][0], atol=1e-3, rtol=0)
    change = {FIRST: lambda name, maps: torch.ones_like(maps) / maps.shape[-1]}
    with watching(unet, change):
        flat = run(unet)
    monkeypatch.undo()
    with watching(unet, change):
        assert torch.allclose(run(unet), flat, atol=1e-5)
