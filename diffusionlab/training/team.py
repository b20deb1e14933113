"""Processes that train together are accelerate's; where it is not installed, one trains alone."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Any

import torch

from ..errors import InputError

if torch.distributed.is_available():
    # the defaults of its functions are the group of that moment: imported later, by an optimiser
    # say, they would hold the group that `destroy_process_group` is to end
    import torch.distributed.nn


class Alone:
    """One process, told as accelerate tells of many."""

    process_index, num_processes, is_main_process = 0, 1, True

    def __init__(self) -> None:
        many = os.environ.get("WORLD_SIZE", "1")
        if many != "1":
            raise InputError(
                f"{many} processes were started, and accelerate, which joins them, is not "
                'installed: python -m pip install "diffusionlab[train]", or start one process'
            )

    def main_process_first(self) -> AbstractContextManager:
        """There is nobody to wait for."""
        return nullcontext()

    def wait_for_everyone(self) -> None:
        """There is nobody to wait for."""

    def destroy_process_group(self) -> None:
        """There is none."""


def team(cpu: bool) -> Any:
    """accelerate's `Accelerator`, which can also take means over the processes."""
    if find_spec("accelerate") is None:
        return Alone()
    from accelerate import Accelerator

    return Accelerator(cpu=cpu)


def processes(cpu: bool) -> Any:
    """accelerate's `PartialState`: who is first, and who waits.

    A program calls its `destroy_process_group` at the end: threads of a group that outlive Python
    abort the process, and torchrun then stops the others (pytorch issue 190489).
    """
    if find_spec("accelerate") is None:
        return Alone()
    from accelerate import PartialState

    return PartialState(cpu=cpu)
