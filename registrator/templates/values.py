"""The values that a template works with: views of JSON with the types of Go.

A text that is no UTF-8 has its bytes as Python's `surrogateescape` does. Texts, numbers and
booleans are Python's own. `None` is a nil pointer, and `NO_VALUE` is what a map has no key for.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from registrator.templates.errors import EvaluationError
from registrator.templates.fields import BY_LOWER_CASE, FIELDS
from registrator.templates.limits import ITEM, Limits, Output

# The inspections of engines are nested about ten deep.
MAX_DEPTH = 50

MAX_INT = 2**63 - 1


class _NoValue:
    """The type of `NO_VALUE`."""


NO_VALUE: Final = _NoValue()


class Port(str):
    """A port with its protocol, such as ``80/tcp``."""

    __slots__ = ()


class Duration(int):
    """A time span in nanoseconds."""


@dataclass(frozen=True, slots=True)
class Time:
    """A moment, as the engine writes it."""

    text: str


@dataclass(frozen=True, slots=True, eq=False)
class List:
    """A list whose items have the type `kind`. The type `text` is that of texts already read."""

    kind: str
    raw: Sequence[Any]

    def __iter__(self) -> Iterator[Any]:
        return (typed(self.kind, item) for item in self.raw)

    def at(self, index: int) -> Any:
        """The item at an index that exists."""
        return typed(self.kind, self.raw[index])


@dataclass(frozen=True, slots=True, eq=False)
class Map:
    """A map whose values have the type `kind`. Its keys are texts, or ports."""

    kind: str
    raw: Mapping[str, Any]
    ports: bool = False

    def items(self, limits: Limits) -> Iterator[tuple[str, Any]]:
        """The keys and values, sorted by key."""
        limits.step(ITEM * len(self.raw))
        for key in sorted(self.raw):
            shown = readable(key)
            yield (Port(shown) if self.ports else shown), typed(self.kind, self.raw[key])

    def at(self, key: str) -> Any:
        """The value of a key, or the zero value of the type."""
        return typed(self.kind, self.raw.get(key))


@dataclass(frozen=True, slots=True, eq=False)
class Struct:
    """An object with the fields of `kind`, and others. `pointer` says how Go holds it."""

    kind: str
    raw: Mapping[str, Any]
    pointer: bool = False

    def at(self, name: str) -> Any:
        """The value of one of the fields in `kind`."""
        return typed(FIELDS[self.kind][name], _found(self.raw, name)[1])


def typed(kind: str, raw: Any) -> Any:
    """A JSON value as a value of a type. It has the type `any` if the type does not fit."""
    if kind == "text":
        return raw
    if kind.startswith("[]") and isinstance(raw, list | None):
        return List(kind[2:], raw or ())
    if kind.startswith("map[") and isinstance(raw, dict | None):
        key, _, of = kind[4:].partition("]")
        return Map(of, raw or {}, key == "Port")
    if kind.startswith("*"):
        if raw is None:
            return None
        return Struct(kind[1:], raw, True) if isinstance(raw, dict) else _untyped(raw)
    if kind in FIELDS and isinstance(raw, dict | None):
        return Struct(kind, raw or {})
    if kind in _SCALARS:
        of_type, make = _SCALARS[kind]
        if raw is None or (isinstance(raw, of_type) and isinstance(raw, bool) == (kind == "bool")):
            return make(raw)
    return _untyped(raw)


def _untyped(raw: Any) -> Any:
    if raw is None:
        return NO_VALUE
    if isinstance(raw, str):
        return readable(raw)
    if isinstance(raw, list):
        return List("any", raw)
    if isinstance(raw, dict):
        return Map("any", raw)
    return raw if isinstance(raw, bool | float) else _int(raw)


def _int(raw: int | None) -> int | float:
    """An integer of 64 bits. A larger one is a float, as Go reads it where it has no type."""
    number = raw or 0
    if -MAX_INT <= number <= MAX_INT:
        return number
    return float(number) if abs(number) < 2**1000 else float("inf")


_SCALARS: dict[str, tuple[type, Callable[[Any], Any]]] = {
    "string": (str, lambda raw: readable(raw or "")),
    "int": (int, _int),
    "bool": (bool, bool),
    "time": (str, lambda raw: Time(readable(raw or "0001-01-01T00:00:00Z"))),
    "duration": (int, lambda raw: Duration(raw or 0)),
}


def readable(text: str) -> str:
    """A text of JSON without halves of surrogate pairs, which are no characters."""
    return text if text.isascii() else re.sub("[\ud800-\udfff]", "\ufffd", text)


def _found(raw: Mapping[str, Any], name: str) -> tuple[bool, Any]:
    """Whether an object has a field, exactly or else without case, and its value."""
    if name in raw:
        return True, raw[name]
    lower = name.lower()
    return next(((True, raw[key]) for key in raw if key.lower() == lower), (False, None))


def field(value: Any, name: str, limits: Limits) -> Any:
    """The field of a value. Raises `EvaluationError` if it has none."""
    if isinstance(value, Struct):
        limits.step(ITEM * len(value.raw))
        known = name if name in FIELDS[value.kind] else BY_LOWER_CASE[value.kind].get(name.lower())
        there, raw = _found(value.raw, name)
        if known is not None:
            return typed(FIELDS[value.kind][known], raw)
        if there:
            return _untyped(raw)
    elif isinstance(value, Map) and not value.ports:
        if name in value.raw or value.kind != "any":
            return value.at(name) if name in value.raw else NO_VALUE
        limits.step(ITEM * len(value.raw))
        return _untyped(_found(value.raw, name)[1])
    elif isinstance(value, Port) and name in ("Port", "Proto"):
        number, _, protocol = value.partition("/")
        return number if name == "Port" else protocol or "tcp"
    elif value is NO_VALUE:
        return NO_VALUE
    if value is None:
        raise EvaluationError(f"what has to have the field {name[:40]!a} is not there")
    raise EvaluationError(f"{type_name(value)} has no field {name[:40]!a}")


def type_name(value: Any) -> str:
    """The type of a value, for messages."""
    if isinstance(value, Struct):
        return f"the object {value.kind}"
    names = {str: "a text", bool: "a boolean", int: "a number", float: "a number", List: "a list"}
    more = {Map: "a map", Time: "a time", Port: "a port", Duration: "a duration"}
    return (names | more).get(type(value), "nil")


def truth(value: Any) -> bool:
    """Whether a value counts as true: it is not empty, not zero and not nil."""
    if isinstance(value, List | Map):
        return bool(value.raw)
    return value is not NO_VALUE and (isinstance(value, Struct | Time) or bool(value))


def write(
    out: Output, value: Any, leaf: Callable[[Any], str], names: bool = False, depth: int = 0
) -> None:
    """Write a value as Go's ``fmt`` does. `leaf` writes what has no parts."""
    if depth > MAX_DEPTH:
        raise EvaluationError("it prints a value that is nested too deeply")
    if isinstance(value, List):
        out.add("[")
        for index, item in enumerate(value):
            out.add(" " if index else "")
            write(out, item, leaf, names, depth + 1)
        out.add("]")
    elif isinstance(value, Map):
        out.add("map[")
        for index, (key, item) in enumerate(value.items(out.limits)):
            out.add(" " if index else "")
            out.add(leaf(key) + ":")
            write(out, item, leaf, names, depth + 1)
        out.add("]")
    elif isinstance(value, Struct):
        out.add("&{" if value.pointer and not depth else "{")
        for index, name in enumerate(FIELDS[value.kind]):
            out.add((" " if index else "") + (f"{name}:" if names else ""))
            out.limits.step(ITEM * len(value.raw))
            write(out, value.at(name), leaf, names, depth + 1)
        out.add("}")
    else:
        out.add(leaf(value))
