"""Tells which containers are being stopped, by the signals that were sent to them.

The engine tells of a signal after it has delivered it (``-deregister-on-stop``). The container runs
on until it has ended its work, and its services are withdrawn meanwhile. Nobody tells how long the
caller of a stop waits. So a container that runs on for too long counts as not being stopped.
"""

import signal
from typing import NamedTuple

from registrator.model import Container

# Services return so many seconds after the container's own time limit for a stop, but not before
# RETURN seconds: ``docker stop -t`` sets another limit, and no event tells of it.
GRACE, RETURN = 30.0, 120.0

# No wait is longer, whatever limit a container has. A negative limit means that there is none.
LONGEST = 86400.0


class Kill(NamedTuple):
    """A signal that was sent at `time`, in ns of the engine's clock.

    `told` is when we heard of it, in seconds of our clock.
    """

    signal: int
    time: int
    told: float


class Withdrawn:
    """The last signals of each kind that were sent to each container. For one thread."""

    def __init__(self) -> None:
        self._kills: dict[str, dict[int, Kill]] = {}

    def note(self, container_id: str, kill: Kill) -> None:
        """Note that a signal was sent to a container. It may be of no consequence."""
        self._kills.setdefault(container_id, {})[kill.signal] = kill

    def forget(self, container_id: str) -> None:
        """Forget all signals that were sent to a container."""
        self._kills.pop(container_id, None)

    def until(self, container: Container) -> float:
        """Until when a container counts as being stopped. It is 0 if nobody asked it to stop."""
        kills = self._kills.get(container.id, {}).values()
        told = [kill.told for kill in kills if _stops(kill, container)]
        return max(told) + _patience(container) if told else 0


def _stops(kill: Kill, container: Container) -> bool:
    """Whether a signal asks this run of the container to end."""
    if not container.stop_signal or kill.time <= container.started_at:
        return False
    return kill.signal in (container.stop_signal, signal.SIGTERM, signal.SIGKILL)


def _patience(container: Container) -> float:
    """For how many seconds a container that was told to stop may run on."""
    timeout = container.stop_timeout
    if not 0 <= timeout < LONGEST - GRACE:
        return LONGEST
    return max(timeout + GRACE, RETURN)
