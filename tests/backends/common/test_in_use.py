"""Which server is in use: said at first and at each move, and never what was said already."""

from __future__ import annotations

import logging

import pytest

from registrator.backends.common.in_use import InUse
from registrator.uri import parse

log = logging.getLogger("in-use-test")
URI = "etcd://s3cret:s3cret@a:1,b:2/s"


@pytest.fixture
def records(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    caplog.set_level(logging.INFO, log.name)
    in_use = InUse(parse(URI), log)
    in_use.connected("a:1", "leader 1")
    in_use.connected("a:1", "leader 1")
    in_use.connected("a:1", "leader 1", "a:1: it was closed")
    in_use.connected("b:2", "leader 1", "a:1: it was closed")
    in_use.connected("a:1", "leader 1", "b:2: no answer", already_logged=True)
    in_use.connected("b:2", "leader 1")
    return caplog.records


def test_each_fact_is_a_line(records: list[logging.LogRecord]) -> None:
    assert [f"{record.levelname} {record.getMessage()}" for record in records] == [
        "INFO etcd://***@a:1,b:2/s: connected to a:1, leader 1",
        "WARNING etcd://***@a:1,b:2/s: connected to a:1 again (a:1: it was closed)",
        "WARNING etcd://***@a:1,b:2/s: moved to b:2 (a:1: it was closed)",
        "INFO etcd://***@a:1,b:2/s: moved to b:2 (a:1 failed)",
    ]


def test_each_line_names_the_server_and_a_move_is_an_event(
    records: list[logging.LogRecord],
) -> None:
    given = [vars(record) for record in records]
    assert {each["registry"] for each in given} == {"etcd://***@a:1,b:2/s"}
    assert [(each["server"], each.get("event")) for each in given] == [
        ("a:1", None),
        ("a:1", None),
        ("b:2", "server_moved"),
        ("b:2", "server_moved"),
    ]
