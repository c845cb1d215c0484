"""``registrator watch``: the list, and then a line for each change, as containers come and go."""

import json as texts
import time
from collections.abc import Iterator

import click

from registrator.config import Config
from registrator.status.schema import State

from .alone import states_alone
from .asking import FINE, harmless, running, state_of, states, table
from .list import HEAD, rows

# Seconds between two looks. The agent makes its state at most so often for each client.
PERIOD = 1.0

Row = tuple[str, ...]


def run(config: Config, *, asks: bool, json: bool = False) -> int:
    """Watch the agents that run here until they end, or the engine and registries for ever."""
    shown: dict[str, list[Row]] = {}
    for name, now in _asked() if asks else _alone(config):
        if json:
            click.echo(texts.dumps(now))
        else:
            _show(shown.get(name), list(rows(now)), now)
        shown[name] = list(rows(now))
    click.echo("the agent has ended", err=json)
    return FINE


def _asked() -> Iterator[tuple[str, State]]:
    """The states of the agents that run here, in turn, by the names of their sockets."""
    states()  # This ends the command if no agent runs.
    while names := running():
        for name in names:
            yield name, state_of(name)
        time.sleep(PERIOD)


def _alone(config: Config) -> Iterator[tuple[str, State]]:
    for now in states_alone(config):
        yield "", now
        time.sleep(PERIOD)


def _show(before: list[Row] | None, now: list[Row], state: State) -> None:
    """The whole list at first, and then what has changed."""
    if before is None:
        head = f"{state['agent']['hostname']}: {state['summary']['verdict']}"
        click.echo("\n".join([harmless(head), *table([HEAD, *now])]))
        return
    for line in changes(before, now):
        click.echo(line)


def changes(before: list[Row], now: list[Row]) -> list[str]:
    """A line for each row that came (+), went (-) or changed (~)."""
    old, new = {_key(row): row for row in before}, {_key(row): row for row in now}
    signed = [("-", row) for key, row in old.items() if key not in new]
    signed += [("~" if key in old else "+", row) for key, row in new.items() if old.get(key) != row]
    return table([(sign, *row) for sign, row in signed]) if signed else []


def _key(row: Row) -> Row:
    """Container, port and service: a port has a service for each alias, too."""
    return row[0], row[1], row[3]
