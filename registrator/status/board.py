"""What the agent knows of itself: the one state behind log lines, health note and all that asks.

The core fills the board through its reports. Everything else reads it, and reads nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from registrator.model import Offer
from registrator.status.report import RegistryReport, Report
from registrator.status.rows import EngineRow


class Board:
    """The reports of one agent: on the engine with its event stream, and on each registry.

    `offers` says what each container offers, by container id. It is replaced with each snapshot.
    """

    def __init__(self) -> None:
        self.engine = Report(EngineRow("Docker engine"), logging.getLogger("registrator.engine"))
        self.registries: list[RegistryReport] = []
        self.offers: Mapping[str, Offer] = {}

    def add_registry(self, name: str) -> RegistryReport:
        """Begin the report on a registry. `name` is its URI without secrets."""
        report = RegistryReport(name)
        self.registries.append(report)
        return report

    def problems(self) -> list[str]:
        """What keeps the registries from being in sync now, a line each, without secrets."""
        engine = self.engine.row
        if not engine.last_success:
            return [f"{engine.name}: has not answered yet"]
        # One line, whatever an engine answers.
        found = [f"{engine.name}: {' '.join(engine.error.split())}"] if engine.failures else []
        rows = [report.row for report in self.registries]
        return found + [f"{row.name}: not in sync" for row in rows if not row.in_sync]
