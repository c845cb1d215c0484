"""The one form of retry: attempt, note the failure, wait, and attempt again."""

import gc
import random
import threading
from collections.abc import Callable
from typing import TypeVar

import tenacity

T = TypeVar("T")

FIRST_BACKOFF, MAX_BACKOFF, BACKOFF_GROWTH = 0.1, 30.0, 1.2

# An engine is near and serves no other host's agents. Its return is to be seen within 3 s.
MAX_ENGINE_WAIT = 2.0


def backoff(
    attempt: int, first: float = FIRST_BACKOFF, draw: Callable[[], float] = random.random
) -> float:
    """Seconds to wait after the `attempt`-th failure in a row.

    The wait grows slowly and stays near a sixth of the time that the outage has lasted. So the
    agent finds a server soon that returns soon, and leaves the others in peace. Each wait is drawn
    between half of it and all of it, so that the agents of many hosts do not ask together.
    """
    grown: float = min(MAX_BACKOFF, first * BACKOFF_GROWTH ** min(attempt - 1, 100))
    return grown * (0.5 + 0.5 * draw())


def engine_backoff(attempt: int) -> float:
    """Seconds to wait after the `attempt`-th failure in a row of this host's engine."""
    return min(MAX_ENGINE_WAIT, backoff(attempt))


def retry(
    attempt: Callable[[], T],
    error: type[Exception],
    failed: Callable[[Exception], float],
    stop: threading.Event,
    sleep: Callable[[float], object] | None = None,
) -> T | None:
    """Call `attempt` until it succeeds and return its result, or None once `stop` is set.

    `failed` is called with each `error`. It returns the seconds to wait, or raises to give
    up. `sleep` waits that long, and may return early. By default only `stop` ends the wait. An
    attempt that fails after `stop` is set counts for nothing: the end may be why it failed.
    """

    def wait(state: tenacity.RetryCallState) -> float:
        found = state.outcome.exception() if state.outcome else None
        return failed(found) if isinstance(found, Exception) and not stop.is_set() else 0

    def pause(seconds: float) -> None:
        # The exceptions of the libraries hold the socket that failed in a cycle. Without this it
        # would stay open.
        gc.collect()
        (sleep or stop.wait)(seconds)

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(error),
        wait=wait,
        stop=tenacity.stop_when_event_set(stop),
        sleep=pause,
        retry_error_callback=lambda _: None,
    )
    return None if stop.is_set() else retrying(attempt)
