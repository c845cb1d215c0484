"""What is let through of the text that containers set: it ends up in registries and logs.

Names and ids become parts of paths, tags and attributes whole records, all of them log lines.
"""

from __future__ import annotations

import ipaddress
import unicodedata

# Limits, sizes in bytes of UTF-8. Registries take far longer names, but no reader does (a DNS name
# has 253 characters), and a service's metadata has to fit the smallest of them: Consul KV takes
# 512 KiB a value, ZooKeeper 1 MiB a node, and a transaction carries many.
MAX_NAME = 255
MAX_TAG = 4096
MAX_ATTRIBUTES = 256
MAX_METADATA = 64 * 1024


class Rejection(Exception):
    """This service must not be registered; the text says which key or fact is why."""


def ip_address(text: str) -> str | None:
    """The address in its usual spelling; None for what a client could not connect to.

    That is: text that is no IP address, the unspecified ones, and those with a zone (a zone holds
    on one machine only).
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return None if address.is_unspecified or "%" in text else str(address)


def unprintable(text: str) -> bool:
    """Whether text has control characters, line separators or halves of surrogate pairs."""
    if text.isascii() and text.isprintable():
        return False
    return any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in text)


def valid_ip(text: str, what: str) -> str:
    """The address in its usual spelling; `what` is whose, for the rejection."""
    address = ip_address(text)
    if address is None:
        raise Rejection(f"{what} is {'no usable IP address' if text else 'not known'}")
    return address


def check_name(text: str, key: str) -> None:
    """Reject a name or id that could lead out of its own place in a registry's paths."""
    check_text(text, key, MAX_NAME, "a value")
    if any(segment in (".", "..") for segment in text.split("/")):
        raise Rejection(f"{shown(key)} has a path segment '.' or '..'")


def check_text(text: str, key: str, limit: int, what: str) -> None:
    """Reject what is too long, in bytes of UTF-8, or unprintable; `key` is where it stands."""
    if size(text) > limit:
        raise Rejection(f"{shown(key)} has {what} of over {limit} bytes")
    if unprintable(text):
        raise Rejection(f"{shown(key)} has control characters")


def size(text: str) -> int:
    """Bytes of UTF-8, whatever the text."""
    return len(text.encode(errors="replace"))


def shown(text: str) -> str:
    """Untrusted text, fit for one log line."""
    short = text if len(text) <= 80 else text[:79] + "…"
    return ascii(short) if unprintable(short) else short
