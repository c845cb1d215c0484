"""Reads, watches and writes the nodes below a base path, and remembers them, whoever owns them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kazoo.client import KazooClient, TransactionRequest
from kazoo.exceptions import NoAuthError, NoNodeError
from kazoo.protocol.states import ZnodeStat

from registrator.backend import Unavailable
from registrator.model import Actual, Entry, Identity, Mark

from ..common.batches import chunks
from .nodes import INSTANCE, Node, above, failure, parent_of, read_node, transactions
from .session import Session

# The number of requests for nodes that wait for an answer at the same time. Each takes memory. At a
# host with thousands of services, that would be most of the agent's memory.
AT_ONCE = 1000


class Tree:
    """The nodes two levels below the base path. `nodes` holds them by path, as last seen."""

    def __init__(self, session: Session, base: str, identity: Identity) -> None:
        self.nodes: dict[str, Node] = {}
        self._session = session
        self._base = base
        self._identity = identity
        # The persistent nodes that are known to exist.
        self._parents: set[str] = set()

    def list(self, client: KazooClient) -> None:
        """Read every node whose name has our form. Raises `Unavailable` if the base is closed."""
        services = self._services(client)
        instances = self._children(client, services)
        paths = [
            f"{service}/{name}"
            for service, found in zip(services, instances, strict=True)
            for name in found or ()
            if INSTANCE.fullmatch(name)
        ]
        # Somebody else's node does not show its children, but we may read those that we made.
        closed = {s for s, found in zip(services, instances, strict=True) if found is None}
        paths += [path for path in self.nodes if parent_of(path) in closed]
        self.nodes = {path: self.nodes[path] for path in paths if path in self.nodes}
        self.read(client, paths)

    def _services(self, client: KazooClient) -> Sequence[str]:
        """The paths of the nodes under the base path. None if there is no base yet."""
        top = self._base or "/"
        # Without a sync, a member may answer with an older state than others know already.
        _, names = self._session.gather([client.sync_async(top), client.get_children_async(top)])
        if isinstance(names, NoAuthError):
            raise Unavailable(
                f"{top} may not be read; give this agent's user the rights to read and create"
                " there (setAcl in zkCli.sh), or choose another base"
            )
        if isinstance(names, Exception):
            self._parents = set()
            return ()
        services = [f"{self._base}/{name}" for name in names if self._base or name != "zookeeper"]
        self._parents = {*above([f"{self._base}/"]), *services}
        return services

    def _children(self, client: KazooClient, paths: Sequence[str]) -> Sequence[Any]:
        """The names of each node's children; None if it does not exist or must not be read."""
        found = self._session.gather(client.get_children_async(path) for path in paths)
        return [None if isinstance(names, Exception) else names for names in found]

    def read(self, client: KazooClient, paths: Iterable[str]) -> None:
        """Read these nodes again."""
        for some in chunks(tuple(paths), AT_ONCE):
            found = self._session.gather(client.get_async(path) for path in some)
            for path, answer in zip(some, found, strict=True):
                self._took(path, answer)

    def watch(self, client: KazooClient, paths: Sequence[str]) -> None:
        """Wake once when any of these nodes changes or goes."""
        for some in chunks(paths, AT_ONCE):
            self._session.watch(client, some)

    def _took(self, path: str, answer: Any) -> None:
        """Note a node that was read, or the error in its place."""
        if isinstance(answer, NoNodeError):
            self.nodes.pop(path, None)
        elif isinstance(answer, Exception):
            self.nodes[path] = Node(Actual("", Mark.OTHERS), 0, 0)
        else:
            data, stat = answer
            read = read_node(path, data, stat, self._identity, self._session.id)
            # An equal node is not replaced: others hold its parts, and two copies take memory.
            if self.nodes.get(path) != read:
                self.nodes[path] = read

    def commit(
        self, client: KazooClient, todo: Mapping[str, Entry | None], *, together: bool
    ) -> dict[str, Exception]:
        """Write in few transactions, or in one per node. Returns the errors by key."""
        self._session.unwatch(todo)
        batches = [*transactions(todo)] if together else [{key: todo[key]} for key in todo]
        there = set(self._parents) if together else None
        failed: dict[str, Exception] = {}
        for some in chunks(batches, AT_ONCE // 100 if together else AT_ONCE):
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
        """Send one transaction, with the parents that are not `there`; None means no parents."""
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
        written = Actual(entry.content, id=service.id, address=service.address)
        self.nodes[key] = Node(written, session, version)

    def make_parents(self, client: KazooClient, keys: Iterable[str]) -> None:
        """Make the persistent nodes above these, if they do not exist.

        Errors do not matter here. ZooKeeper checks the ACL before it says that a node exists. If a
        parent is missing, the write of the node under it fails.
        """
        self._session.gather(client.create_async(path) for path in above(keys))

    def prune(self, client: KazooClient, parents: Iterable[str]) -> None:
        """Remove the nodes of services that have no child any more. A child keeps its parent.

        A node with data belongs to somebody else, whatever its name. The version protects a node
        that gets data meanwhile.
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
