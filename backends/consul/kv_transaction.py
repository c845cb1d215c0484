"""Transactions of Consul's key-value store: their operations, and how many fit into one.

Each write checks that its key is as it was last seen. So the transaction fails if somebody else
changed the key meanwhile.
"""

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..common.batches import batches

# Consul takes 64 operations, and 512 KiB for the whole request. A write needs up to two
# operations. Two more, and the rest of the bytes, are for the manifest (see `kv_manifest`).
MAX_OPERATIONS = 64
MAX_WRITES = 31
MAX_BYTES = 440 * 1024

MOVED_ON = re.compile(r"stale|held|exist|failed (index|session) check|session")
"""Matches Consul's error for an operation whose key changed since it was last seen."""

Operation = Mapping[str, Any]


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
        """The key in a row of a transaction's answer. A row of a check has no value."""
        value = base64.b64decode(row["Value"] or "").decode("utf-8", "backslashreplace")
        return cls(row["ModifyIndex"], row.get("Session") or "", row.get("Flags") or 0, value)


class Write(NamedTuple):
    """A key to set, or to delete if `value` is None.

    `shown` is the address and port of the service, as gliderlabs/registrator writes them.
    """

    key: str
    value: str | None = None
    shown: str = ""


def operation(verb: str, key: str, **fields: Any) -> Operation:
    """One operation of a transaction."""
    return {"KV": {"Verb": verb, "Key": key, **fields}}


def check(key: str, seen: Stored | None) -> Operation:
    """The operation that fails if a key is no longer as it was seen. None means that it was free.

    It carries no value.
    """
    if seen is None:
        return operation("check-not-exists", key)
    return operation("check-index", key, Index=seen.modified)


def put(key: str, value: str, seen: Stored | None, flags: int = 0) -> Operation:
    """The operation that sets a key which is as it was seen."""
    index = seen.modified if seen else 0
    return operation("cas", key, Index=index, **_pair(value, flags))


def operations(write: Write, seen: Stored | None, flags: int, session: str) -> Sequence[Operation]:
    """The operations of one write. If `session` is given, it locks the key.

    If another session holds the key, the transaction releases it first. Nobody sees it missing.
    """
    key, value = write.key, write.value
    if value is None:
        return [operation("delete-cas", key, Index=seen.modified if seen else 0)]
    write_it = operation("set", key, **_pair(value, flags))
    if session:
        write_it = operation("lock", key, Session=session, **_pair(value, flags))
    if seen and seen.session not in ("", session):
        return [operation("unlock", key, Session=seen.session), write_it]
    if not session:
        return [put(key, value, seen, flags)]
    return [check(key, seen), write_it]


def _pair(value: str, flags: int) -> Mapping[str, Any]:
    return {"Value": base64.b64encode(value.encode()).decode(), "Flags": flags}


def transactions(writes: Sequence[Write]) -> Iterator[Sequence[Write]]:
    """The writes in order, as many as fit one transaction at a time."""
    return batches(writes, _weigh, max_items=MAX_WRITES, max_bytes=MAX_BYTES)


def _weigh(write: Write) -> int:
    # JSON takes up to six bytes a character, and base64 takes four bytes for three.
    return 12 * len(write.key) + 400 + 4 * len((write.value or "").encode()) // 3


def questions(asked: Sequence[Operation]) -> Iterator[Sequence[Operation]]:
    """Operations without a value in order, as many as fit one transaction at a time."""
    return batches(
        asked,
        lambda each: 12 * len(each["KV"]["Key"]) + 100,
        max_items=MAX_OPERATIONS,
        max_bytes=MAX_BYTES,
    )
