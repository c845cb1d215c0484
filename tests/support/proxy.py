"""Proxies between the agent and a server: one breaks connections, one writes down requests."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import http.server
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
CHUNK = 1 << 16
MAX_POLL = 700.0
HOP_BY_HOP = {"connection", "content-length", "keep-alive", "transfer-encoding"}


class TCPProxy:
    """Forwards connections at `address` to `upstream`, ``host:port`` or ``unix:///path``.

    `connections` counts those accepted, `sent` and `received` the bytes to and from the server.
    Where the server cannot be reached, the connection is reset. `instead` is sent in place of
    whatever the server says, where it is not empty.
    """

    def __init__(self, upstream: str, ip: str = "127.0.0.1") -> None:
        self._upstream = upstream
        self.connections = self.sent = self.received = 0
        self.instead = b""
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._ended = False
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._listeners: list[asyncio.Server] = []
        self.address = self._listen(ip)

    def _listen(self, ip: str, **options: Any) -> str:
        """Listen at one more port. Returns the address."""
        made = self._call(asyncio.start_server(self._serve, ip, 0, limit=CHUNK, **options))
        self._listeners.append(made)
        host, port = made.sockets[0].getsockname()[:2]
        return f"{host}:{port}"

    def cut(self) -> None:
        """Reset every connection, as a server that crashed does. New ones work."""
        self._call(self._cut())

    def freeze(self) -> None:
        """Accept, forward nothing, close nothing."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def thaw(self) -> None:
        """Forward again, first of all what has come in meanwhile."""
        self._loop.call_soon_threadsafe(self._flowing.set)

    def close(self) -> None:
        """Reset every connection and refuse new ones. Another call does nothing."""
        if self._loop.is_closed():
            return
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()

    def answer(self, data: bytes) -> bytes:
        """The bytes that a client gets in place of these from the server."""
        return self.instead or data

    def _call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    async def _cut(self) -> None:
        for each in self._open:
            # It may have ended by itself. One with TLS then has nothing that could tell its socket.
            with contextlib.suppress(OSError, AttributeError):
                connection = each.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            each.transport.abort()

    async def _end(self) -> None:
        for listener in self._listeners:
            for each in listener.sockets:
                self._loop.remove_reader(each)
        # A connection that is accepted gets its transport first. Once the server is closed, asyncio
        # makes none. It leaves the socket open, and tells nobody.
        await asyncio.sleep(0)
        for listener in self._listeners:
            listener.close()
        self._ended = True
        self._flowing.set()
        # Not cancelled: a task that is just accepting a connection would leave it open.
        while asyncio.all_tasks() - {asyncio.current_task()}:
            await self._cut()
            await asyncio.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        pair = [writer]
        try:
            await self._flowing.wait()
            if self._ended:
                raise ConnectionAbortedError
            server_reader, server_writer = await self._connect()
            pair.append(server_writer)
            self._open.add(server_writer)
            await asyncio.gather(
                self._pump(reader, server_writer, "sent"),
                self._pump(server_reader, writer, "received"),
            )
        except OSError:
            for each in pair:
                each.transport.abort()
        finally:
            for each in pair:
                each.close()
            # One with unsent data stays open until somebody reads it, or until the proxy ends.
            for each in pair:
                with contextlib.suppress(OSError):
                    await each.wait_closed()
            self._open.difference_update(pair)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._upstream.startswith("unix://"):
            return await asyncio.open_unix_connection(self._upstream.removeprefix("unix://"))
        host, _, port = self._upstream.rpartition(":")
        return await asyncio.open_connection(host, int(port))

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, counter: str
    ) -> None:
        while data := await source.read(CHUNK):
            await self._flowing.wait()
            # Counted first: the other side may have the data before this thread goes on.
            setattr(self, counter, getattr(self, counter) + len(data))
            sink.write(self.answer(data) if counter == "received" else data)
            await sink.drain()
        await self._flowing.wait()
        with contextlib.suppress(OSError):
            # TLS has no half-closed connections.
            sink.write_eof() if sink.can_write_eof() else sink.close()


class Request(NamedTuple):
    """A request as it came, the path with its query."""

    method: str
    path: str
    body: bytes


class RecordingHTTPProxy:
    """Forwards HTTP at `address` to `upstream`, ``host:port``, and keeps every request.

    Connections are kept alive on both sides, one to the server for each client's, so that it
    costs little time. An answer is passed on when it is complete. Where the server does not
    answer, the client's connection is closed. `before` is called with each request before it is
    forwarded. It may wait, or return what to answer in the server's place: a status and a text.
    """

    def __init__(
        self,
        upstream: str,
        ip: str = "127.0.0.1",
        before: Callable[[Request], tuple[int, str] | None] = lambda _: None,
    ) -> None:
        self.requests: list[Request] = []
        self._server = _Recorder((ip, 0), _Forwarder)
        self._server.before = before
        self._server.upstream = upstream
        self._server.requests = self.requests
        host, port = self._server.server_address[:2]
        self.address = f"{host!s}:{port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        self._thread.start()

    @property
    def writes(self) -> list[Request]:
        """The requests that may change something."""
        return [each for each in self.requests if each.method not in ("GET", "HEAD")]

    def close(self) -> None:
        """Close every connection and refuse new ones."""
        self._server.shutdown()
        self._server.hang_up()
        self._server.server_close()
        self._thread.join(60)


class _Recorder(http.server.ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128
    upstream: str
    requests: list[Request]
    before: Callable[[Request], tuple[int, str] | None]

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.open: set[socket.socket] = set()

    def hang_up(self) -> None:
        """Wake up all that waits for a client or the server, so that its thread ends."""
        for each in list(self.open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


class _Upstream(http.client.HTTPConnection):
    def __init__(self, address: str, known: set[socket.socket]) -> None:
        super().__init__(address, timeout=MAX_POLL)
        self._known = known

    def connect(self) -> None:
        super().connect()
        self._known.add(self.sock)

    def close(self) -> None:
        self._known.discard(self.sock)
        super().close()


class _Forwarder(http.server.BaseHTTPRequestHandler):
    server: _Recorder
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def setup(self) -> None:
        super().setup()
        self.upstream = _Upstream(self.server.upstream, self.server.open)
        self.server.open.add(self.connection)

    def finish(self) -> None:
        self.server.open.discard(self.connection)
        self.upstream.close()
        with contextlib.suppress(OSError):
            super().finish()

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            super().handle()

    def forward(self) -> None:
        body = self._body()
        request = Request(self.command, self.path, body)
        self.server.requests.append(request)
        if instead := self.server.before(request):
            self._say(*instead)
            return
        headers = {k: v for k, v in self.headers.items() if k.lower() not in HOP_BY_HOP}
        try:
            self.upstream.request(self.command, self.path, body or None, headers)
            response = self.upstream.getresponse()
            data = response.read()
        except (OSError, http.client.HTTPException):
            self.close_connection = True
            return
        self.send_response_only(response.status, response.reason)
        for key, value in response.getheaders():
            if key.lower() not in HOP_BY_HOP:
                self.send_header(key, value)
        if self.command == "HEAD" or response.status in (204, 304):
            data = b""
        else:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _say(self, status: int, text: str) -> None:
        data = text.encode()
        self.send_response_only(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = forward  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(parts)

    def log_message(self, *_: Any) -> None:
        """Nothing: the requests are kept."""
