"""Pretended devices refuse much of what real ones do, and hide what is not there yet."""

from __future__ import annotations

import threading

import pytest
import torch
import torch.nn.functional as F
from pretended import DEVICE, Pretended
from pretending import pretend
from torch import nn


@pytest.fixture
def cuda():
    with pretend("cuda"):
        yield torch.device("cuda")


def ones(*shape, **options) -> torch.Tensor:
    return torch.ones(*shape, device="cuda", **options)


# ---- numbers -----------------------------------------------------------------------------------
def test_it_computes_as_the_cpu_does(cuda):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.SiLU(), nn.Flatten(2))
    sample, keys = torch.randn(2, 3, 9, 8), torch.randn(2, 5, 42)
    mask = torch.tensor([True, True, False, True, True])

    def answer(where):
        made = net.to(where)(sample.to(where))
        held = F.scaled_dot_product_attention(made, *[keys.to(where)] * 2, mask.to(where))
        picked = held[:, [3, 1]].clone()
        picked[0, 0] = 7.0
        picked += torch.arange(42.0, device=where).sin()
        return torch.cat([picked, held.flip(1)[:, :2] / torch.tensor(3.0)], 1)

    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            there, here = answer(cuda), answer("cpu")
        assert (there.device.type, here.device.type) == ("cuda", "cpu")
        assert torch.equal(there.cpu(), here) and there[0, 0, 1].item() == here[0, 0, 1].item()


def test_parts_of_a_network_move_there_and_back_and_stay_parameters(cuda):
    net = nn.Linear(3, 2)
    weight, numbers = net.weight, net.weight.detach().clone()
    for where in ("cuda", "cpu", "cuda:0"):
        net.to(where)
        assert net.weight is weight and isinstance(weight, nn.Parameter)
        assert weight.device == torch.device("cpu" if where == "cpu" else "cuda:0")
        assert weight.requires_grad and torch.equal(weight.detach().cpu(), numbers)
    net.half()
    assert weight.dtype == torch.float16 and str(weight.device) == "cuda:0"


def test_a_network_without_memory_gets_some_there(cuda):
    with torch.device("meta"):
        net = nn.Linear(3, 2)
    net.to_empty(device="cuda").requires_grad_(False)
    assert net.weight.fill_(2.0).sum().item() == 12
    assert ones(3).to("meta").device.type == torch.ones(3).to("meta").device.type == "meta"


def test_threads_that_begin_inside_have_it_too(cuda):
    made = []
    thread = threading.Thread(target=lambda: made.append(torch.zeros(2, device="cuda") + 1))
    thread.start(), thread.join()
    assert made[0].cpu().tolist() == [1, 1]


def test_it_is_gone_afterwards():
    real = torch.cuda.is_available, torch.accelerator.current_accelerator, threading.Thread.run
    with pretend("cuda"):
        assert torch.cuda.is_available() and torch.cuda.is_available is not real[0]
    assert real == (
        torch.cuda.is_available, torch.accelerator.current_accelerator, threading.Thread.run,
    )  # fmt: skip
    assert not torch.cuda.is_available() and torch.accelerator.current_accelerator() is None
    assert type(torch.ones(2) + 1) is torch.Tensor
    with pytest.raises((AssertionError, NotImplementedError), match="CUDA"):
        torch.ones(2, device="cuda")


# ---- what is refused ---------------------------------------------------------------------------
MIXED = {
    "sum": lambda: ones(3) + torch.ones(3),
    "product": lambda: torch.ones(3, 3) @ ones(3),
    "single number of the device": lambda: torch.ones(3) * ones(()),
    "joined": lambda: torch.cat([ones(3), torch.ones(3)]),
    "joined single number": lambda: torch.stack([ones(()), torch.ones(())]),
    "weights": lambda: nn.Linear(3, 2)(ones(3)),
    "words": lambda: nn.Embedding(5, 2).to("cuda")(torch.tensor([1])),
    "picked by the device": lambda: torch.arange(3)[ones(1, dtype=torch.long)],
    "equal": lambda: torch.equal(ones(3), torch.ones(3)),
    "in place": lambda: torch.ones(3).add_(ones(3)),
    "into a single number": lambda: torch.ones(()).add_(ones(())),
    "put in": lambda: ones(3).__setitem__([0, 2], torch.ones(2)),
}


