"""Turns the engine's answers into containers, events and rows of a listing.

Engines from 20.10 to 29 and Podman's API leave out different parts of an answer, or set them to
null, or name them otherwise.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from sys import intern
from typing import Any

from registrator.model import METADATA_PREFIX, Container, Event, Port

# Podman has its own names for some actions.
ALIASES = {"died": "die", "remove": "destroy"}

# Matches what separates the items of a JSON array, and its ends.
_BETWEEN = re.compile(r"\s*(\[\s*\]|[\[,\]])\s*")


def container_of(answer: Mapping[str, Any], labels: tuple[str, ...] = ()) -> Container:
    """What matters of an inspection's answer. Texts that many containers share exist once."""
    config = answer.get("Config") or {}
    host = answer.get("HostConfig") or {}
    state = answer.get("State") or {}
    runs = bool(state.get("Running")) and not state.get("Restarting")
    mode = host.get("NetworkMode") or ""
    pairs = (text.partition("=") for text in config.get("Env") or ())
    return Container(
        id=intern(answer["Id"]),
        name=(answer.get("Name") or "").removeprefix("/"),
        image=intern(config.get("Image") or ""),
        hostname=config.get("Hostname") or "",
        env={
            intern(key): intern(value) for key, _, value in pairs if key.startswith(METADATA_PREFIX)
        },
        labels={
            intern(key): intern(value)
            for key, value in (config.get("Labels") or {}).items()
            if key.startswith(METADATA_PREFIX) or key in labels
        },
        network_mode=intern(mode),
        networks=_networks(answer.get("NetworkSettings") or {}, mode),
        ports=_ports(answer),
        started_at=_nanoseconds(state.get("StartedAt") or ""),
        exit_code=None if runs else int(state.get("ExitCode") or 0),
    )


def _nanoseconds(timestamp: str) -> int:
    """RFC 3339 as ns since the epoch, exact to the microsecond. 0 if it was never started."""
    try:
        return int(datetime.fromisoformat(timestamp).timestamp() * 10**6) * 1000
    except (ValueError, OverflowError):
        return 0


def _networks(settings: Mapping[str, Any], mode: str) -> dict[str, str]:
    """The container's address in each network. The network that it was started with comes first."""
    found = settings.get("Networks") or {}
    main = "bridge" if mode in ("", "default") else mode
    if main == "bridge" and found and main not in found:
        # Podman uses this mode in every network. Its default network is called podman.
        main = "podman"
    names = sorted(found, key=lambda name: (name != main, name))
    addresses = {
        name: (found[name] or {}).get("IPAddress") or (found[name] or {}).get("GlobalIPv6Address")
        for name in names
    }
    if not found and settings.get("IPAddress"):
        addresses = {main: settings["IPAddress"]}
    return {intern(name): address for name, address in addresses.items() if address}


def _ports(answer: Mapping[str, Any]) -> tuple[Port, ...]:
    """Every port: one for each binding, or one without a host port if there is no binding."""
    bound = (answer.get("NetworkSettings") or {}).get("Ports") or {}
    exposed = (answer.get("Config") or {}).get("ExposedPorts") or {}
    found = []
    for spec in sorted({*bound, *exposed}, key=_port_order):
        number, _, protocol = spec.partition("/")
        if not number.isdigit():
            continue
        rows = [row for row in bound.get(spec) or () if str(row.get("HostPort") or "").isdigit()]
        found += [
            Port(
                int(number),
                intern(protocol or "tcp"),
                intern(row.get("HostIp") or ""),
                int(row["HostPort"]),
            )
            for row in rows
        ] or [Port(int(number), intern(protocol or "tcp"))]
    return tuple(found)


def _port_order(spec: str) -> tuple[int, str]:
    number, _, protocol = spec.partition("/")
    return (int(number) if number.isdigit() else 0, protocol)


def parse_event(line: bytes) -> Iterator[Event]:
    """The event of a line, if it is about a container. Raises `ValueError` if it is not JSON."""
    event = json.loads(line)
    actor = event.get("Actor") or {}
    attributes = actor.get("Attributes") or {}
    action = event.get("Action") or event.get("status") or ""
    container_id = actor.get("ID") or event.get("id")
    if event.get("Type") == "network":
        # Podman's actor is the container itself.
        joined = "containerExitCode" in attributes and action in ("connect", "disconnect")
        container_id = attributes.get("container") or (container_id if joined else None)
    if container_id:
        code = attributes.get("exitCode", "")
        yield Event(
            container_id,
            ALIASES.get(action, action),
            event.get("timeNano") or event.get("time", 0) * 10**9,
            int(code) if code.lstrip("-").isdigit() else None,
        )


def items(text: str) -> Iterator[Any]:
    """The items of a JSON array, one after the other. Raises `ValueError` if it is not an array.

    With thousands of containers all rows at once would take more memory than everything else.
    """
    decode = json.JSONDecoder().raw_decode
    between = _BETWEEN.match(text)
    while between is not None and between[1][-1] != "]":
        item, end = decode(text, between.end())
        yield item
        between = _BETWEEN.match(text, end)
    if between is None:
        raise ValueError("not a JSON array")


def fingerprint(row: Mapping[str, Any]) -> int:
    """A digest of what a listing says of a container, without its age and the order of ports."""
    ports = sorted(json.dumps(port, sort_keys=True) for port in row.get("Ports") or ())
    rest = [row.get(key) for key in ("Names", "State", "Labels", "NetworkSettings")]
    return hash(json.dumps([ports, rest], sort_keys=True))
