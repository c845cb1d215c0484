"""The functions of templates: those of Go's ``text/template`` and the original's own.

Each takes the limits of the evaluation first, then values of the types that `FUNCTIONS` gives.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import quote_plus

from registrator.templates.comparisons import at_most, equal, less
from registrator.templates.errors import EvaluationError
from registrator.templates.formats import sprintf
from registrator.templates.limits import ITEM, Limits
from registrator.templates.plain import shown, sprint, sprintln
from registrator.templates.values import List, Map, truth, type_name

# A regular expression takes time to compile, and memory.
MAX_PATTERN = 1000
PATTERN_SIZE = 20 * 1024

_HTML = {"\0": "\ufffd", '"': "&#34;", "'": "&#39;", "&": "&amp;", "<": "&lt;", ">": "&gt;"}


def str_slice(limits: Limits, text: str, *bounds: int) -> str:
    """A part of a text, in bytes. A number that is too large counts as the end."""
    data = _bytes(text)
    if not 1 <= len(bounds) <= 2 or max(bounds) > len(data):
        return text
    start, end = bounds[0], bounds[-1] if len(bounds) > 1 else len(data)
    if start and end < start:
        end = len(data)
    if start < 0 or end < 0:
        raise EvaluationError("strSlice has a negative bound")
    return _text(data[start:end])


def s_index(limits: Limits, index: int, items: List) -> str:
    """An item of a list of texts. A negative index counts from the end."""
    count = len(items.raw)
    if not count:
        raise EvaluationError("it takes an item of an empty list")
    found: str = items.at(max(0, count + index) if index < 0 else min(index, count - 1))
    return found


def m_index(limits: Limits, key: str, of: Map) -> str:
    """The value of a key, or an empty text."""
    found = of.at(key) if key in of.raw else ""
    return found if isinstance(found, str) else ""


def to_upper(limits: Limits, text: str) -> str:
    """A text in upper case. A letter without a single upper case letter stays."""
    return text.upper() if text.isascii() else "".join(map(_upper, text))


def _upper(char: str) -> str:
    return next((each for each in (char.upper(), char.title()) if len(each) == 1), char)


def to_lower(limits: Limits, text: str) -> str:
    """A text in lower case."""
    return text.lower() if text.isascii() else "".join(char.lower()[0] for char in text)


def replace(limits: Limits, number: int, old: str, new: str, text: str) -> str:
    """A text with the first `number` finds of `old` replaced, or all of them."""
    found = text.count(old)
    count = found if number < 0 else min(number, found)
    limits.fits(len(text) + count * (len(new) - len(old)))
    return text.replace(old, new, count)


def join(limits: Limits, separator: str, items: List) -> str:
    """The texts of a list with a separator between them."""
    limits.step(ITEM * len(items.raw))
    texts = list(items)
    limits.fits(sum(map(len, texts)) + len(separator) * len(texts))
    return separator.join(texts)


def split(limits: Limits, separator: str, text: str) -> List:
    """The parts of a text between separators, or its characters without a separator."""
    limits.step(ITEM * (text.count(separator) + 1))
    return List("text", text.split(separator) if separator else list(text))


def split_index(limits: Limits, index: int, separator: str, text: str) -> str:
    """One part of a text between separators."""
    return s_index(limits, index, split(limits, separator, text))


def match_first(limits: Limits, pattern: str, items: List) -> str:
    """The first text of a list that a regular expression finds, or an empty one."""
    found = _matches(limits, pattern, items)
    return next((item for item in items if found(item)), "")


def match_all(limits: Limits, pattern: str, items: List) -> List:
    """The texts of a list that a regular expression finds."""
    found = _matches(limits, pattern, items)
    return List("text", [item for item in items if found(item)])


def _matches(limits: Limits, pattern: str, items: List) -> Callable[[str], Any]:
    limits.step(PATTERN_SIZE + sum(ITEM + len(item) for item in items))
    compiled = _compiled(_valid(pattern))
    return lambda item: compiled.search(_valid(item))


@lru_cache(maxsize=32)
def _compiled(pattern: str) -> Any:
    # Imported late, because few templates need it.
    import re2

    options = re2.Options()
    options.log_errors = False
    options.max_mem = 4 * 1024 * 1024
    if len(pattern) > MAX_PATTERN:
        raise EvaluationError(f"a regular expression has more than {MAX_PATTERN} characters")
    try:
        return re2.compile(pattern, options)
    except re2.error:
        raise EvaluationError("a regular expression cannot be read") from None


def length(limits: Limits, value: Any) -> int:
    """The number of items, or of bytes."""
    if isinstance(value, List | Map):
        return len(value.raw)
    if isinstance(value, str):
        return len(_bytes(value))
    raise EvaluationError(f"{type_name(value)} has no length")


def index(limits: Limits, value: Any, *keys: Any) -> Any:
    """An item of a list, the value of a map's key, or a byte of a text. Or one within that."""
    for key in keys:
        if isinstance(value, Map) and isinstance(key, str):
            value = value.at(key)
            continue
        items = value.raw if isinstance(value, List) else value
        items = _bytes(items) if isinstance(items, str) else items
        if not isinstance(items, list | tuple | bytes) or type(key) is not int:
            raise EvaluationError(f"{type_name(value)} has no item by {type_name(key)}")
        _check_bound(key, len(items) - 1)
        value = value.at(key) if isinstance(value, List) else items[key]
    return value


