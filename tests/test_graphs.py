"""Replayed calls of the U-Net: equal to ordinary ones, and never replayed where that is wrong.

The CPU has no graphs; `rerun` stands in for one. It runs the captured call again on its static
tensors and overwrites the static results, which is all that a graph does.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from parity import shaken

import diffusionlab as dl
from diffusionlab import graphs
from diffusionlab.graphs import MOST_GRAPHS, CUDACapture, GraphedUNet, graphed, quickened
from diffusionlab.inside.interventions import zero_heads
from diffusionlab.models import UNet, UNetConfig
from diffusionlab.models.conditioning import TextInput
from diffusionlab.packing import Layout, pack
from diffusionlab.taps import recording, rows, watching

CROSS = "*attn2.probabilities"
XL = dict(addition_embed_type="text_time", addition_time_embed_dim=8, time_cond_proj_dim=16,
          projection_class_embeddings_input_dim=8 * 6 + 20)  # fmt: skip


class Rerun:
    """A capture for the CPU that counts what it was asked for."""

    def __init__(self):
        self.captures = self.replays = 0

    def __call__(self, call):
        self.captures += 1
        results = call()

        def repeat():
            self.replays += 1
            for old, new in zip(results, call(), strict=True):
                old.copy_(new)

        return repeat, results


def config(**changes) -> UNetConfig:
    return UNetConfig(
        block_out_channels=(16, 32), layers_per_block=1, attention_head_dim=(2, 4),
        down_block_types=("CrossAttnDownBlock2D",) * 2, norm_num_groups=8,
        up_block_types=("CrossAttnUpBlock2D",) * 2, cross_attention_dim=12, **changes,
    )  # fmt: skip


@pytest.fixture
def pair() -> tuple[UNet, GraphedUNet, Rerun]:
    capture = Rerun()
    plain = shaken(UNet(config())).requires_grad_(False)
    return plain, graphed(plain, capture), capture


def normal(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inputs(seed=1, height=8, width=6, batch=2, tokens=5):
    sample = normal(batch, 4, height, width, seed=seed)
    return sample, torch.tensor(700.0 - seed), normal(batch, tokens, 12, seed=seed + 50)


# ---- equal -------------------------------------------------------------------------------------
@torch.no_grad()
def test_replays_equal_ordinary_calls_bit_for_bit(pair):
    plain, fast, capture = pair
    for seed in (1, 2, 3):  # other latents, timesteps and texts through one graph
        sample, timestep, text = inputs(seed)
        assert torch.equal(fast(sample, timestep, text), plain(sample, timestep, text))
    assert (capture.captures, capture.replays) == (1, 3)


@torch.no_grad()
def test_a_prepared_text_is_copied_in_once_and_again_when_it_changes(pair, monkeypatch):
    plain, fast, _ = pair
    copies = []
    real = graphs.text_tensors
    monkeypatch.setattr(graphs, "text_tensors", lambda text: copies.append(text) or real(text))
    sample, timestep, text = inputs()
    first, second = fast.prepare_text(text), fast.prepare_text(-text)
    expected = {id(p): plain(sample, timestep, t) for p, t in ((first, text), (second, -text))}
    for prepared, walks in ((first, 1), (first, 1), (second, 3), (second, 1), (first, 3)):
        copies.clear()
        assert torch.equal(fast(sample, timestep, prepared), expected[id(prepared)])
        assert len(copies) == walks  # one for the key, two where the text is loaded


@torch.no_grad()
def test_other_shapes_have_graphs_of_their_own_and_the_oldest_go(pair):
    plain, fast, capture = pair
    cases = [dict(height=h, batch=b) for h in (4, 5, 6, 7, 8) for b in (1, 2)]
    for case in [*cases, cases[-1], cases[0]]:
        assert torch.equal(fast(*inputs(**case)), plain(*inputs(**case)))
    assert capture.captures == len(cases) + 1  # the first was given up, the last was not
    assert len(fast.replays.graphs) == MOST_GRAPHS


@torch.no_grad()
def test_timesteps_by_row_are_another_graph(pair):
    plain, fast, capture = pair
    sample, _, text = inputs()
    for times in ((3.0, 800.0), (4.0, 5.0)):
        timestep = torch.tensor(times)
        assert torch.equal(fast(sample, timestep, text), plain(sample, timestep, text))
    assert capture.captures == 1


@torch.no_grad()
def test_results_are_no_static_tensors(pair):
    _, fast, _ = pair
    with recording(fast, ["*"]) as record:
        first = fast(*inputs(1))
        kept = first.clone(), {name: values[0].clone() for name, values in record.items()}
        fast(*inputs(2))
    assert torch.equal(first, kept[0])
    assert all(torch.equal(record[name][0], value) for name, value in kept[1].items())
    first += 1  # in place, outside of inference mode


def test_in_and_out_of_inference_mode(pair):
    plain, fast, capture = pair
    with torch.inference_mode():
        made = fast(*inputs(1))
        prepared = fast.prepare_text(inputs(1)[2])
    with torch.no_grad():
        expected = plain(*inputs(1))
        assert torch.equal(made, expected)
        assert torch.equal(fast(*inputs(1)), expected)
        assert torch.equal(fast(*inputs(1)[:2], prepared), expected)
    assert capture.captures == 1


def test_an_xl_and_a_guided_network(pair):
    plain = shaken(UNet(config(**XL))).requires_grad_(False)
    fast = graphed(plain, Rerun())
    sample, timestep, text = inputs()
    for seed in (1, 2):
        given = TextInput(text, normal(2, 20, seed=seed), 64 * normal(2, 6).abs(), normal(2))
        with torch.no_grad():
            expected = plain(sample, timestep, given)
            assert torch.equal(fast(sample, timestep, given), expected)
    with torch.no_grad():  # the same rows of text, told another pooled one
        other = dataclasses.replace(given, pooled=-given.pooled)
        assert not torch.equal(fast(sample, timestep, other), expected)


# ---- taps --------------------------------------------------------------------------------------
@pytest.mark.parametrize("heads", [False, True])
@torch.no_grad()
def test_what_taps_record_is_equal_and_leaves_the_result(pair, heads):
    plain, fast, capture = pair
    unwatched = fast(*inputs())
    for seed in (1, 2):
        for chosen in (slice(1, None), slice(None)):
            with rows(chosen), recording(plain, ["*"], heads) as ours:
                expected = plain(*inputs(seed))
            with rows(chosen), recording(fast, ["*"], heads) as theirs:
                made = fast(*inputs(seed))
            assert torch.equal(made, expected) and list(ours) == list(theirs)
            assert all(torch.equal(ours[name][0], theirs[name][0]) for name in ours)
    assert torch.equal(fast(*inputs()), unwatched)
    assert capture.captures == 3  # nobody, one row, both rows


@torch.no_grad()
def test_two_recordings_of_one_tap_each_see_it(pair):
    _, fast, _ = pair
    with recording(fast, [CROSS]) as mean, recording(fast, [CROSS], heads=True) as each:
        fast(*inputs())
    assert list(mean) == list(each)
    assert all(mean[n][0].ndim == 4 and each[n][0].ndim == 5 for n in mean)


@torch.no_grad()
def test_a_watcher_that_may_change_something_acts_at_once(pair, capsys):
    plain, fast, capture = pair
    fast(*inputs())
    change = {"mid_block.output": lambda name, value: value * 0}
    for _ in range(2):
        with watching(fast, change), watching(plain, change):
            assert torch.equal(fast(*inputs()), plain(*inputs()))
    assert capture.replays == 1
    told = "".join(capsys.readouterr())
    assert told.count("graphs: a watcher may change") == 1
    assert torch.equal(fast(*inputs()), plain(*inputs())) and capture.replays == 2


@torch.no_grad()
def test_hooks_gradients_and_training_take_the_ordinary_way(pair):
    plain, fast, capture = pair
    seen = []
    hook = fast.mid_block.register_forward_hook(lambda *given: seen.append(given))
    fast(*inputs())
    hook.remove()
    with torch.enable_grad():
        sample, timestep, text = inputs()
        fast(sample.requires_grad_(), timestep, text).sum().backward()
        assert sample.grad.abs().sum() > 0
    fast.train()(*inputs())
    assert len(seen) == 1 and capture.captures == 0


def test_without_a_capture_the_cpu_runs_as_ever(pair):
    plain = pair[0]
    fast = graphed(plain)
    with torch.no_grad():
        assert torch.equal(fast(*inputs()), plain(*inputs()))
    assert not fast.replays.graphs


def test_what_was_asked_for_is_made_or_told(pair, monkeypatch, capsys):
    plain, made = pair[0], []
    monkeypatch.setattr(graphs, "compiled", lambda unet: made.append(unet) or unet)
    assert quickened(plain) is plain and not made
    assert quickened(plain, graphs=True, compile=True) is plain and made == [plain]
    assert "graphs=True works on a CUDA device; on cpu the" in "".join(capsys.readouterr())


def test_load_asks_for_it(tiny_folder, monkeypatch):
    asked = {}
    quick = lambda unet, **given: asked.update(given) or unet  # noqa: E731
    monkeypatch.setattr("diffusionlab.pipeline.loading.quickened", quick)
    dl.load(tiny_folder, device="cpu", graphs=True)
    assert asked == dict(graphs=True, compile=False)


# ---- weights -----------------------------------------------------------------------------------
@torch.no_grad()
def test_weights_are_shared_and_other_weights_are_captured_again(pair):
    plain, fast, capture = pair
    assert fast.conv_in.weight.data_ptr() == plain.conv_in.weight.data_ptr()
    assert list(fast.state_dict()) == list(plain.state_dict())
    fast(*inputs())
    plain.conv_out.weight.mul_(2)  # in place: the same memory, the same graph
    assert torch.equal(fast(*inputs()), plain(*inputs())) and capture.captures == 1
    fast.conv_out.weight = torch.nn.Parameter(3 * plain.conv_out.weight, requires_grad=False)
    made = fast(*inputs())
    plain.conv_out.weight.mul_(3)
    assert torch.equal(made, plain(*inputs())) and capture.captures == 2
    fast.mid_block.double().float()  # moved, though the numbers are the same
    assert torch.equal(fast(*inputs()), made) and capture.captures == 3


@torch.no_grad()
def test_a_copy_has_its_own_weights_and_graphs(pair):
    plain, fast, _ = pair
    fast(*inputs())
    copied = copy.deepcopy(fast)
    copied.conv_out.weight.mul_(2)
    assert torch.equal(fast(*inputs()), plain(*inputs()))
    assert not torch.equal(copied(*inputs()), plain(*inputs()))


@torch.no_grad()
def test_a_device_that_refuses_is_told_once(pair, capsys):
    tried = []

    def refuse(call):
        tried.append(call)
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    plain = pair[0]
    fast = graphed(plain, refuse)
    for _ in range(2):
        assert torch.equal(fast(*inputs()), plain(*inputs()))
    told = "".join(capsys.readouterr())
    assert told.count("graphs: this call cannot be captured (operation not permitted") == 1
    assert len(tried) == 1


@torch.no_grad()
def test_a_refusal_is_forgotten_with_the_graphs_and_each_reason_told_once(pair, capsys):
    plain, _, capture = pair
    reasons = ["busy", "busy", "lost"]

    def refuse_thrice(call):
        if reasons:
            raise RuntimeError(reasons.pop(0))
        return capture(call)

    fast = graphed(plain, refuse_thrice)
    with watching(fast, {"mid_block.output": lambda name, value: value}):
        fast(*inputs())  # another reason, told before
    for left in (2, 1, 0, 0):
        for _ in range(2):
            assert torch.equal(fast(*inputs()), plain(*inputs())) and len(reasons) == left
        fast.mid_block.double().float()  # the same numbers elsewhere
    assert (capture.captures, capture.replays) == (1, 2)
    told = "".join(capsys.readouterr())
    assert [told.count(f"captured ({why})") for why in ("busy", "lost")] == [1, 1]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_memory_that_runs_out_is_no_reason_to_go_on(pair, error):
    def run_out(call):
        raise error

    fast = graphed(pair[0], run_out)
    for _ in range(2):  # nor to capture no more
        with torch.no_grad(), pytest.raises(type(error), match="CU"):
            fast(*inputs())


def test_a_capture_follows_torch_s_protocol(monkeypatch):
    """Warm up on a side stream that waits and is waited for; capture; share a live graph's pool."""
    device, said, streams = ["cuda:0"], [], []
    options = inspect.signature(torch.cuda.graph.__init__).parameters

    class Stream:
        def __init__(self, name="side"):
            self.name, self.device = name, device[0]
            if name == "side":
                streams.append((name, device[0]))

        def wait_stream(self, other):
            said.append(f"{self.name} waits for {other.name}")

    class Graph:
        def __init__(self):
            self.number = sum(word == "captured" for word in said)

        def pool(self):
            return f"pool of {self.number}"

        def replay(self):
            said.append("replayed")

    @contextmanager
    def on(stream):
        said.append(f"on {stream.name}")
        yield

    @contextmanager
    def capturing(graph, **given):
        assert set(given) <= set(options)
        # the thread that delivers the record waits for its copies beside a capture
        assert given["capture_error_mode"] == "thread_local"
        said.append(f"{given['pool']} on {given['stream'].name} of {given['stream'].device}")
        yield
        said.append("captured")

    for name, stand_in in dict(Stream=Stream, current_stream=lambda: Stream("here"), stream=on,
                               CUDAGraph=Graph, graph=capturing).items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, stand_in)
    capture = CUDACapture()
    for device[0] in ("cuda:0", "cuda:0", "cuda:1"):
        repeat, results = capture(lambda: said.append("called") or ["result"])
    repeat()
    pools = ["None on side of cuda:0", "pool of 0 on side of cuda:0", "None on side of cuda:1"]
    assert said == [
        word for pool in pools
        for word in ("side waits for here", "on side", *["called"] * 3, pool, "called", "captured",
                     "here waits for side")
    ] + ["replayed"]  # fmt: skip
    assert results == ["result"] and streams == [("side", "cuda:0"), ("side", "cuda:1")]


