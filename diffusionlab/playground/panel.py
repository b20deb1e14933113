"""The panel: form, thread, desk and explorer, put together."""

from __future__ import annotations

import functools
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import ipywidgets

from diffusionlab.errors import DiffusionLabError, InputError, shown
from diffusionlab.images import Preview
from diffusionlab.playground.desk import Desk
from diffusionlab.playground.form import Form
from diffusionlab.playground.kept import Kept, Shelf, compared, comparing
from diffusionlab.playground.request import Request
from diffusionlab.playground.shown import bundle_of, display_of, text_of
from diffusionlab.playground.stage import Stage, close_all
from diffusionlab.playground.turns import Job, Turns
from diffusionlab.samplers import Sampler
from diffusionlab.trace import Comparison, Guidance, Trace
from diffusionlab.trace.summary import counted
from diffusionlab.views import View, explore
from diffusionlab.views.facts import notices_of

MOST_RUNS = 12


def playground(
    run: Callable[..., Trace],
    *,
    prompt: str = "a red car in the city at night",
    negative_prompt: str = "",
    seed: int = 0,
    sampler: str | Sampler = "ddim",
    spacing: str | None = None,
    num_steps: int = 20,
    guidance_scale: float | Guidance = 4.0,
    samplers: Sequence[str | Sampler] | None = None,
    spacings: Sequence[str | None] | None = None,
    view: Callable[[Trace], View] = explore,
    preview: Preview | None = None,
    most: int = MOST_RUNS,
) -> Playground:
    """A live panel: a form, a run in the background, and the explorer of what came out.

    `run` is called like `generate` without its model: `playground(partial(dl.generate, model))`;
    what else it should do (`record={"predictions", "attention"}`) is fixed in the same way.
    `samplers` and `spacings` are what the menus offer (None: all), `view` makes the view of a
    trace, `preview` (a model's) shows what the very first run believes while it runs. The last
    `most` runs are kept for comparing; older ones go. While it runs, let no cell use the model.
    A run is ended by the panel's Stop (after the present step, its steps are kept) or `.stop()`.
    The notebook's ■ interrupts cells, not the panel's run, unless a cell waits in `.wait()`.
    Errors: InputError.
    """
    start = Request(prompt, negative_prompt, seed, sampler, spacing, num_steps, guidance_scale)
    return Playground(run, start, samplers, spacings, view=view, preview=preview, most=most)


def shielded(method: Callable) -> Callable:
    """What a page calls: an exception would vanish in the kernel's log, so the panel tells it."""

    @functools.wraps(method)
    def called(self: Playground, *given: Any) -> None:
        try:
            method(self, *given)
        except Exception as error:
            self.desk.tell(error=told(error))

    return called


def told(error: BaseException) -> str:
    """An error as one text: ours are sentences, others need their kind."""
    if isinstance(error, DiffusionLabError):
        return str(error)
    return f"{type(error).__name__}: {error}"


