"""A record that grows, shown in one place of the page while it does."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from diffusionlab.errors import InputError, shown


def watch(records: Generator[Any, None, None]) -> Any:
    """Draw each record in the place of the one before, and return the last one.

    `records` is a generator such as `Lesson.learn`. A notebook's "interrupt" ends it early, and
    what there is comes back all the same. Outside a notebook nothing is shown.
    Errors: InputError for what is no generator, or one without a record.
    """
    if not isinstance(records, Generator):
        raise InputError(
            f"records is {shown(records)}; a generator of records is allowed, e.g. "
            "watch(lesson.learn(seconds=45))"
        )
    place, last = None, None
    while True:
        try:
            last = next(records)
            place = _shown(last, place)
        except StopIteration:
            break
        except KeyboardInterrupt:  # between two records, or while one is drawn
            ended = _ended(records, last)
            if ended is not last:
                _shown(ended, place)
            last = ended
            break
    if last is None:
        raise InputError("records ended before the first one; make a new generator")
    return last


def _ended(records: Generator[Any, None, None], last: Any) -> Any:
    """The record that the generator closes with when it hears of the interrupt."""
    try:
        return records.throw(KeyboardInterrupt())
    except (StopIteration, KeyboardInterrupt):
        return last


def _shown(record: Any, place: Any) -> Any:
    """The place on the page that shows a record; None where there is no page."""
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        return None
    if record is None or get_ipython() is None:
        return None
    if place is None:
        return display(record, display_id=True)
    place.update(record)
    return place
