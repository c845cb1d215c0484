"""Tells systemd that the agent has started, if it runs as a service of `Type=notify`."""

import logging
import socket
from collections.abc import Mapping

log = logging.getLogger("registrator.systemd")


def tell_ready(environ: Mapping[str, str]) -> None:
    """Send `READY=1` to the socket that systemd named, if any. See sd_notify(3).

    After that systemd may send SIGHUP, which would end a process without a handler for it.
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
            log.warning(
                "cannot tell systemd that the agent runs, so systemd may end it: %s", error.strerror
            )
