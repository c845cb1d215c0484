"""Recognizes restart loops, so that registries do not see every round of them."""

from typing import NamedTuple

# A container that starts this often within so many seconds is in a restart loop. It is inspected
# again once it has not started for SETTLE seconds.
LOOP_STARTS, LOOP_SECONDS, SETTLE = 4, 10.0, 1.0


class Start(NamedTuple):
    """When a container started by the engine's clock, and when we heard of it by ours (seconds)."""

    time: float
    told: float


class RestartLoop:
    """The recent starts of one container."""

    def __init__(self) -> None:
        self._starts: list[Start] = []

    def started(self, time: float, told: float) -> None:
        """Note a start."""
        self._starts.append(Start(time, told))

    def forget(self, now: float) -> bool:
        """Forget the starts that are too long ago, and say whether none is left."""
        self._starts = [start for start in self._starts if start.told > now - LOOP_SECONDS]
        return not self._starts

    def calm_at(self, now: float) -> float:
        """When a looping container will count as settled, or 0 for a container without a loop.

        After an outage the engine tells of many starts at once. Those that were far apart by its
        own clock make no loop.
        """
        if self.forget(now):
            return 0
        last = self._starts[-1]
        close = sum(abs(last.time - start.time) < LOOP_SECONDS for start in self._starts)
        return last.told + SETTLE if close >= LOOP_STARTS else 0
