"""Warns of the attributes that Consul cannot hold."""

import logging
from collections.abc import Callable
from functools import lru_cache, partial

log = logging.getLogger("registrator.consul")


def warner(uri: str) -> Callable[[str, str, tuple[str, ...]], None]:
    """A function that logs the attributes of a service that are left out, each once."""
    # The cache holds what was logged.
    return lru_cache(1024)(partial(_warn, uri))


def _warn(uri: str, container: str, service_id: str, keys: tuple[str, ...]) -> None:
    for key in keys:
        log.warning(
            "%s: container %s, service %s: Consul's Meta cannot hold the attribute %.150r "
            "(64 pairs, keys A-Z a-z 0-9 _ - up to 128, values up to 512 bytes); left out",
            uri, container, service_id, key,
            extra={"registry": uri, "container": container, "service_id": service_id},
        )  # fmt: skip
