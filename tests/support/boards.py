"""Boards with containers that do not exist, to look at."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable

from registrator.desired.rules import Rules
from registrator.desired.services import services
from registrator.model import Container, Offer, Problem, Snapshot
from registrator.status.board import Board

RULES = Rules("web01", "192.0.2.10")
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>alert(1)</script>"


def offer(of: Container) -> Offer:
    """The offer of a container, as `Containers` has it."""
    return dataclasses.replace(services(of, RULES), container=of)


def snapshot(offers: Iterable[Offer]) -> Snapshot:
    """All services of these offers."""
    return Snapshot({each.id: each for given in offers for each in given.services})


def put(board: Board, *containers: Container, problems: dict[str, Problem] | None = None) -> None:
    """Let the host run these containers, and let each registry hold their services."""
    board.offers = {each.id: offer(each) for each in containers}
    latest = snapshot(board.offers.values())
    for report in board.registries:
        report.realised(latest, problems or {})


def fill(board: Board) -> None:
    """Tell the facts about the agent and the engine."""
    board.tell_agent(
        hostname="web01", version="1.1.0", started=time.time() - 270_000, address="192.0.2.10"
    )
    board.engine.succeeded(version="20.10.24", address="unix:///var/run/docker.sock")
