"""Finds out who this host is in the registries: the owner of its entries, and its hostname."""

import logging
import re
import socket

from registrator.config import Config
from registrator.engine.client import Engine
from registrator.model import Identity

log = logging.getLogger("registrator.identity")


def identify(config: Config, engine: Engine) -> Identity:
    """Who this host is in the registries.

    A hostname of 12 hex digits is that of the agent's own container. It changes whenever that
    container is made anew, and all ids would change with it. So the engine's name takes its place.
    """
    hostname = config.hostname or socket.gethostname()
    if not config.hostname and re.fullmatch("[0-9a-f]{12}", hostname) and engine.name:
        log.warning(
            "the agent runs without --net=host, and its hostname %s would change with its "
            "container; ids start with the engine's name %s; set -hostname to choose another",
            hostname, engine.name,
        )  # fmt: skip
        hostname = engine.name
    return Identity(engine.id or hostname, hostname, config.former_engine)


def tell_addresses(config: Config, hostname: str, host_ip: str) -> None:
    """Log what ids and addresses are made of, for an operator who finds a wrong one."""
    if config.internal:
        log.info(
            "ids start with %s, exposed ports are registered at the containers' own addresses%s",
            hostname, f" in the network {config.network}" if config.network else "",
        )  # fmt: skip
    elif config.interface and not host_ip:
        log.warning(
            "ids start with %s, published ports are not registered: "
            "the interface %s, which -ip names, has no address: waiting for one",
            hostname, config.interface,
        )  # fmt: skip
    elif host_ip:
        log.info(
            "ids start with %s, published ports are registered at %s", hostname, host_ip,
            extra={"address": host_ip},
        )  # fmt: skip
    else:
        log.warning(
            "ids start with %s, published ports are not registered: "
            "no address of this host was found; give one with -ip",
            hostname,
        )
