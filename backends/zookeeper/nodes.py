"""Nodes of ZooKeeper: their JSON, their paths, their transactions. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kazoo import exceptions as errors

from registrator.model import Entry, Mark, Service

from ..common.batches import batches
from ..common.values import json_in

# A packet of more than 1 MiB (jute.maxbuffer) ends the connection.
MAX_BYTES, MAX_OPERATIONS = 256 * 1024, 500

# The most that the node, ACL and header of an operation take, besides its path and data.
OVERHEAD = 256

CHANGED = (errors.BadVersionError, errors.NodeExistsError, errors.NoNodeError)
REASONS = {
    errors.NoAuthError: "ZooKeeper's ACL does not allow it",
    errors.NoChildrenForEphemeralsError: "its parent is somebody's ephemeral node",
    errors.NotEmptyError: "somebody made nodes under it",
    errors.QuotaExceededError: "a quota of ZooKeeper is used up",
}

INSTANCE = re.compile(r"(.+?):\d+(:udp)?")


@dataclass(frozen=True, slots=True)
class Node:
    """A node as it was last seen. `session` is 0 for a persistent one."""

    content: str
    mark: Mark
    session: int
    version: int
    id: str = ""
    address: str = ""


def record(service: Service, owner: str) -> dict[str, Any]:
    """The JSON of a node: gliderlabs/registrator's fields in its order, then our own."""
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
    """A node as it was read. Anybody may have written anything to it."""
    content = data.decode(errors="replace")
    fields = json_in(content)
    name = INSTANCE.fullmatch(path.rpartition("/")[2])
    address = str(fields.get("IP") or (name[1] if name else ""))
    marked = fields.get("Owner")
    if marked is None:
        return Node(content, Mark.NONE, stat.ephemeralOwner, stat.version, "", address)
    mark = Mark.OURS if marked == owner else Mark.OTHERS
    shown = str(fields.get("ID", ""))
    return Node(content, mark, stat.ephemeralOwner, stat.version, shown, address)


def parent_of(path: str) -> str:
    """``/a`` for ``/a/b``. Empty for ``/a``."""
    return path.rpartition("/")[0]


def above(paths: Iterable[str]) -> dict[str, None]:
    """Every node above these, upper ones first: ``/a``, ``/a/b`` for ``/a/b/c``."""
    found: dict[str, None] = {}
    for path in paths:
        parts = path.split("/")
        found |= dict.fromkeys("/".join(parts[:n]) for n in range(2, len(parts)))
    return found


def transactions(todo: Mapping[str, Entry | None]) -> Iterator[dict[str, Entry | None]]:
    """Parts of `todo` that each fit one transaction. An entry takes up to three operations."""
    items = [*todo.items()]
    return map(dict, batches(items, _weigh, max_items=MAX_OPERATIONS, max_bytes=MAX_BYTES))


def _weigh(item: tuple[str, Entry | None]) -> int:
    key, entry = item
    # The key counts three times: to delete the node, to create it, and to create its parent.
    return 3 * (len(key.encode()) + OVERHEAD) + len(entry.content.encode() if entry else b"")


def failure(answer: Any) -> Exception | None:
    """The error that made a transaction fail; None if it succeeded."""
    if isinstance(answer, Exception):
        return answer
    found = [result for result in answer if isinstance(result, Exception)]
    effects = (errors.RolledBackError, errors.RuntimeInconsistency)
    causes = [error for error in found if not isinstance(error, effects)]
    return next(iter(causes or found), None)


def reason_for(error: Exception) -> str:
    """Why ZooKeeper refuses an entry, for the operator."""
    return REASONS.get(type(error)) or f"ZooKeeper refuses it ({type(error).__name__})"
