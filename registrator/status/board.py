"""What the agent knows of itself: the one state behind log lines, health note and all that is told.

The core fills the board. Everything else reads it, and reads nothing else. Each row is immutable
and replaced as a whole, so that a reader never sees half of a change and needs no lock. Each row
and each counter has one thread that writes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from registrator.model import Offer, Problem


@dataclass(frozen=True, slots=True)
class EngineRow:
    """The Docker engine, as seen from here.

    `answers` is None until it answered for the first time. `since` is when its present state
    began, in seconds since the epoch. `error` is why it does not answer, and `failures` how often
    in a row.
    """

    address: str = ""
    version: str = ""
    answers: bool | None = None
    since: float = 0.0
    error: str = ""
    failures: int = 0


@dataclass(frozen=True, slots=True)
class RegistryRow:
    """One registry, as its reconciler sees it.

    `in_sync` is whether the last attempt succeeded and wrote all that can be written: services
    in `problems` do not count. `problems` are by service id. Moments are in seconds since the
    epoch, 0 for never.
    """

    name: str
    in_sync: bool = False
    entries: int = 0
    problems: Mapping[str, Problem] = field(default_factory=dict)
    since: float = 0.0
    error: str = ""
    failures: int = 0
    last_success: float = 0.0
    last_listing: float = 0.0


class Board:
    """The rows and counters of one agent."""

    def __init__(self) -> None:
        self.engine = EngineRow()
        self.registries: dict[str, RegistryRow] = {}
        # By container id; the mapping is replaced with each snapshot.
        self.offers: Mapping[str, Offer] = {}
        self.counters: dict[str, int] = {}

    def tell_engine(self, **changes: Any) -> None:
        """Replace the engine's row by one with these fields changed."""
        self.engine = replace(self.engine, **changes)

    def tell_registry(self, name: str, **changes: Any) -> None:
        """Replace a registry's row by one with these fields changed."""
        row = self.registries.get(name) or RegistryRow(name)
        self.registries[name] = replace(row, **changes)

    def count(self, counter: str, by: int = 1) -> None:
        """Raise a counter, which starts at 0."""
        self.counters[counter] = self.counters.get(counter, 0) + by

    def problems(self) -> list[str]:
        """What keeps the registries from being right at this moment, a line each; no secrets."""
        if self.engine.answers is None:
            return ["Docker engine: has not answered yet"]
        found = [] if self.engine.answers else ["Docker engine: does not answer"]
        rows = list(self.registries.values())
        return found + [f"{row.name}: not in sync" for row in rows if not row.in_sync]
