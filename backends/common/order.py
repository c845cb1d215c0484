"""The order in which an agent tries the addresses of a registry.

Any member of a cluster serves any agent. If all agents began at the first address of the URI, that
member would have the load of the whole fleet. So each owner has its own order. It follows from a
hash of the owner and each address, so it is always the same. Owners with the same first address
differ in the second one. So when a member fails, its agents spread over all the others.

An address of this host comes first, because no other one is as near. ``?order=listed`` keeps the
order of the URI. The order costs one hash for each address, and no request.
"""

import hashlib
import ipaddress
import socket
from collections.abc import Iterable

from registrator.backend import ConfigError, Context
from registrator.uri import Address

SPREAD, LISTED = "spread", "listed"


def is_local(address: Address) -> bool:
    """Whether this is an address of this host itself, or ``localhost``. Other names are not.

    The kernel lets a UDP socket use only an address of this host. This sends nothing. With
    ``net.ipv4.ip_nonlocal_bind`` it allows the binding to any address, but not the connecting.
    """
    if address.host == "localhost":
        return True
    try:
        ip = ipaddress.ip_address(address.host)
        family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address.host, 0))
            probe.connect((address.host, address.port))
    except (ValueError, OSError):
        return False
    return True


class Order:
    """Puts addresses in order. Made from the option ``order``: ``spread`` or ``listed``."""

    def __init__(self, context: Context) -> None:
        """Raise `ConfigError` for another value."""
        choice = context.uri.options.get("order", SPREAD)
        if choice not in (SPREAD, LISTED):
            raise ConfigError(f"the option order must be {SPREAD} or {LISTED}, not {choice[:80]!r}")
        self._listed = choice == LISTED
        self._owner = context.identity.owner

    def __call__(self, addresses: Iterable[Address]) -> list[Address]:
        """The addresses in order. Local ones come first, as they are listed."""
        return list(addresses) if self._listed else sorted(addresses, key=self._rank)

    def _rank(self, address: Address) -> bytes:
        if is_local(address):
            return b""
        return hashlib.sha256(f"{self._owner}\0{address}".encode()).digest()
