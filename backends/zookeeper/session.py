"""A ZooKeeper session over kazoo, in which every wait has a time limit.

A session lives in the ensemble, not in a connection. While there is no connection, the session is
suspended: kazoo looks for another member, and the ephemeral nodes stand. Only the ensemble ends a
session, after the session timeout without a sign of life. Then its nodes are gone. kazoo starts a
new session by itself, but does not write the nodes again.

This mends what kazoo does otherwise. Its calls wait without limit while no member answers. It
gives a frozen member two thirds of the session timeout, and then tries that member first again.
It cannot disconnect without ending the session. Its log shows passwords and tracebacks.
"""

import logging
import threading
import time
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from kazoo import exceptions as errors
from kazoo.client import KazooClient
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.protocol.states import Callback, EventType, KazooState, KeeperState, WatchedEvent
from kazoo.retry import KazooRetry

from registrator.backend import Context, SessionLost, Unavailable

from ..common.in_use import InUse
from .settings import Settings
from .sockets import MALFORMED, MUTE, Sockets, malformed

log = logging.getLogger("registrator.zookeeper")

# Answers about one operation. Any other error means that the ensemble cannot serve us.
ANSWERS = (
    errors.APIError,
    errors.BadArgumentsError,
    errors.BadVersionError,
    errors.InvalidACLError,
    errors.NoAuthError,
    errors.NoChildrenForEphemeralsError,
    errors.NodeExistsError,
    errors.NoNodeError,
    errors.NotEmptyError,
    errors.QuotaExceededError,
    errors.UnimplementedError,
)

ENDED = "the session in ZooKeeper ended, and every entry with it"

BROKE = "the connection broke"

# The code is of SASL, but any scheme in the server's ``enforce.auth.schemes`` may be meant.
LOGIN_NEEDED = (
    "it serves only clients with a login that it accepts; set ZOOKEEPER_AUTH_FILE,"
    " and allow the scheme digest in the server's enforce.auth.schemes"
)

SILENT = logging.Logger("silent", logging.CRITICAL + 1)

# Seconds between two passes over the members while none accepts us, as during an election.
FIRST_PAUSE, MAX_PAUSE = 0.05, 0.4


class Broken(Unavailable):
    """The connection ended before the answer came."""


