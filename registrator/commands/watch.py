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
    Columns,
    Questions,
    complain,
    give_up,
    harmless,
    running,
)
from .list import HEAD, rows

# Seconds between two looks. The agent makes its state at most so often for each client.
PERIOD = 1.0

# The state of a port that is not there any more.
GONE = "gone"

Row = tuple[str, ...]
Rows = dict[tuple[str, str, int], Row]


def run(config: Config, *, asks: bool, json: bool = False) -> int:
    """Watch the agents that run here until they end, or the engine and registries for ever."""
    shown: dict[str, Rows] = {}
    columns = Columns()
    for agent, name, now in _asked() if asks else _alone(config):
        if json:
            click.echo(texts.dumps(now))
        else:
            _show(shown.get(agent), _keyed(now), now, name, columns)
        shown[agent] = _keyed(now)
    if not shown:
        return UNREACHABLE
    click.echo("the agent has ended", err=json)
    return FINE


def _asked() -> Iterator[tuple[str, str, State]]:
    """The states of the agents that run here, as they come.

    Each comes after the agent's socket and name. The name is empty if there is only one agent. This
    tells once of each agent that is silent or has ended, and goes on while another one runs.
    """
    questions, seen, misses = Questions(), dict[Agent, str](), Counter[Agent]()
    agents = running()
    if not agents:
        give_up(NOBODY)

    def goes_on() -> bool:
        return any(agent in seen or not misses[agent] for agent in agents)

    while goes_on():
        next_look = time.monotonic() + PERIOD
        questions.ask(agents)
        for answer in questions.answers(PERIOD):
            agent = answer.agent
            if answer.state:
                seen[agent] = answer.name
                del misses[agent]
                yield agent.socket, answer.name if len(agents) > 1 else "", answer.state
                continue
            misses[agent] += 1
            # One that has answered before may be about to end.
            if misses[agent] == 1 + (agent in seen):
                complain(answer.silence)
        time.sleep(max(0.0, next_look - time.monotonic()))
        before, agents = agents, running()
        # The end of the last one is the end of the watch, which tells so.
        for agent in before if goes_on() else ():
            if agent in seen and agent not in agents:
                complain(f"the agent {seen[agent]} has ended")


def _alone(config: Config) -> Iterator[tuple[str, str, State]]:
    for now in states_alone(config):
        yield "", "", now
        time.sleep(PERIOD)


def _keyed(state: State) -> Rows:
    """The rows by container, port and number. A port has a row more for each alias."""
    found: Rows = {}
    numbers = Counter[Row]()
    for row in rows(state):
        container, port, *_ = row
        found[container, port, numbers[row[:2]]] = row
        numbers[row[:2]] += 1
    return found


def _show(before: Rows | None, now: Rows, state: State, name: str, columns: Columns) -> None:
    """The whole list at first, and then what has changed. `name` stands in each line."""
    if before is None:
        verdict = f"{name or state['agent']['hostname']}: {state['summary']['verdict']}"
        # Below each other: no sign yet, and the signs of later lines.
        listed = [(f"  {name}" if name else " ", *row) for row in now.values()]
        click.echo("\n".join([harmless(verdict), *columns.lines([(" ", *HEAD), *listed])]))
        return
    changed = [(f"{sign} {name}".rstrip(), *row) for sign, *row in changes(before, now)]
    for line in columns.lines(changed) if changed else ():
        click.echo(line)


def changes(before: Rows, now: Rows) -> Iterator[Row]:
    """A row, after its sign, for each one that came (+), went (-) or changed (~)."""
    for key, (container, port, _, service, address, _) in before.items():
        if key not in now:
            yield "-", container, port, GONE, service, address, ""
    for key, row in now.items():
        if before.get(key) != row:
            yield "~" if key in before else "+", *row
