"""Runs in a thread, one at a time; of those that wait, only the one that was asked for last.

All panels of a process share one lock, so that two runs never use a model at once. (A cell that
runs the same model meanwhile is not part of this: let the panel finish first.)
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from diffusionlab.errors import InputError

ONE_RUN = threading.Lock()
PATIENCE = 0.1  # seconds between two looks at whether it was stopped


@dataclass(eq=False)
class Job:
    """One request and whether it has been told to stop; numbers count up from 1."""

    number: int
    request: Any
    stopped: bool = False


class Panel(Protocol):
    """Whoever hears of the jobs, from the thread that runs them."""

    def begins(self, job: Job) -> None: ...
    def steps(self, job: Job, step: Any) -> None: ...
    def ends(self, job: Job, trace: Any, error: BaseException | None) -> None: ...


class Turns:
    """A queue of length one and the thread that empties it; the thread ends when nothing waits.

    `run(request, progress)` makes a trace and calls `progress(step)` after every step: there a run
    that was stopped gets a KeyboardInterrupt, as if by Ctrl-C.
    """

    def __init__(self, run: Callable[[Any, Callable], Any], panel: Panel):
        self.run, self.panel = run, panel
        self.lock = threading.RLock()
        self.last = 0
        self.current: Job | None = None
        self.waiting: Job | None = None
        self.thread: threading.Thread | None = None
        self.serving = self.closed = False

    def ask(self, request: Any) -> int:
        """Run this as soon as the present run is over, instead of whatever waited; its number."""
        with self.lock:
            if self.closed:
                raise InputError("this playground was closed; make a new one to run something")
            self.last += 1
            self.waiting = Job(self.last, request)
            if not self.serving:
                self.serving = True
                self.thread = threading.Thread(target=self._serve, name="playground", daemon=True)
                self.thread.start()
            return self.last

    def stop(self) -> str:
        """Stop the present run after its next step and forget what waits; says what it did.

        Asked a second time it does not wait any longer: whatever that run returns is dropped.
        """
        with self.lock:
            self.waiting, job = None, self.current
            if job is None:
                return "nothing"
            if job.stopped:
                self.current = None
                return "dropped"
            job.stopped = True
            return "stopping"

    def close(self) -> None:
        """Stop, drop, and take no further request."""
        with self.lock:
            self.closed = True
            self.stop()
            self.current = None

    def wait(self) -> None:
        """Until nothing runs and nothing waits."""
        while self.serving:  # not by join: Python 3.11 takes a join that Ctrl-C broke for the end
            time.sleep(PATIENCE / 10)  # in short turns, so that Ctrl-C comes through everywhere

    def _serve(self) -> None:
        try:
            while (job := self._next()) is not None:
                self._do(job)
        finally:  # nothing that a panel does wrong may keep the next request from a thread
            with self.lock:
                self.serving = False

    def _next(self) -> Job | None:
        with self.lock:
            self.current, self.waiting = self.waiting, None
            self.serving = self.current is not None  # decided under the lock that `ask` takes
            return self.current

    def _do(self, job: Job) -> None:
        trace, failed = None, None
        try:
            self.panel.begins(job)
            trace = self._run_alone(job)
        except BaseException as error:  # the thread's outermost layer: the panel tells all of them
            trace, failed = getattr(error, "trace", None), error
        with self.lock:
            current = self.current is job
            self.current = None if current else self.current
        if current:  # else it was dropped meanwhile
            self.panel.ends(job, trace, failed)
        failed = None  # an error that its own traceback's frame holds would stay for long

    def _run_alone(self, job: Job) -> Any:
        while not ONE_RUN.acquire(timeout=PATIENCE):
            _obey(job)
        try:
            _obey(job)
            return self.run(job.request, lambda step: self._step(job, step))
        finally:
            ONE_RUN.release()

    def _step(self, job: Job, step: Any) -> None:
        if self.current is job:
            self.panel.steps(job, step)
        _obey(job)


def _obey(job: Job) -> None:
    if job.stopped:
        raise KeyboardInterrupt
