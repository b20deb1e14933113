"""The form of the playground: ipywidgets' own inputs, every one with its label."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import ipywidgets

from diffusionlab.errors import InputError, shown
from diffusionlab.playground.request import Request, seed_of
from diffusionlab.samplers import SAMPLERS
from diffusionlab.schedule import SPACINGS
from diffusionlab.trace import Guidance

OWN = ""  # the model's own spacing; ipywidgets reads None as "nothing is selected"
SEEDS = 10_000  # a drawn seed is one that can be called across a room


class Form:
    """Inputs for one `Request`, with a button that draws a seed, one to run and one to stop.

    `edited` is told every change, `run` and `stop` their buttons; Enter in a prompt runs too.
    """

    def __init__(
        self,
        start: Request,
        samplers: Sequence[Any] | None,
        spacings: Sequence[str | None] | None,
        edited: Callable[[], None],
        run: Callable[[], None],
        stop: Callable[[], None],
    ):
        self.guidance = start.guidance_scale
        self.inputs = {
            "prompt": _text("Prompt", start.prompt, run, "10.5rem"),
            "negative_prompt": _text("Negative prompt", start.negative_prompt, run, "10.5rem"),
            "seed": _text("Seed", str(start.seed), run),
            "sampler": _menu("Sampler", _choices(samplers, SAMPLERS, start.sampler)),
            "spacing": _menu("Spacing", _choices(spacings, (None, *SPACINGS), start.spacing)),
            "num_steps": ipywidgets.IntText(description="Steps", **PLAIN),
            "guidance_scale": ipywidgets.FloatText(description="Guidance", step=0.5, **PLAIN),
        }
        self.dice = _button("Draw a seed", "A seed by chance", self.draw_seed)
        self.run = _button("Run", "Make this picture (Enter in a prompt does the same)", run)
        self.stop = _button("Stop", "Stop after the present step and keep the steps so far", stop)
        self.run.button_style = "primary"
        self.fill(start)
        for widget in self.inputs.values():
            widget.observe(lambda change: edited(), names=["value"])
        self.box = self._arranged()

    def request(self) -> Request:
        """What the form says now. Raises InputError for what no run can do."""
        values = {name: widget.value for name, widget in self.inputs.items()}
        values["spacing"] = values["spacing"] or None
        scale = values["guidance_scale"]
        if isinstance(self.guidance, Guidance):  # its interval and rescale stay
            scale = replace(self.guidance, scale=scale)
        return Request(**values | {"seed": seed_of(values["seed"]), "guidance_scale": scale})

    def fill(self, request: Request) -> None:
        """Put a request into the inputs. Raises InputError for a choice that has no entry."""
        self.guidance = request.guidance_scale
        values = request.options | {"prompt": request.prompt, "seed": str(request.seed)}
        values["guidance_scale"] = getattr(self.guidance, "scale", self.guidance)
        values["spacing"] = request.spacing or OWN
        for name, value in values.items():
            menu = getattr(self.inputs[name], "options", None)
            if menu is not None and value not in [entry for _, entry in menu]:
                labels = ", ".join(label for label, _ in menu)
                raise InputError(
                    f"{name} is {shown(value)}; this panel offers {labels}: choose one of them, "
                    f"or make a panel with {name}s=[…]"
                )
            self.inputs[name].value = value

    def draw_seed(self) -> None:
        """Another seed, by chance."""
        self.inputs["seed"].value = str(random.SystemRandom().randrange(SEEDS))

    def _arranged(self) -> ipywidgets.VBox:
        named = self.inputs
        row = [named["seed"], self.dice, named["sampler"], named["spacing"], named["num_steps"]]
        rows = [
            named["prompt"],
            named["negative_prompt"],
            _row("dl-inputs", [*row, named["guidance_scale"]]),
            _row("dl-buttons", [self.run, self.stop]),
        ]
        box = ipywidgets.VBox(rows)
        box.add_class("dl-form")
        return box


# ---- inputs -------------------------------------------------------------------------------------
PLAIN = dict(description_allow_html=False, style={"description_width": "initial"})


def _row(name: str, widgets: list[Any]) -> ipywidgets.HBox:
    row = ipywidgets.HBox(widgets)
    row.add_class(name)
    return row


def _text(label: str, value: str, run: Callable[[], None], wide: str = "") -> ipywidgets.Text:
    text = ipywidgets.Text(value=value, description=label, continuous_update=True, **PLAIN)
    text.style.description_width = wide or text.style.description_width
    text.on_msg(lambda _, content, __: run() if content.get("event") == "submit" else None)
    return text


def _menu(label: str, choices: list[tuple[str, Any]]) -> ipywidgets.Dropdown:
    return ipywidgets.Dropdown(options=choices, description=label, **PLAIN)


def _button(label: str, tooltip: str, pressed: Callable[[], None]) -> ipywidgets.Button:
    button = ipywidgets.Button(description=label, tooltip=tooltip)
    button.on_click(lambda _: pressed())
    return button


def _choices(given: Sequence[Any] | None, known: Sequence[Any], start: Any) -> list:
    """(label, value) for a menu; what the panel starts with is one of them."""
    values = list(known if given is None else given)
    values += [start] if start not in values else []
    return [("model's own", OWN) if value is None else (str(value), value) for value in values]
