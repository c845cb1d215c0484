"""Looks at one container after the other: inspects it, and takes in what it is now.

A container that answers at once is inspected by the calling thread. If an inspection takes longer,
it goes on beside that thread, as an engine may hang for one container only. So it delays its own
container, and no other.
"""

import logging
import math
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Protocol

from registrator.desired.containers import Containers
from registrator.desired.restart_loops import SETTLE
from registrator.desired.tasks import Hint, Task
from registrator.model import Container, EngineSlow, EngineUnavailable, LeftOut, Reason, Unreadable
from registrator.status.facts import Facts
from registrator.status.outcomes import name_of
from registrator.status.report import Report
from registrator.status.rows import EngineRow

log = logging.getLogger("registrator.inventory")

FAILED: Facts = {"event": "inspect_failed"}

# Seconds until a container that could not be inspected is tried again. They double each time.
FIRST_WAIT, MAX_WAIT = 0.5, 30.0

# Seconds that the others wait for an inspection. An idle engine answers within 5 ms.
QUICK = 0.2

# So many inspections may hang at the same time. The next ones wait for these.
SLOW_LANES = 16


class Engine(Protocol):
    """The part of `DockerEngine` that an inventory needs."""

    def ping(self) -> None: ...  # noqa: D102 (as in DockerEngine)
    def running(self) -> dict[str, int]: ...  # noqa: D102
    def inspect(self, container_id: str, timeout: float | None = None) -> Container | None: ...  # noqa: D102
    def interrupt(self) -> None: ...  # noqa: D102


class Inspections:
    """Keeps `containers` as the engine says that they are, one look at a time. For one thread.

    `keeps` says whether services outlive an exit code. `wake` is called, by another thread, once
    the answer to a slow inspection is there. `lanes` runs slow inspections.
    """

    def __init__(
        self,
        engine: Engine,
        containers: Containers,
        report: Report[EngineRow],
        keeps: Callable[[int | None], bool],
        wake: Callable[[], None],
        clock: Callable[[], float],
        lanes: Executor | None = None,
    ) -> None:
        self._engine = engine
        self._containers = containers
        self._report = report
        self._keeps = keeps
        self._wake = wake
        self._clock = clock
        self._lanes = lanes or ThreadPoolExecutor(SLOW_LANES, "inspection")
        self.kept: set[str] = set()  # containers that ended, and whose services stay

    def ends(self, container_id: str, hint: Hint) -> bool:
        """Whether a hint says for certain that a container ended.

        It does not if it is older than the start of what is known: a stream may repeat old events,
        or the engine's clock was set back.
        """
        return hint.gone and not self._containers.started_after(container_id, hint.time)

    def look_at(self, container_id: str, task: Task, hint: Hint, calm_at: float) -> None:
        """Take in what a container is now. Raises if the engine is at fault, not the container."""
        if calm_at > self._clock():
            self._leave_alone(container_id, task, calm_at)
        elif self.ends(container_id, hint):
            self._settle(container_id, task, None)
        elif task.slow:
            self._ask(container_id, task)
        else:
            try:
                container = self._engine.inspect(container_id, QUICK)
            except EngineSlow:
                self._engine.ping()
                self._ask(container_id, task)
            except EngineUnavailable as error:
                self._put_off(container_id, task, error)
            else:
                self._inspected(container_id, task, container)

    def take_answer(self, container_id: str, task: Task) -> None:
        """Take in the answer to a slow inspection. Raises as `look_at`."""
        assert task.asked is not None
        try:
            container = task.asked.result(0)
        except EngineUnavailable as error:
            self._put_off(container_id, task, error)
        else:
            self._inspected(container_id, task, container)
        task.asked = None

    def _ask(self, container_id: str, task: Task) -> None:
        """Have a container inspected beside this thread."""
        task.slow, task.retry_at = True, math.inf
        self._set_aside(container_id, task, Reason.NOT_INSPECTED, "its inspection takes long")
        task.asked = self._lanes.submit(self._engine.inspect, container_id)
        task.asked.add_done_callback(lambda _: self._wake())

    def _inspected(self, container_id: str, task: Task, container: Container | None) -> None:
        runs = container is not None and container.exit_code is None
        log.debug(
            "container %s is inspected: it %s",
            container_id[:12], "runs" if runs else "does not run",
            extra={"container_id": container_id},
        )  # fmt: skip
        task.slow = False
        self._settle(container_id, task, container)

    def _settle(self, container_id: str, task: Task, container: Container | None) -> None:
        """Take in what a container is now. An answer that is still to come is of no use."""
        task.retry_at, task.wait, task.left_out, task.asked = math.inf, 0.0, None, None
        task.container = None
        if container is not None and container.exit_code is not None:
            told = self._containers.is_told_to_stop(container)
            if self._keeps(container.exit_code) and not told:
                self.kept.add(container_id)
                return
            container = None
        self.kept.discard(container_id)
        task.retry_at = self._containers.put(container_id, container)

    def _leave_alone(self, container_id: str, task: Task, calm_at: float) -> None:
        """Take away the services of a container in a restart loop, and look again later."""
        if task.left_out is None or task.left_out.reason is not Reason.RESTART_LOOP:
            log.warning(
                "container %s is in a restart loop: left out until %.0f s pass without a start",
                container_id[:12], SETTLE,
                extra={"event": "restart_loop"} | self._facts(container_id, Reason.RESTART_LOOP),
            )  # fmt: skip
        task.retry_at, task.asked = calm_at, None
        task.container = self._containers.get(container_id) or task.container
        task.left_out = LeftOut(None, Reason.RESTART_LOOP)
        self._containers.put(container_id, None)

    def _put_off(self, container_id: str, task: Task, error: EngineUnavailable) -> None:
        """Try a container again later. Raises if the engine is at fault, not the container."""
        if not isinstance(error, Unreadable):
            self._engine.ping()
        before, task.wait = task.wait, min(MAX_WAIT, 2 * task.wait or FIRST_WAIT)
        task.retry_at = self._clock() + task.wait
        if isinstance(error, Unreadable):
            self._set_aside(container_id, task, Reason.UNREADABLE, str(error))
            if not before:
                log.warning(
                    "container %s: %s: its services stay", container_id[:12], error,
                    extra=FAILED | self._facts(container_id, Reason.UNREADABLE),
                )  # fmt: skip
            return
        text = f"{Reason.NOT_INSPECTED.value}: {error}"
        self._set_aside(container_id, task, Reason.NOT_INSPECTED, text)
        log.warning(
            "container %s cannot be inspected (%s): its services stay, next attempt in %.1f s",
            container_id[:12], error, task.wait,
            extra=FAILED | self._facts(container_id, Reason.NOT_INSPECTED),
        )  # fmt: skip

    def _facts(self, container_id: str, reason: Reason) -> Facts:
        """The facts of a line about a container of which only the id is certain."""
        known = self._containers.get(container_id)
        facts: Facts = {"container_id": container_id, "reason": name_of(reason)}
        return facts | {"container": known.name if known else ""}

    def _set_aside(self, container_id: str, task: Task, reason: Reason, text: str) -> None:
        """Note why a container has no services. If it is known, it keeps those that it has."""
        if container_id not in self._containers.ids:
            task.left_out = LeftOut(None, reason, text)
