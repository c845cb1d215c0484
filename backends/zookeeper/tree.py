"""Reads, watches and writes nodes below a base path, and remembers them.

A look costs by the nodes of this host. It reads what nobody would tell us about: a key where no
node of ours stands, and a node that changed since the last look. Watches tell of all others.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from kazoo.client import KazooClient, TransactionRequest
from kazoo.exceptions import NoNodeError
from kazoo.protocol.states import ZnodeStat

from registrator.model import Actual, Entry, Identity, Mark

from ..common.batches import chunks
from .nodes import Node, above, failure, read_node, transactions
from .session import Session

# The number of requests for nodes that wait for an answer at the same time. Each takes memory. At a
# host with thousands of services, that would be most of the agent's memory.
AT_ONCE = 1000


class Tree:
    """The nodes of this owner and those at the keys of the last look, by path, as last seen.

    `keys` are those keys.
    """

    def __init__(self, session: Session, identity: Identity) -> None:
        self.nodes: dict[str, Node] = {}
        self.keys: Collection[str] = ()
        self._session = session
        self._identity = identity
        # Whether these persistent nodes exist, as far as we know.
        self._parents: dict[str, bool] = {}

    def look(
        self, client: KazooClient, keys: Collection[str], held: Collection[str] | None
    ) -> None:
        """Bring up to date what stands at `keys`, and the nodes of this owner that are known.

        `held` are all nodes of our own session. None if the server cannot tell them.
        """
        own = {path for path, node in self.nodes.items() if node.session == self._session.id}
        if held is None:
            # Nobody tells which of them stand. So each is asked for.
            changed = self._altered(client, own.difference(self._session.unwatched(own)))
        else:
            changed = own.difference(held)
        changed |= self.watch(client, own - changed)
        ours = {path for path, node in self.nodes.items() if node.entry.mark is Mark.OURS}
        known = ours.difference(changed, self._session.unwatched(ours))
        due = ours.union(keys, held or ()) - known
        self._find_parents(client, [key for key in keys if key in due])
        self.read(client, due)
        self.keys = frozenset(keys)
        self._drop_others()
        self.watch_ours(client, due)

    def add(self, client: KazooClient, paths: Iterable[str]) -> None:
        """Read these nodes too, and keep those of this owner."""
        for some in chunks([path for path in paths if path not in self.nodes], AT_ONCE):
            self.read(client, some)
            self._drop_others()
            self.watch_ours(client, some)

    def _drop_others(self) -> None:
        for path in [*self.nodes]:
            if path not in self.keys and self.nodes[path].entry.mark is not Mark.OURS:
                del self.nodes[path]

    def _find_parents(self, client: KazooClient, keys: Iterable[str]) -> None:
        """Find out which nodes above these exist. One that we may not see does."""
        for some in chunks(tuple(above(keys)), AT_ONCE):
            found = self._session.gather(client.exists_async(path) for path in some)
            self._parents |= {
                path: stat is not None for path, stat in zip(some, found, strict=True)
            }

    def read(self, client: KazooClient, paths: Iterable[str]) -> None:
        """Read these nodes again."""
        for some in chunks(tuple(paths), AT_ONCE):
            found = self._session.gather(client.get_async(path) for path in some)
            for path, answer in zip(some, found, strict=True):
                self._took(path, answer)

    def watch(self, client: KazooClient, paths: Iterable[str]) -> set[str]:
        """Watch known nodes that are not watched yet. Returns those that have changed."""
        changed = set()
        for some in chunks(self._session.unwatched(paths), AT_ONCE):
            for path, stat in self._session.watch(client, some).items():
                if isinstance(stat, Exception):
                    self._session.unwatch([path])
                elif not self._is_as_known(path, stat):
                    changed.add(path)
        self._session.unwatch(changed)
        return changed

    def _altered(self, client: KazooClient, paths: Iterable[str]) -> set[str]:
        """Look at nodes that are watched. Returns those that are not as they are known.

        It leaves no watch: kazoo would keep each one until the node changes.
        """
        altered = set()
        for some in chunks(tuple(paths), AT_ONCE):
            stats = self._session.gather(client.exists_async(path) for path in some)
            for path, stat in zip(some, stats, strict=True):
                if isinstance(stat, Exception) or not self._is_as_known(path, stat):
                    altered.add(path)
        self._session.unwatch(altered)
        return altered

    def watch_ours(self, client: KazooClient, paths: Iterable[str]) -> None:
        """Wake once when any of these nodes changes or goes, if it is ours."""
        ours = (p for p in paths if p in self.nodes and self.nodes[p].entry.mark is Mark.OURS)
        if self.watch(client, ours):
            self._session.wake()

    def _is_as_known(self, path: str, stat: ZnodeStat | None) -> bool:
        if stat is None:
            return False
        node = self.nodes[path]
        same = (node.session, node.version) == (stat.ephemeralOwner, stat.version)
        return same and node.made in (0, stat.czxid)

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
        keys = [key for key, entry in todo.items() if entry]
        if any(path not in self._parents for path in above(keys)):
            self._find_parents(client, keys)
        batches = [*transactions(todo)] if together else [{key: todo[key]} for key in todo]
        made: set[str] = set()
        failed: dict[str, Exception] = {}
        for some in chunks(batches, AT_ONCE // 100 if together else AT_ONCE):
            answers = self._session.gather(self._send(client, batch, made) for batch in some)
            for batch, answer in zip(some, answers, strict=True):
                error = failure(answer)
                for key, entry in batch.items():
                    if error is None:
                        self._wrote(key, entry)
                    else:
                        failed[key] = error
        return failed

    def _send(self, client: KazooClient, batch: Mapping[str, Entry | None], made: set[str]) -> Any:
        """Send one transaction, with the parents that do not exist and that nobody `made` yet."""
        transaction = client.transaction()
        for path in above(key for key, entry in batch.items() if entry):
            if not self._parents[path] and path not in made:
                transaction.create(path)
                made.add(path)
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
        self._parents |= dict.fromkeys(above([key]), True)
        session = self._session.id
        version = node.version + 1 if node is not None and node.session == session else 0
        service = entry.service
        written = Actual(entry.content, id=service.id, address=service.address)
        self.nodes[key] = Node(written, session, version)

    def make_parents(self, client: KazooClient, keys: Collection[str]) -> None:
        """Make the persistent nodes above these, if they do not exist.

        Each is made by itself, since many hosts make the same nodes at the same moment. Errors do
        not matter here. If a parent is missing, the write of the node under it fails.
        """
        self._find_parents(client, keys)
        missing = [path for path in above(keys) if not self._parents[path]]
        self._session.gather(client.create_async(path) for path in missing)
        self._parents |= dict.fromkeys(missing, True)

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
                self._parents[path] = False
