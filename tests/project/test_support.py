"""The tests' own tools: what other tests rely on without looking."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import support.require
from support import engine_cleanup
from support.engine import Dockerd
from support.grpc_proxy import GRPCProxy
from support.left_open import LeftOpen
from support.process import Process
from support.proxy import RecordingHTTPProxy, Request, TCPProxy
from support.require import require
from support.wait import until

from registrator.backends.etcd.rpc import grpc


def test_until_returns_the_first_truthy_value() -> None:
    values = iter([0, "", None, "found", "later"])
    assert until(lambda: next(values), "a value") == "found"


def test_until_says_what_it_waited_for_and_what_happened_last() -> None:
    def refuse() -> bool:
        raise ConnectionRefusedError("no server")

    started = time.monotonic()
    with pytest.raises(AssertionError, match=r"not within 0\.1 s: an answer \(last: .*no server\)"):
        until(refuse, "an answer", 0.1, ignore=(OSError,))
    assert time.monotonic() - started >= 0.1


def test_until_ignores_only_what_it_is_told_to() -> None:
    with pytest.raises(ZeroDivisionError):
        until(lambda: 1 / 0, "a number", ignore=(OSError,))


@pytest.fixture
def with_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(support.require, "no_parts", False)


@pytest.mark.usefixtures("with_parts")
def test_a_part_that_is_there_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    require("part", present="yes", how="a package")


@pytest.mark.usefixtures("with_parts")
@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_part_skips_and_is_named(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("CI", raising=False)
    if value is not None:
        monkeypatch.setenv("CI", value)
    with pytest.raises(pytest.skip.Exception, match=r"missing part: hamster \(the zoo\)"):
        require("hamster", present=False, how="the zoo")


@pytest.mark.usefixtures("with_parts")
def test_a_missing_part_fails_under_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="hamster"):
        require("hamster", present=False, how="the zoo")


def test_a_thread_that_a_backend_leaves_is_named() -> None:
    before, end = LeftOpen(), threading.Event()
    left = threading.Thread(target=end.wait, name="keeper")
    left.start()
    with pytest.raises(AssertionError, match=r"the end of \['keeper'\]"):
        before.check(0.1)
    end.set()
    before.check()


def test_a_program_can_be_frozen_thawed_and_ended(tmp_path: Path) -> None:
    script = "import time\nfor n in range(10**6): print(n, flush=True); time.sleep(0.01)"
    program = Process("counter", tmp_path, [sys.executable, "-c", script])
    program.launch()
    program.wait_log("\n3\n")
    program.freeze()
    until(lambda: _state(program.pid) == "T", "the stop")
    program.thaw()
    until(lambda: _state(program.pid) in "SR", "the continuation")
    assert program.stop() == -signal.SIGTERM
    assert not program.running


def test_what_a_program_started_ends_with_it(tmp_path: Path) -> None:
    program = Process("parent", tmp_path, ["sh", "-c", "sleep 1000 & echo child $!; wait"])
    program.launch()
    child = int(program.wait_log(r"child (\d+)")[1])
    assert program.kill() == -signal.SIGKILL
    until(lambda: _state(child) in ("", "Z"), "the child's end")


def test_programs_end_even_when_the_tests_are_killed(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from support.process import Process\n"
        f"program = Process('orphan', Path({str(tmp_path)!r}), ['sleep', '1000'])\n"
        "program.launch(); print(program.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    tests = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": tests},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    until(lambda: _state(int(done.stdout)) in ("", "Z"), "the orphan's end")


def test_the_engine_leaves_nothing_behind(tmp_path: Path) -> None:
    engine = Dockerd(tmp_path / "engine")
    name = engine.network.name
    try:
        engine.start()
        engine.api.import_image("web", expose=[80])
        engine.api.network_create("private")
        engine.api.run("one", ports={"80/tcp": 0})
        engine.api.run("two", network="private")
        engine.kill()
        assert engine_cleanup.processes(engine.root, name), "containers outlive the engine"
        assert engine_cleanup.mounts(engine.root)
    finally:
        engine.remove()
    assert not engine_cleanup.processes(engine.root, name)
    assert not engine_cleanup.mounts(engine.root)
    assert not engine_cleanup.cgroups(name)
    assert not Path("/run/netns", name).exists()


def test_two_engines_never_want_the_same_port(tmp_path: Path) -> None:
    """Each counts up from the first port of the kernel's range, and gives up after ten tries."""
    engines = [Dockerd(tmp_path / name) for name in ("one", "two")]
    many = {f"{port}/tcp": 0 for port in range(1, 13)}
    try:
        for engine in engines:
            engine.start()
            engine.api.import_image("web")
            engine.api.run("many", ports=many)
        one, two = ({engine.api.host_port("many", port) for port in many} for engine in engines)
        assert one == two
        with _connect(f"{engines[0].ip}:{min(one)}"):
            pass
    finally:
        for engine in engines:
            engine.remove()


