"""What tensors of a pretended device take of its memory, and what it says when there is no more."""

from __future__ import annotations

import threading
import weakref

import torch

TOTAL = 80 * 10**9  # bytes


class Life:
    """As long as a tensor of the device; a tensor's own end cannot be waited for."""


class Memory:
    """Bytes: `allocated` now and at `most`, `reserved` since the cache was emptied, the `limit`."""

    def __init__(self, kind: str):
        self.kind, self.lock = kind, threading.RLock()
        self.uses: dict[int, int] = {}  # tensors by the address of their storage
        self.allocated = self.most = self.reserved = 0
        self.limit = TOTAL

    def check(self, more: int) -> None:
        """What torch raises on such a device if so many bytes more do not fit."""
        if self.allocated + more <= self.limit:
            return
        if self.kind == "cuda":
            raise torch.OutOfMemoryError(
                f"CUDA out of memory. Tried to allocate {more / 2**20:.2f} MiB. GPU 0 has a total "
                f"capacity of {TOTAL / 2**30:.2f} GiB of which "
                f"{(self.limit - self.allocated) / 2**20:.2f} MiB is free."
            )
        if more > self.limit:  # one tensor alone
            raise RuntimeError(f"Invalid buffer size: {more / 2**30:.2f} GB")
        raise RuntimeError(
            f"MPS backend out of memory (MPS allocated: {self.allocated / 2**30:.2f} GB, max "
            f"allowed: {self.limit / 2**30:.2f} GB). Tried to allocate {more / 2**20:.2f} MB on "
            "private pool."
        )

    def count(self, storage: torch.UntypedStorage) -> Life:
        """One tensor more that has this storage, as long as what is returned lives."""
        life, key, size = Life(), storage.data_ptr(), storage.nbytes()
        with self.lock:
            if key and key not in self.uses:
                self.check(size)
                self.allocated += size
                self.most = max(self.most, self.allocated)
                self.reserved = max(self.reserved, self.allocated)
            if key:
                self.uses[key] = self.uses.get(key, 0) + 1
                weakref.finalize(life, self._let_go, key, size)
        return life

    def _let_go(self, key: int, size: int) -> None:
        with self.lock:
            self.uses[key] -= 1
            if not self.uses[key]:
                del self.uses[key]
                self.allocated -= size
