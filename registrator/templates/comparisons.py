"""Compares two values, as ``eq`` and ``lt`` of Go's templates do."""

from typing import Any

from registrator.templates.errors import EvaluationError
from registrator.templates.limits import Limits
from registrator.templates.plain import sprint
from registrator.templates.values import NO_VALUE, Struct, Time, type_name


def equal(limits: Limits, one: Any, *others: Any) -> bool:
    """Whether a value equals one of the others."""
    if not others:
        raise EvaluationError("eq needs two values")
    return any(_same(limits, one, other) for other in others)


def _same(limits: Limits, one: Any, other: Any) -> bool:
    nothing = (None, NO_VALUE)
    if one in nothing or other in nothing:
        return one in nothing and other in nothing
    kind = _kind(one)
    if kind != _kind(other) or kind is list:
        raise _incomparable(one, other)
    if kind is Struct:
        return bool(one.kind == other.kind and sprint((one,), limits) == sprint((other,), limits))
    return bool(one == other)


def less(limits: Limits, one: Any, other: Any) -> bool:
    """Whether a number or text is before the other one."""
    kind = _kind(one)
    if kind != _kind(other) or kind not in (int, float, str):
        raise _incomparable(one, other)
    if kind is str:
        return bool(_order(one) < _order(other))
    return bool(one < other)


def at_most(limits: Limits, one: Any, other: Any) -> bool:
    """Whether a number or text is before the other one, or equal."""
    return less(limits, one, other) or one == other


def _order(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _kind(value: Any) -> type:
    """The kind of a value for a comparison."""
    for kind in (bool, int, float, str, Time, Struct):
        if isinstance(value, kind):
            return kind
    return type(None) if value is None or value is NO_VALUE else list


def _incomparable(one: Any, other: Any) -> EvaluationError:
    return EvaluationError(f"it compares {type_name(one)} with {type_name(other)}")
