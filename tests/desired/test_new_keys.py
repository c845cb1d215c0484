"""One warning at the agent's start for each container with a key that was an attribute once."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from registrator.desired.containers import Containers
from registrator.desired.new_keys import NEW_KEYS, new_keys
from registrator.desired.rules import Rules
from registrator.model import Container, Port

WEB = Container(
    id="1" * 64, name="web", image="nginx", hostname="1", ports=(Port(80, "tcp", "0.0.0.0", 8080),)
)
MIGRATING = Path(__file__).resolve().parents[2] / "docs/migrating.md"


def containers() -> Containers:
    return Containers(Rules("host", "127.0.0.1"), frozenset())


def take(them: Containers, *containers: Container, complete: bool = True) -> None:
    for each in containers:
        them.put(each.id, each)
    them.derive(set())
    them.snapshot(complete=complete, settled=complete)


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The lines about new keys since the last call."""
    found = [each.getMessage() for each in caplog.records if "settings now" in each.getMessage()]
    caplog.clear()
    return found


@pytest.mark.parametrize("key", sorted(NEW_KEYS))
@pytest.mark.parametrize("port", ["", "80_"])
@pytest.mark.parametrize("kind", ["env", "labels"])
@pytest.mark.parametrize("value", ["", "x"])
def test_each_new_key_is_told_by_one_warning(
    key: str, port: str, kind: str, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong value has a warning of its own, which names the key too."""
    spelt = f"SERVICE_{port}{key.upper()}"
    source: dict[str, Any] = {kind: {spelt: value}}
    take(containers(), replace(WEB, **source))
    (line,) = (each.getMessage() for each in caplog.records if spelt in each.getMessage())
    assert line.startswith(f"container web ({'1' * 12}): ")
    assert [each.levelname for each in caplog.records] == ["WARNING"]


def test_one_line_names_all_keys_of_a_container(caplog: pytest.LogCaptureFixture) -> None:
    env = {"SERVICE_CHECK_2_HTTP": "/", "SERVICE_443_Check_10_TCP": "1", "SERVICE_PORTS": "80",
           "SERVICE_NAME": "web", "SERVICE_CHECK_HTTP": "/", "SERVICE_CHECK_100_TCP": "1",
           "SERVICE_REGION": "eu", "PORTS": "1"}  # fmt: skip
    take(containers(), replace(WEB, env=env, labels={"SERVICE_PORTS": "80"}))
    (line,) = warned(caplog)
    assert "SERVICE_443_Check_10_TCP, SERVICE_CHECK_2_HTTP, SERVICE_PORTS: settings now" in line


def test_only_the_containers_of_the_start_are_told_of_and_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    them = containers()
    env = {"SERVICE_PORTS": "80"}
    one, two, three = (replace(WEB, id=c * 64, name=f"c{c}", env=env) for c in "123")
    take(them, one, complete=False)
    assert [line[:12] for line in warned(caplog)] == ["container c1"]
    # The rest of the first listing, and a change of what was told already.
    take(them, replace(one, started_at=1), two)
    assert [line[:12] for line in warned(caplog)] == ["container c2"]
    # Another container, a resync, and other rules.
    take(them, one, two, three)
    them.use_rules(Rules("host", "127.0.0.2"), frozenset())
    take(them)
    assert warned(caplog) == []


@pytest.mark.parametrize("changes", [
    {"env": {"SERVICE_PORTS": "80", "SERVICE_IGNORE": "1"}},
    {"env": {"SERVICE_WEIGHT_PASSING": "1"}, "ports": ()},
])  # fmt: skip
def test_a_container_that_is_no_service_anyway_is_not_told_of(
    changes: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    take(containers(), replace(WEB, **changes))
    assert warned(caplog) == []


def test_a_container_that_a_new_key_leaves_out_is_told_of_by_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    take(containers(), replace(WEB, env={"SERVICE_PORTS": "81"}))
    assert warned(caplog) == []
    env = {"SERVICE_WEIGHT_PASSING": "heavy", "SERVICE_ALIASES": "b"}
    take(containers(), replace(WEB, env=env))
    (line,) = warned(caplog)
    assert "): SERVICE_ALIASES: settings now" in line


def test_hostile_keys_make_one_short_line(caplog: pytest.LogCaptureFixture) -> None:
    env = {f"SERVICE_CHECK_2_{n}\n{'x' * 999}": "1" for n in range(500)}
    assert len(new_keys(replace(WEB, env=env))) == 500
    take(containers(), replace(WEB, env=env, labels={"SERVICE_X": "y"}))
    (line,) = warned(caplog)
    assert line.isprintable()
    assert len(line) < 3000


def test_the_page_about_moving_lists_each_of_them() -> None:
    table = MIGRATING.read_text().partition("## Keys with a new meaning")[2].partition("\n## ")[0]
    rows = "".join(line for line in table.splitlines() if line.startswith("| `"))
    named = set(re.findall(r"`SERVICE_([A-Z_0-9]+)`", rows))
    assert named == {key.upper() for key in NEW_KEYS} | {"CHECK_2_HTTP"}