def test_a_capture_that_fails_leaves_the_stream_that_was_there(monkeypatch):
    here = ["default"]

    class Stream:
        device = "cuda:0"

        def wait_stream(self, other):
            pass

    @contextmanager
    def on(stream):
        before, here[0] = here[0], "side"
        try:
            yield
        finally:
            here[0] = before

    @contextmanager
    def capturing(graph, stream, **given):
        here[0] = "capturing"  # torch's does not put it back where capture_end raises
        yield
        raise RuntimeError("capture was invalidated")

    for name, stand_in in dict(Stream=Stream, current_stream=Stream, stream=on, graph=capturing,
                               CUDAGraph=lambda: None).items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, stand_in)
    with pytest.raises(RuntimeError, match="invalidated"):
        CUDACapture()(list)
    assert here == ["default"]


# ---- whole runs --------------------------------------------------------------------------------
@pytest.mark.parametrize("record", [{"predictions"}, {"predictions", "attention", "blocks"}])
def test_a_run_with_graphs_is_the_run_without(tiny_model, record):
    capture = Rerun()
    fast = dataclasses.replace(tiny_model, unet=graphed(tiny_model.unet, capture))
    options = dict(seed=1, num_steps=3, sampler="heun", record=record, progress=False)
    for guidance in (4.0, dl.Guidance(4.0, interval=(0.5, 5.0)), 1.0):
        ours, theirs = (
            dl.generate(model, "a red car", guidance_scale=guidance, **options)
            for model in (tiny_model, fast)
        )
        assert ours.image.tobytes() == theirs.image.tobytes()
        assert list(ours.attention) == list(theirs.attention)
        assert all(np.array_equal(ours.attention[n], theirs.attention[n]) for n in ours.attention)
    assert capture.captures == 2  # one branch, two branches
    with zero_heads(fast), zero_heads(tiny_model):
        changed, expected = (
            dl.generate(m, "a red car", seed=1, num_steps=3, progress=False)
            for m in (fast, tiny_model)
        )
    assert changed.image.tobytes() == expected.image.tobytes()


# ---- packing -----------------------------------------------------------------------------------
def test_packing_and_back():
    values = [normal(2, 3), normal(4).half(), normal(0, 5), normal(5, 1, 2).transpose(0, 2)]
    packed = pack(values)
    assert {dtype: len(flat) for dtype, flat in packed.items()} == {
        torch.float32: 16, torch.float16: 4}  # fmt: skip
    back = Layout.of(values).unpack(packed)
    assert all(torch.equal(a, b) and a.shape == b.shape for a, b in zip(values, back, strict=True))
    wrong = Layout.of(values[::-1]).unpack(packed)
    assert not torch.equal(wrong[-1], values[0])  # the check can fail
