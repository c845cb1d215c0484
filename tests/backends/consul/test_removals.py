"""A removal with a token that changed is done once more, at the same Consul agent."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, cast

import pytest

from registrator.backends.consul.api import Api
from registrator.backends.consul.errors import Refused
from registrator.backends.consul.removals import DOUBT, Removals
from registrator.backends.consul.settings import Endpoint
from registrator.model import Identity

HOME, AWAY = Endpoint("", "127.0.0.1", 8500), Endpoint("", "127.0.0.2", 8500)
MARKS = {"registrator-owner": "o", "registrator-host": "h", "registrator-token": "new"}


class Recording:
    """An agent that takes everything, or refuses it."""

    def __init__(self, endpoint: Endpoint, refuses: bool) -> None:
        self.endpoint = endpoint
        self.refuses = refuses
        self.calls: list[str] = []

    def register(self, body: Mapping[str, Any]) -> None:
        if self.refuses:
            raise Refused(str(self.endpoint), 400, "no")
        assert body["Check"]["Status"] == "critical"
        assert "Address" not in body
        assert body["Meta"] == MARKS
        self.calls.append(f"register {body['ID']} as {body['Name']}")

    def deregister(self, service_id: str) -> None:
        self.calls.append(f"deregister {service_id}")


def redo(
    removals: Removals, endpoint: Endpoint, *standing: str, refuses: bool = False
) -> list[str]:
    agent = Recording(endpoint, refuses)
    removals.redo(cast(Api, agent), standing, "new")
    return agent.calls


@pytest.fixture
def removals() -> Removals:
    made = Removals(Identity("o", "h"))
    made.note(HOME, {"h:a:80": "a", "unknown": ""}, "old")
    made.note(AWAY, {"h:b:80": "b"}, None)
    made.note(HOME, {"h:c:80": "c"}, "new")
    made.note(None, {"h:d:80": "d"}, "old")
    return made


def test_each_is_removed_once_more_where_it_was_removed(removals: Removals) -> None:
    assert removals.endpoints("new") == {HOME, AWAY}
    assert redo(removals, HOME) == ["register h:a:80 as a", "deregister h:a:80"]
    assert redo(removals, HOME) == []
    assert removals.endpoints("new") == {AWAY}
    assert redo(removals, AWAY) == ["register h:b:80 as b", "deregister h:b:80"]
    assert not removals.endpoints("new")


def test_what_stands_again_stays(removals: Removals) -> None:
    assert redo(removals, HOME, "h:a:80") == []
    assert removals.endpoints("new") == {AWAY}


def test_what_takes_too_long_is_left_for_the_next_time(removals: Removals) -> None:
    agent = Recording(HOME, refuses=False)
    assert not removals.redo(cast(Api, agent), (), "new", time.monotonic() - 1)
    assert agent.calls == []
    assert removals.endpoints("new") == {HOME, AWAY}
    assert removals.redo(cast(Api, agent), (), "new")
    assert removals.endpoints("new") == {AWAY}


def test_a_refusal_holds_up_nothing(removals: Removals) -> None:
    assert redo(removals, HOME, refuses=True) == []
    assert removals.endpoints("new") == {AWAY}


def test_what_is_long_ago_is_left(removals: Removals, monkeypatch: pytest.MonkeyPatch) -> None:
    later = time.monotonic() + DOUBT + 1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert not removals.endpoints("new")
    assert redo(removals, HOME) == []
