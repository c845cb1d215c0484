"""The address of ``-http``: how it is read, and how its socket is opened."""

import contextlib
import errno
import ipaddress
import os
import re
import socket
import stat
from pathlib import Path
from typing import NamedTuple

FORM = "must be ADDRESS:PORT with an IP address, :PORT, or unix:///path"

# How many connections may wait until the agent accepts them.
BACKLOG = 16

# The longest path of a unix socket, in bytes: the size of `sun_path` less its end.
MAX_PATH = 107


class ListenAddress(NamedTuple):
    """The place to listen: at a port of `host` (empty: all addresses), or at the socket `path`."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix://{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether only this host can reach it."""
        return bool(self.path) or bool(self.host and ipaddress.ip_address(self.host).is_loopback)


def read_address(text: str) -> ListenAddress:
    """The address that an operator wrote. Raises `ValueError`, which says what it must be."""
    text = text.strip()
    if path := re.fullmatch(r"unix://(/[^\x00-\x1f\x7f]+)", text):
        if len(path[1].encode(errors="replace")) > MAX_PATH:
            raise ValueError(f"must be a path of at most {MAX_PATH} bytes")
        return ListenAddress(path=path[1])
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([0-9.]*|localhost)):([0-9]{1,5})", text)
    if match is None or not 0 < int(match[3]) < 65536:
        raise ValueError(FORM)
    host = "127.0.0.1" if match[2] == "localhost" else match[1] or match[2]
    try:
        address = str(ipaddress.ip_address(host)) if host else ""
    except ValueError:
        raise ValueError(FORM) from None
    return ListenAddress("" if address == "0.0.0.0" else address, int(match[3]))


def open_socket(address: ListenAddress) -> socket.socket:
    """A socket that listens at the address, and that does not block. Raises `OSError`."""
    if address.path:
        return _unix(address.path)
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    dual = not address.host and socket.has_dualstack_ipv6()
    where = (address.host, address.port)
    try:
        opened = socket.create_server(
            where, family=socket.AF_INET6 if dual else family, backlog=BACKLOG, dualstack_ipv6=dual
        )
    except OSError as error:
        if not dual or error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            raise
        # The kernel has IPv6, but no address of it.
        opened = socket.create_server(where, backlog=BACKLOG)
    opened.setblocking(False)
    return opened


def private_name() -> str:
    """A random name for a unix socket without a path."""
    return f"registrator-{os.urandom(16).hex()}"


def open_private(name: str) -> socket.socket:
    """A unix socket without a path, for the commands on this host."""
    opened = socket.socket(socket.AF_UNIX)
    try:
        opened.bind(f"\0{name}")
        opened.listen(BACKLOG)
    except OSError:
        opened.close()
        raise
    opened.setblocking(False)
    return opened


def _unix(path: str) -> socket.socket:
    """A unix socket that only this user and root can use."""
    _remove_stale(path)
    opened = socket.socket(socket.AF_UNIX)
    try:
        opened.bind(path)
        # Nobody can connect before `listen`, so nobody slips in with other rights.
        Path(path).chmod(0o600)
        opened.listen(BACKLOG)
        opened.setblocking(False)
    except OSError:
        opened.close()
        raise
    return opened


def _remove_stale(path: str) -> None:
    """Remove the socket of an agent that is gone. One that answers stays, and so does any file."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(Path(path).lstat().st_mode):
            raise OSError(errno.EEXIST, "a file that is no socket stands there")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                Path(path).unlink()
            except BlockingIOError:
                pass  # It listens, and its backlog is full.


def remove(address: ListenAddress) -> None:
    """Remove the path of a socket that was opened here, when the agent ends."""
    if address.path:
        with contextlib.suppress(OSError):
            Path(address.path).unlink()


def is_allowed(client: socket.socket) -> bool:
    """Whether the process at the other end of a unix socket belongs to this user or to root."""
    size = 12  # struct ucred: pid, uid and gid
    credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    uid = int.from_bytes(credentials[4:8], "little")
    return uid in (0, os.geteuid())
