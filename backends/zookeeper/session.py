"""One ZooKeeper session in which no wait is without end: what the backend needs of kazoo.

A session lives in the ensemble, not in a connection. While the connection is gone it is suspended:
kazoo looks for another member, and the ephemeral nodes stand. Only the ensemble ends it, after the
session timeout without a sign of life: then it is lost, and its nodes with it. kazoo goes on under
a new session by itself, but writes nothing again.

What kazoo does otherwise, and is mended here: its calls wait without limit while no member
answers; it gives a frozen member two thirds of the session timeout, then tries it first again;
it can end only together with its session; its log shows passwords and tracebacks.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from kazoo.client import KazooClient
from kazoo.exceptions import (
    APIError,
    BadArgumentsError,
    BadVersionError,
    ConnectionClosedError,
    ConnectionLoss,
    InvalidACLError,
    NoAuthError,
    NoChildrenForEphemeralsError,
    NodeExistsError,
    NoNodeError,
    NotEmptyError,
    QuotaExceededError,
    SessionExpiredError,
    WriterNotClosedException,
    ZookeeperError,
)
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.protocol.states import EventType, KazooState, KeeperState, WatchedEvent
from kazoo.retry import KazooRetry

from registrator.backend import SessionLost, Unavailable
from registrator.uri import RegistryURI

from ..common.in_use import InUse
from .sockets import MUTE, Sockets

log = logging.getLogger("registrator.zookeeper")

# What the registry says of one operation; every other error says that the ensemble can't serve us.
ANSWERS = (
    APIError,
    BadArgumentsError,
    BadVersionError,
    InvalidACLError,
    NoAuthError,
    NoChildrenForEphemeralsError,
    NodeExistsError,
    NoNodeError,
    NotEmptyError,
    QuotaExceededError,
)

ENDED = "the session in ZooKeeper ended, and every entry with it"

# Seconds between two rounds over the members while none accepts us, as during an election.
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 0.4


class Session:
    """A session over all servers of `uri`, opened by the first `connect`; used from one thread.

    `deadline` (seconds) bounds the wait for a connection and for every answer, `seconds` is the
    session timeout. `credential` is ``user:password`` of the digest scheme, `acl` what new nodes
    get. `wake` is called when the entries should be listed: a watched node changed, the session
    moved or was lost.
    """

    def __init__(
        self,
        uri: RegistryURI,
        *,
        seconds: float,
        deadline: float,
        tls: ssl.SSLContext | None,
        credential: str,
        acl: list[Any] | None,
        wake: Callable[[], None],
    ) -> None:
        self.id = 0
        servers = uri.servers(2181)
        self._hosts = ", ".join(server.host for server in servers)
        self._in_use = InUse(uri, log)
        self._opened = 0
        self._member = ""
        # Whether an error was raised since the last connection served.
        self._told = False
        self._deadline = deadline
        self._patience = seconds / 2
        self._alive = 0.0
        self._wake = wake
        self._tls = tls
        self._options = {
            "hosts": ",".join(map(str, servers)),
            "timeout": seconds,
            "default_acl": acl,
            "auth_data": {("digest", credential)} if credential else None,
        }
        self._open: tuple[KazooClient, Sockets, threading.Event] | None = None
        self._lock = threading.Lock()
        self._watched: dict[str, int] = {}
        self._watches = 0

    def connect(self) -> KazooClient:
        """The client, connected within the deadline; `id` is the session's.

        Raises `Unavailable` where no member answers, and `SessionLost` once after the session
        ended and another one, with another `id`, took its place.
        """
        client, sockets, live = self._open or self._start()
        if not live.wait(self._deadline):
            sockets.cut()
            why = sockets.failures() or f"no address found for {self._hosts}"
            if client.client_state == KeeperState.AUTH_FAILED:
                why = f"{sockets.address}: it refuses user and password"
            ended = client.client_state in (KeeperState.CLOSED, KeeperState.AUTH_FAILED)
            if ended or self._is_refused(sockets.error):
                self.leave()
            raise self._unavailable(why)
        self._alive = time.monotonic()
        identity = client.client_id
        if identity is None:
            raise self._unavailable("the connection broke")
        former, self.id = self.id, identity[0]
        self._report(sockets)
        if former and former != self.id:
            raise SessionLost(ENDED)
        return client

    def _report(self, sockets: Sockets) -> None:
        """Say where the session is, where that is new; kazoo moves it without being asked."""
        if sockets.opened == self._opened:
            return
        self._opened = sockets.opened
        former, self._member = self._member, sockets.address
        why = sockets.connected()
        if former not in why:
            why = "; ".join(filter(None, (f"{former}: the connection was closed", why)))
        self._in_use.connected(self._member, f"session {self.id:x}", "" if self._told else why)
        self._told = False

    def _is_refused(self, error: str) -> bool:
        """Whether this session may never be taken up again.

        Members that were wiped refuse a client that has seen later transactions than they have,
        without a word and for ever. A new session is none the worse: it takes the nodes of the
        old one over, should they still stand.
        """
        return error == MUTE and time.monotonic() - self._alive > self._patience

    def gather(self, answers: Iterable[Any]) -> list[Any]:
        """Wait for answers that were asked for at once, in their order.

        Where the registry refused an operation the error (see `ANSWERS`) stands in its place.
        Raises `Unavailable` after the deadline without an answer, and `SessionLost`.
        """
        got: list[Any] = []
        member = self._open[1].address if self._open else self._hosts
        for answer in list(answers):
            try:
                got.append(answer.get(timeout=self._deadline))
            except ANSWERS as error:
                got.append(error)
            except KazooTimeoutError as error:
                if self._open is not None:
                    self._open[1].cut()
                why = f"{member}: no answer within {self._deadline:g} s"
                raise self._unavailable(why) from error
            except (ConnectionClosedError, ConnectionLoss) as error:
                raise self._unavailable(f"{member}: the connection broke") from error
            except SessionExpiredError as error:
                self._told = True
                raise SessionLost(ENDED) from error
            except ZookeeperError as error:
                raise self._unavailable(f"{member}: {type(error).__name__}") from error
        return got

    def watch(self, client: KazooClient, paths: Iterable[str]) -> None:
        """Wake once when any of the nodes changes or goes, or has gone already."""
        with self._lock:
            new = [path for path in paths if path not in self._watched]
            tokens = range(self._watches, self._watches + len(new))
            self._watches += len(new)
            self._watched.update(zip(new, tokens, strict=True))
        found = self.gather(
            client.exists_async(path, watch=partial(self._on_change, token))
            for path, token in zip(new, tokens, strict=True)
        )
        if None in found:
            self._wake()

    def unwatch(self, paths: Iterable[str]) -> None:
        """Don't wake for these any more: they are about to be written."""
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
        # A look-up of a host name can't be ended: it must not hold us up.
        ending = threading.Thread(target=_end, args=(client,), daemon=True)
        ending.start()
        ending.join(self._deadline)

    def _start(self) -> tuple[KazooClient, Sockets, threading.Event]:
        sockets = Sockets(self._deadline, self._tls)
        client = KazooClient(
            handler=sockets,
            connection_retry=KazooRetry(
                max_tries=-1, delay=FIRST_PAUSE, max_delay=LONGEST_PAUSE, max_jitter=0.2
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
        """Called by kazoo's thread; a new connection has none of the old one's watches."""
        with self._lock:
            self._watched.clear()
        if state != KazooState.SUSPENDED and self.id:
            self._wake()

    def _on_change(self, token: int, event: WatchedEvent) -> None:
        with self._lock:
            due = self._watched.get(event.path) == token and event.type != EventType.NONE
            if due:
                del self._watched[event.path]
        if due:
            self._wake()

    def _unavailable(self, reason: str) -> Unavailable:
        self._told = True
        return Unavailable(reason)


def _end(client: KazooClient) -> None:
    try:
        client.stop()
    except WriterNotClosedException:
        return  # Its thread hangs in a look-up and is a daemon: it ends with the process at last.
    client.close()
