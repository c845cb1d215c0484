"""The one form of retry: how long it waits, what ends it, and what it leaves to the caller."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from registrator.system.retry import MAX_BACKOFF, backoff, retry


def test_backoff_grows_jittered_up_to_a_bound() -> None:
    waits = [backoff(attempt, 0.1, lambda: 1.0) for attempt in range(1, 60)]
    assert waits[0] == pytest.approx(0.1)
    assert waits == sorted(waits)
    assert waits[-1] == MAX_BACKOFF
    assert backoff(1, 2.0, lambda: 0.0) == 1.0
    for attempt in range(10, 30):
        assert waits[attempt] <= 0.2 * sum(waits[:attempt]) + 0.1


def failing(times: int) -> Callable[[], str]:
    """An attempt that fails so many times and succeeds then."""
    errors = [OSError(f"failure {number}") for number in range(1, times + 1)]

    def attempt() -> str:
        if errors:
            raise errors.pop(0)
        return "done"

    return attempt


def test_every_failure_is_told_and_waited_for() -> None:
    told: list[str] = []
    waits: list[float] = []

    def failed(error: Exception) -> float:
        told.append(str(error))
        return len(told)

    assert retry(failing(3), OSError, failed, threading.Event(), waits.append) == "done"
    assert told == ["failure 1", "failure 2", "failure 3"]
    assert waits == [1, 2, 3]


def test_the_end_of_the_agent_ends_it_without_another_wait() -> None:
    stop, waits = threading.Event(), list[float]()

    def failed(_: Exception) -> float:
        stop.set()
        return 60

    assert retry(failing(9), OSError, failed, stop, waits.append) is None
    assert waits == []
    assert retry(failing(0), OSError, failed, stop) is None, "nothing is begun after the end"


def test_a_failure_during_the_end_is_not_told() -> None:
    stop = threading.Event()

    def attempt() -> None:
        stop.set()
        raise OSError

    def failed(_: Exception) -> float:
        raise AssertionError("the end is no failure")

    assert retry(attempt, OSError, failed, stop) is None


def test_stop_ends_the_wait() -> None:
    stop = threading.Event()
    threading.Timer(0.05, stop.set).start()
    assert retry(failing(9), OSError, lambda _: 3600.0, stop) is None


def test_what_gives_up_and_what_is_no_expected_error_come_through() -> None:
    def give_up(error: Exception) -> float:
        raise LookupError("no more attempts") from error

    with pytest.raises(LookupError, match="no more attempts"):
        retry(failing(1), OSError, give_up, threading.Event())
    with pytest.raises(OSError, match="failure 1"):
        retry(failing(1), ValueError, lambda _: 0.0, threading.Event())
