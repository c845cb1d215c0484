"""The addresses that a host name has at this moment, found in time."""

from __future__ import annotations

import ipaddress
import queue
import socket
import threading
from typing import Any

from registrator.uri import Address


def resolve(address: Address, seconds: float) -> list[Address]:
    """Every IP address of a host with its port, in the resolver's order; raises `OSError`.

    The resolver has no deadline of its own, so a thread waits for it, and is left behind when
    it takes longer than `seconds`.
    """
    if _is_literal(address.host):
        return [address]
    answer: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answer.put(socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM))
        except OSError as error:
            answer.put(error)

    threading.Thread(target=ask, name="resolve", daemon=True).start()
    try:
        found = answer.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"{address}: not resolved within {seconds:g} s") from None
    if isinstance(found, OSError):
        raise OSError(f"{address}: {found.strerror or found}") from found
    return list(dict.fromkeys(Address(str(row[4][0]), address.port) for row in found))


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
