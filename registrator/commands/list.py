"""``registrator list``: each port of each container, and what became of it."""

from collections.abc import Iterator

import click

from registrator.config import Config
from registrator.status.outcomes import ATTENTION
from registrator.status.schema import Group, PortState, State

from .alone import exit_code, look
from .asking import each, plain, table

HEAD = ("CONTAINER", "PORT", "STATE", "SERVICE", "ADDRESS", "WHY")


def run(config: Config, *, asks: bool, json: bool = False) -> int:
    """Show it for each agent that runs here, or without one. Returns the exit code."""
    found = look(config, asks=asks)
    return exit_code(each(_show, found.states, json), found, asks=asks)


def _show(state: State) -> bool:
    found = list(rows(state))
    click.echo("\n".join(table([HEAD, *found])) if found else "no container runs here")
    return state["summary"]["well"]


def rows(state: State) -> Iterator[tuple[str, ...]]:
    """A row for each port. The containers that need attention come first, as on the page."""
    for group in sorted(state["containers"], key=lambda group: not needs_attention(group)):
        for port in group["ports"]:
            yield (
                called(group), port_of(port), port["outcome"].replace("_", " "),
                *_service(port), port["why"],
            )  # fmt: skip


def needs_attention(group: Group) -> bool:
    """Whether a port of the container, or the container itself, needs attention."""
    return any(port["outcome"] in ATTENTION for port in group["ports"])


def called(group: Group) -> str:
    """The container's name. One that was never inspected has only its id."""
    return group["name"] or group["id"][:12]


def port_of(port: PortState) -> str:
    """``80/tcp``, or a dash for the whole container."""
    return f"{port['port']}/{port['protocol']}" if port["port"] else "-"


def _service(port: PortState) -> tuple[str, str]:
    service = port["service"]
    return (service["name"], place(port)) if service else ("-", "-")


def place(port: PortState) -> str:
    """The address and the port of a service, as clients write them."""
    service = port["service"]
    if service is None:
        return ""
    host = f"[{service['address']}]" if ":" in service["address"] else service["address"]
    return f"{host}:{plain(service['port'])}"
