"""A removal with a token that changed is done once more, at the same Consul agent."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, cast

import pytest

from registrator.backends.consul.api import Api
from registrator.backends.consul.errors import Denied, Refused
from registrator.backends.consul.removals import DOUBT, Removals
from registrator.backends.consul.settings import Endpoint
from registrator.model import Identity

HOME, AWAY = Endpoint("", "127.0.0.1", 8500), Endpoint("", "127.0.0.2", 8500)
MARKS = {"registrator-owner": "o", "registrator-host": "h", "registrator-token": "new"}


class Recording:
    """An agent that takes everything, or answers with an error."""

    def __init__(self, endpoint: Endpoint, error: Exception | None = None) -> None:
        self.endpoint = endpoint
        self.error = error
        self.calls: list[str] = []

    def register(self, body: Mapping[str, Any]) -> None:
        if self.error:
            raise self.error
        assert body["Check"]["Status"] == "critical"
        assert "Address" not in body
        assert body["Meta"] == MARKS
        self.calls.append(f"register {body['ID']} as {body['Name']}")

    def deregister(self, service_id: str) -> None:
        self.calls.append(f"deregister {service_id}")


def redo(
    removals: Removals, endpoint: Endpoint, *standing: str, error: Exception | None = None
) -> list[str]:
    agent = Recording(endpoint, error)
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
    agent = Recording(HOME)
    assert not removals.redo(cast(Api, agent), (), "new", time.monotonic() - 1)
    assert agent.calls == []
    assert removals.endpoints("new") == {HOME, AWAY}
    assert removals.redo(cast(Api, agent), (), "new")
    assert removals.endpoints("new") == {AWAY}


@pytest.mark.parametrize(
    "error", [Refused("it", 400, "no"), Denied("it: no", unknown=False)], ids=["refused", "denied"]
)
def test_a_refusal_holds_up_nothing(removals: Removals, error: Exception) -> None:
    assert redo(removals, HOME, error=error) == []
    assert removals.endpoints("new") == {AWAY}


def test_an_agent_that_does_not_know_the_token_yet_is_asked_again(removals: Removals) -> None:
    """A server that has just restarted may not know it."""
    with pytest.raises(Denied):
        redo(removals, HOME, error=Denied("it: ACL not found", unknown=True))
    assert redo(removals, HOME) == ["register h:a:80 as a", "deregister h:a:80"]


def test_a_removal_is_settled_when_its_token_is_in_use_a_minute_later(
    removals: Removals, monkeypatch: pytest.MonkeyPatch
) -> None:
    removals.settle("old")
    assert removals.endpoints("new") == {HOME, AWAY}
    later = time.monotonic() + DOUBT + 1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert removals.endpoints("new") == {HOME, AWAY}
    removals.settle("old")
    assert removals.endpoints("new") == {AWAY}
    assert redo(removals, HOME) == []
    assert removals.endpoints("newer") == {HOME, AWAY}


def test_an_unknown_token_settles_nothing_and_doubts_nothing(removals: Removals) -> None:
    assert not removals.endpoints(None)
    assert removals.redo(cast(Api, Recording(HOME)), (), None)
    removals.settle(None)
    assert removals.endpoints("new") == {HOME, AWAY}
