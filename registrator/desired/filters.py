r"""Filters: which containers count, by ``-filter`` for the agent and ``?filter=`` for a registry.

A filter is a list of terms, separated by commas. All of them must hold. ``\,`` is a comma in a
value::

    label=KEY         the container has this label, whatever its value
    label=KEY=GLOB    the label has such a value
    name=GLOB         the container has such a name
    image=GLOB        the container was made from such an image, as its owner wrote it
    network=GLOB      the container is attached to such a network

With ``!=`` in place of the first ``=``, the term holds if the same term with ``=`` does not. In a
glob, ``*`` is any text, and every other character is itself. A glob fits the whole text or not at
all. The time to compare grows with the length of the text only, since containers choose it.
"""

import re
from dataclasses import dataclass
from sys import intern

from registrator.desired.untrusted import MAX_NAME
from registrator.model import Container, unprintable

FORM = (
    "must be terms such as label=KEY=VALUE, name=web-*, image!=*:debug or network=front,"
    " separated by commas"
)


@dataclass(frozen=True, slots=True)
class Term:
    """One condition. With `wanted` false, it holds if nothing fits. `key` is that of a label."""

    what: str
    wanted: bool
    glob: str
    key: str = ""

    def holds(self, container: Container, peer: Container | None) -> bool:
        """Whether it holds for a container. `peer` is the one whose network it shares."""
        found = any(fits(self.glob, text) for text in self._texts(container, peer))
        return found is self.wanted

    def _texts(self, container: Container, peer: Container | None) -> tuple[str, ...]:
        match self.what:
            case "label":
                value = container.labels.get(self.key)
                return () if value is None else (value,)
            case "name":
                return (container.name,)
            case "image":
                return (container.image,)
        where = peer or container
        # The engine gives no address in these two, so they are not among the networks.
        mode = (where.network_mode,) if where.network_mode in ("host", "none") else ()
        return (*where.networks, *mode)


@dataclass(frozen=True, slots=True)
class Filter:
    """All terms must hold. Without a term it admits every container. `text` is its one spelling."""

    text: str = ""
    terms: tuple[Term, ...] = ()

    def __bool__(self) -> bool:
        """Whether it may exclude anything."""
        return bool(self.terms)

    def admits(self, container: Container, peer: Container | None = None) -> bool:
        """Whether a container counts. `peer` is the one whose network it shares."""
        return all(term.holds(container, peer) for term in self.terms)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that it looks at: the engine's client has to keep them."""
        return tuple(term.key for term in self.terms if term.key)


EVERYTHING = Filter()


def parse_filter(text: str) -> Filter:
    """The filter in a text. Raises `ValueError`, which says what the text must be."""
    parts = [part.strip() for part in re.split(r"(?<!\\),", text)]
    terms = tuple(_term(part.replace("\\,", ","), number) for number, part in enumerate(parts, 1))
    return Filter(intern(",".join(parts)), terms)


def _term(text: str, number: int) -> Term:
    match = re.fullmatch(r"(label|name|image|network)(!?=)(.+)", text)
    if match is None or unprintable(text) or len(text) > MAX_NAME or text.endswith("\\"):
        raise ValueError(f"{FORM}; term {number} is none")
    what, sign, rest = match.groups()
    if what != "label":
        return Term(what, sign == "=", rest)
    key, equals, glob = rest.partition("=")
    if not key or "!" in key or "*" in key:
        raise ValueError(f"{FORM}; write term {number} as label=KEY or label!=KEY=GLOB")
    return Term(what, sign == "=", glob if equals else "*", intern(key))


def fits(glob: str, text: str) -> bool:
    """Whether a text as a whole has the form of a glob.

    Each part between two stars is looked for once, behind the one before. That is enough, since the
    first place that fits leaves the most room for the rest.
    """
    if "*" not in glob:
        return text == glob
    first, *middle, last = glob.split("*")
    end = len(text) - len(last)
    place = len(first)
    if place > end or not text.startswith(first) or not text.endswith(last):
        return False
    for part in middle:
        place = text.find(part, place, end)
        if place < 0:
            return False
        place += len(part)
    return True