@pytest.mark.parametrize("call", MIXED.values(), ids=MIXED)
def test_tensors_of_two_devices_do_not_mix(cuda, call):
    with pytest.raises(RuntimeError, match="to be on the same device"):
        call()


def test_what_may_mix(cuda):
    assert (ones(3) * torch.tensor(2.0)).sum().item() == 6
    assert ones(3)[torch.tensor([0, 2])].shape == (2,)
    assert torch.zeros(3).copy_(ones(3)).tolist() == ones(3).tolist() == [1, 1, 1]
    assert ones(3).copy_(torch.zeros(3)).sum().item() == 0
    ones(3)[torch.tensor([0, 2])] = torch.tensor(2.0)
    assert ones(2, 3).masked_fill_(ones(2, 3) > 0, torch.tensor(2.0)).sum().item() == 12


def test_apples_device_has_no_float64():
    with pretend("mps"):
        assert torch.accelerator.current_accelerator() == torch.device("mps")
        assert (torch.ones(2, device="mps") + 1).cpu().tolist() == [2, 2]
        for call in (
            lambda: torch.zeros(2, dtype=torch.float64, device="mps"),
            lambda: torch.zeros(2, dtype=torch.float64).to("mps"),
            lambda: torch.zeros(2, device="mps").double(),
        ):
            with pytest.raises(TypeError, match="float64"):
                call()
    with pretend("cuda"):
        assert ones(2).double().dtype == torch.float64


def test_numpy_asks_for_a_copy_first(cuda):
    with pytest.raises((TypeError, RuntimeError), match="numpy"):
        ones(3).numpy()
    assert ones(3).cpu().numpy().sum() == 3


# ---- what is not there yet ---------------------------------------------------------------------
@pytest.mark.parametrize("inference", [False, True])
def test_a_copy_arrives_when_somebody_waits(cuda, inference):
    with torch.inference_mode(inference):
        here, there, other = torch.zeros(3), ones(3), torch.zeros(2, dtype=torch.int64)
        here.copy_(there, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        other.copy_(ones(2, dtype=torch.int64), non_blocking=True)
        there.zero_()  # after the copy, in the device's order
        assert here.isnan().all() and other.tolist() != [1, 1]
        event.synchronize()
        assert here.tolist() == [1, 1, 1] and other.tolist() != [1, 1]
        torch.accelerator.synchronize()
    assert other.tolist() == [1, 1]


def test_a_copy_of_its_own_arrives_later_too(cuda):
    there, truth = ones(3), ones(3) > 0
    here, said = (value.to("cpu", non_blocking=True) for value in (there, truth))
    assert here.isnan().all() and not said.any()
    torch.cuda.synchronize()
    assert here.tolist() == [1, 1, 1] and said.all()


@pytest.mark.parametrize("look", ["item", "cpu", "tolist", "nonzero", "__bool__"])
def test_a_look_waits_for_everything(cuda, look):
    here = torch.zeros(3)
    here.copy_(ones(3), non_blocking=True)
    getattr(ones(1), look)()
    assert here.tolist() == [1, 1, 1]


# ---- graphs ------------------------------------------------------------------------------------
def captured(call, pool=None):
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        made = call()
    return graph, made


@torch.no_grad()
def test_a_replay_does_it_all_again_on_what_lies_there_now(cuda):
    given, net = ones(2, 3), nn.Linear(3, 3).to("cuda")
    shown = torch.zeros(2, device="cuda")

    def call():
        made = net(given).relu().t()[1:].contiguous()
        shown.copy_(given[:, 0])
        return made.mul_(2), made.view(-1)[:2]

    graph, made = captured(call)
    assert all(part.isnan().all().item() for part in made)
    for value in (1.0, -3.0):
        given.fill_(value)
        graph.replay()
        expected = call()
        assert all(map(torch.equal, made, expected)) and shown.tolist() == [value, value]


def test_a_single_number_of_the_cpu_is_baked_in(cuda):
    given, factor = ones(2), torch.tensor(2.0)
    graph, made = captured(lambda: given * factor)
    factor.fill_(5.0)
    graph.replay()
    assert made.tolist() == [2, 2]


def test_graphs_of_one_pool_overwrite_each_other(cuda):
    given = ones(2)
    first, one = captured(lambda: given + 1)
    second, two = captured(lambda: given + 2, first.pool())
    first.replay()
    assert one.tolist() == [2, 2] and two.isnan().all().item()
    second.replay()
    assert two.tolist() == [3, 3] and one.isnan().all().item()


FORBIDDEN = {
    "look": lambda given: given.sum().item(),
    "question": lambda given: bool((given > 0).all()),
    "to the CPU": lambda given: given.cpu(),
    "into the CPU": lambda given: torch.zeros(2).copy_(given, non_blocking=True),
    "from the CPU": lambda given: given.copy_(torch.zeros(2)),
    "made from numbers": lambda given: given + torch.tensor([1.0, 2.0], device="cuda"),
    "picked by truth": lambda given: given[given > 0],
    "picked by the CPU": lambda given: given[torch.tensor([0])],
    "how many": lambda given: given.unique(),
    "wait": lambda given: torch.accelerator.synchronize(),
}


@pytest.mark.parametrize("call", FORBIDDEN.values(), ids=FORBIDDEN)
def test_what_a_capture_forbids(cuda, call):
    given = ones(2)
    with pytest.raises(RuntimeError, match="not permitted when stream is capturing"):
        captured(lambda: call(given))
    call(given)  # and it may be done again outside


@pytest.mark.parametrize("mode", ["global", "thread_local"])
def test_another_thread_may_wait_beside_a_capture_of_one_thread(cuda, mode):
    given, told, made = ones(2), [], []

    def beside():
        try:
            made.append((given * 3).cpu().tolist())
        except RuntimeError as error:
            told.append(str(error))

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode=mode):
        twice = given * 2
        thread = threading.Thread(target=beside)
        thread.start(), thread.join()
    graph.replay()
    assert twice.tolist() == [2, 2] and len(graph.steps) == 1
    assert (made, len(told)) == (([[3, 3]], 0) if mode == "thread_local" else ([], 1))


