"""Finds every service's node below the base, whoever made it.

This costs by the nodes of all hosts. The agent does it at its start only, and only if the records
do not tell what a former agent of this host has left.
"""

from collections.abc import Iterator

from kazoo.client import KazooClient

from ..common.batches import chunks
from .nodes import INSTANCE
from .session import Session

# The number of services whose nodes are named at the same time. Their names take memory.
SERVICES_AT_ONCE = 20


def every_node(session: Session, client: KazooClient, base: str) -> Iterator[list[str]]:
    """The paths in portions. A node that may not be read, or is gone, has no children."""
    (names,) = session.gather([client.get_children_async(base or "/")])
    if isinstance(names, Exception):
        return
    services = [f"{base}/{name}" for name in names if base or name != "zookeeper"]
    for some in chunks(services, SERVICES_AT_ONCE):
        found = session.gather(client.get_children_async(service) for service in some)
        yield [
            f"{service}/{name}"
            for service, children in zip(some, found, strict=True)
            for name in (() if isinstance(children, Exception) else children)
            if INSTANCE.fullmatch(name)
        ]
