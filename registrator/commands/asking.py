"""Asks the agents that run here for their state. The commands that only look share this.

An agent answers at its private socket. Its own user and root get an answer, and nobody else.
"""

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import click

from registrator.listener.client import agents, ask
from registrator.model import unprintable
from registrator.status.schema import State

FINE, NOT_FINE, WRONG, UNREACHABLE = 0, 1, 2, 3

STATE = "/api/state"


def running() -> list[str]:
    """The sockets of the agents that run here."""
    return agents()


def states() -> list[State]:
    """The state of each agent that answers. Ends the command with code 3 if none does."""
    names = running()
    if not names:
        give_up("no agent runs here, or it belongs to another user")
    return [state_of(name) for name in names]


def state_of(name: str) -> State:
    """The state of the agent with this socket. Ends the command with code 3 without an answer."""
    try:
        reply = ask(name, STATE)
        if reply.status != 200:
            raise OSError(f"it answered with status {reply.status}")
        state: State = json.loads(reply.body)
    except (OSError, ValueError) as error:
        give_up(f"the agent does not answer: {error}")
    return state


def each(show: Callable[[State], bool], found: Sequence[State], as_json: bool) -> int:
    """Show the state of each agent, and return the exit code. `show` says whether all is fine."""
    fine = True
    for number, state in enumerate(found):
        if as_json:
            click.echo(json.dumps(state))
            fine = fine and state["summary"]["well"]
            continue
        if number:
            click.echo()
        fine = show(state) and fine
    return FINE if fine else NOT_FINE


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines with aligned columns. The last column has no limit."""
    clean = [[harmless(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*clean, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in clean
    ]


def harmless(text: str) -> str:
    """Text of a container, an engine or a registry, made fit for one line of a terminal."""
    return ascii(text) if unprintable(text) else text


def counted(number: int, what: str, plural: str = "") -> str:
    """``1 service``, ``2 services``, ``2 entries``."""
    return f"{number} {what}" if number == 1 else f"{number} {plural or f'{what}s'}"


def give_up(why: str) -> NoReturn:
    """End the command, as somebody does not answer."""
    _end(why, UNREACHABLE)


def refuse(why: str) -> NoReturn:
    """End the command, as the call is wrong."""
    _end(why, WRONG)


def _end(why: str, code: int) -> NoReturn:
    click.echo(f"registrator: {harmless(why)}", err=True)
    sys.exit(code)


def plain(value: Any) -> str:
    """A value of the state as text. None is empty."""
    return "" if value is None else str(value)
