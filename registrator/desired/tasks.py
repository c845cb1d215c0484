"""The pending work of one container: what the inventory has to do, when, and why."""

import math
from concurrent.futures import Future
from dataclasses import dataclass
from typing import NamedTuple

from registrator.desired.withdrawn import Kill
from registrator.model import Container, LeftOut, Offer, Reason

# Why nothing may be known of a container that runs.
UNINSPECTED = frozenset({Reason.NOT_INSPECTED, Reason.UNREADABLE})


class Hint(NamedTuple):
    """Something happened to a container at `time`, in ns of the engine's clock (0: unknown).

    With `gone` it ended, and there is nothing to inspect.
    """

    time: float = 0
    gone: bool = False

    def then(self, later: "Hint | None") -> "Hint":
        """The hint that counts after a later one. Hints may come in the wrong order.

        A start is not undone by an older end. An end with an older time may be newer all the same,
        if the engine's clock was set back, so the container has to be inspected.
        """
        if later is None:
            return self
        if later.time >= self.time:
            return later
        return Hint(self.time) if self.gone else self


@dataclass(slots=True)
class Task:
    """The work that is pending for one container.

    `hint` says why it has to be looked at now, if it has. `moved` says that it joined or left a
    network, and `kills` are the signals that were sent to it. `retry_at` is when to look again
    without a hint, and `wait` the pause that led to it. `left_out` says why an unknown container
    has no services yet, and `container` is what was known of it before. `asked` is a slow
    inspection that goes on, and `slow` says that the last one was slow. `received` is when the
    first event came that no snapshot reflects yet, or 0.
    """

    hint: Hint | None = None
    moved: bool = False
    kills: tuple[Kill, ...] = ()
    retry_at: float = math.inf
    wait: float = 0.0
    left_out: LeftOut | None = None
    container: Container | None = None
    asked: Future[Container | None] | None = None
    slow: bool = False
    received: float = 0.0

    @property
    def hint_counts(self) -> bool:
        """Whether there is a hint for now. During a slow inspection only an end is one."""
        return self.hint is not None and (self.asked is None or self.hint.gone)

    @property
    def waits(self) -> bool:
        """Whether its container is still to be looked at."""
        return self.hint is not None or self.asked is not None

    @property
    def is_due(self) -> bool:
        """Whether there is something to do now."""
        answered = self.asked is not None and self.asked.done()
        return self.hint_counts or answered or bool(self.kills)

    @property
    def uninspected(self) -> bool:
        """Whether the container runs and could not be inspected even once."""
        return self.left_out is not None and self.left_out.reason in UNINSPECTED

    @property
    def offer(self) -> Offer:
        """The offer of a container without services, which says why it has none."""
        return Offer((), (self.left_out,) if self.left_out else (), self.container)

    def add(self, hint: Hint) -> None:
        """Add a hint to those that wait."""
        self.hint = self.hint.then(hint) if self.hint else hint

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do."""
        nothing = self.hint is None and not (self.moved or self.kills) and self.asked is None
        return nothing and self.retry_at == math.inf