def slice_of(limits: Limits, value: Any, *bounds: Any) -> Any:
    """A part of a list, or of a text in bytes."""
    if not isinstance(value, List | str) or len(bounds) > (3 if isinstance(value, List) else 2):
        raise EvaluationError(f"it cannot slice {type_name(value)} this way")
    items = _bytes(value) if isinstance(value, str) else value.raw
    if any(type(bound) is not int for bound in bounds):
        raise EvaluationError("slice has a bound that is no number")
    ends = [0, *bounds] if not bounds else [*bounds] + [len(items)] * (len(bounds) < 2)
    for bound in ends:
        _check_bound(bound, len(items))
    if sorted(ends) != ends:
        raise EvaluationError("slice has bounds in the wrong order")
    if not bounds:
        return value
    if isinstance(value, str):
        return _text(_bytes(value)[ends[0] : ends[1]])
    return List(value.kind, value.raw[ends[0] : ends[1]])


def _check_bound(number: int, most: int) -> None:
    if not 0 <= number <= most:
        raise EvaluationError("an index is out of range")


def negated(limits: Limits, value: Any) -> bool:
    """Whether a value counts as false."""
    return not truth(value)


def html(limits: Limits, *values: Any) -> str:
    """Values as text in HTML."""
    text = _printed(limits, values)
    limits.fits(len(text) + 6 * sum(map(text.count, _HTML)))
    return re.sub("[\0\"'&<>]", lambda found: _HTML[found[0]], text)


def urlquery(limits: Limits, *values: Any) -> str:
    """Values as text in the query of a URL."""
    return quote_plus(_bytes(_printed(limits, values)))


def _printed(limits: Limits, values: tuple[Any, ...]) -> str:
    if len(values) == 1 and isinstance(values[0], str):
        return values[0]
    texts = (
        each if isinstance(each, str | int | float) else shown(each, limits) for each in values
    )
    return sprint(tuple(texts), limits)


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _text(data: bytes) -> str:
    return data.decode(errors="surrogateescape")


def _valid(text: str) -> str:
    return text if text.isascii() else re.sub("[\udc80-\udcff]", "\ufffd", text)


class Known(NamedTuple):
    """A function, and the types of its values. If it takes `more`, they have the last type."""

    call: Callable[..., Any]
    types: tuple[str, ...]
    more: bool = False


FUNCTIONS = {
    # `and` and `or` look at no value that does not count. So `evaluate` has them.
    "and": Known(truth, ("any", "any"), more=True),
    "or": Known(truth, ("any", "any"), more=True),
    "not": Known(negated, ("any",)),
    "eq": Known(equal, ("any", "any"), more=True),
    "ne": Known(lambda limits, one, other: not equal(limits, one, other), ("any", "any")),
    "lt": Known(less, ("any", "any")),
    "le": Known(at_most, ("any", "any")),
    "gt": Known(lambda limits, one, other: not at_most(limits, one, other), ("any", "any")),
    "ge": Known(lambda limits, one, other: not less(limits, one, other), ("any", "any")),
    "html": Known(html, ("any",), more=True),
    "index": Known(index, ("any", "any"), more=True),
    "len": Known(length, ("any",)),
    "print": Known(lambda limits, *values: sprint(values, limits), ("any",), more=True),
    "printf": Known(lambda limits, form, *values: sprintf(form, values, limits),
                    ("string", "any"), more=True),
    "println": Known(lambda limits, *values: sprintln(values, limits), ("any",), more=True),
    "slice": Known(slice_of, ("any", "any"), more=True),
    "urlquery": Known(urlquery, ("any",), more=True),
    "strSlice": Known(str_slice, ("string", "int"), more=True),
    "sIndex": Known(s_index, ("int", "texts")),
    "mIndex": Known(m_index, ("string", "map")),
    "toUpper": Known(to_upper, ("string",)),
    "toLower": Known(to_lower, ("string",)),
    "replace": Known(replace, ("int", "string", "string", "string")),
    "join": Known(join, ("string", "texts")),
    "split": Known(split, ("string", "string")),
    "splitIndex": Known(split_index, ("int", "string", "string")),
    "matchFirstElement": Known(match_first, ("string", "texts")),
    "matchAllElements": Known(match_all, ("string", "texts")),
}  # fmt: skip
