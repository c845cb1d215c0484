"""The health note's lines, which derive from the board's rows and from nothing else."""

from __future__ import annotations

from registrator.model import Problem, Reason, Service, Snapshot
from registrator.status.board import Board


def test_the_engine_first_then_each_registry() -> None:
    board = Board(["consul://h:8500", "etcd://h:2379"])
    registry, other = board.registries
    assert board.problems() == ["Docker engine: has not answered yet"]
    board.engine.failed("connection refused")
    assert board.problems() == ["Docker engine: has not answered yet (connection refused)"]
    board.engine.succeeded(version="20.10")
    registry.realised(Snapshot(), {})
    assert board.problems() == ["etcd://h:2379: not in sync"]
    board.engine.failed("timed\nout")
    other.realised(Snapshot(), {})
    registry.failed("no\nanswer")
    assert board.problems() == [
        "Docker engine: timed out",
        "consul://h:8500: not in sync (no answer)",
    ]
    board.engine.succeeded()
    registry.realised(Snapshot(), {})
    assert board.problems() == []


def test_a_service_with_a_problem_is_none() -> None:
    board = Board(["consul://h:8500"])
    board.engine.succeeded(version="20.10")
    service = Service("h:a:80", "a", "127.0.0.7", 1000, 80)
    refused = {service.id: Problem(Reason.REFUSED, "refused")}
    board.registries[0].realised(Snapshot({service.id: service}), refused)
    assert board.problems() == []
