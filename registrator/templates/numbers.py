"""Reads the numbers of a template: integers of 64 bits and floats, as Go writes them."""

import re

from registrator.templates.errors import TemplateError
from registrator.templates.values import MAX_INT

# The largest hexadecimal float has fewer digits.
_LONGEST = 400


def number(text: str) -> tuple[int | float, int | None]:
    """A number, and its value where an integer is asked for. Raises `TemplateError`."""
    if len(text) > _LONGEST or not text.isascii():
        raise TemplateError("a number is not of a form that is known")
    whole = _integer(text)
    if whole is not None:
        if not -MAX_INT - 1 <= whole <= MAX_INT:
            raise TemplateError("a number has more than 64 bits")
        return whole, whole
    real = _float(text)
    if real is None or abs(real) == float("inf"):
        raise TemplateError("a number is not of a form that is known")
    fits = real.is_integer() and abs(real) < MAX_INT
    return real, int(real) if fits else None


def _integer(text: str) -> int | None:
    # Go writes octal numbers with a zero, too.
    modern = re.sub(r"^([+-]?)0(?=[0-9_])", r"\g<1>0o", text)
    try:
        return int(modern, 0)
    except ValueError:
        return None


def _float(text: str) -> float | None:
    if re.fullmatch(r"[+-]?0[xX]\w*(\.\w*)?[pP][+-]?[0-9]+", text):
        try:
            return float.fromhex(text.replace("_", ""))
        except (ValueError, OverflowError):
            return None
    if not re.fullmatch(r"[+-]?[0-9_]*\.?[0-9_]*([eE][+-]?[0-9_]+)?", text):
        return None
    try:
        return float(text)
    except ValueError:
        return None