def test_containers_outlive_the_engine_only_with_live_restore(tmp_path: Path) -> None:
    for live, state in ((False, "exited"), (True, "running")):
        engine = Dockerd(tmp_path / state, live_restore=live)
        try:
            engine.start()
            engine.api.import_image("web")
            engine.api.run("one")
            engine.restart()
            assert [each["State"] for each in engine.api.containers()] == [state]
        finally:
            engine.remove()


@pytest.fixture
def echo() -> Iterator[str]:
    """The address of a server that sends back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve(connection: socket.socket) -> None:
            with connection, contextlib.suppress(ConnectionError):
                while data := connection.recv(1024):
                    connection.sendall(data)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=serve, args=(listener.accept()[0],)).start()

        thread = threading.Thread(target=accept)
        thread.start()
        host, port = listener.getsockname()
        yield f"{host}:{port}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(60)


@pytest.fixture
def proxy(echo: str) -> Iterator[TCPProxy]:
    with contextlib.closing(TCPProxy(echo)) as made:
        yield made


def test_the_proxy_forwards_and_counts(proxy: TCPProxy) -> None:
    with _connect(proxy.address) as client:
        client.sendall(b"hello")
        assert client.recv(10) == b"hello"
        client.shutdown(socket.SHUT_WR)
        assert client.recv(10) == b"", "the end is passed on, both ways"
    assert (proxy.connections, proxy.sent, proxy.received) == (1, 5, 5)


def test_a_cut_resets_what_is_open_and_lets_new_ones_in(proxy: TCPProxy) -> None:
    with _connect(proxy.address) as client:
        client.sendall(b"hello")
        assert client.recv(10) == b"hello"
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            client.recv(10)
    with _connect(proxy.address) as client:
        client.sendall(b"again")
        assert client.recv(10) == b"again"


def test_a_frozen_proxy_accepts_and_is_mute(proxy: TCPProxy) -> None:
    with _connect(proxy.address) as old:
        old.sendall(b"1")
        assert old.recv(10) == b"1"
        proxy.freeze()
        with _connect(proxy.address) as new:
            for client in (old, new):
                client.sendall(b"2")
                client.settimeout(0.2)
                with pytest.raises(TimeoutError):
                    client.recv(10)
                client.settimeout(60)
            proxy.thaw()
            assert old.recv(10) == b"2"
            assert new.recv(10) == b"2"


def test_a_closed_proxy_refuses(proxy: TCPProxy, echo: str) -> None:
    other = TCPProxy(echo)
    with _connect(other.address) as client:
        client.sendall(b"1")
        assert client.recv(10) == b"1"
        other.close()
        with pytest.raises(ConnectionResetError):
            client.recv(10)
    with pytest.raises(ConnectionRefusedError):
        _connect(other.address)


def test_a_proxy_that_closes_leaves_no_connection_open(echo: str) -> None:
    """It closes a connection that it accepts just then, too. The guard of each test sees others."""
    with contextlib.ExitStack() as clients:

        def knock(address: str) -> None:
            with contextlib.suppress(OSError):
                for _ in range(3):
                    clients.enter_context(_connect(address))

        for _ in range(100):
            proxy = TCPProxy(echo)
            client = threading.Thread(target=knock, args=(proxy.address,))
            client.start()
            proxy.close()
            client.join(60)


def test_a_proxy_whose_server_is_away_resets() -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        host, port = nobody.getsockname()
    with contextlib.closing(TCPProxy(f"{host}:{port}")) as proxy:
        with _connect(proxy.address) as client:
            assert client.recv(10) == b""


class _Answers(BaseHTTPRequestHandler):
    """Answers with what it got, in chunks for ``/chunked``."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    connections: set[int]

    def answer(self) -> None:
        self.connections.add(self.client_address[1])
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(201)
        self.send_header("X-Method", self.command)
        if self.path == "/chunked":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
        else:
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    do_GET = do_PUT = answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def recorder() -> Iterator[RecordingHTTPProxy]:
    _Answers.connections = set()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        host, port = server.server_address[:2]
        with contextlib.closing(RecordingHTTPProxy(f"{host!s}:{port}")) as made:
            yield made
        server.shutdown()
        thread.join(60)


