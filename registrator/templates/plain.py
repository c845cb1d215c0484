"""Values as text, in the form of Go's ``%v``: what ``print`` and an action write."""

import re
from decimal import Decimal
from typing import Any

from registrator.templates.limits import Limits, Output
from registrator.templates.values import NO_VALUE, Duration, Struct, Time, write

_TIME = re.compile(r"([0-9-]{10})T([0-9:]{8})(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})")


def shown(value: Any, limits: Limits) -> str:
    """A value as an action writes it. It looks through a pointer."""
    if value is NO_VALUE:
        return "<no value>"
    out = Output(limits)
    if isinstance(value, Struct):
        value = Struct(value.kind, value.raw)
    write(out, value, leaf)
    return out.text


def sprint(values: tuple[Any, ...], limits: Limits) -> str:
    """Values one after the other, with a blank between two that are no texts."""
    out = Output(limits)
    for index, value in enumerate(values):
        if index and not isinstance(value, str) and not isinstance(values[index - 1], str):
            out.add(" ")
        write(out, value, leaf)
    return out.text


def sprintln(values: tuple[Any, ...], limits: Limits) -> str:
    """Values with blanks between them, and the end of a line."""
    out = Output(limits)
    for index, value in enumerate(values):
        out.add(" " if index else "")
        write(out, value, leaf)
    out.add("\n")
    return out.text


def leaf(value: Any) -> str:
    """A value that has no parts."""
    if value is None or value is NO_VALUE:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return real(value)
    if isinstance(value, Duration):
        return duration(value)
    return moment(value) if isinstance(value, Time) else str(value)


def real(number: float) -> str:
    """A float with as few digits as tell it from all others."""
    if number != number or abs(number) == float("inf"):
        return "NaN" if number != number else "+Inf" if number > 0 else "-Inf"
    exact = Decimal(repr(number)).normalize()
    sign, digits, power = exact.as_tuple()
    exponent = len(digits) + int(power) - 1
    if number == 0 or -4 <= exponent < 6:
        return f"{exact:f}"
    text = "".join(map(str, digits))
    mantissa = text[0] + ("." + text[1:] if len(text) > 1 else "")
    return f"{'-' if sign else ''}{mantissa}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"


def moment(time: Time) -> str:
    """A time as Go prints it."""
    read = _TIME.fullmatch(time.text)
    if read is None:
        return time.text
    date, clock, fraction, zone = read.groups()
    offset = "+0000 UTC" if zone in ("Z", "+00:00") else 2 * f" {zone.replace(':', '')}"
    fraction = (fraction or "").rstrip("0").rstrip(".")
    return f"{date} {clock}{fraction} {offset.strip()}"


def duration(span: int) -> str:
    """A time span as Go prints it, such as ``1m30s``."""
    rest, sign = abs(span), "-" if span < 0 else ""
    for unit, size in (("ns", 1), ("µs", 10**3), ("ms", 10**6)):
        if rest < size * 1000:
            number = f"{Decimal(rest) / size:f}"
            return f"{sign}{number}{unit}" if rest else "0s"
    minutes, seconds = divmod(rest, 60 * 10**9)
    hours, minutes = divmod(minutes, 60)
    number = f"{(Decimal(seconds) / 10**9).normalize():f}"
    before = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{sign}{before}{number}s"
