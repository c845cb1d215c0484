"""``registrator explain CONTAINER``: what became of one container, why, and what to do."""

import json as texts
from datetime import UTC, datetime
from difflib import get_close_matches

import click

from registrator.config import Config
from registrator.status.outcomes import ATTENTION, PENDING, REGISTERED, Outcome
from registrator.status.schema import Group, PortState, State

from .alone import NOT_THERE, exit_code, look
from .asking import FINE, NOT_FINE, Found, complain, harmless, head
from .list import called, place, port_of

# A hint names at most so many containers.
MAX_NAMED = 5


def run(config: Config, operand: str, *, asks: bool, json: bool = False) -> int:
    """Explain the container with this name, or with an id that begins so. Returns the exit code."""
    looked = look(config, asks=asks)
    found = [
        (name, state, group)
        for name, state in looked.states.items()
        for group in _matching(state, operand)
    ]
    if looked.states and not found:
        name = harmless(operand)
        complain(f"no running container has the name or the id {name}: {_hint(looked, operand)}")
        return exit_code(NOT_FINE, looked, asks=asks)
    for number, (name, state, group) in enumerate(found):
        if json:
            click.echo(texts.dumps(group))
            continue
        heads = [head(name, state)] if len(looked.states) > 1 else []
        click.echo("\n" * bool(number) + "\n".join([*heads, *_lines(state, group)]))
    ports = (port for *_, group in found for port in group["ports"])
    code = NOT_FINE if any(map(_needs_attention, ports)) else FINE
    return exit_code(code, looked, asks=asks)


def _needs_attention(port: PortState) -> bool:
    return port["outcome"] in ATTENTION or port["why"] == NOT_THERE


def _matching(state: State, operand: str) -> list[Group]:
    """The container with this name. If there is none, those whose id begins so."""
    named = [group for group in state["containers"] if group["name"] == operand.removeprefix("/")]
    return named or [group for group in state["containers"] if group["id"].startswith(operand)]


def _hint(found: Found, operand: str) -> str:
    """The names that may be meant, or where to look for them."""
    names = {called(group) for state in found.states.values() for group in state["containers"]}
    alike = sorted(name for name in names if operand and operand in name)
    named = [*alike, *sorted(set(get_close_matches(operand, names)) - {*alike})][:MAX_NAMED]
    return f"did you mean {' or '.join(map(harmless, named))}?" if named else "see registrator list"


def _lines(state: State, group: Group) -> list[str]:
    words = [f"{called(group)} ({group['id'][:12]})", group["image"]]
    if group["started"]:
        began = datetime.fromtimestamp(group["started"], UTC)
        words.append(f"running since {began:%Y-%m-%d %H:%M:%S}Z")
    lines = [harmless(", ".join(filter(None, words)))]
    for port in group["ports"]:
        lines += _port(state, port)
    return lines


def _port(state: State, port: PortState) -> list[str]:
    """The lines of one port: what became of it, and how it stands in each registry."""
    what = port_of(port) if port["port"] else "the container"
    service, outcomes = port["service"], state["outcomes"]
    if service is None:
        return _told(f"{what}  left out: ", port["outcome"], port["why"], outcomes)
    tags = f" with the tags {', '.join(service['tags'])}" if service["tags"] else ""
    lines = [harmless(f"{what}  {service['name']} at {place(port)} as {service['id']}{tags}")]
    names = [registry["name"] for registry in state["registries"]]
    for name, standing in zip(names, port["registries"], strict=True):
        lines += _told(f"  {name}: ", standing["state"], standing["why"], outcomes)
    return lines


def _told(head: str, outcome: str, why: str, outcomes: dict[str, Outcome]) -> list[str]:
    """The reason after `head`, and under it what to do."""
    if outcome == REGISTERED:
        return [harmless(f"{head}registered")]
    known = outcomes[outcome]
    lines = [harmless(f"{head}{why or known['text']}")]
    if known["remedy"] and outcome != PENDING:
        lines.append(f"{' ' * len(head)}{known['remedy']}")
    return lines
