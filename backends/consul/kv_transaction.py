"""Transactions of Consul's key-value store: the operations of a write, and how many fit.

Each write checks that its key is as it was last seen. So the transaction fails if somebody else
changed the key meanwhile.
"""

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..common.batches import batches

# Consul takes 64 operations, two per write, and 512 KiB for the whole request.
MAX_WRITES = 32
MAX_BYTES = 480 * 1024

MOVED_ON = re.compile(r"stale|held|exist|failed (index|session) check|session")
"""Matches Consul's error for an operation whose key changed since it was last seen."""


class Stored(NamedTuple):
    """A key as it was last seen.

    `modified` is Consul's index of its last change. `session` is empty if no session holds it.
    """

    modified: int
    session: str
    flags: int
    value: str

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> "Stored":
        """The key in a row of Consul's answer."""
        value = (row.get("Value") or b"").decode("utf-8", "backslashreplace")
        return cls(row["ModifyIndex"], row.get("Session") or "", row.get("Flags") or 0, value)


class Write(NamedTuple):
    """A key to set, or to delete if `value` is None."""

    key: str
    value: str | None = None


def operations(
    write: Write, seen: Stored | None, flags: int, session: str
) -> Sequence[Mapping[str, Any]]:
    """The operations of one write. If `session` is given, it locks the key.

    If another session holds the key, the transaction releases it first. Nobody sees it missing.
    """
    key, index = write.key, seen.modified if seen else 0
    if write.value is None:
        return [_operation("delete-cas", key, Index=index)]
    value = base64.b64encode(write.value.encode()).decode()
    pair = {"Value": value, "Flags": flags}
    put = _operation("set", key, **pair)
    if session:
        put = _operation("lock", key, Session=session, **pair)
    if seen and seen.session not in ("", session):
        return [_operation("unlock", key, Session=seen.session), put]
    if not session:
        return [_operation("cas", key, Index=index, **pair)]
    if seen is None:
        return [_operation("check-not-exists", key), put]
    return [_operation("check-index", key, Index=index), put]


def _operation(verb: str, key: str, **fields: Any) -> Mapping[str, Any]:
    return {"KV": {"Verb": verb, "Key": key, **fields}}


def transactions(writes: Sequence[Write]) -> Iterator[Sequence[Write]]:
    """The writes in order, as many as fit one transaction at a time."""
    return batches(writes, _weigh, max_items=MAX_WRITES, max_bytes=MAX_BYTES)


def _weigh(write: Write) -> int:
    # JSON takes up to six bytes a character, and base64 takes four bytes for three.
    return 12 * len(write.key) + 400 + 4 * len((write.value or "").encode()) // 3
