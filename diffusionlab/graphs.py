"""Replaying the whole U-Net call from a CUDA graph, instead of launching a thousand kernels.

    model = dataclasses.replace(model, unet=graphed(model.unet))

At Stable Diffusion's size and batch 2 a fast GPU waits for Python. A graph holds the kernels of one
call with the addresses that they read and write; replaying it is one launch. So whatever goes in is
copied into static tensors first, and whatever comes out is copied out of them. One graph serves one
combination of shapes, dtype, batch rows and recorded taps; what taps record is packed into a few
static tensors. Watchers that do more than record, forward hooks, gradients and other devices take
the ordinary way.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from .compiling import compiled
from .errors import notice
from .models import UNet, UNetConfig
from .models.conditioning import PreparedText, TimeExtras
from .packing import Layout, pack
from .running.memory import is_out_of_memory
from .taps import Tap, Tape, Watch, find_taps, selected_rows

MOST_GRAPHS = 8  # each keeps the memory of its results
WARM_UPS = 3  # calls before a capture, in which libraries choose their kernels

# What turns a call on static tensors into (a way to repeat it, the static tensors of its result).
Call = Callable[[], list[torch.Tensor]]
Capture = Callable[[Call], tuple[Callable[[], None], list[torch.Tensor]]]


class CUDACapture:
    """Captures calls as CUDA graphs (torch.cuda.graph) that share one pool of memory.

    They may: each result is copied out before another graph is replayed. The pool belongs to the
    last graph, which is held so that the pool is alive when the next one asks for it. All are
    captured on one side stream of the network's device: libraries keep memory for each stream, and
    the stream that torch would choose belongs to whatever device captured first.
    """

    def __init__(self) -> None:
        self.last: torch.cuda.CUDAGraph | None = None
        self.side: torch.cuda.Stream | None = None

    def __call__(self, call: Call) -> tuple[Callable[[], None], list[torch.Tensor]]:
        here = torch.cuda.current_stream()
        if self.side is None or self.side.device != here.device:  # the network may have moved
            self.last, self.side = None, torch.cuda.Stream()
        graph, pool = torch.cuda.CUDAGraph(), self.last and self.last.pool()
        self.side.wait_stream(here)
        with torch.cuda.stream(self.side):  # left again even where a capture ends in an error
            for _ in range(WARM_UPS):
                call()
            # thread_local: the thread that delivers the record may ask the device for its copies
            with torch.cuda.graph(
                graph, pool=pool, stream=self.side, capture_error_mode="thread_local"
            ):
                results = call()
        here.wait_stream(self.side)
        self.last = graph
        return graph.replay, results


def graphed(unet: UNet, capture: Capture | None = None) -> GraphedUNet:
    """The same U-Net, sharing its weights, that replays its calls where it can.

    capture: another way to record and repeat a call than CUDA's; tests have one for the CPU.
    """
    with torch.device("meta"):
        made = GraphedUNet(unet.config, capture)
    made.load_state_dict(unet.state_dict(), strict=True, assign=True)
    return made.train(unet.training).requires_grad_(False)


def quickened(unet: UNet, *, graphs: bool = False, compile: bool = False) -> UNet:  # noqa: A002
    """The U-Net as `load(graphs=…, compile=…)` asks for it; what cannot be done here is told."""
    device = unet.conv_in.weight.device
    if graphs and device.type != "cuda":
        notice(f"graphs=True works on a CUDA device; on {device.type} the network runs as ever")
    elif graphs:
        unet = graphed(unet)
    return compiled(unet) if compile else unet


class GraphedUNet(UNet):
    """A `UNet` whose calls are replayed; results are equal to those of the ordinary way."""

    def __init__(self, config: UNetConfig, capture: Capture | None = None):
        super().__init__(config)
        self.replays = Replays(capture)

    def forward(self, sample, timestep, text) -> torch.Tensor:
        """As `UNet.forward`."""
        if not self.replays.can(self, sample):
            return super().forward(sample, timestep, text)
        prepared = text if isinstance(text, PreparedText) else self.prepare_text(text)
        made = self.replays(super().forward, sample, timestep, prepared)
        return super().forward(sample, timestep, prepared) if made is None else made


class Replays:
    """The graphs of one U-Net, and the decision when to use them."""

    def __init__(self, capture: Capture | None):
        self.capture, self.anywhere = capture or CUDACapture(), capture is not None
        self.graphs: dict[tuple, Replay] = {}
        self.refused: set[tuple] = set()
        self.addresses: tuple[int, ...] = ()
        self.weights: list[dict[str, nn.Parameter | None]] = []
        self.hooks: list[dict] = []
        self.taps: list[Tap] = []
        self.told: set[str] = set()
        self.lock = threading.Lock()  # one set of static tensors serves one thread at a time

    def __deepcopy__(self, memo) -> Replays:
        """A copied network has weights elsewhere, so none of the graphs."""
        return Replays(self.capture if self.anywhere else None)

    def can(self, net: UNet, sample: torch.Tensor) -> bool:
        """Whether this call may be replayed; told once where a watcher forbids it."""
        if not (self.anywhere or sample.is_cuda) or torch.is_grad_enabled() or net.training:
            return False
        if not self.taps:
            self.look_around(net)
        if any(self.hooks):
            return False
        if all(isinstance(watch.function, Tape) for _, watch in self.watches()):
            return True
        self.tell("a watcher may change what it sees, so the network is not replayed meanwhile")
        return False

    def look_around(self, net: UNet) -> None:
        """Where weights, hooks and watchers stand, found once: a walk takes longer than a call."""
        parts = list(net.modules())
        self.weights = [part._parameters for part in parts if part._parameters]
        self.hooks = [h for p in parts for h in (p._forward_hooks, p._forward_pre_hooks)]
        self.taps = list(find_taps(net).values())

    def watches(self) -> list[tuple[Tap, Watch]]:
        """Every watcher of every tap, in order."""
        return [(tap, watch) for tap in self.taps for watch in tap.watches]

    def tell(self, what: str) -> None:
        """One notice for each network and reason."""
        if what not in self.told:
            notice(f"graphs: {what}")
        self.told.add(what)

    def __call__(self, forward, sample, timestep, text: PreparedText) -> torch.Tensor | None:
        """The replayed result; None where this call cannot be captured."""
        with self.lock, torch.cuda.device_of(sample):  # no device is entered on the CPU
            return self._made(forward, sample, timestep, text)

    def _made(self, forward, sample, timestep, text: PreparedText) -> torch.Tensor | None:
        watches, chosen = self.watches(), selected_rows()
        self.forget_other_weights()
        inputs = [sample, timestep, *text_tensors(text)]
        key = (
            tuple((t.shape, t.dtype, t.device) for t in inputs),
            (chosen.start, chosen.stop, chosen.step),
            tuple((watch.name, watch.heads, watch.every_row) for _, watch in watches),
        )
        if key in self.refused:
            return None
        replay = self.graphs.pop(key, None)
        replay = replay or self.captured(forward, sample, timestep, text, watches)
        if replay is None:
            self.refused.add(key)
            return None
        self.graphs[key] = replay  # the last used is the last
        while len(self.graphs) > MOST_GRAPHS:
            del self.graphs[next(iter(self.graphs))]
        return replay(sample, timestep, text, [watch for _, watch in watches])

    def captured(self, forward, sample, timestep, text, watches) -> Replay | None:
        """A new graph; None, with a notice, where the device refuses."""
        try:
            return Replay(self.capture, forward, sample, timestep, text, watches)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            reason = (str(error) or type(error).__name__).splitlines()[0]
            self.tell(f"this call cannot be captured ({reason}); it runs the ordinary way")
            return None

    def forget_other_weights(self) -> None:
        """Drop all graphs if any weight lies elsewhere: they would read the old place.

        What was refused before may be captured now, so refusals are forgotten too.
        """
        found = (weight for part in self.weights for weight in part.values())
        now = tuple(weight.data_ptr() for weight in found if weight is not None)
        if now != self.addresses:
            self.graphs.clear(), self.refused.clear()
            self.addresses = now


class Replay:
    """One captured call: its static inputs, its static results, and what the taps showed."""

    def __init__(self, capture: Capture, forward, sample, timestep, text: PreparedText, watches):
        self.sample, self.timestep, self.text = still(sample), still(timestep), still_text(text)
        self.loaded = text.pairs, text.extras
        self.shown: list[int] = []  # the watcher of each value that was seen, in order
        self.layout = Layout(())
        self.dtypes: list[torch.dtype] = []

        def call() -> list[torch.Tensor]:
            self.shown, seen = [], []
            with intercepted(watches, self.shown, seen), torch.no_grad():
                output = forward(self.sample, self.timestep, self.text)
                self.layout, packed = Layout.of(seen), pack(seen)
            self.dtypes = list(packed)
            return [output, *packed.values()]

        with torch.inference_mode(False):
            self.repeat, self.results = capture(call)

    def __call__(self, sample, timestep, text: PreparedText, watches: list[Watch]) -> torch.Tensor:
        """Copy in, replay, copy out; the watchers are shown copies."""
        with torch.inference_mode(False), torch.no_grad():
            self.sample.copy_(sample), self.timestep.copy_(timestep)
            self.load(text)
            self.repeat()
            output, *packed = (result.clone() for result in self.results)
        seen = self.layout.unpack(dict(zip(self.dtypes, packed, strict=True)))
        for number, value in zip(self.shown, seen, strict=True):
            watches[number].function(watches[number].name, value)
        return output

    def load(self, text: PreparedText) -> None:
        """Copy a text in, unless it is there since the last call, as it is all through a run."""
        pairs, extras = self.loaded
        if text.pairs is pairs and text.extras is extras:
            return
        for static, given in zip(text_tensors(self.text), text_tensors(text), strict=True):
            static.copy_(given)
        self.loaded = text.pairs, text.extras


@contextmanager
def intercepted(
    watches: list[tuple[Tap, Watch]], shown: list[int], seen: list[torch.Tensor]
) -> Iterator[None]:
    """Put what watchers would be shown into a list instead, with the watcher's number."""

    def keeper(number: int, watch: Watch) -> Watch:
        def keep(name: str, value: torch.Tensor) -> None:
            shown.append(number)
            seen.append(value)

        return Watch(keep, watch.name, watch.heads, watch.every_row)

    before = {tap: tap.watches for tap, _ in watches}
    instead: dict[Tap, list[Watch]] = {tap: [] for tap in before}
    for number, (tap, watch) in enumerate(watches):
        instead[tap].append(keeper(number, watch))
    try:
        for tap, keepers in instead.items():
            tap.watches = tuple(keepers)
        yield
    finally:
        for tap, kept in before.items():
            tap.watches = kept


# ---- static tensors ----------------------------------------------------------------------------
def still(value: torch.Tensor) -> torch.Tensor:
    """A copy of its own, made so that it may be written to in and out of inference mode.

    Strides are kept, but for rows that are one row expanded: those are laid out one by one.
    """
    kept = torch.preserve_format if 0 not in value.stride() else torch.contiguous_format
    with torch.inference_mode(False), torch.no_grad():
        return torch.empty_like(value, memory_format=kept).copy_(value)


def still_text(text: PreparedText) -> PreparedText:
    """A prepared text whose tensors are copies."""
    pairs = {part: (still(keys), still(values)) for part, (keys, values) in text.pairs.items()}
    extras = TimeExtras(*(part if part is None else still(part) for part in parts_of(text.extras)))
    return PreparedText(pairs, extras, text.rows)


def text_tensors(text: PreparedText) -> list[torch.Tensor]:
    """Every tensor of a prepared text, in one order."""
    pairs = [tensor for pair in text.pairs.values() for tensor in pair]
    return [*pairs, *(part for part in parts_of(text.extras) if part is not None)]


def parts_of(extras: TimeExtras) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """What a text adds to the time."""
    return extras.added, extras.waves
