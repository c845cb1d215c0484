"""A proxy for gRPC that gives other servers' answers, and holds calls."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from registrator.backends.etcd.rpc import grpc

# A stream takes a thread for as long as it lasts.
THREADS = 64
OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)


class Answer(Exception):
    """An error that the proxy answers in the server's place."""

    def __init__(self, code: Any, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details


class GRPCProxy:
    """Forwards calls at `address` to `upstream`, ``host:port``.

    `before` has functions by the names of methods, such as ``Range``. They run before a call is
    forwarded. They may wait, or raise `Answer`. `started` counts the calls by name.
    """

    def __init__(self, upstream: str, ip: str = "127.0.0.1") -> None:
        self.before: dict[str, Callable[[], None]] = {}
        self.started: Counter[str] = Counter()
        self._channel = grpc.insecure_channel(upstream, options=OPTIONS)
        self._pool = ThreadPoolExecutor(THREADS)
        self._server = grpc.server(self._pool, options=OPTIONS)
        self._server.add_generic_rpc_handlers((_Forwarder(self),))
        self.address = f"{ip}:{self._server.add_insecure_port(f'{ip}:0')}"
        self._server.start()

    def close(self) -> None:
        """End every call and refuse new ones."""
        self._server.stop(0).wait(10)
        self._channel.close()
        self._pool.shutdown(wait=False)

    def forward(self, method: str, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        """The answers to one call."""
        name = method.rpartition("/")[2]
        self.started[name] += 1
        headers = [
            (key, value)
            for key, value in context.invocation_metadata()
            if key != "user-agent" and not key.startswith("grpc-")
        ]
        try:
            self.before.get(name, lambda: None)()
            call = self._channel.stream_stream(method)(_read(requests), metadata=headers)
            context.add_callback(call.cancel)
            yield from call
        except grpc.RpcError as error:
            context.abort(error.code(), error.details())
        except Answer as answer:
            context.abort(answer.code, answer.details)


def _read(requests: Iterator[bytes]) -> Iterator[bytes]:
    """The requests up to the end of a call, or up to its cancellation.

    The library would log an error, and tests look at what is logged.
    """
    with contextlib.suppress(grpc.RpcError):
        yield from requests


class _Forwarder(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, proxy: GRPCProxy) -> None:
        self._proxy = proxy

    def service(self, details: Any) -> Any:
        def forward(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
            return self._proxy.forward(details.method, requests, context)

        return grpc.stream_stream_rpc_method_handler(forward)
