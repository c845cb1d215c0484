"""Registry URIs: ``scheme://[user[:password]@]host[:port][,host[:port]…][/path][?option=value]``.

A secret in a URI is never shown: `str` and `repr` put ``***`` in its place.
"""

import contextlib
import ipaddress
import queue
import re
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote

HIDDEN = "***"

# The options that every registry has. The core reads them.
COMMON_OPTIONS = ("filter", "timeout")


class Address(NamedTuple):
    """One server: a host name or IP address (IPv6 without brackets), and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class RegistryURI:
    """A parsed registry URI. A port that the URI does not give is 0 (see `servers`)."""

    scheme: str
    addresses: tuple[Address, ...] = ()
    path: str = ""
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    def servers(self, default_port: int, default_host: str = "127.0.0.1") -> tuple[Address, ...]:
        """The addresses, with the default port where the URI gives none.

        If the URI gives no address, this is the default address.
        """
        given = self.addresses or (Address(default_host, 0),)
        return tuple(Address(a.host, a.port or default_port) for a in given)

    def unknown_options(self, *known: str) -> list[str]:
        """The names of the options that are neither `known` nor the core's `COMMON_OPTIONS`."""
        return sorted(set(self.options) - {*known, *COMMON_OPTIONS})

    def __str__(self) -> str:
        hosts = ",".join(str(a) if a.port else str(a).removesuffix(":0") for a in self.addresses)
        who = HIDDEN + "@" if self.user or self.password else ""
        query = "&".join(
            f"{k}={HIDDEN if _is_secret(k) else v}" for k, v in sorted(self.options.items())
        )
        return f"{self.scheme}://{who}{hosts}{self.path}{'?' + query if query else ''}"

    __repr__ = __str__


def _is_secret(name: str) -> bool:
    return re.search("token|pass|secret|auth", name, re.IGNORECASE) is not None


def parse(text: str) -> RegistryURI:
    """Parse a registry URI. Raises `ValueError`, whose text shows no secret."""
    match = re.fullmatch(
        r"([a-zA-Z][a-zA-Z0-9+.-]*)://((?:[^/?@]*@)?)([^/?]*)([^?]*)(?:\?(.*))?", text, re.DOTALL
    )
    if match is None:
        raise ValueError(
            "does not have the form scheme://host:port[,host:port…][/path],"
            " such as consul://127.0.0.1:8500"
        )
    scheme, userinfo, hosts, path, query = match.groups()
    if re.search(r"[\x00-\x20\x7f]", text):
        raise ValueError(f"{scheme}://… contains a blank or a control character")
    if "@" in hosts + path + (query or ""):
        raise ValueError(
            f"{scheme}://… has an '@' in a wrong place; write %40 for it, and in a user or"
            " password also %2F for '/' and %3F for '?'"
        )
    user, _, password = userinfo.removesuffix("@").partition(":")
    pairs = parse_qsl(query or "", keep_blank_values=True)
    options = dict(pairs)
    # A filter is a list, so its parts may stand apart.
    filters = [value for name, value in pairs if name == "filter"]
    if len(options) - bool(filters) != len(pairs) - len(filters):
        raise ValueError(f"{scheme}://… gives an option more than once")
    if filters:
        options["filter"] = ",".join(filters)
    return RegistryURI(
        scheme.lower(),
        tuple(_address(scheme, part) for part in hosts.split(",")) if hosts else (),
        unquote(path),
        unquote(user),
        unquote(password),
        options,
    )


def _address(scheme: str, text: str) -> Address:
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.%]+)\]|([^\[\]:]+))(?::(\d+))?", text)
    if match is None:
        shown = "an address is empty" if not text else "an address is wrong"
        raise ValueError(f"{scheme}://…: {shown}; write host:port, or [IPv6]:port")
    host, port = match[1] or match[2], int(match[3] or 0)
    if match[3] and not 0 < port < 65536:
        raise ValueError(f"{scheme}://…: port {port} of {host!r} is out of range")
    try:
        # The resolver does this too. There the error would come with every attempt.
        host.encode("idna")
    except UnicodeError:
        raise ValueError(f"{scheme}://…: {host!r} is not a host name") from None
    return Address(host, port)


def resolve(address: Address, timeout: float) -> list[Address]:
    """Every IP address that a host has now, with its port, in the resolver's order.

    Raises `OSError` if there is none, or if the resolver takes longer than `timeout` seconds.
    The resolver itself has no time limit. So a thread waits for it, and is left behind if it is
    late.
    """
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(address.host)
        return [address]
    answer: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answer.put(socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            answer.put(error)

    threading.Thread(target=ask, name="resolve", daemon=True).start()
    try:
        found = answer.get(timeout=timeout)
    except queue.Empty:
        raise TimeoutError(f"{address}: not resolved within {timeout:g} s") from None
    if isinstance(found, Exception):
        raise OSError(f"{address}: {getattr(found, 'strerror', '') or found}") from found
    return list(dict.fromkeys(Address(str(row[4][0]), address.port) for row in found))
