"""The other side of the private socket: the commands ask the agents that run here."""

import contextlib
import http.client
import socket
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from registrator.health import notes, socket_of

# Seconds that an answer may take in all.
TIMEOUT = 12.0


class Reply(NamedTuple):
    """An answer of an agent. The names of the headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def agents() -> list[str]:
    """The sockets' names of the agents that this process may see."""
    return [name for name in map(socket_of, notes()) if name]


def ask(name: str, path: str, headers: Mapping[str, str] | None = None) -> Reply:
    """Ask the agent with this socket for a path. Raises `OSError` if it does not answer."""
    with _connected(name) as connection:
        try:
            connection.request("GET", path, headers=dict(headers or {}))
            answer = connection.getresponse()
            body = answer.read()
        except http.client.HTTPException as error:
            raise OSError(f"the agent's answer cannot be read: {error}") from error
    found = {key.lower(): value for key, value in answer.getheaders()}
    return Reply(answer.status, found, body)


@contextlib.contextmanager
def _connected(name: str) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("localhost")
    with socket.socket(socket.AF_UNIX) as connected:
        connected.settimeout(TIMEOUT)
        connected.connect(f"\0{name}")
        connection.sock = connected
        yield connection
