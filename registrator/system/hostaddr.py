"""The addresses of this host, as its own name, its routes and its kernel tell them."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from registrator import uri

# A resolver that is not answered waits for half a minute.
RESOLVE_TIMEOUT = 3.0

# Addresses for documentation (RFC 5737, RFC 3849): everywhere behind the default route.
_ELSEWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))


def resolve(hostname: str, timeout: float = RESOLVE_TIMEOUT) -> list[str]:
    """The addresses of a host name; none if nothing answers within `timeout` seconds."""
    with contextlib.suppress(OSError):
        return [found.host for found in uri.resolve(uri.Address(hostname, 0), timeout)]
    return []


def default_route_address() -> str:
    """The address that this host speaks from over its default route; "" without one.

    Connecting a UDP socket sends nothing: the kernel only chooses the route.
    """
    for family, elsewhere in _ELSEWHERE:
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((elsewhere, 9))
            address = str(probe.getsockname()[0])
            if _of_others_use(address):
                return address
    return ""


def host_address(
    hostname: str,
    resolver: Callable[[str], Sequence[str]] = resolve,
    route: Callable[[], str] = default_route_address,
) -> str:
    """The address for published ports: that of the host's name, else of its default route.

    A name has IPv4 addresses before IPv6 ones, as in the original. A loopback address, which
    many systems give their own name, is of no use to another host. "" where there is none.
    """
    addresses = sorted(resolver(hostname), key=lambda address: ":" in address)
    if addresses and _of_others_use(addresses[0]):
        return addresses[0]
    return route()


def host_addresses(proc: Path = Path("/proc/net")) -> frozenset[str]:
    """Every address of this host that another one could use; none where there is no procfs."""
    found: set[str] = set()
    with contextlib.suppress(FileNotFoundError):
        trie = (proc / "fib_trie").read_text()
        found.update(re.findall(r"\|-- (\S+)\n\s+/32 host LOCAL", trie))
    with contextlib.suppress(FileNotFoundError):
        for line in (proc / "if_inet6").read_text().splitlines():
            found.add(str(ipaddress.IPv6Address(bytes.fromhex(line.split()[0]))))
    return frozenset(filter(_of_others_use, found))


def _of_others_use(address: str) -> bool:
    if "%" in address:
        return False
    ip = ipaddress.ip_address(address)
    return not (ip.is_loopback or ip.is_link_local or ip.is_unspecified)
