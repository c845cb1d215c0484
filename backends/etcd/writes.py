"""One write to etcd as data: which keys are legal, and how many writes fit a transaction."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from registrator.backend import Rejected
from registrator.model import unprintable

from ..common.batches import batches

# By default, etcd takes 128 operations and 1.5 MiB per transaction.
MAX_OPERATIONS = 128
MAX_BYTES = 512 * 1024
MAX_VALUE = 256 * 1024
MAX_KEY = 4096


class Write(NamedTuple):
    """A key to set, or to delete if `value` is None. `address` is the service's."""

    key: bytes
    value: bytes | None = None
    address: str = ""


def check(what: str, text: str, *, nested: bool = False) -> None:
    """Raise `Rejected` unless `text` is a legal part of a key. `nested` allows several parts."""
    parts = text.split("/") if nested else [text]
    if any(part in ("", ".", "..") or "/" in part for part in parts):
        must = "be a path without empty parts" if nested else "be neither empty nor a path"
        raise Rejected(f"the {what} {text[:80]!r} must {must}, and have no part '.' or '..'")
    if unprintable(text):
        raise Rejected(f"the {what} {text[:80]!r} has control characters")
    if len(text.encode()) > MAX_KEY:
        raise Rejected(f"the {what} {text[:80]!r}… has more than {MAX_KEY} bytes")


def transactions(writes: Sequence[Write]) -> Iterator[Sequence[Write]]:
    """The writes in order, as many as fit one transaction at a time."""
    return batches(writes, _weigh, max_items=MAX_OPERATIONS, max_bytes=MAX_BYTES)


def _weigh(write: Write) -> int:
    return 2 * len(write.key) + len(write.value or b"") + 64
