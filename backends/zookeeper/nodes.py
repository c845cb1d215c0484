"""Nodes of ZooKeeper: their JSON, their paths, their transactions. Pure functions."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kazoo import exceptions as errors

from registrator.model import NO_FACTS, Actual, Entry, Identity, Mark, Service

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
    """A node as it was last seen, and the entry in it. `session` is 0 for a persistent one.

    `made` is the number of the transaction that made the node, 0 if it is one of our own.
    """

    entry: Actual
    session: int
    version: int
    made: int = 0


def record(service: Service, identity: Identity) -> dict[str, Any]:
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
        "Owner": identity.owner,
        "Host": identity.hostname,
    }


def read_node(path: str, data: bytes, stat: Any, identity: Identity, session: int) -> Node:
    """A node as it was read. Anybody may have written anything to it.

    What hangs on our own `session` is ours. ZooKeeper says so itself, whatever the content is.
    """
    content = data.decode(errors="replace")
    fields = json_in(content)
    name = INSTANCE.fullmatch(path.rpartition("/")[2])
    address = str(fields.get("IP") or (name[1] if name else ""))
    holder, host = stat.ephemeralOwner, str(fields.get("Host") or "")
    mark = identity.mark(str(fields.get("Owner") or ""), host)
    if session and holder == session:
        mark = Mark.OURS
    shown = str(fields.get("ID") or "") if mark is not Mark.NONE else ""
    facts = _facts(fields) if mark in (Mark.NONE, Mark.UNTOLD) else NO_FACTS
    twin = host if mark is Mark.TWIN else ""
    entry = Actual(content, mark, id=shown, address=address, host=twin, facts=facts)
    return Node(entry, holder, stat.version, stat.czxid)


def _facts(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """The facts of a service in the original's node. None means that the field is missing."""
    return {
        "name": fields.get("Name"),
        "port": fields.get("PublicPort"),
        "private_port": fields.get("PrivatePort"),
        "container_hostname": fields.get("ContainerID"),
        "tags": fields.get("Tags"),
    }


def is_service(path: str, base: str) -> bool:
    """Whether a path has the form of a service's node below the base."""
    name, _, instance = path.removeprefix(f"{base}/").rpartition("/")
    inside = path.startswith(f"{base}/") and name and "/" not in name
    return bool(inside and INSTANCE.fullmatch(instance))


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
    """The error that made a transaction fail. None if it succeeded."""
    if isinstance(answer, Exception):
        return answer
    found = [result for result in answer if isinstance(result, Exception)]
    effects = (errors.RolledBackError, errors.RuntimeInconsistency)
    causes = [error for error in found if not isinstance(error, effects)]
    return next(iter(causes or found), None)


def reason_for(error: Exception) -> str:
    """Why ZooKeeper refuses an entry, for the operator."""
    return REASONS.get(type(error)) or f"ZooKeeper refuses it ({type(error).__name__})"
