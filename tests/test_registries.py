"""Backends made of a registry URI and the operator's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from registrator import registries
from registrator.backend import ConfigError, Context
from registrator.model import Identity
from registrator.registries import call_timeout, make_backend
from registrator.uri import parse


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2", 2), ("0.5", 0.5), ("500ms", 0.5), ("3s", 3), ("1.5s", 1.5), ("1m", 60)],
)
def test_the_time_limit_of_a_call(text: str, seconds: float) -> None:
    assert call_timeout(parse(f"consul://h?timeout={text}")) == seconds


def test_what_a_backend_is_made_from(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Context] = []

    def load(_: str) -> Any:
        return made.append

    monkeypatch.setattr(registries, "load", load)
    uri, identity, environ = parse("consul://h"), Identity("engine", "host"), {"TOKEN": "x"}
    make_backend(Context(uri, identity, 30, 10, environ=environ, wake=print))
    assert made == [Context(uri, identity, 30, 10, 2.0, environ, print)]
    make_backend(Context(parse("consul://h?timeout=3s")))
    assert made[1].timeout == 3


def test_a_backend_of_this_package(tmp_path: Path) -> None:
    uri = parse(f"file://{tmp_path}/services.json")
    assert list(make_backend(Context(uri)).list()) == []


def test_a_mistake_names_the_uri() -> None:
    with pytest.raises(ConfigError, match=r"^no-such://h: unknown registry scheme"):
        make_backend(Context(parse("no-such://h")))
