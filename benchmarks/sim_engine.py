"""A simulated Docker engine for any number of containers, made from a real engine's answers.

    python -m benchmarks.sim_engine SOCKET CONTAINERS RUNNING [ID]

It calls itself ID, or by the recorded id. It serves the requests of an agent (version, info, ping,
listing, inspections, events), and nothing else. It answers 400 to a request that a real engine
would not understand, and to one that is not simulated. Such a request fails the benchmark, so that
no figure depends on a request that does nothing. The simulation costs little: it makes its answers
once, or replaces a few words in them.

It reads commands from stdin, one a line, and answers each with a line of JSON on stdout::

    start FIRST COUNT SECONDS   COUNT containers start, evenly within that time
    die FIRST COUNT SECONDS     they end
    report                      requests by kind, and refused requests

It ends when stdin does.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import sys
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

RECORDED = Path(__file__).with_name("recorded")
NAME, HOST_PORT, ADDRESS = "bench-0", 10000, "172.17.0.2"
# A real engine remembers this many events.
REMEMBERED = 256

REQUEST = re.compile(rb"([A-Z]+) (\S+) HTTP/1\.1\r\n(.*?)\r\n\r\n", re.DOTALL)
PATH = re.compile(
    r"(?:/v1\.(\d+))?/(version|info|_ping|events|containers/(?:([0-9a-f]{64})/)?json)"
)
HEAD = b"HTTP/1.1 %d %s\r\nApi-Version: 1.41\r\nContent-Type: application/json\r\n"
STREAM = HEAD % (200, b"OK") + b"Transfer-Encoding: chunked\r\n\r\n"
KINDS, ACTIONS = {"container", "network"}, {"start", "die", "connect", "disconnect"}


class Refused(Exception):
    """A real engine would not understand the request, or it is not simulated."""


def container_id(number: int) -> str:
    """The id of a container. It looks random, like any other."""
    return hashlib.sha256(str(number).encode()).hexdigest()


def recorded(name: str) -> Any:
    """A recorded answer."""
    return json.loads((RECORDED / f"{name}.json").read_text())


def compact(value: object) -> bytes:
    """JSON in the engine's form."""
    return json.dumps(value, separators=(",", ":")).encode()


def answer(body: bytes, status: int = 200, reason: bytes = b"OK") -> bytes:
    """A whole response."""
    return HEAD % (status, reason) + b"Content-Length: %d\r\n\r\n" % len(body) + body


