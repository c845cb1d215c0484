"""The tree of nodes below a base path: read, watched and written, without asking whose they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kazoo.client import KazooClient, TransactionRequest
from kazoo.exceptions import NoNodeError
from kazoo.protocol.states import ZnodeStat

from registrator.model import Entry, Mark

from .nodes import INSTANCE, Node, above, failure, in_batches, portions, read_node
from .session import Session

# Nodes asked for, or written one by one, before the first answer is waited for: what is on its way
# takes memory, which at a host with thousands of services would be most of the agent's.
AT_ONCE = 1000


class Tree:
    """What was last seen of the nodes two levels below the base path, in `nodes` by path."""

    def __init__(self, session: Session, base: str, owner: str) -> None:
        self.nodes: dict[str, Node] = {}
        self._session = session
        self._base = base
        self._owner = owner
        # The persistent nodes that stand, as far as it is known.
        self._parents: set[str] = set()

    def list(self, client: KazooClient) -> None:
        """Read every node whose name has the form of ours."""
        # A member may lag behind what others have been told already.
        synced = client.sync_async(self._base or "/")
        names = self._children(client, [self._base or "/"])
        self._session.gather([synced])
        services = [f"{self._base}/{name}" for name in names[0] or () if self._is_service(name)]
        instances = self._children(client, services)
        paths = [
            f"{service}/{name}"
            for service, found in zip(services, instances, strict=True)
            for name in found or ()
            if INSTANCE.fullmatch(name)
        ]
        self.nodes = {path: self.nodes[path] for path in paths if path in self.nodes}
        self._parents = set() if names[0] is None else {*above([f"{self._base}/"]), *services}
        self.read(client, paths)

    def _is_service(self, name: str) -> bool:
        return bool(self._base) or name != "zookeeper"

    def _children(self, client: KazooClient, paths: Sequence[str]) -> Sequence[Any]:
        """The children's names of each; None for what is not there or may not be read."""
        found = self._session.gather(client.get_children_async(path) for path in paths)
        return [None if isinstance(names, Exception) else names for names in found]

    def read(self, client: KazooClient, paths: Iterable[str]) -> None:
        """Bring what is known of these nodes up to date."""
        for some in portions(tuple(paths), AT_ONCE):
            found = self._session.gather(client.get_async(path) for path in some)
            for path, answer in zip(some, found, strict=True):
                self._took(path, answer)

    def watch(self, client: KazooClient, paths: Sequence[str]) -> None:
        """Wake once when any of these nodes changes or goes."""
        for some in portions(paths, AT_ONCE):
            self._session.watch(client, some)

    def _took(self, path: str, answer: Any) -> None:
        """Take in what was read of a node, or why it was not."""
        if isinstance(answer, NoNodeError):
            self.nodes.pop(path, None)
        elif isinstance(answer, Exception):
            self.nodes[path] = Node("", Mark.OTHERS, 0, 0)
        else:
            data, stat = answer
            read = read_node(path, data, stat, self._owner)
            # The same again stays the one that is kept already, of which others hold parts.
            if self.nodes.get(path) != read:
                self.nodes[path] = read

    def commit(
        self, client: KazooClient, todo: Mapping[str, Entry | None], *, together: bool
    ) -> dict[str, Exception]:
        """Write each batch, or each node, in a transaction; returns the errors by key."""
        self._session.unwatch(todo)
        batches = [*in_batches(todo)] if together else [{key: todo[key]} for key in todo]
        there = set(self._parents) if together else None
        failed: dict[str, Exception] = {}
        for some in portions(batches, AT_ONCE // 100 if together else AT_ONCE):
            answers = self._session.gather(self._send(client, batch, there) for batch in some)
            for batch, answer in zip(some, answers, strict=True):
                error = failure(answer)
                for key, entry in batch.items():
                    if error is None:
                        self._wrote(key, entry)
                    else:
                        failed[key] = error
        return failed

    def _send(
        self, client: KazooClient, batch: Mapping[str, Entry | None], there: set[str] | None
    ) -> Any:
        """Send a batch in a transaction, with the parents that are not `there` (None: without)."""
        transaction = client.transaction()
        if there is not None:
            for path in above(key for key, entry in batch.items() if entry):
                if path not in there:
                    transaction.create(path)
                    there.add(path)
        for key, entry in batch.items():
            self._add(transaction, key, entry)
        return transaction.commit_async()

    def _add(self, transaction: TransactionRequest, key: str, entry: Entry | None) -> None:
        node = self.nodes.get(key)
        if node is not None and entry is not None and node.session == self._session.id:
            transaction.set_data(key, entry.content.encode(), node.version)
            return
        if node is not None:
            transaction.delete(key, node.version)
        if entry is not None:
            transaction.create(key, entry.content.encode(), ephemeral=True)

    def _wrote(self, key: str, entry: Entry | None) -> None:
        node = self.nodes.pop(key, None)
        if entry is None:
            return
        self._parents.update(above([key]))
        session = self._session.id
        version = node.version + 1 if node is not None and node.session == session else 0
        service = entry.service
        self.nodes[key] = Node(
            entry.content, Mark.OURS, session, version, service.id, service.address
        )

    def make_parents(self, client: KazooClient, keys: Iterable[str]) -> None:
        """Make the persistent nodes above these; what stands already is as good.

        No error counts: an ACL forbids to make a node before it is said to be there already, and
        where one is not there the node under it fails.
        """
        self._session.gather(client.create_async(path) for path in above(keys))

    def prune(self, client: KazooClient, parents: Iterable[str]) -> None:
        """Remove services' nodes that have no child any more; a child keeps its parent.

        One with data is somebody else's, whatever a container's service is called; the version
        keeps one to which data come meanwhile.
        """
        parents = tuple(parents)
        stats = self._session.gather(client.exists_async(path) for path in parents)
        bare = {
            path: stat.version
            for path, stat in zip(parents, stats, strict=True)
            if isinstance(stat, ZnodeStat) and not (stat.dataLength or stat.numChildren)
        }
        found = self._session.gather(client.delete_async(*each) for each in bare.items())
        for path, answer in zip(bare, found, strict=True):
            if not isinstance(answer, Exception):
                self._parents.discard(path)
