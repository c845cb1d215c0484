"""Finds this host's address for published ports, and follows its changes."""

import contextlib
import ipaddress
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from registrator import uri

log = logging.getLogger("registrator.hostaddr")

# A resolver waits for half a minute if nobody answers it.
RESOLVE_TIMEOUT = 3.0

# Seconds between two looks at the host's address: while another one may take its place, and else.
SEARCH_PERIOD, WATCH_PERIOD = 2.0, 10.0

# Seconds that a better address has to be there before services move to it.
STABLE = 5.0

# Addresses for documentation (RFC 5737, RFC 3849). They are always behind the default route.
_ELSEWHERE_6 = ((socket.AF_INET6, "2001:db8::1"),)
_ELSEWHERE = ((socket.AF_INET, "192.0.2.1"), *_ELSEWHERE_6)


def resolve(hostname: str, timeout: float = RESOLVE_TIMEOUT) -> list[str]:
    """The addresses of a host name. Empty if nothing answers within `timeout` seconds."""
    with contextlib.suppress(OSError):
        return [found.host for found in uri.resolve(uri.Address(hostname, 0), timeout)]
    return []


def default_route_address(
    destinations: Iterable[tuple[socket.AddressFamily, str]] = (),
) -> str:
    """The source address of this host on its default route, or "" without one.

    Connecting a UDP socket sends nothing. The kernel only chooses the route.
    """
    for family, elsewhere in destinations or _ELSEWHERE:
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((elsewhere, 9))
            address = str(probe.getsockname()[0])
            if _of_others_use(address):
                return address
    return ""


class Rank(IntEnum):
    """How an address was found: the best way comes first.

    IPv4 addresses come before IPv6 ones, as in the original. The first two are IPv6 addresses that
    ``-family 6`` prefers.
    """

    PREFERRED_NAME = -2
    PREFERRED_ROUTE = -1
    NAME_4 = 0
    NAME_6 = 1
    ROUTE_4 = 2
    ROUTE_6 = 3
    NONE = 4


class Found(NamedTuple):
    """An address of this host, or "" with `Rank.NONE`."""

    rank: Rank = Rank.NONE
    address: str = ""


def find_address(
    hostname: str,
    resolver: Callable[[str], Sequence[str]] = resolve,
    route: Callable[[], str] = default_route_address,
) -> Found:
    """The address for published ports: that of the host's name, else of its default route.

    Many systems give their own name a loopback address, which is of no use to another host.
    """
    addresses = sorted(resolver(hostname), key=lambda address: ":" in address)
    if addresses and _of_others_use(addresses[0]):
        return Found(Rank.NAME_6 if ":" in addresses[0] else Rank.NAME_4, addresses[0])
    address = route()
    if not address:
        return Found()
    return Found(Rank.ROUTE_6 if ":" in address else Rank.ROUTE_4, address)


def find_ipv6_first(
    hostname: str,
    resolver: Callable[[str], Sequence[str]] = resolve,
    route_6: Callable[[], str] = lambda: default_route_address(_ELSEWHERE_6),
    route: Callable[[], str] = default_route_address,
) -> Found:
    """The same with ``-family 6``: an IPv6 address in either way, else as `find_address` does.

    Many systems resolve their own name to an IPv4 address alone. So the route's IPv6 address comes
    before that.
    """
    resolved = resolver(hostname)
    named = next((address for address in resolved if ":" in address), "")
    if named and _of_others_use(named):
        return Found(Rank.PREFERRED_NAME, named)
    if address := route_6():
        return Found(Rank.PREFERRED_ROUTE, address)
    return find_address(hostname, lambda _: resolved, route)


def host_addresses(proc: Path = Path("/proc/net")) -> frozenset[str]:
    """Every address of this host that another host could use. Empty without procfs."""
    found: set[str] = set()
    # Some containers may not read these files.
    with contextlib.suppress(OSError):
        trie = (proc / "fib_trie").read_text()
        found.update(re.findall(r"\|-- (\S+)\n\s+/32 host LOCAL", trie))
    with contextlib.suppress(OSError, ValueError):
        for line in (proc / "if_inet6").read_text().splitlines():
            found.add(str(ipaddress.IPv6Address(bytes.fromhex(line.split()[0]))))
    return frozenset(filter(_of_others_use, found))


class Choice:
    """Decides, look by look, which address of the host services have. For one thread.

    A network may come late, or go for a moment, and IPv6 is often there before IPv4. So a better
    address is taken whenever it has been there for `STABLE` seconds. An address that the host still
    has stays, if only another address of the same name comes first now, or if no name is resolved.
    """

    def __init__(self, found: Found) -> None:
        self.current = found
        self.candidate = Found()
        self._since = 0.0  # when the candidate was first seen

    @property
    def period(self) -> float:
        """Seconds until the next look."""
        settled = self.current.address and not self.candidate.address
        return WATCH_PERIOD if settled else SEARCH_PERIOD

    def look(self, found: Found, present: frozenset[str], now: float) -> bool:
        """Take in what was found, and the host's `present` addresses, at `now` (seconds).

        Returns whether it is the current address from now on, in place of another one.
        """
        if found.address == self.current.address:
            self.current, self.candidate = min(found, self.current), Found()
        elif not self._is_better(found, present):
            self.candidate = Found()
        elif found != self.candidate:
            self.candidate, self._since = found, now
        elif now - self._since >= STABLE:
            self.current, self.candidate = found, Found()
            return True
        return False

    def _is_better(self, found: Found, present: frozenset[str]) -> bool:
        if not found.address or self.current.address not in present:
            return bool(found.address)
        if found.address not in present:
            return False
        by_route = found.rank in (Rank.PREFERRED_ROUTE, Rank.ROUTE_4, Rank.ROUTE_6)
        other_route = found.rank == self.current.rank and by_route
        return found.rank < self.current.rank or other_route


def watch_address(
    found: Found,
    use: Callable[[str, frozenset[str]], None],
    stop: threading.Event,
    clock: Callable[[], float] = time.monotonic,
    family: int = 4,
) -> None:
    """Follow the host's address from `found` on, until `stop` is set.

    Calls `use` with each new address and with all addresses of the host.
    """
    find = find_ipv6_first if family == 6 else find_address
    choice = Choice(found)
    while not stop.wait(choice.period):
        before, present = choice.current.address, host_addresses()
        if choice.look(find(socket.gethostname()), present, clock()):
            address = choice.current.address
            log.warning(
                "the host's address is %s now (it was %s): registering published ports there",
                address, before or "not found", extra={"address": address},
            )  # fmt: skip
            use(address, present | {address})


def _of_others_use(address: str) -> bool:
    if "%" in address:
        return False
    ip = ipaddress.ip_address(address)
    return not (ip.is_loopback or ip.is_link_local or ip.is_unspecified)
