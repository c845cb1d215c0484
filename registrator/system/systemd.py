"""Telling systemd that the agent has started, where it is run as a service of `Type=notify`."""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping

log = logging.getLogger("registrator.systemd")


def tell_ready(environ: Mapping[str, str]) -> None:
    """Send `READY=1` to the socket that systemd named, if any; see sd_notify(3).

    From then on it may send SIGHUP, which would end a process without a handler for it.
    """
    address = environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = f"\0{address[1:]}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(1)
        try:
            sock.sendto(b"READY=1", address)
        except OSError as error:
            log.warning("systemd cannot be told that the agent runs: %s", error.strerror)