# ---- memory ------------------------------------------------------------------------------------
def test_memory_is_counted_and_runs_out(cuda):
    before = torch.cuda.memory_allocated()
    kept = ones(1000)
    torch.cuda.reset_peak_memory_stats()
    view, more = kept[10:], kept + 1
    assert torch.cuda.memory_allocated() - before == 8000
    del kept, more
    assert torch.cuda.memory_allocated() - before == 4000 and view.shape == (990,)
    assert torch.cuda.max_memory_allocated() - before == 8000
    with pytest.raises(torch.OutOfMemoryError, match=r"Tried to allocate .* MiB"):
        torch.zeros(2**45, device="cuda")
    torch.cuda.set_per_process_memory_fraction((before + 10_000) / torch.cuda.mem_get_info()[1])
    with pytest.raises(torch.OutOfMemoryError):
        view.repeat(2)
    assert torch.cuda.memory_allocated() - before == 4000
    del view
    assert torch.cuda.memory_allocated() == before


def test_apples_device_says_that_memory_ran_out():
    with pretend("mps"):
        kept = torch.zeros(2**20, device="mps")
        with pytest.raises(RuntimeError, match=r"Invalid buffer size: \d+\.\d\d GB"):
            torch.zeros(2**45, device="mps")
        DEVICE.memory.limit = 6 * 2**20
        with pytest.raises(RuntimeError, match="MPS backend out of memory"):
            kept + 1


def test_a_fresh_one_has_forgotten_the_last():
    with pretend("cuda"):
        old = ones(1000)
        torch.zeros(3).copy_(old[:3], non_blocking=True)
    with pretend("cuda"):
        assert (DEVICE.memory.allocated, DEVICE.late) == (0, [])
        assert isinstance(old, Pretended)
        with pytest.raises(RuntimeError, match="a device that is gone"):
            old + 1
        del old
        assert DEVICE.memory.allocated == 0
    with pytest.raises(RuntimeError, match="a pretended device already"), pretend("mps"):
        pretend("cuda").__enter__()
