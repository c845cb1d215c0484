"""The session that locks the keys of one agent in Consul's store.

Nothing but its TTL ends it, except one thing: Consul ends the sessions of a node that leaves the
cluster. A session belongs to the node of the Consul agent at which it was opened, and a client
agent leaves when it is stopped. So `Session.due` is looked at each second, together with the
connection, and the session is renewed as soon as the connection is gone. Another datacenter does
not know that node. So a session there belongs to one of its servers.
"""

import logging
import random
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from registrator.backend import Context, SessionLost

from ..common.keeper import Keeper
from ..common.order import Order
from .api import Api
from .errors import NoAnswer, Refused
from .servers import Servers
from .settings import Settings
from .transport import WATCH

T = TypeVar("T")

SERVERS_RULES = 'service "consul" { policy = "read" } node_prefix "" { policy = "read" }'
"""The rules that the choice of a server in another datacenter needs."""

# The keeper's own connections are not news: the reconciler tells of its own, and of failures.
_quiet = logging.getLogger(f"{__name__}.keeper")
_quiet.disabled = True


def anywhere(servers: Servers, function: Callable[[Api], T]) -> T:
    """Make one call at the first address that works. Raises `Unavailable` after one pass."""
    api = servers.use()
    for _ in servers.known[1:]:
        try:
            return function(api)
        except NoAnswer as error:
            api = servers.move(error)
    try:
        return function(api)
    except NoAnswer:
        servers.close()
        raise


class Session:
    """One session after another, of which `id` is the present one. It is empty if there is none.

    A thread of its own renews the session while the reconciler is busy.
    """

    def __init__(self, context: Context, settings: Settings, order: Order) -> None:
        self.id = ""
        self._order = order
        self._context = context
        self._settings = settings
        self._name = f"registrator {context.identity.owner} at "
        self._renewed = 0.0
        self._hosts: dict[str, str] = {}
        self._keeper = Keeper(context.ttl, context.ttl_refresh, self._beat, context.wake)

    @property
    def due(self) -> bool:
        """Whether the next look, in a second, would be too late to renew the session."""
        return time.monotonic() + WATCH > self._renewed + self._context.ttl_refresh

    def open(self, api: Api) -> None:
        """Open a session. It has no checks, so no agent's death ends it."""
        node = random.choice(api.server_nodes()) if self._settings.dc else None
        self.id = api.session.create(
            self._name + self._context.identity.hostname,
            node=node,
            checks=[],
            lock_delay=0,
            behavior="delete",
            ttl=self._context.ttl,
        )
        self._kept()

    def renew(self, api: Api) -> None:
        """Renew the session. Raises `SessionLost` if Consul does not know it."""
        try:
            _renew(api, self.id)
        except SessionLost:
            self.forget()
            raise
        self._kept()

    def forget(self) -> None:
        """Take note that the session ended, or leave it to its TTL."""
        self.id = ""
        self._keeper.stop()

    def _kept(self) -> None:
        self._renewed = time.monotonic()
        self._keeper.kept()

    def _beat(self) -> None:
        """Renew the session from the keeper's thread, through a connection of its own."""
        session = self.id
        servers = Servers(
            self._context.uri, self._settings, _quiet, need_leader=True, order=self._order
        )
        try:
            if session:
                anywhere(servers, lambda api: _renew(api, session))
        finally:
            servers.close()

    def learn_hosts(self, api: Api, sessions: Iterable[str]) -> None:
        """Ask for the names of sessions that are not known yet. They never change."""
        known, self._hosts = self._hosts, {}
        for session in sessions:
            if session not in known:
                found: Any = api.session.info(session)[1] or {}
                with api.http.expect_consul_format():
                    known[session] = str(found.get("Name") or "")
            self._hosts[session] = known[session]

    def host(self, session: str) -> str:
        """The host that opened a session. Empty if that is not known."""
        if session and session == self.id:
            return self._context.identity.hostname
        return self._hosts.get(session, "").partition(" at ")[2]


def _renew(api: Api, session: str) -> None:
    try:
        api.session.renew(session)
    except Refused as error:
        if error.status != 404:
            raise
        raise SessionLost(f"the session in Consul ended ({error})") from error
