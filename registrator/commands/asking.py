"""Asks the agents that run here for their state. The commands that only look share this.

An agent answers at its private socket. Its own user and root get an answer, and nobody else. All
agents are asked at once, so one that is silent hides no other.
"""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, NoReturn

import click

from registrator.listener.client import Agent, agents, ask
from registrator.model import unprintable
from registrator.status.schema import State

FINE, NOT_FINE, WRONG, UNREACHABLE = 0, 1, 2, 3

STATE = "/api/state"
NOBODY = "no agent runs here, or it belongs to another user"

# Seconds that all agents together have for their answers.
PATIENCE = 15.0


class Answer(NamedTuple):
    """The state of an agent, or a line that says why there is none."""

    agent: Agent
    state: State | None
    silence: str = ""

    @property
    def name(self) -> str:
        """The name of the agent for the reader: several may run on one host."""
        hostname = self.state["agent"]["hostname"] if self.state else ""
        return f"{hostname or 'agent'}[{self.agent.pid}]"


class Questions:
    """Asks agents, each in a thread of its own."""

    def __init__(self) -> None:
        self.open: set[Agent] = set()
        self._answers: SimpleQueue[Answer] = SimpleQueue()

    def ask(self, agents: Iterable[Agent]) -> None:
        """Ask these agents, all but those whose answer is still to come."""
        for agent in set(agents) - self.open:
            self.open.add(agent)
            threading.Thread(target=self._wait_for, args=(agent,), daemon=True).start()

    def answers(self, seconds: float) -> Iterator[Answer]:
        """The answers as they come, until all are there or the time is over."""
        end = time.monotonic() + seconds
        while self.open:
            try:
                answer = self._answers.get(timeout=max(0.0, end - time.monotonic()))
            except Empty:
                return
            self.open.discard(answer.agent)
            yield answer

    def _wait_for(self, agent: Agent) -> None:
        try:
            answer = Answer(agent, state_of(agent))
        except (OSError, ValueError) as error:
            answer = Answer(agent, None, silence(agent, error))
        self._answers.put(answer)


class Found(NamedTuple):
    """The states to show by the names of their agents, and a line about each agent that is silent.

    A state that was made without an agent has no name.
    """

    states: Mapping[str, State]
    silent: Sequence[str] = ()

    def end(self, code: int) -> int:
        """Tell who does not answer, and return the exit code of the command."""
        for line in self.silent:
            complain(line)
        return UNREACHABLE if self.silent else code


def running() -> list[Agent]:
    """The agents that run here."""
    return agents()


def states() -> Found:
    """The states of the agents that run here. Ends the command with code 3 if there is none."""
    found = asked(running())
    if not found.states and not found.silent:
        give_up(NOBODY)
    return found


def asked(agents: Sequence[Agent]) -> Found:
    """Ask these agents for their states."""
    questions = Questions()
    questions.ask(agents)
    answers = sorted(questions.answers(PATIENCE), key=lambda answer: answer.agent.pid)
    late = [silence(agent, TimeoutError("timed out")) for agent in sorted(questions.open)]
    return Found(
        {answer.name: answer.state for answer in answers if answer.state},
        [*(answer.silence for answer in answers if answer.silence), *late],
    )


def state_of(agent: Agent) -> State:
    """The state of an agent. Raises `OSError` or `ValueError` if it gives none."""
    reply = ask(agent.socket, STATE)
    if reply.status != 200:
        raise OSError(f"it answers with status {reply.status}")
    state: State = json.loads(reply.body)
    return state


def silence(agent: Agent, error: Exception) -> str:
    """The line about an agent that does not answer."""
    why = getattr(error, "strerror", "") or str(error)
    if isinstance(error, ConnectionRefusedError):
        # Each network namespace has its own sockets without a path.
        why += f" (it may be in another network: ask it with docker exec {agent.container}".rstrip()
        why += ")"
    return f"the agent with the process id {agent.pid} does not answer: {why}"


def each(show: Callable[[State], bool], found: Mapping[str, State], as_json: bool) -> int:
    """Show the state of each agent, and return the exit code. `show` says whether all is fine."""
    fine = True
    for number, (name, state) in enumerate(found.items()):
        if as_json:
            click.echo(json.dumps(state))
            fine = fine and state["summary"]["well"]
            continue
        if len(found) > 1:
            click.echo("\n" * bool(number) + head(name, state))
        fine = show(state) and fine
    return FINE if fine else NOT_FINE


def head(name: str, state: State) -> str:
    """The line above what an agent says, if there are several."""
    registries = ", ".join(each["name"] for each in state["registries"])
    return harmless(f"agent {name} for {registries}:")


class Columns:
    """Rows as lines with aligned columns.

    A column never becomes narrower, so later rows stand below earlier ones.
    """

    def __init__(self) -> None:
        self._widths: Sequence[int] = ()

    def lines(self, rows: Sequence[Sequence[str]]) -> list[str]:
        """These rows, which all have the same number of columns."""
        clean = [[harmless(cell) for cell in row] for row in rows]
        needed = [max(map(len, column)) for column in zip(*clean, strict=True)]
        self._widths = [*map(max, needed, self._widths or needed)]
        return ["  ".join(map(str.ljust, row, self._widths)).rstrip() for row in clean]


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines with aligned columns."""
    return Columns().lines(rows)


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
    complain(why)
    sys.exit(code)


def complain(why: str) -> None:
    """Say on stderr that something is wrong."""
    click.echo(f"registrator: {harmless(why)}", err=True)


def plain(value: Any) -> str:
    """A value of the state as text. None is empty."""
    return "" if value is None else str(value)
