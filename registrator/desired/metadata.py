"""A container's ``SERVICE_*`` metadata: read from variables and labels, and checked.

All of it is untrusted input. See ``docs/services.md`` for the rules.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from sys import intern
from typing import NamedTuple

from registrator.desired.untrusted import (
    MAX_ATTRIBUTES,
    MAX_METADATA,
    MAX_NAME,
    MAX_TAG,
    Rejection,
    check_text,
    shown,
    size,
)
from registrator.model import METADATA_PREFIX, Container, unprintable

# Keys that say what a service is. Every other key is an attribute.
OWN_KEYS = frozenset(
    {
        "name", "id", "tags", "ip", "ignore", "ports", "network", "aliases", "health",
        "enable_tag_override", "weight_passing", "weight_warning",
    }
)  # fmt: skip

_TRUE, _FALSE = ("1", "t", "true"), ("0", "f", "false")


class Setting(NamedTuple):
    """A metadata value, and its key as the container spells it."""

    value: str = ""
    key: str = ""


class Settings(dict[str, Setting]):
    """The metadata of one port, by key in lower case without prefix and port number."""

    def text(self, key: str) -> str:
        """The value without blanks around it. Empty if it is not set."""
        return self[key].value.strip() if key in self else ""


@dataclass
class Metadata:
    """A container's metadata: what holds for all ports, and what holds for one port."""

    generic: Settings = field(default_factory=Settings)
    of_port: dict[str, Settings] = field(default_factory=dict)

    def settings(self, port: int) -> Settings:
        """The settings of one internal port. Its own keys win over the generic ones."""
        own = self.of_port.get(str(port))
        return Settings(self.generic | own) if own else self.generic

    def has_own(self, port: int, key: str) -> bool:
        """Whether the key has a value for this very port."""
        return bool(self.of_port.get(str(port), Settings()).text(key))


def read_metadata(container: Container) -> Metadata:
    """Collect the metadata of a container. If a variable and a label set one key, the label wins.

    If one source has a key in two spellings, the one in upper case wins, which sorts first.
    """
    found = Metadata()
    for source in (container.env, container.labels):
        for key in sorted((k for k in source if k.startswith(METADATA_PREFIX)), reverse=True):
            # A number with nothing after it (`SERVICE_80`) is the name of an attribute.
            match = re.fullmatch(r"(?:([0-9]+)_)?(.+)", key[len(METADATA_PREFIX) :], re.DOTALL)
            if match is not None:
                port, name = match.groups()
                settings = found.of_port.setdefault(port, Settings()) if port else found.generic
                settings[intern(name.lower())] = Setting(source[key], key)
    return found


def split_tags(text: str, strip: bool = True) -> tuple[str, ...]:
    r"""The tags of a comma-separated list, in order. Write ``\,`` for a comma within a tag."""
    parts = (part.replace("\\,", ",") for part in re.split(r"(?<!\\),", text))
    tags = (part.strip() if strip else part for part in parts)
    return tuple(intern(tag) for tag in tags if tag)


def tags_of(settings: Settings) -> tuple[str, ...]:
    """The tags that the container sets."""
    setting = settings.get("tags", Setting())
    tags = split_tags(setting.value)
    for tag in tags:
        check_text(tag, setting.key, MAX_TAG, "a tag")
    return tags


def boolean(settings: Settings, key: str, *, default: bool) -> bool:
    """The value of a key that is true or false. Raises `Rejection` for anything else."""
    text = settings.text(key).lower()
    if text and text not in (*_TRUE, *_FALSE):
        spelt = settings[key]
        raise Rejection(f"{shown(spelt.key)} is {shown(spelt.value)!r}, and not true or false")
    return text in _TRUE if text else default


def number(settings: Settings, key: str, low: int, high: int, *, default: int) -> int:
    """The value of a key that is a whole number. Raises `Rejection` for anything else."""
    text = settings.text(key)
    if not text:
        return default
    if not re.fullmatch("[0-9]{1,9}", text) or not low <= int(text) <= high:
        spelt = settings[key]
        wanted = f"a whole number from {low} to {high}"
        raise Rejection(f"{shown(spelt.key)} is {shown(spelt.value)!r}, and not {wanted}")
    return int(text)


def weights_of(settings: Settings) -> tuple[int, int]:
    """The weights of a passing service and of one with a warning, within Consul's own limits."""
    passing = number(settings, "weight_passing", 1, 65535, default=1)
    warning = number(settings, "weight_warning", 0, 65535, default=1)
    return (1, 1) if (passing, warning) == (1, 1) else (passing, warning)


def attributes_of(settings: Settings) -> dict[str, str]:
    """Every key that is not one of `OWN_KEYS`, with its value."""
    attrs = {}
    for name, (value, key) in sorted(settings.items()):
        if name in OWN_KEYS:
            continue
        check_text(name, key, MAX_NAME, "a name")
        # The script of a check may have several lines.
        if unprintable(re.sub(r"[\t\n\r]", "", value)):
            raise Rejection(f"{shown(key)} has control characters")
        attrs[name] = value
    if len(attrs) > MAX_ATTRIBUTES:
        raise Rejection(
            f"it has {len(attrs)} {METADATA_PREFIX}* attributes, more than {MAX_ATTRIBUTES}"
        )
    return attrs


def check_size(settings: Mapping[str, Setting]) -> None:
    """Reject metadata that is too large for the smallest registry."""
    sizes = {s.key: size(s.key) + size(s.value) for s in settings.values()}
    if sum(sizes.values()) > MAX_METADATA:
        largest = max(sorted(sizes), key=sizes.__getitem__)
        raise Rejection(
            f"its {METADATA_PREFIX}* metadata has over {MAX_METADATA} bytes,"
            f" most of them in {shown(largest)}"
        )
