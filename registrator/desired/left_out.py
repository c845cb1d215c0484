"""Writes the log lines about ports that are not registered, in one form for all reasons."""

import logging
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from registrator.desired.untrusted import shown
from registrator.model import Container, LeftOut, Port, Reason
from registrator.status.facts import Facts, of_container, of_reason

# The operator wants to know these at once. The other reasons are somebody's will.
FAULTS = frozenset(
    {
        Reason.NOT_REACHABLE, Reason.REJECTED, Reason.NO_ADDRESS, Reason.NOT_ATTACHED,
        Reason.SAME_ID, Reason.UNREADABLE, Reason.TOO_MANY,
    }
)  # fmt: skip

# A line names at most so many ports.
MAX_PORTS = 20


class Line(NamedTuple):
    """One line of the log. `facts` are its keys in JSON."""

    level: int
    text: str
    facts: Facts


def lines(container: Container, left_out: Iterable[LeftOut]) -> Iterator[Line]:
    """The lines about a container that are logged now: one for each reason and text."""
    ports: dict[tuple[Reason, str], list[Port]] = {}
    for each in left_out:
        listed = ports.setdefault((each.reason, str(each)), [])
        if each.port is not None:
            listed.append(each.port)
    name, short = shown(container.name), shown(container.id[:12])
    for (reason, text), listed in ports.items():
        level = logging.WARNING if reason in FAULTS else logging.DEBUG
        port = listed[0].private if len(listed) == 1 else None
        yield Line(
            level,
            f"container {name} ({short}): not registered: {_joined(listed)}{text}",
            of_container(container) | of_reason(reason) | {"port": port},
        )


def _joined(ports: list[Port]) -> str:
    more = f" and {len(ports) - MAX_PORTS} more" if len(ports) > MAX_PORTS else ""
    listed = ", ".join(f"{port.private}/{port.protocol}" for port in ports[:MAX_PORTS])
    return f"{listed}{more}: " if ports else ""
