"""A look at a ZooKeeper server from outside, as another client or an operator has it."""

from __future__ import annotations

import asyncio
import mmap
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError
from kazoo.retry import KazooRetry

from registrator.backend import Context
from registrator.backends.zookeeper.backend import ZooKeeperBackend
from registrator.model import Identity
from registrator.uri import parse
from support.proxy import TCPProxy
from support.servers import ZooKeeper
from support.wait import until

OWNER = Identity("engine-1", "host")


class Backends:
    """Makes backends for one server and base, and closes all of them."""

    def __init__(self, server: ZooKeeper, base: str) -> None:
        self._address, self._base = server.address, base
        self._made: list[ZooKeeperBackend] = []

    def __call__(
        self,
        *,
        owner: Identity = OWNER,
        address: str = "",
        path: str = "",
        options: str = "",
        user: str = "",
        wake: Callable[[], None] = lambda: None,
        wake_soon: Callable[[], None] = lambda: None,
        timeout: float = 5,
        **environ: str,
    ) -> ZooKeeperBackend:
        where = f"{address or self._address}{path or self._base}"
        uri = parse(f"zookeeper://{user}{where}{options}")
        context = Context(
            uri, owner, timeout=timeout, environ=environ, wake=wake, wake_soon=wake_soon
        )
        self._made.append(ZooKeeperBackend(context))
        return self._made[-1]

    def close(self) -> None:
        for backend in self._made:
            backend.close()


def mode(server: ZooKeeper) -> str:
    """Its mode: standalone, leader or follower. Empty while it does not serve."""
    try:
        return server.four_letters("srvr").partition("Mode: ")[2].split("\n")[0]
    except OSError:
        return ""


def zxid(server: ZooKeeper) -> int:
    """The number of the last transaction. The begin and the end of a session are some as well."""
    return int(server.four_letters("srvr").partition("Zxid: ")[2].split("\n")[0], 16)


def writes(server: ZooKeeper) -> int:
    """How many transactions have written, or have tried to, as the server's own log tells it.

    The begin and the end of a session do not count. Sessions of earlier tests may end at any time.
    """
    logs = (server.data / "version-2").glob("log.*")
    return sum(kind not in (_SESSION_BEGINS, _SESSION_ENDS) for log in logs for kind in _kinds(log))


_SESSION_BEGINS, _SESSION_ENDS = -10, -11
_FILE_HEAD = 16
# A checksum and the length of what follows. That begins with session, cxid, zxid, time, type.
_HEAD = struct.Struct(">qi qiqqi")
_LENGTHS = 12
_END_MARK = 1


def _kinds(log: Path) -> Iterator[int]:
    """The type of each transaction in a log. Behind the last one the file is all zeros."""
    with log.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        place = _FILE_HEAD
        while place + _HEAD.size <= len(text):
            _, length, *_, kind = _HEAD.unpack_from(text, place)
            if not length:
                return
            yield kind
            place += _LENGTHS + length + _END_MARK


@contextmanager
def client(server: ZooKeeper, auth: str = "") -> Iterator[KazooClient]:
    """A client of its own, with the rights of `auth` (``user:password``)."""
    auth_data = {("digest", auth)} if auth else None
    made = KazooClient(server.address, auth_data=auth_data, command_retry=KazooRetry(-1))
    made.start(60)
    try:
        yield made
    finally:
        made.stop()
        made.close()


class BeforeVersion36(TCPProxy):
    """Makes a server one that does not know ``getEphemerals``, as those before 3.6.

    3.5.10 answers such a request with these bytes, even before earlier requests, and closes the
    connection. `asked` counts these requests.
    """

    asked = 0
    _type, _unimplemented = 103, -6

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, counter: str
    ) -> None:
        if counter == "received":
            # The answers to earlier requests come from the server.
            self._client = sink
            await super()._pump(source, sink, counter)
            return
        first = True
        while length := await source.read(4):
            length += await source.readexactly(4 - len(length))
            body = await source.readexactly(int.from_bytes(length))
            xid, kind = struct.unpack_from(">ii", body)
            if kind == self._type and not first:
                self.asked += 1
                self._client.write(struct.pack(">iiqi", 16, xid, -1, self._unimplemented))
                await self._client.drain()
                break
            sink.write(length + body)
            await sink.drain()
            first = False
        sink.close()


def wait_whole(members: Sequence[ZooKeeper]) -> None:
    """Wait until each member takes writes, and the leader has all others in step.

    A member that was frozen calls itself a follower until it finds that its leader has dropped it.
    If that leader freezes while the member joins it again, no member serves anybody: the joining
    one waits for the leader for ``initLimit`` ticks, and the third one finds no majority.
    """
    for member in members:
        member.wait_ready()
        with client(member) as writer:
            writer.retry(writer.create, "/whole-", ephemeral=True, sequence=True)
    in_step = f"zk_synced_followers\t{len(members) - 1}\n"
    until(lambda: any(in_step in each.four_letters("mntr") for each in members), in_step)


def holders(reader: KazooClient, path: str) -> dict[str, int]:
    """The session that holds each child. One that vanishes meanwhile is left out."""
    found = {}
    try:
        names = reader.retry(reader.get_children, path)
    except NoNodeError:
        return {}
    for name in names:
        stat = reader.retry(reader.exists, f"{path}/{name}")
        if stat is not None:
            found[name] = stat.ephemeralOwner
    return found


class Watcher:
    """Looks at a service's nodes without pause. `gap` is the longest time that any was missing."""

    def __init__(self, server: ZooKeeper, path: str, size: int) -> None:
        self.gap = 0.0
        self.looks = 0
        self._server, self._path, self._size = server, path, size
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        with client(self._server) as reader:
            whole = time.monotonic()
            while not self._stop.is_set():
                count = len(reader.retry(reader.get_children, self._path))
                now = time.monotonic()
                self.looks += 1
                if count == self._size:
                    whole = now
                else:
                    self.gap = max(self.gap, now - whole)

    def look_again(self, times: int = 100) -> None:
        """Wait until it has looked so many times more."""
        enough = self.looks + times
        until(lambda: self.looks >= enough, "another look")

    def __enter__(self) -> Watcher:
        self._thread.start()
        self.look_again(1)
        return self

    def __exit__(self, *error: Any) -> None:
        self._stop.set()
        self._thread.join(60)
