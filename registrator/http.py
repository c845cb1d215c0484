"""One HTTP exchange over a connection of a urllib3 pool, at the least cost.

urllib3's own `urlopen` sends the head and the body of a request as two packets, and takes three
times as long. Here the request leaves in one packet. There is no proxy, no redirect and no retry.
"""

import contextlib
import http.client
import math
import ssl
import time
from collections.abc import Mapping
from typing import NamedTuple

import urllib3
from urllib3.connection import HTTPConnection
from urllib3.util.ssl_match_hostname import CertificateError

PART = 1 << 16
"""Bytes to read at a time from a long answer."""


class Answer(NamedTuple):
    """A whole answer. The case of its headers' names does not matter."""

    status: int
    headers: http.client.HTTPMessage
    data: bytes


def exchange(
    pool: urllib3.HTTPConnectionPool,
    method: str,
    target: str,
    headers: Mapping[str, str],
    body: bytes | None = None,
    *,
    wait: float,
    limit: float = math.inf,
) -> Answer:
    """Send a request, and read its whole answer.

    `wait` limits each wait in seconds, and `limit` all of them together. Raises `OSError`,
    `http.client.HTTPException`, or an `HTTPError` of urllib3. `TimeoutError` is an `OSError`.
    """
    end = time.monotonic() + limit
    # These methods of the pool also find out whether the server closed an idle connection.
    connection = pool._get_conn()
    assert isinstance(connection, HTTPConnection)
    lasts = False
    try:
        if connection.sock is None:
            connection.timeout = min(wait, limit)
            connection.connect()
        sock = connection.sock
        sock.settimeout(max(0.001, min(wait, end - time.monotonic())))
        # A server may answer and close before it has read all.
        with contextlib.suppress(BrokenPipeError):
            sock.sendall(_request(method, target, headers, body))
        with http.client.HTTPResponse(sock, method=method) as response:
            response.begin()
            data = _read(response, end)
            lasts = not response.will_close
    except (ssl.SSLError, CertificateError) as error:
        raise urllib3.exceptions.SSLError(error) from error
    finally:
        if not lasts:
            connection.close()
        pool._put_conn(connection)
    return Answer(response.status, response.headers, data)


def _request(method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
    lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}\r\n")
    return f"{method} {target} HTTP/1.1\r\n{''.join(lines)}\r\n".encode() + (body or b"")


def _read(response: http.client.HTTPResponse, end: float) -> bytes:
    parts = []
    while part := response.read(PART):
        parts.append(part)
        if time.monotonic() > end:
            raise TimeoutError("timed out")
    if response.length:
        raise http.client.IncompleteRead(b"".join(parts), response.length)
    return b"".join(parts)
