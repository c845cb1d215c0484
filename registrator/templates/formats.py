"""The function ``printf``, with the verbs of Go's ``fmt``."""

import re
from dataclasses import dataclass
from typing import Any

from registrator.templates.errors import EvaluationError
from registrator.templates.limits import Limits, Output
from registrator.templates.plain import leaf, real
from registrator.templates.quotes import quote
from registrator.templates.values import NO_VALUE, Duration, Port, Time, write

# Flags, index, width, precision with its index, index of the value, verb.
_VERB = re.compile(
    r"%([#0+\- ]*)(?:\[([0-9]{1,6})\])?(\*|[0-9]*)"
    r"(?:(\.)(?:\[([0-9]{1,6})\](?=\*))?(\*|[0-9]*))?(?:\[([0-9]{1,6})\])?(.?)",
    re.DOTALL,
)
_BASES = {"d": "d", "b": "b", "o": "o", "O": "o", "x": "x", "X": "X"}
_PREFIXES = {"b": "0b", "o": "0", "x": "0x", "X": "0X"}
_TYPES = {str: "string", bool: "bool", int: "int", float: "float64", Duration: "time.Duration"}
_TYPES |= {Port: "docker.Port", Time: "time.Time"}


def sprintf(form: str, values: tuple[Any, ...], limits: Limits) -> str:
    """The text of a format, with its verbs replaced by values."""
    return _Printer(values, limits).printed(form)


class _Printer:
    """One call of ``printf``: the values, and which of them is next."""

    def __init__(self, values: tuple[Any, ...], limits: Limits) -> None:
        self.values = values
        self.limits = limits
        self.next = 0
        self.reordered = False

    def printed(self, form: str) -> str:
        out = Output(self.limits)
        end = 0
        for match in _VERB.finditer(form):
            out.add(form[end : match.start()])
            end = match.end()
            self.limits.step()
            out.add(self._one(match))
        out.add(form[end:])
        if self.next < len(self.values) and not self.reordered:
            rest = self.values[self.next :]
            out.add(f"%!(EXTRA {', '.join(f'{_type(each)}={self._plain(each)}' for each in rest)})")
        return out.text

    def _one(self, match: re.Match[str]) -> str:
        """The text of one verb."""
        flags, index, width, dot, dot_index, precision, last_index, verb = match.groups()
        good = self._go_to(index)
        wide, good_width = self._number(width)
        good &= self._go_to(dot_index)
        exact, good_precision = self._number(precision or "0") if dot else (None, True)
        good &= self._go_to(last_index)
        before = "" if good_width else "%!(BADWIDTH)"
        before += "" if good_precision and (exact or 0) >= 0 else "%!(BADPREC)"
        if not verb:
            return before + "%!(NOVERB)"
        if verb == "%":
            return before + "%"
        if not good:
            return f"{before}%!{verb}(BADINDEX)"
        if self.next >= len(self.values):
            return f"{before}%!{verb}(MISSING)"
        if verb in "Tp" or (verb == "v" and "#" in flags):
            raise EvaluationError(f"printf has no %{'#' if verb == 'v' else ''}{verb} here")
        value = self.values[self.next]
        self.next += 1
        names = verb == "v" and "+" in flags
        flags = flags.replace("+", "") if names else flags
        if wide is not None and wide < 0:
            flags, wide = flags + "-", -wide
        self.limits.fits(max(wide or 0, exact or 0))
        out = Output(self.limits)
        form = _Form(verb, flags, wide or 0, None if exact is None or exact < 0 else exact)
        write(out, value, form.leaf, names=names)
        return before + out.text

    def _go_to(self, index: str | None) -> bool:
        """Make another value the next one. False if there is none."""
        if index is None:
            return True
        self.reordered = True
        if not 1 <= int(index) <= len(self.values):
            return False
        self.next = int(index) - 1
        return True

    def _number(self, text: str) -> tuple[int | None, bool]:
        """A width or a precision, and whether it is one. A star means the next value."""
        if text != "*":
            return (min(int(text[:9]), 10**6) if text else None), True
        value = self.values[self.next] if self.next < len(self.values) else None
        self.next += 1
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= 10**6:
            return int(value), True
        return None, False

    def _plain(self, value: Any) -> str:
        out = Output(self.limits)
        write(out, value, leaf)
        return out.text


