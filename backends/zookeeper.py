"""ZooKeeper: an ephemeral node for every service, ``<base>/<name>/<ip>:<port>``, holding JSON.

URIs are ``zookeeper://[user:password@]host[:2181][,host…][/base]`` and ``zookeeper-tls://…``. The
layout is gliderlabs/registrator's, with two fields more at its end, ``ID`` and ``Owner``.

Options: ``session-timeout`` (seconds, 10 by default; the ensemble may allow less or more), and,
with a user, ``acl``: ``private`` (the default: nodes are that user's alone) or ``world-read``
(everybody may read them as well).

Environment: ``ZOOKEEPER_AUTH`` (``user:password``) or ``ZOOKEEPER_AUTH_FILE`` (a file with that)
where the URI has none; for TLS ``ZOOKEEPER_CACERT``, ``ZOOKEEPER_CERT`` and ``ZOOKEEPER_KEY``,
files in PEM.

A node lives as long as the session that made it. A service's node is persistent and goes with its
last child that is deregistered; it stays, empty, where the last child went with its session.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kazoo.client import KazooClient, TransactionRequest
from kazoo.exceptions import NoNodeError
from kazoo.protocol.states import ZnodeStat

from registrator.backend import Context, Rejected, Unavailable
from registrator.model import Actual, Entry, Mark, Plan, Service

from .zookeeper_config import base_path, illegal, settings
from .zookeeper_nodes import (
    CHANGED,
    INSTANCE,
    MOST_BYTES,
    OVERHEAD,
    Node,
    above,
    failure,
    in_batches,
    parent_of,
    portions,
    read_node,
    reason_for,
    record,
)
from .zookeeper_session import Session

log = logging.getLogger("registrator.zookeeper")

# Nodes asked for, or written one by one, before the first answer is waited for: what is on its way
# takes memory, which at a host with thousands of services would be most of the agent's.
AT_ONCE = 1000

# How often an entry is tried again that somebody else changed at the same moment.
ATTEMPTS = 5


class ZooKeeperBackend:
    """Keeps services as ephemeral nodes of one session over the whole ensemble.

    Several agents may serve one host. The nodes that a new backend finds at its first listing are
    taken to be of an agent that died, and become its own. From then on a node of this owner under
    another session is another agent's: it stands as that one wrote it, and is watched, so that it
    is put back when that agent dies.
    """

    def __init__(self, context: Context) -> None:
        chosen = settings(context.uri, context.environ)
        self._base = base_path(context.uri)
        self._owner = context.identity.owner
        self._session = Session(
            context.uri.servers(2181),
            seconds=chosen.session_timeout,
            deadline=context.timeout,
            tls=chosen.tls,
            credential=chosen.credential,
            acl=chosen.acl,
            wake=context.wake,
        )
        self._interval = chosen.session_timeout / 5
        self._nodes: dict[str, Node] = {}
        self._parents: set[str] = set()
        self._former = 0
        self._dead: set[int] | None = None

    @property
    def keepalive_interval(self) -> float | None:
        """A fifth of the session timeout: a frozen member is left well before two thirds of it."""
        return self._interval

    def entry(self, service: Service) -> Entry:
        """The node's path and its JSON; of TCP and UDP on one port UDP takes ``<ip>:<port>:udp``.

        Raises `Rejected` for what is no legal path in ZooKeeper, or too large for it.
        """
        instance = f"{service.address}:{service.port}"
        for part in (service.name, instance):
            if reason := illegal(part):
                raise Rejected(f"{part[:80]!r} can't be a node's name in ZooKeeper: {reason}")
        if not INSTANCE.fullmatch(instance):
            raise Rejected("it has no address")
        if service.name == "zookeeper" and not self._base:
            raise Rejected("/zookeeper is ZooKeeper's own")
        key = f"{self._base}/{service.name}/{instance}"
        content = json.dumps(record(service, self._owner), ensure_ascii=False)
        try:
            size = len(key.encode()) + len(content.encode()) + OVERHEAD
        except UnicodeEncodeError as error:
            raise Rejected("its metadata are not valid Unicode") from error
        if size > MOST_BYTES:
            raise Rejected(f"its node would have {size} bytes, over {MOST_BYTES}")
        return Entry(key, content, service, f"{key}:udp" if service.protocol == "udp" else None)

    def list(self) -> Mapping[str, Actual]:
        """Every node two levels under the base path whose name has the form of ours."""
        client = self._session.connect()
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
        self._nodes = {path: self._nodes[path] for path in paths if path in self._nodes}
        self._parents = set() if names[0] is None else {*above([f"{self._base}/"]), *services}
        self._read(client, paths)
        ours = [path for path, node in self._nodes.items() if node.mark is Mark.OURS]
        self._watch(client, ours)
        self._note_sessions()
        return {path: self._actual(node) for path, node in self._nodes.items()}

    def apply(self, plan: Plan) -> Mapping[str, str]:
        """Write in as few transactions as their size allows, sent without waiting in between.

        Only where somebody else was at the same nodes at the same moment they are written again
        one by one.
        """
        client = self._session.connect()
        self._warn_of_differences(plan)
        rejected: dict[str, str] = {}
        self._settle(client, {entry.key: entry for entry in plan.register}, rejected)
        self._settle(client, dict.fromkeys(plan.deregister), rejected)
        self._prune(client, {parent_of(key) for key in plan.deregister if key not in rejected})
        if self._dead is not None:
            self._dead.clear()
        return rejected

    def keepalive(self) -> None:
        """One read: it counts as a sign of life and shows whether the member answers."""
        client = self._session.connect()
        self._session.gather([client.exists_async(self._base or "/")])

    def close(self) -> None:
        """Leave without ending the session, whose nodes would go at once.

        They stand until the session timeout, and an agent started before that takes them over.
        """
        self._session.leave()

    def _is_service(self, name: str) -> bool:
        return bool(self._base) or name != "zookeeper"

    def _children(self, client: KazooClient, paths: Sequence[str]) -> Sequence[Any]:
        """The children's names of each; None for what is not there or may not be read."""
        found = self._session.gather(client.get_children_async(path) for path in paths)
        return [None if isinstance(names, Exception) else names for names in found]

    def _read(self, client: KazooClient, paths: Iterable[str]) -> None:
        """Bring what is known of these nodes up to date."""
        for some in portions(tuple(paths), AT_ONCE):
            found = self._session.gather(client.get_async(path) for path in some)
            for path, answer in zip(some, found, strict=True):
                self._took(path, answer)

    def _watch(self, client: KazooClient, paths: Sequence[str]) -> None:
        for some in portions(paths, AT_ONCE):
            self._session.watch(client, some)

    def _took(self, path: str, answer: Any) -> None:
        """Take in what was read of a node, or why it was not."""
        if isinstance(answer, NoNodeError):
            self._nodes.pop(path, None)
        elif isinstance(answer, Exception):
            self._nodes[path] = Node("", Mark.OTHERS, 0, 0)
        else:
            data, stat = answer
            read = read_node(path, data, stat, self._owner)
            # The same again stays the one that is kept already, of which others hold parts.
            if self._nodes.get(path) != read:
                self._nodes[path] = read

    def _note_sessions(self) -> None:
        """Tell the sessions whose nodes are to be taken over from those of agents that live."""
        session = self._session.id
        if self._dead is None:
            ours = (node.session for node in self._nodes.values() if node.mark is Mark.OURS)
            self._dead = {holder for holder in ours if holder not in (0, session)}
        if self._former not in (0, session):
            self._dead.add(self._former)
        self._former = session

    def _actual(self, node: Node) -> Actual:
        held = node.session == self._session.id or self._is_sibling(node)
        return Actual(node.content, node.mark, held, node.id, node.address)

    def _is_sibling(self, node: Node) -> bool:
        """Whether another live agent of this host holds it."""
        dead = self._dead or ()
        foreign = node.session not in (0, self._session.id) and node.session not in dead
        return node.mark is Mark.OURS and foreign

    def _warn_of_differences(self, plan: Plan) -> None:
        """Two agents that wrote different things in turn would never end."""
        known = ((entry, self._nodes.get(entry.key)) for entry in plan.register)
        others = [
            entry.key
            for entry, node in known
            if node and self._is_sibling(node) and node.content != entry.content
        ]
        if others:
            log.warning(
                "%d nodes (%s first) stay as another agent of this host wrote them;"
                " are its options the same?", len(others), others[0],
            )  # fmt: skip

    def _settle(
        self,
        client: KazooClient,
        wanted: Mapping[str, Entry | None],
        rejected: dict[str, str],
    ) -> None:
        """Write or, for None, remove these nodes; `rejected` takes what was refused."""
        todo = dict(wanted)
        failed: dict[str, Exception] = {}
        self._read(client, [k for k, entry in todo.items() if not (entry or k in self._nodes)])
        for attempt in range(ATTEMPTS):
            if attempt:
                self._read(client, todo)
                self._make_parents(client, [key for key, entry in todo.items() if entry])
            todo = {k: entry for k, entry in todo.items() if self._is_due(k, entry, rejected)}
            failed = self._commit(client, todo, together=not attempt)
            if attempt:
                refused = {k: e for k, e in failed.items() if not isinstance(e, CHANGED)}
                rejected |= {key: reason_for(error) for key, error in refused.items()}
                failed = {key: error for key, error in failed.items() if key not in refused}
            todo = {key: wanted[key] for key in failed}
            if not todo:
                break
        if any(not isinstance(error, NoNodeError) for error in failed.values()):
            raise Unavailable("ZooKeeper: somebody else keeps changing the same nodes")
        rejected |= dict.fromkeys(failed, "the node above it is missing and can't be made")
        self._watch(client, [k for k in wanted if wanted[k] and k in self._nodes])

    def _is_due(self, key: str, entry: Entry | None, rejected: dict[str, str]) -> bool:
        """Whether the node is to be written; it is not where it is settled or another's."""
        node = self._nodes.get(key)
        if node is None:
            return entry is not None
        if node.mark is Mark.OTHERS:
            rejected[key] = "another owner holds it"
            return False
        return entry is None or not self._is_sibling(node)

    def _commit(
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
        node = self._nodes.get(key)
        if node is not None and entry is not None and node.session == self._session.id:
            transaction.set_data(key, entry.content.encode(), node.version)
            return
        if node is not None:
            transaction.delete(key, node.version)
        if entry is not None:
            transaction.create(key, entry.content.encode(), ephemeral=True)

    def _wrote(self, key: str, entry: Entry | None) -> None:
        node = self._nodes.pop(key, None)
        if entry is None:
            return
        self._parents.update(above([key]))
        session = self._session.id
        version = node.version + 1 if node is not None and node.session == session else 0
        service = entry.service
        self._nodes[key] = Node(
            entry.content, Mark.OURS, session, version, service.id, service.address
        )

    def _make_parents(self, client: KazooClient, keys: Iterable[str]) -> None:
        """Make the persistent nodes above these; what stands already is as good.

        No error counts: an ACL forbids to make a node before it is said to be there already, and
        where one is not there the node under it fails.
        """
        self._session.gather(client.create_async(path) for path in above(keys))

    def _prune(self, client: KazooClient, parents: Iterable[str]) -> None:
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