class Session:
    """A session over all servers of the URI. The first `connect` opens it. For one thread only.

    The context's `timeout` limits the wait for a connection and for each answer. The context's
    `wake` is called when a watched node changed, or the session was lost. Its `wake_soon` is called
    when the session moved: its nodes stand, but the new connection has no watches.

    `resumed` is the id and the password of another client's session, to look into it. It logs
    nothing. `connect` raises `SessionLost` if that session has ended. A client that lives loses its
    connection, and opens another one.
    """

    def __init__(
        self, context: Context, settings: Settings, resumed: tuple[int, bytes] | None = None
    ) -> None:
        self.id, self.password = resumed or (0, b"")
        servers = context.uri.servers(2181)
        self._hosts = ", ".join(server.host for server in servers)
        # A session that is only resumed, to be ended, tells nobody.
        self._in_use = (
            InUse(context.uri, SILENT) if resumed else InUse(context.uri, log, context.serves)
        )
        self._opened = 0
        self._member = ""
        # Whether an error was raised since the last working connection.
        self._error_raised = False
        self._timeout = context.timeout
        self._patience = settings.session_timeout / 2
        self._alive = 0.0
        self.wake, self._wake_soon = context.wake, context.wake_soon
        self._tls = settings.tls
        credential = settings.credential
        self._options = {
            "hosts": ",".join(map(str, servers)),
            "timeout": settings.session_timeout,
            "default_acl": settings.acl,
            "auth_data": {("digest", credential)} if credential else None,
            "client_id": resumed,
        }
        # Why a connection ended, as far as the last answer of a member tells.
        self._broke = BROKE
        self._open: tuple[KazooClient, Sockets, threading.Event] | None = None
        self._dropped = threading.Event()
        self._lock = threading.Lock()
        self._watched: dict[str, int] = {}
        self._watches = 0

    def connect(self) -> KazooClient:
        """The client, connected within the time limit. `id` is the session's.

        Raises `Unavailable` if no member answers. Raises `SessionLost` once after the session
        ended and a new one, with another `id`, replaced it.
        """
        client, sockets, live = self._open or self._start()
        if not live.wait(self._timeout):
            sockets.cut()
            why = sockets.failures() or f"no address found for {self._hosts}"
            if client.client_state == KeeperState.AUTH_FAILED:
                why = f"{sockets.address}: it refuses user and password"
            ended = client.client_state in (KeeperState.CLOSED, KeeperState.AUTH_FAILED)
            if ended or self._is_refused(sockets.error):
                self.leave()
            raise self._unavailable(why)
        self._alive = time.monotonic()
        self._dropped.clear()
        identity = client.client_id
        if identity is None:
            raise self._unavailable(self._broke, Broken)
        former = self.id
        self.id, self.password = identity
        self._report(sockets)
        if former and former != self.id:
            raise SessionLost(ENDED)
        return client

    def reconnect(self) -> KazooClient:
        """The client on the next connection. The member closes this one, and the caller knows why.

        A member before 3.6 does so after a request that it does not know.
        """
        self._error_raised = True
        self._dropped.wait(self._timeout)
        return self.connect()

    def _report(self, sockets: Sockets) -> None:
        """Log where the session is, if it moved. kazoo moves it without being asked."""
        if sockets.opened == self._opened:
            return
        self._opened = sockets.opened
        former, self._member = self._member, sockets.address
        why = sockets.connected()
        if former not in why:
            why = "; ".join(filter(None, (f"{former}: the connection was closed", why)))
        why = "" if self._error_raised else why
        self._in_use.connected(self._member, f"session {self.id:x}", why)
        self._error_raised = False

    def _is_refused(self, error: str) -> bool:
        """Whether the ensemble may never accept this session again.

        A wiped member refuses a client that has seen later transactions than the member has. It
        does so for ever, and without an answer. A new session does no harm: it takes over the
        nodes of the old one, if they still stand.
        """
        return error == MUTE and time.monotonic() - self._alive > self._patience

    def gather(self, answers: Iterable[Any]) -> list[Any]:
        """Wait for answers to requests that were sent together. Returns them in order.

        If ZooKeeper refused an operation, its error (see `ANSWERS`) is in the answer's place.
        Raises `Unavailable` if an answer does not come in time, and `SessionLost`.
        """
        got: list[Any] = []
        member = self._open[1].address if self._open else self._hosts
        for answer in list(answers):
            try:
                got.append(answer.get(timeout=self._timeout))
                self._broke = BROKE
            except ANSWERS as error:
                got.append(error)
            except KazooTimeoutError as error:
                if self._open is not None:
                    self._open[1].cut()
                why = f"{member}: no answer within {self._timeout:g} s"
                raise self._unavailable(why) from error
            except (errors.ConnectionClosedError, errors.ConnectionLoss) as error:
                raise self._unavailable(f"{member}: {self._broke}", Broken) from error
            except errors.SessionExpiredError as error:
                self._error_raised = True
                raise SessionLost(ENDED) from error
            except MALFORMED as error:
                raise self._unavailable(f"{member}: {malformed(error)}") from error
            except errors.SessionClosedRequireSaslError as error:
                # The member closes the connection. That may be the answer to the next request.
                self._broke = LOGIN_NEEDED
                raise self._unavailable(f"{member}: {self._broke}") from error
            except errors.ZookeeperError as error:
                raise self._unavailable(
                    f"{member}: ZooKeeper cannot serve now ({type(error).__name__})"
                ) from error
        return got

    def watch(self, client: KazooClient, paths: Iterable[str]) -> Mapping[str, Any]:
        """Wake once when any of these nodes changes or is removed.

        Returns the state of each node that was not watched before: a stat, None if it is gone, or
        an error.
        """
        new = self.unwatched(paths)
        with self._lock:
            tokens = range(self._watches, self._watches + len(new))
            self._watches += len(new)
            self._watched.update(zip(new, tokens, strict=True))
        found = self.gather(
            client.exists_async(path, watch=partial(self._on_change, token))
            for path, token in zip(new, tokens, strict=True)
        )
        return dict(zip(new, found, strict=True))

    def note_changes(self, client: KazooClient) -> None:
        """Wait until each change that was told before the last answer is noted."""
        noted = threading.Event()
        client.handler.dispatch_callback(Callback("watch", noted.set, ()))
        noted.wait(self._timeout)

    def unwatched(self, paths: Iterable[str]) -> list[str]:
        """The nodes of whose changes nobody would tell us."""
        with self._lock:
            return [path for path in paths if path not in self._watched]

    def unwatch(self, paths: Iterable[str]) -> None:
        """Do not wake for these any more."""
        with self._lock:
            for path in paths:
                self._watched.pop(path, None)

    def leave(self) -> None:
        """End the connection but not the session: its nodes stand until the session timeout."""
        if self._open is None:
            return
        client, sockets, _ = self._open
        self._open = None
        client.remove_listener(self._on_state)
        sockets.leave()
        # Nothing can end the look-up of a host name, so we do not wait for it.
        ending = threading.Thread(target=_end, args=(client,), daemon=True)
        ending.start()
        ending.join(self._timeout)

    def _start(self) -> tuple[KazooClient, Sockets, threading.Event]:
        sockets = Sockets(self._timeout, self._tls)
        client = KazooClient(
            handler=sockets,
            connection_retry=KazooRetry(
                max_tries=-1, delay=FIRST_PAUSE, max_delay=MAX_PAUSE, max_jitter=0.2
            ),
            logger=logging.Logger("kazoo", logging.CRITICAL + 1),
            **self._options,
        )
        client.add_listener(self._on_state)
        self._alive = time.monotonic()
        self._opened = 0
        self._open = client, sockets, client.start_async()
        return self._open

    def _on_state(self, state: str) -> None:
        """Called by kazoo's thread. A new connection has none of the old connection's watches."""
        with self._lock:
            self._watched.clear()
        if state == KazooState.SUSPENDED:
            self._dropped.set()
        elif self.id and state == KazooState.LOST:
            self.wake()
        elif self.id and state == KazooState.CONNECTED:
            self._wake_soon()

    def _on_change(self, token: int, event: WatchedEvent) -> None:
        with self._lock:
            due = self._watched.get(event.path) == token and event.type != EventType.NONE
            if due:
                del self._watched[event.path]
        if due:
            self.wake()

    def _unavailable(self, reason: str, kind: type[Unavailable] = Unavailable) -> Unavailable:
        self._error_raised = True
        return kind(reason)


def _end(client: KazooClient) -> None:
    try:
        client.stop()
    except errors.WriterNotClosedException:
        return  # Its thread still looks up a name. It is a daemon and ends with the process.
    client.close()