class Containers:
    """The running containers, in the words of a real engine."""

    def __init__(self, total: int, running: int) -> None:
        inspected, row = recorded("inspect"), recorded("row")
        self._id, self._started = inspected["Id"].encode(), inspected["State"]["StartedAt"].encode()
        self._pid = b'"Pid":%d,' % inspected["State"]["Pid"]
        self._inspect, self._row = compact(inspected), compact(row)
        self._ids = [container_id(number).encode() for number in range(total)]
        self._rows: dict[int, bytes] = {}
        self._since = [b""] * total
        self._listing = b""
        self.number = {each: number for number, each in enumerate(self._ids)}
        now = time.time_ns()
        for number in range(running):
            self.start(number, now + number)

    def start(self, number: int, at: int) -> None:
        """Let it run from `at` on (ns since the epoch)."""
        seconds, rest = divmod(at, 10**9)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        self._since[number] = f"{stamp}.{rest:09d}Z".encode()
        self._rows[number] = self.of(number, self._row)
        self._listing = b""

    def end(self, number: int) -> None:
        """Let it end. It is not removed."""
        self._rows.pop(number, None)
        self._listing = b""

    def of(self, number: int, text: bytes) -> bytes:
        """A recorded text with this container's names and numbers."""
        own = self._ids[number]
        ip = b"172.%d.%d.%d" % (17 + number // 62500, number // 250 % 250, 2 + number % 250)
        return (
            text.replace(self._id, own)
            .replace(b'"' + self._id[:12] + b'"', b'"' + own[:12] + b'"')
            .replace(NAME.encode(), b"bench-%d" % number)
            .replace(b'"%s"' % ADDRESS.encode(), b'"%s"' % ip)
            .replace(b'"%d"' % HOST_PORT, b'"%d"' % (HOST_PORT + number))
            .replace(b':%d,"Type"' % HOST_PORT, b':%d,"Type"' % (HOST_PORT + number))
        )

    def listing(self) -> bytes:
        """The answer to a listing, the newest container first."""
        if not self._listing:
            self._listing = answer(b"[" + b",".join(reversed(self._rows.values())) + b"]")
        return self._listing

    def inspection(self, identity: bytes) -> bytes:
        """The answer to an inspection."""
        number = self.number.get(identity)
        if number is None or not self._since[number]:
            return answer(compact({"message": "No such container"}), 404, b"Not Found")
        text = self.of(number, self._inspect).replace(self._started, self._since[number])
        if number not in self._rows:
            text = text.replace(self._pid, b'"Pid":0,').replace(b'"ExitCode":0', b'"ExitCode":137')
            text = text.replace(b'"Running":true', b'"Running":false').replace(
                b'"Status":"running"', b'"Status":"exited"'
            )
        return answer(text)


class Engine:
    """The engine: its answers, its listeners, and a count of requests."""

    def __init__(self, containers: Containers, identity: str = "") -> None:
        info = recorded("info")
        self.containers = containers
        self.asked: Counter[str] = Counter()
        self.refused: list[str] = []
        self._fixed = {
            "version": answer(compact(recorded("version"))),
            "info": answer(compact(info | {"ID": identity or info["ID"]})),
            "_ping": answer(b"OK"),
        }
        self._events = {name: [compact(e) for e in recorded(name)] for name in ("start", "die")}
        self._happened: deque[tuple[int, bytes]] = deque(maxlen=REMEMBERED)
        self._listeners: set[asyncio.Transport] = set()

    def respond(self, method: bytes, target: str, transport: asyncio.Transport) -> bytes:
        """The bytes of the answer to a request. Raises `Refused`."""
        url = urlsplit(target)
        match = PATH.fullmatch(url.path)
        if match is None or method != b"GET" or not 12 <= int(match[1] or 41) <= 41:
            raise Refused(f"{method.decode()} {target}")
        kind, query = match[2], parse_qs(url.query, strict_parsing=bool(url.query))
        self.asked["inspect" if match[3] else kind] += 1
        if kind == "events":
            return self._listen(query, transport)
        if query:
            raise Refused(f"{target}: not simulated")
        if match[3]:
            return self.containers.inspection(match[3].encode())
        return self.containers.listing() if kind == "containers/json" else self._fixed[kind]

    def _listen(self, query: dict[str, list[str]], transport: asyncio.Transport) -> bytes:
        """Begin a stream of events. Raises `Refused` for a filter that is not simulated."""
        filters = json.loads(query.pop("filters", ["{}"])[0])
        since = query.pop("since", ["0"])[0]
        known = set(filters.get("type", KINDS)) >= KINDS
        wanted = set(filters.get("event", ACTIONS)) >= ACTIONS
        if query or not known or not wanted or not re.fullmatch(r"\d+(\.\d{9})?", since):
            raise Refused(f"events: {since} {filters} {query}")
        first = int(since.replace(".", "").ljust(len(since.partition(".")[0]) + 9, "0"))
        self._listeners.add(transport)
        past = [chunk for at, chunk in self._happened if first and at >= first]
        return STREAM + b"".join(past)

    def leave(self, transport: asyncio.Transport) -> None:
        """A connection ended."""
        self._listeners.discard(transport)

    def happen(self, action: str, number: int) -> int:
        """Let a container start or die now. Returns the time, in ns since the epoch."""
        now = time.time_ns()
        if action == "start":
            self.containers.start(number, now)
        else:
            self.containers.end(number)
        for event in self._events[action]:
            now = max(now + 1, time.time_ns())
            text = self.containers.of(number, event)
            text = re.sub(rb'"time":\d+', b'"time":%d' % (now // 10**9), text)
            text = re.sub(rb'"timeNano":\d+', b'"timeNano":%d' % now, text) + b"\n"
            chunk = b"%x\r\n%s\r\n" % (len(text), text)
            self._happened.append((now, chunk))
            for listener in self._listeners:
                listener.write(chunk)
        return now

    async def spread(self, action: str, first: int, count: int, seconds: float) -> dict[str, int]:
        """Let it happen to `count` containers. Returns the first and the last time."""
        began = time.monotonic()
        times: list[int] = []
        while len(times) < count:
            due = count if not seconds else (time.monotonic() - began) / seconds * count
            while len(times) < min(count, due):
                times.append(self.happen(action, first + len(times)))
            await asyncio.sleep(0.0005 if len(times) < count else 0)
        return {"first": times[0], "last": times[-1]}


class Connection(asyncio.Protocol):
    """One of the agent's connections."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (match := REQUEST.match(self._data)) is not None:
            self._data = self._data[match.end() :]
            try:
                if b"host:" not in match[3].lower():
                    raise Refused("no Host header")
                out = self._engine.respond(match[1], match[2].decode(), self._transport)
            except (Refused, ValueError) as error:
                self._engine.refused.append(str(error))
                out = answer(compact({"message": str(error)}), 400, b"Bad Request")
            self._transport.write(out)

    def connection_lost(self, error: Exception | None) -> None:
        self._engine.leave(self._transport)


async def serve(socket: str, total: int, running: int, identity: str = "") -> None:
    """Serve requests until stdin ends."""
    engine = Engine(Containers(total, running), identity)
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(lambda: Connection(engine), socket, backlog=128)
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    print(json.dumps({"ready": total}), flush=True)
    while line := (await commands.readline()).split():
        told: dict[str, Any]
        if line[0] == b"report":
            told = {"asked": dict(engine.asked), "refused": engine.refused}
        else:
            first, count, seconds = int(line[1]), int(line[2]), float(line[3])
            told = await engine.spread(line[0].decode(), first, count, seconds)
        print(json.dumps(told), flush=True)
    server.close()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:]))
