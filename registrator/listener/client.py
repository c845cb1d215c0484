"""The other side of the private socket: the commands ask the agents that run here."""

import contextlib
import http.client
import re
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from registrator.health import notes, socket_of

# Seconds that each part of an answer may take.
TIMEOUT = 12.0


class Reply(NamedTuple):
    """An answer of an agent. The names of the headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Agent(NamedTuple):
    """An agent that this process may see: the name of its socket, and the id of its process."""

    socket: str
    pid: int = 0

    @property
    def container(self) -> str:
        """The id of the container that it runs in, or an empty text if nobody tells."""
        with contextlib.suppress(OSError):
            told = re.search("[0-9a-f]{64}", Path(f"/proc/{self.pid}/cgroup").read_text())
            return told[0][:12] if told else ""
        return ""


def agents() -> list[Agent]:
    """The agents that this process may see."""
    found = {socket_of(note.text): note.pid for note in notes()}
    return [Agent(name, pid) for name, pid in found.items() if name]


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
