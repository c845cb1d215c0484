"""What the operator reads of a fault: its begin, every tenth failure, its end."""

from __future__ import annotations

import logging

import pytest

from registrator.status.outage import Outage

log = logging.getLogger("outage-test")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_begin_every_tenth_and_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = Clock()
    outage = Outage("it", log, clock)
    for _ in range(25):
        outage.failed("refused")
        clock.now += 1
    assert outage.over("2 registered")
    assert not outage.over()
    assert caplog.messages == [
        "it: refused; trying again until it is right",
        "it: still failing after 9 s and 10 attempts: refused",
        "it: still failing after 19 s and 20 attempts: refused",
        "it: right again after 25.0 s: 2 registered",
    ]


def test_a_loss_is_told_whatever_failed_before(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage("it", log, Clock())
    outage.failed("refused")
    outage.failed("moved", lost=True)
    outage.failed("refused")
    assert caplog.messages == [
        "it: refused; trying again until it is right",
        "it: moved; putting right what is missing",
    ]


def test_what_is_told_elsewhere_is_not_told_twice(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    outage = Outage("it", log, Clock())
    for _ in range(20):
        outage.failed("refused", told=True)
    assert outage.failures == 20
    assert outage.over()
    assert caplog.messages == []
    outage.failed("refused", told=True)
    outage.failed("ended")
    outage.failed("refused", told=True)
    outage.over()
    assert caplog.messages == [
        "it: ended; trying again until it is right",
        "it: right again after 0.0 s",
    ]
