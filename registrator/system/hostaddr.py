"""Finds this host's address for published ports, and follows its changes."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import re
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from registrator import uri

log = logging.getLogger("registrator.hostaddr")

# A resolver waits for half a minute if nobody answers it.
RESOLVE_TIMEOUT = 3.0

# Seconds between two looks at the host's address: while it has none, and while it has one.
SEARCH_PERIOD, WATCH_PERIOD = 2.0, 10.0

# Addresses for documentation (RFC 5737, RFC 3849). They are always behind the default route.
_ELSEWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))


def resolve(hostname: str, timeout: float = RESOLVE_TIMEOUT) -> list[str]:
    """The addresses of a host name; none if nothing answers within `timeout` seconds."""
    with contextlib.suppress(OSError):
        return [found.host for found in uri.resolve(uri.Address(hostname, 0), timeout)]
    return []


def default_route_address() -> str:
    """The source address of this host on its default route, or "" without one.

    Connecting a UDP socket sends nothing. The kernel only chooses the route.
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
    """The address for published ports: that of the host's name, else of its default route, or "".

    IPv4 addresses come before IPv6 ones, as in the original. Many systems give their own name a
    loopback address, which is of no use to another host.
    """
    addresses = sorted(resolver(hostname), key=lambda address: ":" in address)
    if addresses and _of_others_use(addresses[0]):
        return addresses[0]
    return route()


def host_addresses(proc: Path = Path("/proc/net")) -> frozenset[str]:
    """Every address of this host that another host could use; none without procfs."""
    found: set[str] = set()
    with contextlib.suppress(FileNotFoundError):
        trie = (proc / "fib_trie").read_text()
        found.update(re.findall(r"\|-- (\S+)\n\s+/32 host LOCAL", trie))
    with contextlib.suppress(FileNotFoundError):
        for line in (proc / "if_inet6").read_text().splitlines():
            found.add(str(ipaddress.IPv6Address(bytes.fromhex(line.split()[0]))))
    return frozenset(filter(_of_others_use, found))


def watch_address(
    address: str, use: Callable[[str, frozenset[str]], None], stop: threading.Event
) -> None:
    """Follow the host's address until `stop` is set: a network may come late, or a lease may end.

    Calls `use` with each new address and with all addresses of the host. An address that the host
    still has stays, whatever its name resolves to meanwhile.
    """
    while not stop.wait(WATCH_PERIOD if address else SEARCH_PERIOD):
        present = host_addresses()
        found = address if address in present else host_address(socket.gethostname())
        if found and found != address:
            log.warning(
                "the host's address is %s now (it was %s): registering published ports there",
                found, address or "not found",
            )  # fmt: skip
            address = found
            use(address, present | {address})


def _of_others_use(address: str) -> bool:
    if "%" in address:
        return False
    ip = ipaddress.ip_address(address)
    return not (ip.is_loopback or ip.is_link_local or ip.is_unspecified)
