"""Shows other processes of this host that an agent runs here.

The agent binds an abstract unix socket, whose name is a hash of its owner and hostname. The name is
in ``/proc/net/unix``. It needs no file and no right, and ends with the process. A process sees the
agents in its own network namespace, such as all with ``--net=host``. It also sees those whose
processes it sees in ``/proc``: for root on the host, these are the agents in all containers.
"""

import contextlib
import hashlib
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")


class Presence:
    """The sign of one agent. Several agents of one host have one each."""

    def __init__(self, owner: str, hostname: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        # A sandbox may forbid it. Then nobody sees this agent.
        with contextlib.suppress(OSError):
            self._socket.bind(f"\0{_name(owner, hostname)}/{secrets.token_hex(8)}")

    def close(self) -> None:
        """Remove the sign."""
        self._socket.close()


def agent_is_here(owner: str, hostname: str, proc: Path = PROC) -> bool:
    """Whether an agent with this owner and hostname runs, as far as this process may see."""
    name = f" @{_name(owner, hostname)}/"
    return any(name in names for names in _sockets(proc))


def _name(owner: str, hostname: str) -> str:
    digest = hashlib.sha256(f"{owner}\n{hostname}".encode(errors="replace")).hexdigest()
    return f"registrator/{digest[:32]}"


def _sockets(proc: Path) -> Iterator[str]:
    """The unix sockets of each network namespace that this process may see."""
    seen = set()
    for process in (proc / "self", *proc.glob("[0-9]*")):
        # A process may belong to another user, or end meanwhile.
        with contextlib.suppress(OSError):
            namespace = (process / "ns/net").readlink()
            if namespace not in seen:
                seen.add(namespace)
                yield (process / "net/unix").read_text(errors="replace")
