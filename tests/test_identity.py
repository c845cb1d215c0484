"""Who this host is in the registries, and the line that tells it."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from registrator.config import Config
from registrator.engine.client import Engine
from registrator.identity import identify, tell_addresses
from registrator.model import Identity

CONTAINERS_OWN = "0123456789ab"


@pytest.mark.parametrize(
    ("own", "option", "engine", "expected"),
    [
        ("vm", "", "docker", "vm"),
        (CONTAINERS_OWN, "", "docker", "docker"),
        (CONTAINERS_OWN, "", "", CONTAINERS_OWN),
        (CONTAINERS_OWN, "chosen", "docker", "chosen"),
        ("vm", CONTAINERS_OWN, "docker", CONTAINERS_OWN),
        ("0123456789abc", "", "docker", "0123456789abc"),
    ],
)
def test_ids_start_with_a_hostname_that_lasts(
    own: str,
    option: str,
    engine: str,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A container's own hostname changes when the agent's container is made anew."""
    monkeypatch.setattr("socket.gethostname", lambda: own)
    config = Config((), hostname=option)
    assert identify(config, Engine("engine-1", engine, "")) == Identity("engine-1", expected)
    warned = expected == engine
    assert (f"{own} would change with its container" in caplog.text) is warned


def test_the_hostname_owns_the_entries_if_the_engine_has_no_id() -> None:
    config = Config((), hostname="vm")
    assert identify(config, Engine("", "docker", "")) == Identity("vm", "vm")


OWN = "ids start with vm, exposed ports are registered at the containers' own addresses"
HOSTS = "ids start with vm, published ports are registered at"
NOWHERE = "ids start with vm, published ports are not registered: no address of this host was found"


@pytest.mark.parametrize(
    ("options", "host_ip", "line"),
    [
        ({}, "192.0.2.10", ("INFO", f"{HOSTS} 192.0.2.10")),
        ({}, "", ("WARNING", f"{NOWHERE}; give one with -ip")),
        ({"internal": True}, "192.0.2.10", ("INFO", OWN)),
        ({"internal": True}, "", ("INFO", OWN)),
        ({"internal": True, "network": "front"}, "", ("INFO", f"{OWN} in the network front")),
    ],
)
def test_where_ports_are_registered(
    options: dict[str, Any],
    host_ip: str,
    line: tuple[str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    tell_addresses(Config((), **options), "vm", host_ip)
    assert [(each.levelname, each.getMessage()) for each in caplog.records] == [line]
