"""ZooKeeper, seen by another client and by its four-letter words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError
from kazoo.handlers.threading import KazooTimeoutError
from support.servers import ZooKeeper
from support.wait import until
from support.zookeeper import client, writes, zxid

from contract.registry import Registry
from registrator.backend import Backend
from registrator.uri import Address

AUTH = "kim:pass:word"


class InZooKeeper(Registry):
    """``zookeeper``, ``zookeeper-tls``, and with `user` nodes that are this user's alone."""

    leased: Mapping[str, float] = {}
    rewrites = True
    # Transactions of up to 500 operations. Answers to reads come over one connection, pipelined.
    most_writes, most_reads = 6, 2100

    def __init__(
        self,
        server: ZooKeeper,
        environ: Mapping[str, str],
        scheme: str = "zookeeper",
        user: str = "",
    ) -> None:
        super().__init__()
        self.server: ZooKeeper = server
        self.environ = environ
        self.scheme = scheme
        self.user = user
        self.base = f"/p{self.token}/services"
        # Beside the base. An agent keeps there what the next one needs.
        self.records = f"{self.base}.registrator"
        self._open = ExitStack()
        self._reader: KazooClient | None = None

    def uri(self, *before: str) -> str:
        secure = self.scheme.endswith("-tls")
        own = self.server.tls_address if secure else self.server.address
        return f"{self.scheme}://{self.user}{','.join((*before, own))}{self.base}"

    @property
    def reader(self) -> KazooClient:
        """A client with the user's rights."""
        if self._reader is None:
            self._reader = self._open.enter_context(client(self.server, AUTH))
        return self._reader

    def _leave(self) -> None:
        """End the reader, whose pings would be counted."""
        self._open.close()
        self._reader = None

    def tree(self, top: str = "/") -> Iterator[tuple[str, bytes, Any]]:
        """Every node from `top` down, with data and stat."""
        try:
            data, stat = self.reader.get(top)
            children = self.reader.get_children(top)
        except NoNodeError:
            return
        yield top, data, stat
        for child in children:
            if top != "/" or child != "zookeeper":
                yield from self.tree(f"{top.rstrip('/')}/{child}")

    def read(self) -> dict[str, str]:
        """All at one moment: read until nothing was written meanwhile."""
        assert self.reader
        before = -1
        while (now := zxid(self.server)) != before:
            before, found = now, dict(self._instances())
        return found

    def _instances(self) -> Iterator[tuple[str, str]]:
        depth = self.base.count("/") + 2
        for path, data, _ in self.tree(self.base):
            if path.count("/") == depth:
                fields = json.loads(data)
                yield path, str(Address(fields["IP"], fields["PublicPort"]))

    def plant(self) -> None:
        sibling = f"{self.base}x/web/10.0.0.1:1000"
        self.reader.create(sibling, b'{"IP":"10.0.0.1"}', makepath=True)

    def outside(self) -> object:
        return {
            path: (data, stat.czxid, stat.mzxid, stat.ephemeralOwner)
            for path, data, stat in self.tree()
            if path != self.base and not path.startswith((f"{self.base}/", self.records))
        }

    def index(self) -> int:
        """Transactions, but not the begin and end of sessions."""
        return writes(self.server)

    def requests(self) -> int:
        """Packets, but not those of asking for their number."""
        self._leave()
        number = re.search(r"^Received: (\d+)", self.server.four_letters("srvr"), re.MULTILINE)
        assert number is not None
        return int(number[1])

    def writes(self) -> int:
        """Transactions, but not the begin and end of sessions."""
        return writes(self.server)

    def end_session(self, backend: Backend) -> None:
        """Close the session from elsewhere, as the ensemble does after the session timeout."""
        session = backend._session.connect().client_id  # type: ignore[attr-defined]

        def ended() -> bool:
            # The backend's client may take the session back before the end is told.
            thief = KazooClient(self.server.address, client_id=session)
            thief.start(60)
            thief.stop()
            thief.close()
            return all(stat.ephemeralOwner != session[0] for _, _, stat in self.tree())

        until(ended, "the end of the session", ignore=(KazooTimeoutError,))

    def clean(self) -> None:
        self.reader.delete(f"/p{self.token}", recursive=True)
        self._leave()
