"""From the device to the record, without waiting: one packed copy a step, delivered meanwhile.

A step leaves dozens of small arrays on a CUDA device (latents, both branches, a map for every
attention layer), and copying each would stop the device each time. So a step's values are laid end
to end, one tensor for each dtype; each goes to page-locked memory in one copy that nobody waits
for, and a thread puts the pieces into their places while the next step is computed. Two such
buffers take turns. On any other device a value is copied into its place at once.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from .packing import Layout, pack
from .trace.spool import Rows, StoredRows

BUFFERS = 2  # one is delivered while the other is filled


class Outbox:
    """What is on its way into rows of a record; `packs_all` packs on other devices too."""

    def __init__(self, packs_all: bool = False):
        self.packs_all = packs_all
        self.waiting: list[tuple[Rows | StoredRows, Any, torch.Tensor]] = []
        self.buffers: list[dict[torch.dtype, torch.Tensor]] = [{} for _ in range(BUFFERS)]
        self.sent: deque[Future] = deque()
        self.worker: ThreadPoolExecutor | None = None

    def keep(self, rows: Rows | StoredRows, value: Any) -> Any:
        """The next row, which holds the value now or, at the latest, after `wait`."""
        row = rows.reserve()
        if isinstance(value, torch.Tensor) and (value.is_cuda or self.packs_all):
            value = value.detach()
            value = value.float() if value.dtype == torch.bfloat16 else value  # NumPy has none
            self.waiting.append((rows, row, value))
        else:
            rows.fill(row, value)
        return row

    def send(self) -> None:
        """Start the copy of everything kept since the last time; errors of earlier ones come out.

        Errors: OSError of a delivery to a disk that is full.
        """
        if not self.waiting:
            return
        places = [(rows, row) for rows, row, _ in self.waiting]
        values = [value for *_, value in self.waiting]
        self.waiting = []
        if len(self.sent) == BUFFERS:
            self.sent.popleft().result()
        layout, packed = Layout.of(values), pack(values)
        host = self._to_host(packed)
        arrived = None
        if values[0].is_cuda:
            arrived = torch.cuda.Event()
            # that device's stream: the copy is on its, and it need not be the current device
            arrived.record(torch.cuda.current_stream(values[0].device))
        self.worker = self.worker or ThreadPoolExecutor(1, "record")
        self.sent.append(self.worker.submit(deliver, arrived, layout, host, places))

    def _to_host(self, packed: dict[torch.dtype, torch.Tensor]) -> dict[torch.dtype, torch.Tensor]:
        """The packed values in the buffer whose turn it is; it grows where it is too small."""
        self.buffers.append(self.buffers.pop(0))
        buffer, made = self.buffers[-1], {}
        for dtype, flat in packed.items():
            if dtype not in buffer or len(buffer[dtype]) < len(flat):
                with torch.inference_mode(False):  # to be written to in and out of that mode
                    buffer[dtype] = torch.empty(len(flat), dtype=dtype, pin_memory=flat.is_cuda)
            made[dtype] = buffer[dtype][: len(flat)]
            made[dtype].copy_(flat, non_blocking=True)
        return made

    def wait(self) -> None:
        """Until everything is in its place; the first error of a delivery comes out then."""
        self.send()
        if self.worker is not None:
            self.worker.shutdown(wait=True)
            self.worker = None
        done, self.sent = self.sent, deque()
        for delivery in done:
            delivery.result()


def deliver(arrived, layout: Layout, host: dict[torch.dtype, torch.Tensor], places) -> None:
    """Put every piece of a copy that has arrived into its row."""
    if arrived is not None:
        arrived.synchronize()
    for (rows, row), value in zip(places, layout.unpack(host), strict=True):
        rows.fill(row, value)
