"""Checks the text that containers set, before it reaches registries and log lines.

Names and ids become parts of paths. Tags and attributes become parts of records.
"""

import ipaddress

from registrator.model import Reason, unprintable

# Limits, in bytes of UTF-8. Registries take far longer names, but their readers do not: a DNS name
# has at most 253 characters. A service's metadata has to fit the smallest registry: Consul KV takes
# 512 KiB a value, ZooKeeper takes 1 MiB a node, and a transaction carries many services.
MAX_NAME = 255
MAX_TAG = 4096
MAX_ATTRIBUTES = 256
MAX_METADATA = 64 * 1024

# Limits of one container. An image may expose 65,535 ports, each with all of its metadata.
MAX_SERVICES = 1000
MAX_ALIASES = 100
MAX_RECORDS = 4 * 1024 * 1024


class Rejection(Exception):
    """A port must not be registered. The text says which key or fact is why."""

    def __init__(self, text: str, reason: Reason = Reason.REJECTED) -> None:
        super().__init__(text)
        self.reason = reason


def ip_address(text: str) -> str | None:
    """The address in its usual spelling, or None if a client could not connect to it.

    Clients cannot use a text that is no IP address, an unspecified address, or an address with a
    zone, since a zone holds on one machine only.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return None if address.is_unspecified or "%" in text else str(address)


def valid_ip(text: str, what: str) -> str:
    """The address in its usual spelling. `what` names it in the rejection."""
    if not text:
        raise Rejection(f"{what} is not known; give one with -ip", Reason.NO_ADDRESS)
    address = ip_address(text)
    if address is None:
        wanted = "an IP address that clients can connect to"
        raise Rejection(f"{what} is {shown(text)!r}, and not {wanted}")
    return address


def check_name(text: str, key: str) -> None:
    """Reject a name or id that would lead to another place in a registry's paths."""
    check_text(text, key, MAX_NAME, "a value")
    if any(segment in (".", "..") for segment in text.split("/")):
        raise Rejection(f"{shown(key)} has a path segment '.' or '..'")


def check_text(text: str, key: str, limit: int, what: str) -> None:
    """Reject text with more than `limit` bytes of UTF-8, or unprintable text, under `key`."""
    if size(text) > limit:
        raise Rejection(f"{shown(key)} has {what} of over {limit} bytes")
    if unprintable(text):
        raise Rejection(f"{shown(key)} has control characters")


def size(text: str) -> int:
    """How many bytes of UTF-8 any text has."""
    return len(text.encode(errors="replace"))


def shown(text: str) -> str:
    """Untrusted text, made fit for one log line."""
    short = text if len(text) <= 80 else text[:79] + "…"
    return ascii(short) if unprintable(short) else short
