"""Records ⇄ plain JSON and arrays: a closed list of classes, nothing else is ever built.

A record becomes `{"$record": name, field: …}`, an array `{"$array": name}`, an image `{"$image":
name}`, a float that JSON cannot hold `{"$float": "inf"}`, a list `{"$list": […]}`; tuples are JSON
arrays. A dictionary is a JSON object, whose keys never begin with "$".
"""

from __future__ import annotations

import math
import types
import typing
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from diffusionlab.errors import DiffusionLabError, TraceError, shown
from diffusionlab.images import Preview, to_array, to_image
from diffusionlab.plan import Stage, Step, Term, Update
from diffusionlab.schedule import NoiseLevel
from diffusionlab.trace.header import NUMPY_TYPES
from diffusionlab.trace.records import Latent, Prediction, Settings, TextEmbedding, Tokens
from diffusionlab.trace.run import Trace
from diffusionlab.trace.spool import Stored, fingerprint
from diffusionlab.trace.summary import to_numpy

KNOWN = (Trace, Settings, Tokens, TextEmbedding, Latent, Prediction, Preview)
RECORDS = {kind.__name__: kind for kind in (*KNOWN, Step, Stage, Update, Term, NoiseLevel)}
FLOATS = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


class Packer:
    """Turns a record into plain JSON values and collects its arrays, equal ones once."""

    def __init__(self) -> None:
        self.tensors: dict[str, np.ndarray | Stored] = {}
        self.fingerprints: dict[str, str] = {}
        self._names: dict[tuple, str] = {}

    def pack(self, value: Any) -> Any:
        """The JSON value that stands for a record, an array or a plain value."""
        if value is None or isinstance(value, (bool, str, int)):
            return value
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else {"$float": str(float(value))}
        if isinstance(value, np.generic):
            return self.pack(value.item())
        if isinstance(value, tuple):
            return [self.pack(item) for item in value]
        if isinstance(value, list):
            return {"$list": [self.pack(item) for item in value]}
        if isinstance(value, dict):
            return self._dictionary(value)
        if isinstance(value, Image.Image):
            return {"$image": self._array(to_array(value))}
        if is_dataclass(value) and RECORDS.get(type(value).__name__) is type(value):
            return self._record(value)
        if isinstance(value, Stored):
            return {"$array": self._named(value)}
        if isinstance(value, np.ndarray) or hasattr(value, "detach"):
            return {"$array": self._array(to_numpy(value))}
        raise TraceError(f"a trace cannot hold {shown(value)}, a {type(value).__name__}: remove it")

    def _record(self, value: Any) -> dict[str, Any]:
        parts = {f.name: self.pack(getattr(value, f.name)) for f in fields(value)}
        return {"$record": type(value).__name__, **parts}

    def _dictionary(self, value: dict) -> dict[str, Any]:
        wrong = [key for key in value if not isinstance(key, str) or key.startswith("$")]
        if wrong:
            raise TraceError(f"a trace cannot hold the key {shown(wrong[0])}: rename it")
        return {key: self.pack(item) for key, item in value.items()}

    def _array(self, array: np.ndarray) -> str:
        array = np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
        if array.dtype not in NUMPY_TYPES.values():
            raise TraceError(f"a trace cannot hold an array of {array.dtype}: use floats or ints")
        return self._named(array)

    def _named(self, array: np.ndarray | Stored) -> str:
        found = fingerprint(array)
        key = (str(array.dtype), array.shape, found)
        name = self._names.setdefault(key, f"array{len(self._names):05d}")
        self.tensors[name], self.fingerprints[name] = array, found
        return name


def unpack(value: Any, tensors: dict[str, np.ndarray], name: str) -> Any:
    """The record that JSON and arrays stand for; TraceError for anything that is not one."""
    try:
        return _Unpacker(tensors).value(value)
    except TraceError as error:
        raise TraceError(f"{name}: {error}") from None
    except (DiffusionLabError, TypeError, ValueError, KeyError, RecursionError) as error:
        raise TraceError(f"{name}: its record is malformed ({shown(str(error))})") from None


class _Unpacker:
    def __init__(self, tensors: dict[str, np.ndarray]) -> None:
        self.tensors = tensors
        self.images: dict[str, Image.Image] = {}

    def value(self, value: Any) -> Any:
        if isinstance(value, list):
            return tuple(self.value(item) for item in value)
        if not isinstance(value, dict):
            return value
        special = next((key for key in value if key.startswith("$")), None)
        if special is None:
            return {key: self.value(item) for key, item in value.items()}
        if special == "$record":
            return self.record(value)
        if len(value) != 1 or special not in self.SPECIAL:
            raise TraceError(f"the mark {shown(special)} is not known here: upgrade diffusionlab")
        return self.SPECIAL[special](self, value[special])

    def record(self, value: dict[str, Any]) -> Any:
        kind = RECORDS.get(value["$record"]) if isinstance(value["$record"], str) else None
        if kind is None:
            raise TraceError(
                f"a record {shown(value['$record'])} is not known: upgrade diffusionlab"
            )
        known = {f.name: f for f in fields(kind)}  # unknown fields of a newer minor are left alone
        parts = {key: self.value(item) for key, item in value.items() if key in known}
        for field_name, part in parts.items():
            if not fits(part, _hints(kind).get(field_name, Any)):
                raise TraceError(f"{kind.__name__}.{field_name} is {shown(part)}: not its type")
        for field_name, f in known.items():
            if field_name not in parts and f.default is MISSING and f.default_factory is MISSING:
                raise TraceError(f"{kind.__name__}.{field_name} is missing")
        return kind(**parts)

    def array(self, name: Any) -> np.ndarray:
        array = self.tensors[name]
        array.flags.writeable = False
        return array

    def image(self, name: Any) -> Image.Image:
        array = self.tensors[name]
        if array.dtype != np.uint8 or array.ndim != 3:
            raise TraceError(f"an image of {array.dtype} {array.shape} is no picture")
        if name not in self.images:
            self.images[name] = to_image(array)
        return self.images[name]

    def plain_list(self, items: Any) -> list:
        return list(self.value(items))

    def number(self, text: Any) -> float:
        return FLOATS[text]

    SPECIAL: typing.ClassVar = {
        "$array": array,
        "$image": image,
        "$list": plain_list,
        "$float": number,
    }


@cache
def _hints(kind: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(kind)
    except NameError:  # a name that only type checkers see
        return {}


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of an annotated type: classes, unions, tuple[X, ...]; Any always fits."""
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, choice) for choice in inside)
    if origin is typing.Literal:
        return value in inside
    if origin is tuple and inside[-1:] == (Ellipsis,):
        return isinstance(value, tuple) and all(fits(item, inside[0]) for item in value)
    if origin is tuple:
        return (
            isinstance(value, tuple) and len(value) == len(inside) and all(map(fits, value, inside))
        )
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if isinstance(origin or hint, type):
        return isinstance(value, origin or hint)
    return True