def test_the_recorder_forwards_and_keeps_requests(recorder: RecordingHTTPProxy) -> None:
    with contextlib.closing(http.client.HTTPConnection(recorder.address, timeout=60)) as client:
        assert _ask(client, "GET", "/a?b=c") == (201, "GET", b"")
        assert _ask(client, "PUT", "/d", b"body") == (201, "PUT", b"body")
        answer = _ask(client, "PUT", "/chunked", iter([b"in", b"2"]))
        assert answer == (201, "PUT", b"in2")
    assert recorder.requests == [
        Request("GET", "/a?b=c", b""),
        Request("PUT", "/d", b"body"),
        Request("PUT", "/chunked", b"in2"),
    ]
    assert [each.path for each in recorder.writes] == ["/d", "/chunked"]
    assert len(_Answers.connections) == 1, "one connection to the server, kept alive"


def test_the_recorder_hangs_up_where_the_server_is_away() -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        host, port = nobody.getsockname()
    with contextlib.closing(RecordingHTTPProxy(f"{host}:{port}")) as recorder:
        with contextlib.closing(http.client.HTTPConnection(recorder.address, timeout=60)) as client:
            with pytest.raises(http.client.RemoteDisconnected):
                _ask(client, "GET", "/")


def _ask(
    client: http.client.HTTPConnection, method: str, path: str, body: object = None
) -> tuple[int, str | None, bytes]:
    client.request(method, path, body)  # type: ignore[arg-type]
    answer = client.getresponse()
    return answer.status, answer.getheader("X-Method"), answer.read()


def _connect(address: str) -> socket.socket:
    host, _, port = address.partition(":")
    return socket.create_connection((host, int(port)), 10)


def _state(pid: int) -> str:
    """A process's state as the kernel shows it. Empty where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


class Echo(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers each request of a call with the request."""

    def service(self, details: Any) -> Any:
        def answer(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
            with contextlib.suppress(grpc.RpcError):
                yield from requests

        return grpc.stream_stream_rpc_method_handler(answer)


def test_the_proxy_for_grpc_logs_nothing_about_a_call_that_is_cancelled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    earlier = {*threading.enumerate()}
    pool = ThreadPoolExecutor(20)
    server = grpc.server(pool)
    server.add_generic_rpc_handlers((Echo(),))
    upstream = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    over = threading.Event()

    def requests() -> Iterator[bytes]:
        yield b"one"
        over.wait()

    try:
        with closing(GRPCProxy(upstream)) as proxy:
            with grpc.insecure_channel(proxy.address) as channel:
                # Which side ends a cancelled call first is not certain.
                for _ in range(20):
                    call = channel.stream_stream("/test/Echo")(requests())
                    assert next(call) == b"one"
                    call.cancel()
    finally:
        over.set()
        server.stop(0).wait()
        pool.shutdown(wait=False)

    def reading() -> list[threading.Thread]:
        """The library names its threads after what they run."""
        threads = {*threading.enumerate()} - earlier
        return [each for each in threads if "consume_request" in each.name]

    until(lambda: not reading(), "the end of all that reads requests")
    assert caplog.messages == []
