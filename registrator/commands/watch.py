"""``registrator watch``: the list, and then a line for each change, as containers come and go."""

import json as texts
import time
from collections import Counter
from collections.abc import Iterator

import click

from registrator.config import Config
from registrator.listener.client import Agent
from registrator.status.schema import State

from .alone import states_alone
from .asking import (
    FINE,
    NOBODY,
    UNREACHABLE,
    Questions,
    complain,
    give_up,
    harmless,
    running,
    table,
)
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
    if not shown:
        return UNREACHABLE
    click.echo("the agent has ended", err=json)
    return FINE


def _asked() -> Iterator[tuple[str, State]]:
    """The states of the agents that run here, as they come, by the names of their sockets.

    It tells once of each agent that is silent, and goes on while another one runs.
    """
    questions, seen, misses = Questions(), set[Agent](), Counter[Agent]()
    agents = running()
    if not agents:
        give_up(NOBODY)
    while any(agent in seen or not misses[agent] for agent in agents):
        next_look = time.monotonic() + PERIOD
        questions.ask(agents)
        for agent, state, silence in questions.answers(PERIOD):
            if state:
                seen.add(agent)
                del misses[agent]
                yield agent.socket, state
                continue
            misses[agent] += 1
            # One that has answered before may be about to end.
            if misses[agent] == 1 + (agent in seen):
                complain(silence)
        time.sleep(max(0.0, next_look - time.monotonic()))
        agents = running()


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
