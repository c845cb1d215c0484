"""Transactions of Consul's key-value store: the operations of a write, and how many fit in one.

A write is guarded by what was last seen of its key, so that the transaction fails where somebody
else was faster.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..common.batches import batches

# Consul's limits: 64 operations, of which a write takes two, and 512 KiB for the whole request.
MOST_WRITES = 32
MOST_BYTES = 480 * 1024

MOVED_ON = re.compile(r"stale|held|exist|failed (index|session) check|session")
"""Found in what Consul says of an operation whose key changed since it was seen."""


class Stored(NamedTuple):
    """What was last seen of a key.

    `modified` is Consul's index of its last change; `session` is empty where none holds it.
    """

    modified: int
    session: str
    flags: int
    value: str


class Write(NamedTuple):
    """A key to set, or to delete where `value` is None; `address` is the service's."""

    key: str
    value: str | None = None
    address: str = ""


def operations(
    write: Write, seen: Stored | None, flags: int, session: str
) -> Sequence[Mapping[str, Any]]:
    """What to put in the transaction; with `session` the key is locked by it.

    A key that another session holds is released first: in one transaction nobody sees it go.
    """
    key, index = write.key, seen.modified if seen else 0
    if write.value is None:
        return [_operation("delete-cas", key, Index=index)]
    value = base64.b64encode(write.value.encode()).decode()
    pair = {"Value": value, "Flags": flags}
    release = []
    if seen and seen.session not in ("", session):
        release = [_operation("unlock", key, Session=seen.session)]
    if not session:
        if release:
            return [*release, _operation("set", key, **pair)]
        return [_operation("cas", key, Index=index, **pair)]
    lock = _operation("lock", key, Session=session, **pair)
    if release:
        return [*release, lock]
    if seen is None:
        return [_operation("check-not-exists", key), lock]
    return [_operation("check-index", key, Index=index), lock]


def _operation(verb: str, key: str, **fields: Any) -> Mapping[str, Any]:
    return {"KV": {"Verb": verb, "Key": key, **fields}}


def portions(writes: Sequence[Write]) -> Iterator[Sequence[Write]]:
    """The writes in order, in portions that fit a transaction."""
    return batches(writes, _weigh, most_items=MOST_WRITES, most_bytes=MOST_BYTES)


def _weigh(write: Write) -> int:
    # JSON takes up to six bytes a character, base64 four for three.
    return 12 * len(write.key) + 400 + 4 * len((write.value or "").encode()) // 3
