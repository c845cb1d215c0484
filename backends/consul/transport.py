"""One HTTP exchange with a Consul server: TLS, token, time limit, errors.

python-consul2 serves as the API layer only. Its own transport has no time limit, uses proxies,
and knows no unix sockets. Its constructor lets the environment override an explicit address. So
`Api` uses `Client` as its transport and does not call that constructor.
"""

import contextlib
import random
import socket
import ssl
import time
from collections.abc import Iterator
from http.client import HTTPException
from typing import Any
from unicodedata import ucd_3_2_0
from urllib.parse import quote, urlencode

import urllib3
from consul import base
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util import is_connection_dropped

from registrator.http import Answer, exchange
from registrator.uri import Address

from ..common import tls
from .errors import Cut, NoAnswer, failure
from .settings import Endpoint, Settings

WORKERS = 8
"""Concurrent requests. More did not speed up 1,000 registrations (Consul 1.8.7, two cores)."""

REFUSED = (0.05, 0.1, 0.2)
"""The longest waits in seconds after an answer of 429. Agents of many hosts wait differently."""

WATCH = 1.0
"""Seconds between two checks of an idle connection (see `Client.dropped`)."""


def printable(text: str) -> bool:
    """Whether Consul accepts this in a URL's path: it refuses what Go does not know as printable.

    Unicode 3.2 decides, because the tables in a Consul may be older than Python's.
    """
    return text.isprintable() and all(ucd_3_2_0.category(char) != "Cn" for char in text)


class _UnixConnection(HTTPConnection):
    """HTTP over the unix socket at `socket_path`."""

    def __init__(self, host: str, *args: Any, socket_path: str, **options: Any) -> None:
        super().__init__(host, *args, **options)
        self._socket_path = socket_path

    def _new_conn(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Every request gives a timeout, so this is a number and not urllib3's default marker.
        sock.settimeout(self.timeout)
        try:
            sock.connect(self._socket_path)
        except OSError as error:
            sock.close()
            errors = urllib3.exceptions
            late = isinstance(error, TimeoutError)
            kind = errors.ConnectTimeoutError if late else errors.NewConnectionError
            raise kind(self, str(error)) from error
        return sock


class _UnixPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _UnixConnection


class _TLSConnection(HTTPSConnection):
    """HTTP over TLS. Each handshake reads the `files` again."""

    def __init__(self, host: str, *args: Any, files: tls.Client, **options: Any) -> None:
        super().__init__(host, *args, **options)
        self._files = files

    def connect(self) -> None:
        self.ssl_context = self._files.handshake()
        super().connect()


class _TLSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


class Client:
    """The transport to one server: python-consul2's interface over a urllib3 pool.

    That interface has two more methods, which nothing here needs.

    Every request has a time limit. There is no proxy and no redirect. Only a request that is
    refused with 429 is sent again, after each wait of `REFUSED`.
    """

    def __init__(self, settings: Settings, endpoint: Endpoint, timeout: float) -> None:
        self.endpoint = endpoint
        self._settings = settings
        self._timeout = timeout
        self._pool = self._connect()

    def _connect(self) -> urllib3.HTTPConnectionPool:
        host, ip, port = self.endpoint
        if not ip:
            return _UnixPool("localhost", maxsize=WORKERS, retries=False, socket_path=host)
        files = self._settings.tls
        if files is None:
            return urllib3.HTTPConnectionPool(ip, port, maxsize=WORKERS, retries=False)
        name = self._settings.server_name or host
        return _TLSPool(
            ip,
            port,
            maxsize=WORKERS,
            retries=False,
            files=files,
            cert_reqs="CERT_REQUIRED" if files.verify else "CERT_NONE",
            server_hostname=name,
            assert_hostname=name if files.verify else False,
        )

    def dropped(self) -> bool:
        """Whether the server closed a connection since the last check. Probably it restarted.

        This sends no request.
        """
        idle = [c for c in list(getattr(self._pool.pool, "queue", ())) if c is not None]
        if not any(is_connection_dropped(connection) for connection in idle):
            return False
        old, self._pool = self._pool, self._connect()
        old.close()
        return True

    def close(self) -> None:
        """Close the pooled connections."""
        self._pool.close()

    def get(self, callback: Any, path: str, params: Any = None, headers: Any = None) -> Any:
        """Read, for python-consul2. Both methods raise the errors of `errors`."""
        return self._call(callback, "GET", path, params, None)

    def put(
        self, callback: Any, path: str, params: Any = None, data: str = "", headers: Any = None
    ) -> Any:
        """Write, for python-consul2."""
        return self._call(callback, "PUT", path, params, data)

    def _call(self, callback: Any, method: str, path: str, params: Any, data: str | None) -> Any:
        answer = self._request(method, path, params, data)
        with self.expect_consul_format():
            return callback(answer)

    @contextlib.contextmanager
    def expect_consul_format(self) -> Iterator[None]:
        """Raise `Cut` if an answer has another form than Consul's, such as a proxy's page."""
        try:
            yield
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise Cut(f"{self.endpoint}: its answer is not in Consul's format") from error

    def _request(self, method: str, path: str, params: Any, data: str | None) -> Any:
        dc = self._settings.dc
        query = urlencode([*(params or ()), *([("dc", dc)] if dc else ())])
        target = quote(path, safe="/:") + (f"?{query}" if query else "")
        token = self._settings.token
        used = token.value
        status, headers, content = self._exchange(method, target, data)
        if status == 403 and token.reload(used):
            status, headers, content = self._exchange(method, target, data)
        text = content.decode("utf-8", "replace")
        if status < 300:
            return base.Response(status, headers, text, content)
        raise failure(str(self.endpoint), status, text.strip(), token.problem)

    def _exchange(self, method: str, target: str, data: str | None) -> Answer:
        """Send a request until it is not refused, or all waits are over."""
        for wait in REFUSED:
            answer = self._send(method, target, data)
            if answer.status != 429:
                return answer
            time.sleep(random.uniform(wait / 2, wait))
        return self._send(method, target, data)

    def _send(self, method: str, target: str, data: str | None) -> Answer:
        """Send a request once, and read its whole answer within the time limit."""
        headers = {"Host": str(Address(self.endpoint.host, self.endpoint.port))}
        if not self.endpoint.ip:
            headers = {"Host": "localhost"}
        if self._settings.token.value:
            headers["X-Consul-Token"] = self._settings.token.value
        try:
            return exchange(
                self._pool,
                method,
                target,
                headers,
                None if data is None else data.encode(),
                wait=self._timeout,
                limit=self._timeout,
            )
        except (urllib3.exceptions.HTTPError, HTTPException, OSError) as error:
            why = self._why(error)
            if why is None:
                raise Cut(f"{self.endpoint}: the connection was cut") from error
            raise NoAnswer(f"{self.endpoint}: {why}") from error

    def _why(self, error: Exception) -> str | None:
        """Why an exchange failed. None if the connection was cut."""
        errors = urllib3.exceptions
        if isinstance(error, errors.NewConnectionError):
            cause = error.__cause__
            return (cause.strerror if isinstance(cause, OSError) else None) or str(error)
        if isinstance(error, errors.ConnectTimeoutError):
            return f"no connection within {self._timeout:g} s"
        if isinstance(error, errors.TimeoutError | TimeoutError):
            return f"no answer within {self._timeout:g} s"
        if isinstance(error, errors.SSLError):
            cause = error.args[0]
            return tls.reason(cause) if isinstance(cause, ssl.SSLError) else f"TLS: {cause}"
        return None
