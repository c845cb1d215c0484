"""Writes the log lines about ports that are not registered, in one form for all reasons."""

import logging
from collections.abc import Iterable

from registrator.desired.untrusted import shown
from registrator.model import Container, LeftOut, Reason

# The operator wants to know these at once. The other reasons are somebody's will.
FAULTS = frozenset(
    {
        Reason.NOT_REACHABLE, Reason.REJECTED, Reason.NO_ADDRESS, Reason.NOT_ATTACHED,
        Reason.SAME_ID, Reason.UNREADABLE, Reason.TOO_MANY,
    }
)  # fmt: skip

# A line names at most so many ports.
MAX_PORTS = 20


def lines(container: Container, left_out: Iterable[LeftOut]) -> list[tuple[int, str]]:
    """The level and the text of each line about a container: one line for each text."""
    ports: dict[tuple[int, str], list[str]] = {}
    for each in left_out:
        level = logging.WARNING if each.reason in FAULTS else logging.DEBUG
        listed = ports.setdefault((level, str(each)), [])
        if each.port is not None:
            listed.append(f"{each.port.private}/{each.port.protocol}")
    name, short = shown(container.name), shown(container.id[:12])
    return [
        (level, f"container {name} ({short}): not registered: {_joined(listed)}{text}")
        for (level, text), listed in ports.items()
    ]


def _joined(ports: list[str]) -> str:
    more = f" and {len(ports) - MAX_PORTS} more" if len(ports) > MAX_PORTS else ""
    return f"{', '.join(ports[:MAX_PORTS])}{more}: " if ports else ""
