"""Waiting for a condition instead of sleeping and hoping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
FIRST_WAIT = 0.01
MAX_WAIT = 0.1
# Far above what anything takes, so that a busy machine fails no test.
DEADLINE = 120.0


def until(
    condition: Callable[[], T | None],
    what: str | Callable[[], str],
    deadline: float = DEADLINE,
    ignore: tuple[type[Exception], ...] = (),
) -> T:
    """The first truthy value of `condition`. Raises `AssertionError` after `deadline` s.

    `what` says what was waited for. A callable is asked only when time is up, so that it can
    show the last state. Exceptions of the types in `ignore` count as not yet.
    """
    end = time.monotonic() + deadline
    wait = FIRST_WAIT
    while True:
        last = ""
        try:
            value = condition()
            if value:
                return value
        except ignore as error:
            last = f" (last: {type(error).__name__}: {error})"
        if time.monotonic() > end:
            shown = what() if callable(what) else what
            raise AssertionError(f"not within {deadline:g} s: {shown}{last}")
        time.sleep(wait)
        wait = min(MAX_WAIT, wait * 1.5)
