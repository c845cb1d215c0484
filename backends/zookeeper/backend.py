"""Services in ZooKeeper: an ephemeral node ``<base>/<name>/<ip>:<port>`` each, with JSON in it.

URIs are ``zookeeper://[user:password@]host[:2181][,host…][/base]`` and ``zookeeper-tls://…``. The
layout is gliderlabs/registrator's, with more fields at its end: ``ID``, ``Owner`` and ``Host``.

Options: ``session-timeout`` (seconds, 10 by default, within the ensemble's limits), and, if there
is a user, ``acl``. ``acl=private`` is the default: only that user may read the nodes. With
``acl=world-read``, everybody may read them.

Environment: ``ZOOKEEPER_AUTH`` (``user:password``) or ``ZOOKEEPER_AUTH_FILE`` (a file with that),
if the URI has no user. For TLS: ``ZOOKEEPER_CACERT``, ``ZOOKEEPER_CERT`` and ``ZOOKEEPER_KEY``,
which name PEM files.

A node lives as long as its session. The node above it, named after the service, is persistent. It
is removed when its last child is deregistered. If the last child ends with its session, the empty
parent stays.

A listing costs by this host's services, and nothing by other hosts. At the start it reads each
desired path, and one record for each session that this host had (see `records`). Later, one
request shows which of our nodes stand, and watches tell which were altered.
"""

import json
import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from kazoo.client import KazooClient
from kazoo.exceptions import NoAuthError, NoNodeError

from registrator.backend import Context, Rejected, Unavailable, require_port
from registrator.model import Actual, Entry, Mark, Plan, Service

from ..common.values import encode
from .ephemerals import ephemerals
from .nodes import (
    CHANGED,
    INSTANCE,
    MAX_BYTES,
    OVERHEAD,
    Node,
    is_service,
    parent_of,
    reason_for,
    record,
)
from .records import Records, Unknown
from .session import Session
from .settings import base_path, illegal, settings
from .sweep import every_node
from .tree import Tree

log = logging.getLogger("registrator.zookeeper")

# Attempts for an entry that somebody else changes at the same moment.
MAX_ATTEMPTS = 5


