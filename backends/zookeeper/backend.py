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
from collections.abc import Mapping

from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError

from registrator.backend import Context, Rejected, Unavailable
from registrator.model import Actual, Entry, Mark, Plan, Service

from .nodes import (
    CHANGED,
    INSTANCE,
    MOST_BYTES,
    OVERHEAD,
    Node,
    parent_of,
    reason_for,
    record,
)
from .session import Session
from .settings import base_path, illegal, settings
from .tree import Tree

log = logging.getLogger("registrator.zookeeper")

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
            context.uri,
            seconds=chosen.session_timeout,
            deadline=context.timeout,
            tls=chosen.tls,
            credential=chosen.credential,
            acl=chosen.acl,
            wake=context.wake,
        )
        self._interval = chosen.session_timeout / 5
        self._tree = Tree(self._session, self._base, self._owner)
        self._name = str(context.uri)
        self._different: list[str] = []
        self._former = 0
        # The nodes to take over, of an agent that died, and the session that each was seen under.
        self._dead: dict[str, int] | None = None

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
        self._tree.list(client)
        ours = [path for path, node in self._tree.nodes.items() if node.mark is Mark.OURS]
        self._tree.watch(client, ours)
        self._note_sessions()
        return {path: self._actual(path, node) for path, node in self._tree.nodes.items()}

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
        self._tree.prune(client, {parent_of(key) for key in plan.deregister if key not in rejected})
        for key in (*(entry.key for entry in plan.register), *plan.deregister):
            (self._dead or {}).pop(key, None)
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

    def _note_sessions(self) -> None:
        """Tell the nodes that are to be taken over from those of agents that live."""
        own = (0, self._session.id)
        held = {
            path: node.session
            for path, node in self._tree.nodes.items()
            if node.mark is Mark.OURS and node.session not in own
        }
        if self._dead is None:
            self._dead = held
        self._dead |= {path: holder for path, holder in held.items() if holder == self._former}
        self._former = self._session.id

    def _actual(self, path: str, node: Node) -> Actual:
        held = node.session == self._session.id or self._is_sibling(path, node)
        return Actual(node.content, node.mark, held, node.id, node.address)

    def _is_sibling(self, path: str, node: Node) -> bool:
        """Whether another live agent of this host holds it."""
        dead = (self._dead or {}).get(path)
        return node.mark is Mark.OURS and node.session not in (0, self._session.id, dead)

    def _warn_of_differences(self, plan: Plan) -> None:
        """Two agents that wrote different things in turn would never end."""
        known = ((entry, self._tree.nodes.get(entry.key)) for entry in plan.register)
        others = [
            entry.key
            for entry, node in known
            if node and self._is_sibling(entry.key, node) and node.content != entry.content
        ]
        if others and others != self._different:
            log.warning(
                "%s: %d nodes (%s first) stay as another agent of this host wrote them;"
                " are its options the same?", self._name, len(others), others[0],
            )  # fmt: skip
        self._different = others or self._different

    def _settle(
        self,
        client: KazooClient,
        wanted: Mapping[str, Entry | None],
        rejected: dict[str, str],
    ) -> None:
        """Write or, for None, remove these nodes; `rejected` takes what was refused."""
        todo = dict(wanted)
        failed: dict[str, Exception] = {}
        self._tree.read(
            client, [k for k, entry in todo.items() if not (entry or k in self._tree.nodes)]
        )
        for attempt in range(ATTEMPTS):
            if attempt:
                self._tree.read(client, todo)
                self._tree.make_parents(client, [key for key, entry in todo.items() if entry])
            todo = {k: entry for k, entry in todo.items() if self._is_due(k, entry, rejected)}
            failed = self._tree.commit(client, todo, together=not attempt)
            if attempt:
                refused = {k: e for k, e in failed.items() if not isinstance(e, CHANGED)}
                rejected |= {key: reason_for(error) for key, error in refused.items()}
                failed = {key: error for key, error in failed.items() if key not in refused}
            todo = {key: wanted[key] for key in failed}
            if not todo:
                break
        if any(not isinstance(error, NoNodeError) for error in failed.values()):
            raise Unavailable("somebody else keeps changing the same nodes")
        rejected |= dict.fromkeys(failed, "the node above it is missing and can't be made")
        self._tree.watch(client, [k for k in wanted if wanted[k] and k in self._tree.nodes])

    def _is_due(self, key: str, entry: Entry | None, rejected: dict[str, str]) -> bool:
        """Whether the node is to be written; it is not where it is settled or another's."""
        node = self._tree.nodes.get(key)
        if node is None:
            return entry is not None
        if node.mark is Mark.OTHERS:
            rejected[key] = "another owner holds it"
            return False
        return entry is None or not self._is_sibling(key, node)
