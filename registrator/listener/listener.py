"""Accepts who asks the agent, and serves a few at a time in one thread.

Two doors lead here: a unix socket without a path, whose random name stands in the health note, and
the address of ``-http``, if the operator gives one. A door lets in `MAX_CLIENTS` at a time, so that
clients from outside cannot keep out the commands. Nothing here waits for a client, and no other
thread waits for this one. The code that answers is imported with the first client.
"""

import contextlib
import errno
import logging
import os
import selectors
import socket
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

from registrator.health import Health
from registrator.listener.addresses import (
    ListenAddress,
    is_allowed,
    open_private,
    open_socket,
    private_name,
    remove,
)
from registrator.status.board import Board

if TYPE_CHECKING:
    from registrator.listener.connection import Connection
    from registrator.listener.site import Site

log = logging.getLogger("registrator.listener")

# So many clients at a time for each door.
MAX_CLIENTS = 8

# Seconds until the address of -http is tried again.
RETRY = 5.0

# Seconds without a look for clients after there was no descriptor for one.
NO_DESCRIPTOR = 1.0

# Seconds between two clients that are let in. A flood of them costs a part of one core only.
PACE = 0.001

FULL = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Door:
    """A socket that listens, and the clients that came in by it."""

    def __init__(self, listening: socket.socket, *, private: bool) -> None:
        self.socket = listening
        self.private = private
        self.clients: set[Connection] = set()


class Listener:
    """Both doors, and all who came in. `name` is that of the private one."""

    def __init__(self, address: ListenAddress | None, board: Board, health: Health) -> None:
        self._address = address
        self._board = board
        self._health = health
        self._selector = selectors.DefaultSelector()
        self._wake = os.eventfd(0)
        self._selector.register(self._wake, selectors.EVENT_READ, lambda: None)
        self._doors: list[Door] = []
        self._site: Site | None = None
        self._open_at = 0.0  # when to try to open the address of -http, 0 is now
        self._failed = False
        self.name = private_name()

    def run(self, stop: threading.Event) -> None:
        """Open the doors, and serve until `stop` is set and `wake` called."""
        self._open_private()
        if self._address and not self._address.is_local:
            log.warning(
                "-http %s: everybody who reaches this address can read what this host runs, "
                "since there is no password",
                self._address,
            )  # fmt: skip
        try:
            while not stop.is_set():
                if self._is_to_open and time.monotonic() >= self._open_at:
                    self._open()
                for key, _ in self._selector.select(self._pause()):
                    key.data()
                self._expire(time.monotonic())
        finally:
            self._close()

    def wake(self) -> None:
        """End the present or the next wait. Any thread may call it."""
        with contextlib.suppress(OSError):
            os.eventfd_write(self._wake, 1)

    def _add(self, listening: socket.socket, *, private: bool) -> None:
        door = Door(listening, private=private)
        self._doors.append(door)
        self._selector.register(listening, selectors.EVENT_READ, partial(self._accept, door))

    def _open_private(self) -> None:
        """Open the private door. A sandbox may forbid it, and entries do not depend on it."""
        try:
            self._add(open_private(self.name), private=True)
        except OSError as error:
            self._health.socket = ""
            log.warning("no command can ask this agent for its state: %s", error.strerror)

    @property
    def _is_to_open(self) -> bool:
        """Whether the address of -http is not open yet."""
        return bool(self._address) and all(door.private for door in self._doors)

    def _open(self) -> None:
        """Open the address of -http, or try again later: entries do not depend on it."""
        address = self._address
        assert address is not None
        try:
            self._add(open_socket(address), private=False)
        except OSError as error:
            if not self._failed:
                why = error.strerror or str(error)
                log.error("-http %s: %s; trying again every %.0f s", address, why, RETRY)
            self._failed, self._open_at = True, time.monotonic() + RETRY
        else:
            log.info("answering at %s", address)

    def _pause(self) -> float | None:
        """Seconds until something is due by itself."""
        due = [client.deadline for door in self._doors for client in door.clients]
        if self._is_to_open:
            due.append(self._open_at)
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _accept(self, door: Door) -> None:
        """Let one client in, or send it away."""
        time.sleep(PACE)
        try:
            client, _ = door.socket.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                # Nothing can be done before others have closed theirs.
                time.sleep(NO_DESCRIPTOR)
            return
        try:
            turned_away = len(door.clients) >= MAX_CLIENTS
            if turned_away or (door.private and not is_allowed(client)):
                self._board.refused += 1
                if turned_away:
                    client.setblocking(False)
                    client.send(FULL)
                client.close()
                return
        except OSError:
            client.close()
            return
        self._let_in(door, client)

    def _let_in(self, door: Door, client: socket.socket) -> None:
        # Imported late: hardly any agent is asked, and an agent that nobody asks stays small.
        from registrator.listener.connection import Connection
        from registrator.listener.site import Site

        site = self._site = self._site or Site(self._board, self._health)
        connection = Connection(
            client, site.answer, lambda why: site.refusal(why).encode(), time.monotonic()
        )
        door.clients.add(connection)
        serve = partial(self._serve, door, connection)
        self._selector.register(client, selectors.EVENT_READ, serve)
        serve()

    def _serve(self, door: Door, client: "Connection") -> None:
        from registrator.listener.connection import Wants

        wants = client.go_on(time.monotonic())
        if wants is Wants.NOTHING:
            self._drop(door, client)
            return
        event = selectors.EVENT_WRITE if wants is Wants.TO_WRITE else selectors.EVENT_READ
        self._selector.modify(client.socket, event, partial(self._serve, door, client))

    def _drop(self, door: Door, client: "Connection") -> None:
        self._selector.unregister(client.socket)
        client.socket.close()
        door.clients.discard(client)

    def _expire(self, now: float) -> None:
        """Close the clients whose time is over."""
        for door in self._doors:
            for client in [each for each in door.clients if each.deadline <= now]:
                self._drop(door, client)

    def _close(self) -> None:
        for door in self._doors:
            for client in door.clients:
                client.socket.close()
            door.socket.close()
        if self._address and not self._is_to_open:
            remove(self._address)
        self._selector.close()
