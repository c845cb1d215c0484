"""The instruments that measure durations, and the table of the buckets.

An instrument is a few plain numbers, whatever it has seen. It needs no library, so an agent that
nobody asks stays small.
"""

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate

Clock = Callable[[], float]

# Upper bounds in seconds. The last bucket of each has none.
VISIBLE = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
OPERATION = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
REQUEST = (0.005, 0.02, 0.1, 0.5, 2.0, 5.0)

OPERATIONS = ("list", "apply", "keepalive")
# The actions of events that the agent reads. Any other one, and none, is OTHER.
OTHER = "other"
ACTIONS = (
    "start", "die", "destroy", "rename", "connect", "disconnect", "kill", "pause", "unpause",
    "health_status",
)  # fmt: skip
REQUESTS = ("list", "inspect", "ping")


class Histogram:
    """Counts durations in buckets. Any thread may call any method."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self._lock = threading.Lock()
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        with self._lock:
            self._counts[bisect_left(self.bounds, seconds)] += 1
            self._sum += seconds

    def read(self) -> tuple[list[int], float]:
        """How many were at most each bound, and how many in all. Then the sum of the seconds."""
        with self._lock:
            return list(accumulate(self._counts)), self._sum


class Stopwatch:
    """Measures calls by their names, and tells how long the present one has run.

    A call that fails counts, too.
    """

    def __init__(self, names: tuple[str, ...], bounds: tuple[float, ...], clock: Clock) -> None:
        self.histograms = {name: Histogram(bounds) for name in names}
        self._clock = clock
        self._began: float | None = None

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Measure the block."""
        began = self._began = self._clock()
        try:
            yield
        finally:
            self._began = None
            self.histograms[name].observe(self._clock() - began)

    @property
    def running(self) -> float:
        """The seconds that the present call has run, or 0. If several run, that of one of them."""
        began = self._began
        return 0.0 if began is None else max(0.0, self._clock() - began)


def engine_stopwatch() -> Stopwatch:
    """The instrument for the requests to an engine."""
    return Stopwatch(REQUESTS, REQUEST, time.monotonic)
