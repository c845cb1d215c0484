"""Finds the address of a network interface of this host, and follows its changes."""

import contextlib
import fcntl
import ipaddress
import logging
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

from registrator.system.hostaddr import SEARCH_PERIOD, host_addresses

log = logging.getLogger("registrator.interfaces")

# From linux/sockios.h and linux/if_addr.h.
_SIOCGIFADDR = 0x8915
_TEMPORARY, _DEPRECATED = 0x01, 0x20
_UNUSABLE = 0x08 | 0x40  # somebody else has it, or that is not known yet

_GLOBAL = "00"


def interface_address(name: str, family: int = 4) -> str:
    """The first IPv4 address of an interface, else its global IPv6 address, or "" without one.

    With a `family` of 6 the IPv6 address comes first.
    """
    ways = (_ipv6_of, _ipv4_of) if family == 6 else (_ipv4_of, _ipv6_of)
    return ways[0](name) or ways[1](name)


def _ipv4_of(name: str) -> str:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        asked = struct.pack("256s", name.encode())
        return socket.inet_ntoa(fcntl.ioctl(probe, _SIOCGIFADDR, asked)[20:24])
    return ""


def _ipv6_of(name: str, proc: Path = Path("/proc/net")) -> str:
    """An address that lasts comes first. The kernel lists them in no order that lasts."""
    found = []
    with contextlib.suppress(OSError, ValueError):
        for line in (proc / "if_inet6").read_text().splitlines():
            address, _, _, scope, flags, device = line.split(maxsplit=5)
            if device == name and scope == _GLOBAL and not int(flags, 16) & _UNUSABLE:
                passing = int(flags, 16) & (_TEMPORARY | _DEPRECATED)
                found.append((bool(passing), ipaddress.IPv6Address(bytes.fromhex(address))))
    return str(min(found)[1]) if found else ""


def watch_interface(
    name: str,
    family: int,
    current: str,
    use: Callable[[str, frozenset[str]], None],
    stop: threading.Event,
    again: threading.Event,
    period: float,
) -> None:
    """Follow the address of an interface from `current` on, until `stop` is set.

    It is read every `period` seconds, sooner while there is none, and whenever `again` is set. A
    period of 0 stands for never. Calls `use` with each new address and with all addresses of the
    host. An interface without an address keeps the last one, so that a short loss moves nothing.
    """
    lost = False
    while not stop.is_set():
        wait = period or None if current and not lost else SEARCH_PERIOD
        again.wait(wait)
        again.clear()
        if stop.is_set():
            return
        found = interface_address(name, family)
        if current and not found and not lost:
            log.warning(
                "interface %s has no address now: the services stay at %s", name, current,
                extra={"address": current},
            )  # fmt: skip
        lost = bool(current) and not found
        if found and found != current:
            log.warning(
                "interface %s has address %s now (it was %s): registering published ports there",
                name, found, current or "none", extra={"address": found},
            )  # fmt: skip
            current = found
            use(found, host_addresses() | {found})