class Playground:
    """A live panel. `start`, `stop`, `show`, `choose` and `compare` are its buttons, for Python.

    `trace` is the run that was shown last, `view` what is shown (`panel.view.save("run.html")`),
    `runs` all that are kept, `line` the form as code, `error` the last traceback.
    """

    def __init__(
        self,
        run: Callable[..., Trace],
        start: Request,
        samplers: Sequence[str | Sampler] | None = None,
        spacings: Sequence[str | None] | None = None,
        *,
        view: Callable[[Trace], View] = explore,
        preview: Preview | None = None,
        most: int = MOST_RUNS,
    ):
        _check(run, most)
        self._run, self._view_of, self._preview = run, view, preview
        self.trace: Trace | None = None
        self.error = ""
        self._began, self._shown = 0.0, None
        self._turns, self._shelf = Turns(self._call, self), Shelf(most)
        self._lock = self._turns.lock
        self._stage, self.desk = Stage(self._lock), Desk(most, self._heard)
        self.form = Form(start, samplers, spacings, self._edited, self._pressed_run,
                         self._pressed_stop)  # fmt: skip
        self.box = ipywidgets.VBox([self.form.box, self.desk.widget, self._stage.box])
        self._edited()

    # ---- what it holds -------------------------------------------------------------------------
    @property
    def line(self) -> str:
        """The form as one line of code. Raises InputError while the form holds nonsense."""
        return self.form.request().line(self._run)

    @property
    def runs(self) -> tuple[Trace, ...]:
        """The kept runs, oldest first; those that were stopped have fewer steps and no image."""
        return tuple(kept.trace for kept in self._shelf.runs)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers that the kept runs go by, in the order of `runs`."""
        return tuple(self._shelf.numbers)

    @property
    def view(self) -> View | None:
        """The view that is shown, as one that can be saved."""
        return self._stage.view

    def comparison(self, *numbers: int) -> Comparison:
        """Kept runs as a comparison: those of these numbers, else the chosen ones, else all.

        Errors: InputError for no run at all, and for a number that is not kept.
        """
        return compared(self._some(numbers))

    # ---- its buttons ---------------------------------------------------------------------------
    def start(self, **changes: Any) -> Playground:
        """Put `changes` into the form and run it, after the present run and instead of what waits.

        Errors: InputError.
        """
        unknown = sorted(set(changes) - set(self.form.inputs))
        if unknown:
            raise InputError(
                f"{', '.join(unknown)}: the form has no such input; it has "
                f"{', '.join(self.form.inputs)}: fix others in run=partial(…)"
            )
        with self._lock:
            if changes:
                self.form.fill(replace(self.form.request(), **changes))
            busy = self._turns.current is not None
            self._turns.ask(self.form.request())
            self.desk.tell(error="", queued=busy)
        return self

    def stop(self) -> Playground:
        """Stop after the present step, keep the steps so far, and forget what waits.

        A second call drops the run, whatever it may still return.
        """
        with self._lock:
            done = self._turns.stop()
            if done == "stopping":
                self.desk.tell(phase="stopping", text="stopping after this step", queued=False)
            elif done == "dropped":
                self.desk.end("dropped: what it still returns is not kept")
        return self

    def wait(self) -> Playground:
        """Until nothing runs and nothing waits; Ctrl-C stops the run and keeps its steps."""
        try:
            self._turns.wait()
        except KeyboardInterrupt:
            self.stop()
            self._turns.wait()
            raise
        return self

    def show(self, number: int) -> Playground:
        """Show a kept run in the explorer. Errors: InputError for one that is not kept."""
        with self._lock:
            (kept,) = self._shelf.numbered([number])
        self._stage.put(lambda: self._view_of(kept.trace), lambda: self._showing(kept))
        return self

    def choose(self, *numbers: int) -> Playground:
        """Choose kept runs for comparing. Errors: InputError for one that is not kept."""
        with self._lock:
            self._shelf.chosen = [kept.number for kept in self._shelf.numbered(numbers)]
            self.desk.choose(self._shelf.chosen)
        return self

    def compare(self, *numbers: int) -> Playground:
        """Show two kept runs (`numbers`, else the chosen) as their difference, more as a race.

        Errors: InputError for fewer than two or more than nine.
        """
        found = self._some(numbers)
        self._stage.put(lambda: comparing(found), lambda: self._showing(None))
        return self

    def close(self) -> None:
        """Take the panel off the page; a run that is under way is stopped and dropped."""
        self._turns.close()
        with self._lock:
            close_all(self.box)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        """The live panel where there is a kernel, else a still; never both in one output."""
        return bundle_of(self)

    def _ipython_display_(self) -> None:
        """A folded still, which the saved notebook keeps, and then the panel."""
        display_of(self)

    def __repr__(self) -> str:
        return text_of(self)

    # ---- what the page asks for ----------------------------------------------------------------
    @shielded
    def _pressed_run(self) -> None:
        self.start()

    @shielded
    def _pressed_stop(self) -> None:
        self.stop()

    @shielded
    def _heard(self, kind: str, value: Any) -> None:
        if kind == "show":
            self.show(value)
        elif kind == "choose":
            self.choose(*value)
        elif kind == "compare":
            self.compare()

    def _edited(self) -> None:
        try:
            self.desk.write(self.line)
        except InputError as error:
            self.desk.write("", str(error))

    # ---- what the thread tells -----------------------------------------------------------------
    def _call(self, request: Request, progress: Callable[[Any], None]) -> Trace:
        return self._run(request.prompt, **request.options, progress=progress)

    def begins(self, job: Job) -> None:
        """A job's turn has come."""
        self._began = time.monotonic()
        with self._lock:
            self.desk.begin(job.request.num_steps, self._turns.waiting is not None)

    def steps(self, job: Job, step: Any) -> None:
        """One step is done and kept."""
        self.desk.advance(step, self._preview, "stopping after this step" if job.stopped else "")

    def ends(self, job: Job, trace: Any, error: BaseException | None) -> None:
        """A job is over: with a trace, with an error, or with both."""
        try:
            self._end(job, trace, error)
        except Exception as failed:  # the view could not be made, say
            self._remember(failed)
            self.desk.tell(phase="idle", error=told(failed))

    def _end(self, job: Job, trace: Any, error: BaseException | None) -> None:
        if error is None and not isinstance(trace, Trace):
            error = InputError(f"run gave {shown(trace)}; a Trace is needed, as generate gives it")
        stopped, steps = isinstance(error, KeyboardInterrupt), getattr(trace, "steps", ())
        failed = error is not None and not stopped
        if failed:
            self._remember(error)
        with self._lock:
            if steps:
                self._keep(Kept(job.number, trace, str(job.request.sampler)))
            newest = self._turns.waiting is None
            text = _ending(trace, stopped, time.monotonic() - self._began)
            self.desk.end(text, told(error) if failed else "", notices_of(trace) if steps else ())
        if steps and newest:
            self.show(job.number)

    def _remember(self, error: BaseException) -> None:
        self.error = "".join(traceback.format_exception(error))

    def _keep(self, kept: Kept) -> None:
        self._preview = kept.trace.preview or self._preview
        self._shelf.keep(kept, self._shown)
        self.desk.keep(self._shelf.numbers, kept.tile, self._shelf.chosen)

    def _some(self, numbers: Sequence[int]) -> list[Kept]:
        with self._lock:
            return self._shelf.numbered(numbers or self._shelf.chosen or self._shelf.numbers)

    def _showing(self, kept: Kept | None) -> None:
        self._shown = getattr(kept, "number", None)
        self.trace = self.trace if kept is None else kept.trace
        self.desk.show(self._shown)


def _check(run: Any, most: Any) -> None:
    if not callable(run):
        raise InputError(
            f"run is {shown(run)}; a callable is needed: use partial(dl.generate, model)"
        )
    if isinstance(most, bool) or not isinstance(most, int) or not 2 <= most <= 64:
        raise InputError(f"most is {shown(most)}; 2 to 64 runs can be kept: use e.g. 12")


def _ending(trace: Any, stopped: bool, seconds: float) -> str:
    """How a run ended, in a sentence."""
    steps = len(getattr(trace, "steps", ()))
    if not steps:
        return "stopped before the first step was done; nothing to keep" if stopped else ""
    if trace.image is None:
        return f"stopped after {steps} of {trace.settings.num_steps} steps; they are kept"
    calls = counted(trace.network_calls, "network call")
    return f"{counted(steps, 'step')}, {calls}, {seconds:.1f} s"
