"""The board: all that the agent knows of its engine and its registries, in one place.

The core fills the board through its reports. `Board.problems` gives the lines of the health note.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from registrator.model import Offer, Snapshot
from registrator.status.instruments import engine_stopwatch
from registrator.status.report import RegistryReport, Report
from registrator.status.rows import AgentRow, EngineRow


class Board:
    """The reports of one agent: on the engine with its event stream, and on each registry.

    `offers` says what each container offers, by container id. It is replaced with each snapshot,
    and `latest` is that snapshot. `waiting` is how many containers are still to be looked at.
    `refused` counts the requests for this state that were refused. `requests` measures those to the
    engine, and `event_lag` is how many seconds after its own time the last event came.
    """

    def __init__(self, registries: Iterable[str] = ()) -> None:
        """`registries` are the URIs of the registries, without secrets."""
        self.engine = Report(EngineRow("Docker engine"), logging.getLogger("registrator.engine"))
        self.registries = [RegistryReport(uri) for uri in registries]
        self.agent = AgentRow()
        self.offers: Mapping[str, Offer] = {}
        self.latest: Snapshot | None = None
        self.waiting = 0
        self.refused = 0
        self.requests = engine_stopwatch()
        self.event_lag = 0.0

    def tell_agent(self, **changes: Any) -> None:
        """Note facts about the agent itself."""
        self.agent = replace(self.agent, **changes)

    def tell_containers(
        self, latest: Snapshot | None, offers: Mapping[str, Offer], *, waiting: int
    ) -> None:
        """Note what the containers offer now."""
        self.latest, self.offers, self.waiting = latest, offers, waiting

    def problems(self) -> list[str]:
        """The reasons why registries are not in sync now, a line each, without secrets."""
        engine = self.engine.row
        if not engine.last_success:
            return [_line(engine.name, "has not answered yet", engine.error)]
        found = [_line(engine.name, engine.error)] if engine.failures else []
        rows = [report.row for report in self.registries]
        return found + [_line(r.name, "not in sync", r.error) for r in rows if not r.in_sync]


def _line(name: str, what: str, why: str = "") -> str:
    """One line, whatever an engine or a registry answers."""
    return " ".join(f"{name}: {what}{why and f' ({why})'}".split())
