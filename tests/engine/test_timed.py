"""Each request to the engine is measured, whether it fails or not."""

from __future__ import annotations

from typing import Any, cast

import pytest

from registrator.engine.client import DockerEngine
from registrator.engine.timed import TimedEngine
from registrator.model import EngineUnavailable
from registrator.status.instruments import engine_stopwatch


class Answers:
    def interrupt(self) -> None:
        raise AssertionError

    def ping(self) -> None:
        raise EngineUnavailable("away")

    def running(self) -> dict[str, int]:
        return {"a": 1}

    def inspect(self, *asked: Any) -> Any:
        return asked


def test_it_passes_on_what_the_engine_says_and_measures() -> None:
    watch = engine_stopwatch()
    engine = TimedEngine(cast(DockerEngine, Answers()), watch)
    assert engine.running() == {"a": 1}
    assert cast(Any, engine.inspect("b", 0.2)) == ("b", 0.2)
    engine.inspect("b")
    with pytest.raises(EngineUnavailable):
        engine.ping()
    counts = {name: each.read()[0][-1] for name, each in watch.histograms.items()}
    assert counts == {"list": 1, "inspect": 2, "ping": 1}
