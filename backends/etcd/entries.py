"""Entries in etcd, without a connection: their keys and values, and how many fit a transaction."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from registrator.backend import Rejected

from ..common.batches import batches

# etcd's default limits are 128 operations and 1.5 MiB a transaction.
MAX_OPERATIONS = 128
MAX_BYTES = 512 * 1024
MAX_VALUE = 256 * 1024
MAX_KEY = 4096


class Write(NamedTuple):
    """A key to set, or to delete where `value` is None."""

    key: bytes
    value: bytes | None = None
    address: str = ""


def check(what: str, text: str, *, nested: bool = False) -> None:
    """Raise `Rejected` unless `text` can be part of a key, or several parts where `nested`."""
    parts = text.split("/") if nested else [text]
    if any(part in ("", ".", "..") or "/" in part for part in parts):
        raise Rejected(f"{what} {text[:80]!r} is no legal part of a key")
    if any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in text):
        raise Rejected(f"{what} {text[:80]!r} has a control character")
    if len(text.encode()) > MAX_KEY:
        raise Rejected(f"{what} {text[:80]!r}… has more than {MAX_KEY} bytes")


def address_in(value: bytes) -> str:
    """The address that an entry's value names; empty where it names none."""
    document = json_in(value)
    if document:
        return str(document.get("address") or document.get("host") or "")
    return value.decode("utf-8", "replace").rpartition(":")[0].strip("[]")


def json_in(value: bytes) -> dict[str, Any]:
    """The JSON object that a value is; empty where it is none."""
    if not value.startswith(b"{"):
        return {}
    try:
        document = json.loads(value)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def portions(writes: Sequence[Write]) -> Iterator[Sequence[Write]]:
    """The writes in order, in portions that fit a transaction."""
    return batches(writes, _weigh, most_items=MAX_OPERATIONS, most_bytes=MAX_BYTES)


def _weigh(write: Write) -> int:
    return 2 * len(write.key) + len(write.value or b"") + 64
