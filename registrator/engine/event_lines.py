"""Turns the lines of the event stream into events.

The engine copies a container's labels over an event's attributes. So only a line's id, action and
time can be relied on, and no attribute makes an event count for nothing. A container's inspection
says whether it has such a label.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from registrator.engine.answers import CONTAINER_ID, HEALTH
from registrator.model import ContainerHealth, Event

# Podman has its own names for some actions.
ALIASES = {"died": "die", "remove": "destroy"}

# The event about a probe. Docker sends it if the health changed, and Podman at each probe.
HEALTH_STATUS = "health_status"

# An event that tells nothing but that something happened. Only a listing can say what.
UNREADABLE = Event("", "", 0)

_EXIT_CODE = re.compile(r"-?[0-9]{1,10}")
_SIGNAL = re.compile(r"[0-9]{1,3}")
_LAST_TIME = 2**63 - 1


def parse_event(line: bytes) -> Event | None:
    """The event of a line, or None if it is not about a container.

    An event whose container cannot be read is `UNREADABLE`. Other parts that cannot be read count
    as not told: an inspection says what happened.
    """
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return UNREADABLE
    if not isinstance(event, Mapping):
        return UNREADABLE
    actor = _mapping(event.get("Actor"))
    attributes = _mapping(actor.get("Attributes"))
    action = event.get("Action") or event.get("status")
    container_id = actor.get("ID") or event.get("id")
    if event.get("Type") == "network":
        # Podman's actor is the container itself.
        joined = action in ("connect", "disconnect")
        container_id = attributes.get("container") or (container_id if joined else None)
        if container_id is None:
            return None
    elif event.get("Type") not in (None, "container"):
        return None
    if not isinstance(container_id, str) or not CONTAINER_ID.fullmatch(container_id):
        return UNREADABLE
    action = action if isinstance(action, str) else ""
    action = ALIASES.get(action, action)
    if action.partition(":")[0] == HEALTH_STATUS:
        return Event(container_id, HEALTH_STATUS, _time(event), health=_health(event, action))
    sent = _signal(attributes) if action == "kill" else None
    return Event(container_id, action, _time(event), _exit_code(attributes), sent)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _time(event: Mapping[str, Any]) -> int:
    """When it happened, in ns. 0 if that is not told."""
    for key, unit in (("timeNano", 1), ("time", 10**9)):
        told = event.get(key)
        if type(told) is int and 0 < told * unit <= _LAST_TIME:
            return told * unit
    return 0


def _exit_code(attributes: Mapping[str, Any]) -> int | None:
    told = attributes.get("exitCode")
    return int(told) if isinstance(told, str) and _EXIT_CODE.fullmatch(told) else None


def _signal(attributes: Mapping[str, Any]) -> int | None:
    """The signal that was sent. Podman does not tell it."""
    told = attributes.get("signal")
    return int(told) if isinstance(told, str) and _SIGNAL.fullmatch(told) else None


def _health(event: Mapping[str, Any], action: str) -> ContainerHealth | None:
    """The health that an event tells: Docker in its action, Podman in a field of its own."""
    told = action.partition(": ")[2] or event.get("HealthStatus")
    return HEALTH.get(told) if isinstance(told, str) else None
