"""Nodes and transactions of the ZooKeeper backend, without a connection."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from kazoo.exceptions import (
    BadVersionError,
    NoAuthError,
    NoChildrenForEphemeralsError,
    NodeExistsError,
    NoNodeError,
    NotEmptyError,
    QuotaExceededError,
    RolledBackError,
    RuntimeInconsistency,
)

from registrator.model import Entry, Mark, Service

from ..common.batches import batches

T = TypeVar("T")

# A packet of over 1 MiB (jute.maxbuffer) ends the connection.
MOST_BYTES, MOST_OPERATIONS = 256 * 1024, 500

# What an operation's node, ACL and header take beside its path and data, at most.
OVERHEAD = 256

CHANGED = (BadVersionError, NodeExistsError, NoNodeError)
REASONS = {
    NoAuthError: "ZooKeeper's ACL does not allow it",
    NoChildrenForEphemeralsError: "its parent is somebody's ephemeral node",
    NotEmptyError: "somebody made nodes under it",
    QuotaExceededError: "a quota of ZooKeeper is used up",
}

INSTANCE = re.compile(r"(.+?):\d+(:udp)?")


@dataclass(frozen=True, slots=True)
class Node:
    """What was last seen of a node; `session` is 0 for a persistent one."""

    content: str
    mark: Mark
    session: int
    version: int
    id: str = ""
    address: str = ""


def record(service: Service, owner: str) -> dict[str, Any]:
    """The JSON of a node: gliderlabs/registrator's fields in its order, then ours."""
    return {
        "Name": service.name,
        "IP": service.address,
        "PublicPort": service.port,
        "PrivatePort": service.private_port,
        "ContainerID": service.container_hostname,
        "Tags": [*service.tags],
        "Attrs": {**service.attrs},
        "ID": service.id,
        "Owner": owner,
    }


def read_node(path: str, data: bytes, stat: Any, owner: str) -> Node:
    """A node as it was read. Anybody may have written it, and anything."""
    content = data.decode(errors="replace")
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        fields = {}
    name = INSTANCE.fullmatch(path.rpartition("/")[2])
    address = str(fields.get("IP") or (name[1] if name else ""))
    marked = fields.get("Owner")
    if marked is None:
        return Node(content, Mark.NONE, stat.ephemeralOwner, stat.version, "", address)
    mark = Mark.OURS if marked == owner else Mark.OTHERS
    shown = str(fields.get("ID", ""))
    return Node(content, mark, stat.ephemeralOwner, stat.version, shown, address)


def parent_of(path: str) -> str:
    """``/a`` for ``/a/b``; empty for ``/a``."""
    return path.rpartition("/")[0]


def above(paths: Iterable[str]) -> dict[str, None]:
    """Every node above these, upper ones first: ``/a``, ``/a/b`` for ``/a/b/c``."""
    found: dict[str, None] = {}
    for path in paths:
        parts = path.split("/")
        found |= dict.fromkeys("/".join(parts[:n]) for n in range(2, len(parts)))
    return found


def in_batches(todo: Mapping[str, Entry | None]) -> Iterator[dict[str, Entry | None]]:
    """Parts of `todo` that each fit into one transaction; an entry takes up to three operations."""
    limits = {"most_items": MOST_OPERATIONS, "most_bytes": MOST_BYTES}
    return map(dict, batches([*todo.items()], _weigh, **limits))


def _weigh(item: tuple[str, Entry | None]) -> int:
    key, entry = item
    # The key counts for deleting and creating the node and for its parent.
    return 3 * (len(key.encode()) + OVERHEAD) + len(entry.content.encode() if entry else b"")


def portions(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The items in order, so many at a time."""
    return (items[start : start + size] for start in range(0, len(items), size))


def failure(answer: Any) -> Exception | None:
    """Why a transaction was not carried out: of its operations' errors the one to blame."""
    if isinstance(answer, Exception):
        return answer
    errors = [result for result in answer if isinstance(result, Exception)]
    blamed = [e for e in errors if not isinstance(e, RolledBackError | RuntimeInconsistency)]
    return next(iter(blamed or errors), None)


def reason_for(error: Exception) -> str:
    """What the operator reads of a refused entry."""
    return REASONS.get(type(error)) or f"ZooKeeper refuses it ({type(error).__name__})"
