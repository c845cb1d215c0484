"""Makes the state without an agent: reads the engine, and each registry that is given."""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace

from registrator.backend import BackendError, ConfigError, Context
from registrator.config import Config
from registrator.engine.address import WrongVariables
from registrator.model import EngineUnavailable, Problem, Snapshot
from registrator.status.outcomes import PENDING
from registrator.status.report import RegistryReport
from registrator.status.schema import State
from registrator.status.state import state
from registrator.system import log as logs

from .asking import NOBODY, UNREACHABLE, Found, asked, complain, give_up, refuse, running
from .host import Host
from .reading import Comparison, Reader, compare

NOT_THERE = "the registry does not have it as it is now"
WOULD_BE = "it would be registered"


@contextmanager
def host_of(config: Config) -> Iterator[Host]:
    """This host. Ends the command if the engine does not answer, or its variables are wrong."""
    with logs.on_stderr("error", config.log_format):
        try:
            with closing(Host(config)) as host:
                yield host
        except (WrongVariables, ConfigError) as error:
            refuse(str(error))
        except EngineUnavailable as error:
            give_up(f"the Docker engine does not answer: {error}")


class Registries:
    """The registries of a call, each with its report and the text of its filter."""

    def __init__(self, config: Config, host: Host, opened: ExitStack) -> None:
        self._config, self._host = config, host
        self._rows = [
            (report, view.text, self._reader(Context(
                uri, host.identity, config.ttl, config.ttl_refresh, environ=os.environ
            ), opened))
            for uri, view, report in zip(
                config.uris, config.registry_filters, host.board.registries, strict=True
            )
        ]  # fmt: skip

    def _reader(self, context: Context, opened: ExitStack) -> Reader:
        return opened.enter_context(closing(Reader(context)))

    def compare(
        self, snapshot: Snapshot
    ) -> Iterator[tuple[RegistryReport, Snapshot, Comparison | None]]:
        """Each registry with what it should have, and the comparison, or None if it fails.

        The report then tells why.
        """
        for report, text, reader in self._rows:
            view = snapshot.views.get(text, snapshot)
            try:
                found = compare(reader, view, self._host.identity, cleanup=self._config.cleanup)
            except BackendError as error:
                report.failed(error)
                yield report, view, None
                continue
            report.serves(reader.server)
            report.listed()
            _note(report, view, found.missing, found.problems)
            yield report, view, found


def _note(
    report: RegistryReport, view: Snapshot, missing: set[str], problems: Mapping[str, Problem]
) -> None:
    """Report the entries that stand. Missing ones count as not realised."""
    standing = {key: each for key, each in view.services.items() if key not in missing}
    report.realised(replace(view, services=standing), problems)


def states_alone(config: Config) -> Iterator[State]:
    """The state now, again and again. Ends the command if the engine does not answer."""
    with host_of(config) as host, ExitStack() as opened:
        registries = Registries(config, host, opened)
        while True:
            for _ in registries.compare(host.look()):
                pass
            yield told_alone(state(host.board))


def look(config: Config, *, asks: bool) -> Found:
    """The state of each agent that runs here if the command `asks`. Otherwise this one's own look.

    That is also taken if no agent runs.
    """
    if asks:
        if agents := running():
            return asked(agents)
        complain(f"{NOBODY}: the engine tells what would be registered")
    return Found({"": next(states_alone(config))})


def exit_code(code: int, found: Found, *, asks: bool) -> int:
    """The exit code: whether a registry answered counts only if the command itself asked it."""
    rows = [row for each in found.states.values() for row in each["registries"]]
    down = not asks and any(row["state"] == "down" for row in rows)
    return found.end(UNREACHABLE if down else code)


def told_alone(made: State) -> State:
    """The state in words that fit. Nobody is about to write what is not registered."""
    why = NOT_THERE if made["registries"] else WOULD_BE
    for group in made["containers"]:
        for port in group["ports"]:
            for standing in (port, *port["registries"]):
                if PENDING in (standing.get("outcome"), standing.get("state")):
                    standing["why"] = why
    summary = made["summary"]
    missing = summary["ports"][PENDING]
    if missing and made["registries"]:
        summary["well"] = False
        summary["verdict"] = f"{missing} of {summary['services']} services are not registered"
    elif missing:
        summary["verdict"] = f"{missing} services would be registered"
    return made