def _type(value: Any) -> str:
    return "<nil>" if value is None or value is NO_VALUE else _TYPES.get(type(value), "value")


@dataclass(frozen=True, slots=True)
class _Form:
    """How to write one value: a verb with its flags, width and precision."""

    verb: str
    flags: str
    width: int
    precision: int | None

    def leaf(self, value: Any) -> str:
        """A value that has no parts."""
        if value is None or value is NO_VALUE:
            return self._padded("<nil>") if self.verb == "v" else f"%!{self.verb}(<nil>)"
        made = None
        if isinstance(value, bool):
            made = self._padded(leaf(value)) if self.verb in "tv" else None
        elif isinstance(value, Time) or (isinstance(value, Duration) and self.verb in "vs"):
            made = self._text(leaf(value))
        elif isinstance(value, int):
            made = self._integer(value)
        elif isinstance(value, float):
            made = self._real(value)
        elif isinstance(value, str):
            made = self._text(value)
        return f"%!{self.verb}({_type(value)}={leaf(value)})" if made is None else made

    def _text(self, text: str) -> str | None:
        if self.verb in "xX":
            data = text.encode(errors="surrogateescape")[: self.precision]
            parts = [f"{byte:02{self.verb}}" for byte in data]
            prefix = f"0{self.verb}" if "#" in self.flags and parts else ""
            between = " " + prefix if " " in self.flags else ""
            return self._padded(prefix + between.join(parts))
        if self.verb not in "vsq":
            return None
        text = text[: self.precision]
        return self._padded(quote(text, self.flags) if self.verb == "q" else text)

    def _integer(self, number: int) -> str | None:
        if self.verb in "cqU":
            rune = number if 0 <= number < 0x110000 and not 0xD800 <= number < 0xE000 else 0xFFFD
            if self.verb == "U":
                return self._padded(f"U+{number:04X}")
            return self._padded(
                chr(rune) if self.verb == "c" else quote(chr(rune), self.flags, "'")
            )
        base = _BASES.get("d" if self.verb == "v" else self.verb)
        if base is None:
            return None
        digits = f"{abs(number):{base}}"
        sign = self._sign(number < 0)
        if self.precision is not None:
            digits = digits.rjust(self.precision, "0") if self.precision or number else ""
        elif "0" in self.flags and "-" not in self.flags:
            digits = digits.rjust(self.width - len(sign), "0")
        prefix = "0o" if self.verb == "O" else ""
        if "#" in self.flags and not (self.verb == "o" and digits.startswith("0")):
            prefix = _PREFIXES.get(self.verb, prefix)
        return self._padded(sign + prefix + digits, zeros=False)

    def _real(self, number: float) -> str | None:
        if self.verb not in "vgGeEfF":
            return None
        if self.precision is None and self.verb in "vgG":
            digits = real(abs(number)).lstrip("+")
            digits = digits.upper() if self.verb == "G" else digits
        else:
            verb = self.verb.replace("v", "g")
            digits = f"{abs(number):.{6 if self.precision is None else self.precision}{verb}}"
        sign = self._sign(str(number).startswith("-"))
        if "0" in self.flags and "-" not in self.flags and digits[-1:].isdigit():
            digits = digits.rjust(self.width - len(sign), "0")
        return self._padded(sign + digits, zeros=False)

    def _sign(self, negative: bool) -> str:
        return "-" if negative else "+" if "+" in self.flags else " " if " " in self.flags else ""

    def _padded(self, text: str, zeros: bool = True) -> str:
        if "-" in self.flags:
            return text.ljust(self.width)
        return text.rjust(self.width, "0" if zeros and "0" in self.flags else " ")
