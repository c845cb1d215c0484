"""The pending work of the inventory: a task for each container, the next listing, and the wait."""

import math
import threading
from collections.abc import Callable, Set

from registrator.desired.restart_loops import RestartLoop
from registrator.desired.tasks import Hint, Task
from registrator.desired.withdrawn import Kill


class Agenda:
    """Any thread may note something. The thread that does a step takes it from here.

    Hold the `lock` to look through `tasks`, and to change the hint of a task.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.lock = threading.Condition()
        self.tasks: dict[str, Task] = {}
        self.listing_due = True
        self.next_listing = math.inf
        self._clock = clock
        self._until = math.inf  # how long the thread that waits would wait
        self._loops: dict[str, RestartLoop] = {}  # of the containers that started of late

    def add(self, container_id: str, hint: Hint) -> None:
        """Note that something happened to a container. This wakes nobody."""
        with self.lock:
            task = self.tasks.setdefault(container_id, Task())
            task.add(hint)
            task.received = task.received or self._clock()

    def is_idle(self, container_id: str) -> bool:
        """Whether nothing is pending for a container. All that was told of it is taken in then."""
        with self.lock:
            return container_id not in self.tasks

    def started(self, container_id: str, time: float) -> None:
        """Note when a container started, in seconds of the engine's clock."""
        with self.lock:
            self._loops.setdefault(container_id, RestartLoop()).started(time, self._clock())

    def moved(self, container_id: str) -> None:
        """Note that a container joined or left a network. This wakes nobody."""
        with self.lock:
            self.tasks.setdefault(container_id, Task()).moved = True

    def killed(self, container_id: str, signal: int | None, time: int) -> bool:
        """Note that a signal was sent to a container, and say whether it is known which one."""
        if signal is None:
            return False
        with self.lock:
            task = self.tasks.setdefault(container_id, Task())
            task.kills += (Kill(signal, time, self._clock()),)
            task.received = task.received or self._clock()
        return True

    def take_kills(self, told: Callable[[str, tuple[Kill, ...]], float]) -> None:
        """Pass on the signals that were sent since the last call, and note when to look again."""
        with self.lock:
            found = [(key, task, task.kills) for key, task in self.tasks.items() if task.kills]
            for _, task, _ in found:
                task.kills = ()
        for container_id, task, kills in found:
            look_at = told(container_id, kills)
            if task.asked is None:
                task.retry_at = min(task.retry_at, look_at)

    def take_received(self) -> tuple[float, ...]:
        """When the events came whose containers were looked at since the last call, in order."""
        with self.lock:
            done = [task for task in self.tasks.values() if task.received and not task.waits]
            received = sorted(task.received for task in done)
            for task in done:
                task.received = 0.0
        return tuple(received)

    def wake(self) -> None:
        """Wake the thread that waits, if something is due."""
        with self.lock:
            if self._is_due():
                self.lock.notify()

    def wait(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds, and return whether something was noted."""
        with self.lock:
            now = self._clock()
            due = min((task.retry_at for task in self.tasks.values()), default=math.inf)
            self._until = min(now + timeout, due, self.next_listing)
            return self.lock.wait_for(self._is_due, max(0.0, self._until - now))

    def _is_due(self) -> bool:
        """Whether there is something to do now, or before the wait would end."""
        return self.listing_due or any(
            task.is_due or task.moved or task.retry_at < self._until for task in self.tasks.values()
        )

    def hints(self) -> dict[str, Hint]:
        """The hints by container id."""
        with self.lock:
            return {key: task.hint for key, task in self.tasks.items() if task.hint}

    def by_urgency(self, known: Set[str]) -> list[str]:
        """The containers to look at now: first those of which an event told.

        What only a listing told comes next. Then come those that were slow, since nobody waits for
        them. If nothing else is to be done, one that could not be inspected is tried again. The
        ends that need no inspection are taken in already.
        """
        with self.lock:
            for container_id, task in self.tasks.items():
                # An unknown container has the hint of its start, or its start is still to come.
                if task.moved and container_id in known:
                    task.hint = task.hint or Hint()
                    task.received = task.received or self._clock()
                task.moved = False
            hints = {k: t.hint for k, t in self.tasks.items() if t.hint and t.hint_counts}
            now = self._clock()
            due = sorted((t.retry_at, key) for key, t in self.tasks.items() if t.retry_at <= now)
        again = [key for _, key in due if key not in hints]
        slow = [key for key in again if self.tasks[key].slow]
        first = sorted(hints, key=lambda key: hints[key].time == 0)
        return first + slow if first or slow else again[:1]

    def calm_at(self, container_id: str) -> float:
        """When a container in a restart loop will count as settled, or 0. Hold the `lock`."""
        loop = self._loops.get(container_id)
        return loop.calm_at(self._clock()) if loop else 0

    def forget_done(self) -> None:
        """Forget the tasks that are done."""
        with self.lock:
            self.tasks = {key: task for key, task in self.tasks.items() if not task.is_done}

    def forget_starts(self) -> None:
        """Forget the starts that are too long ago to be part of a restart loop."""
        with self.lock:
            now = self._clock()
            self._loops = {k: loop for k, loop in self._loops.items() if not loop.forget(now)}