class ZooKeeperBackend:
    """Keeps services as ephemeral nodes of one session with the ensemble.

    Several agents may serve one host. A new backend assumes that the nodes that stand at its first
    listing belong to an agent that died, and takes them over. A node of this owner that another
    session makes later belongs to another live agent. Such a node stays as it is. The backend
    watches it, and puts it back when that agent dies.
    """

    any_thread = True

    def __init__(self, context: Context) -> None:
        chosen = settings(context.uri, context.environ)
        self._base = base_path(context.uri)
        self._identity, self._read_only = context.identity, context.read_only
        self._session = Session(context, chosen)
        # To leave a frozen member long before kazoo would.
        self.keepalive_interval = chosen.session_timeout / 5
        self._tree = Tree(self._session, context.identity)
        self._records = Records(context, chosen, self._session, self._base)
        self._name = str(context.uri)
        self._different: list[str] = []
        # Whether the servers know `getEphemerals`.
        self._knows_ephemerals = True
        # The fault of the records that the log has told.
        self._told = ""
        # The last transaction before the first listing. Nodes made by then were a dead agent's.
        self._begin = 0
        # Our session, and those that it replaced.
        self._sessions: list[int] = []

    def entry(self, service: Service) -> Entry:
        """The node's path and its JSON. Raises `Rejected` if the path is illegal or all too large.

        If TCP and UDP share a port, the node for UDP is ``<ip>:<port>:udp``.
        """
        require_port(service)
        instance = f"{service.address}:{service.port}"
        for part in (service.name, instance):
            if reason := illegal(part):
                raise Rejected(f"{part[:80]!r} cannot be the name of a ZooKeeper node: {reason}")
        if not INSTANCE.fullmatch(instance):
            raise Rejected("it has no address")
        if service.name == "zookeeper" and not self._base:
            raise Rejected("ZooKeeper keeps /zookeeper for its own use")
        key = f"{self._base}/{service.name}/{instance}"
        content = json.dumps(record(service, self._identity), ensure_ascii=False)
        size = len(encode(key)) + len(encode(content)) + OVERHEAD
        if size > MAX_BYTES:
            raise Rejected(f"its node would have {size} bytes, more than {MAX_BYTES}")
        return Entry(key, content, service, f"{key}:udp" if service.protocol == "udp" else None)

    def list(self, keys: Collection[str] = (), /) -> Mapping[str, Actual]:
        """The nodes of this owner, and those at `keys`. Also the claim of a clone of this host."""
        client, held = self._begin_look()
        begin = client.last_zxid
        former = self._former(client, held)
        if held is not None:
            held = [path for path in held if is_service(path, self._base)]
        self._tree.look(client, keys, held)
        for paths in former:
            self._tree.add(client, paths)
        self._begin = self._begin or begin
        found = {path: self._actual(node) for path, node in self._tree.nodes.items()}
        return {**found, **self._records.twin()}

    def apply(self, plan: Plan) -> Mapping[str, str]:
        """Write in as few transactions as their size allows, without waiting between them.

        If somebody else changes the same nodes at the same moment, this writes those nodes again,
        one by one.
        """
        client = self._session.connect()
        self._warn_of_differences(plan)
        rejected: dict[str, str] = {}
        self._settle(client, {entry.key: entry for entry in plan.register}, rejected)
        self._settle(client, dict.fromkeys(plan.deregister), rejected)
        self._tree.prune(client, {parent_of(key) for key in plan.deregister if key not in rejected})
        return rejected

    def keepalive(self) -> None:
        """Read once: that is a sign of life, and shows whether the member answers."""
        client = self._session.connect()
        self._session.gather([client.exists_async(self._base or "/")])

    def close(self) -> None:
        """Disconnect, but do not end the session, because that would remove its nodes at once.

        The nodes stand until the session timeout. An agent that starts before takes them over.
        """
        self._session.leave()

    def _begin_look(self) -> tuple[KazooClient, Collection[str] | None]:
        """Ask which nodes our session holds. None if the server cannot tell.

        Raises `Unavailable` if the base may not be read.
        """
        client = self._session.connect()
        top = self._base or "/"
        # Without a sync, a member may answer with an older state than others know already.
        _, read = self._session.gather([client.sync_async(top), client.get_async(top)])
        if isinstance(read, NoAuthError):
            raise Unavailable(
                f"{top} may not be read; give this agent's user the rights to read and create"
                " there (setAcl in zkCli.sh), or choose another base"
            )
        self._session.note_changes(client)
        if self._session.id not in self._sessions:
            self._sessions.append(self._session.id)
        if not self._knows_ephemerals:
            return client, None
        # Alone, since a server that does not know it answers it before the requests before it.
        (held,) = self._session.gather([ephemerals(client, top)])
        if isinstance(held, Exception):
            self._knows_ephemerals, held = False, None
            log.warning(
                "%s: the server is older than ZooKeeper 3.6; so the agent reads every node below"
                " %s once at each start",
                self._name, top, extra={"registry": self._name},
            )  # fmt: skip
            client = self._session.reconnect()
        return client, held

    def _former(
        self, client: KazooClient, held: Collection[str] | None
    ) -> Iterable[Collection[str]]:
        """The nodes that former agents of this host may have left, in portions.

        Only the first listing looks for them. Each listing checks that our own record stands. One
        that may not write reads all nodes: a session of a record may be that of a running agent.
        """
        if self._read_only:
            return every_node(self._session, client, self._base)
        try:
            if held is not None and not self._begin:
                return [self._records.former(client)]
            if held is not None:
                self._records.check(client, held)
        except Unknown as why:
            if str(why) != self._told:
                log.warning(
                    "%s: the records of this host's sessions do not tell enough, so the agent reads"
                    " every node below %s once at a start; %s",
                    self._name, self._base or "/", why, extra={"registry": self._name},
                )  # fmt: skip
            self._told = str(why)
        return () if self._begin else every_node(self._session, client, self._base)

    def _actual(self, node: Node) -> Actual:
        held = node.session == self._session.id or self._is_sibling(node)
        return node.entry if held else replace(node.entry, held=False)

    def _is_sibling(self, node: Node) -> bool:
        """Whether another live agent of this host holds the node."""
        own = (0, self._session.id, *self._sessions)
        others = node.entry.mark is Mark.OURS and node.session not in own
        return others and node.made > self._begin

    def _warn_of_differences(self, plan: Plan) -> None:
        """Warn if another agent of this host wrote other content, which we leave."""
        known = ((entry, self._tree.nodes.get(entry.key)) for entry in plan.register)
        others = [
            entry.key
            for entry, node in known
            if node and self._is_sibling(node) and node.entry.content != entry.content
        ]
        if others and others != self._different:
            log.warning(
                "%s: %d nodes (%s first) stay as another agent of this host wrote them;"
                " check that both agents have the same options",
                self._name, len(others), others[0], extra={"registry": self._name},
            )  # fmt: skip
        self._different = others or self._different

    def _settle(
        self, client: KazooClient, wanted: Mapping[str, Entry | None], rejected: dict[str, str]
    ) -> None:
        """Write these nodes, or remove those with None. Adds what is refused to `rejected`."""
        todo = dict(wanted)
        failed: dict[str, Exception] = {}
        seen = {key: self._tree.nodes.get(key) for key in wanted}
        self._tree.read(
            client, [k for k, entry in todo.items() if not (entry or k in self._tree.nodes)]
        )
        for attempt in range(MAX_ATTEMPTS):
            if attempt:
                self._tree.read(client, todo)
                self._tree.make_parents(client, [key for key, entry in todo.items() if entry])
            refused = {key: why for key in todo if (why := self._refusal(key, seen[key]))}
            rejected |= refused
            if any(key not in self._tree.keys for key in refused):
                # No listing has looked there yet. The next one tells what may be done.
                self._session.wake()
            for key in refused:
                # The next plan must not take it for a node that it decided over.
                self._tree.nodes.pop(key, None)
            todo = {
                key: entry
                for key, entry in todo.items()
                if key not in refused and self._is_due(key, entry)
            }
            # Many hosts make the same parents at one moment. That is no reason to write one by one.
            changed = all(isinstance(error, CHANGED) for error in failed.values())
            together = not attempt or (attempt == 1 and changed)
            failed = self._tree.commit(client, todo, together=together)
            if not together:
                final = {k: e for k, e in failed.items() if not isinstance(e, CHANGED)}
                rejected |= {key: reason_for(error) for key, error in final.items()}
                failed = {key: error for key, error in failed.items() if key not in final}
            todo = {key: wanted[key] for key in failed}
            if not todo:
                break
        if any(not isinstance(error, NoNodeError) for error in failed.values()):
            raise Unavailable(f"somebody else keeps changing the same nodes ({min(failed)} first)")
        rejected |= dict.fromkeys(failed, "the node above it is missing and cannot be made")
        self._tree.watch_ours(client, [key for key, entry in wanted.items() if entry])

    def _refusal(self, key: str, seen: Node | None) -> str:
        """Why a node is not to be written or removed. Empty if it may be.

        The plan decided over the nodes that were `seen`. Another owner's node is never touched,
        and one that is not surely ours only as it was.
        """
        node = self._tree.nodes.get(key)
        if node is None or node.entry.mark is Mark.OURS:
            return ""
        if node.entry.mark is Mark.OTHERS:
            return node.entry.holder
        if seen is None or seen.entry != node.entry:
            return "somebody else registered it meanwhile"
        return ""

    def _is_due(self, key: str, entry: Entry | None) -> bool:
        """Whether to write or remove the node: not if it is gone, or a live sibling has it."""
        node = self._tree.nodes.get(key)
        if node is None or entry is None:
            return (node is None) is not (entry is None)
        return not self._is_sibling(node)
