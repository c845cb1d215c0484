"""The note that the inventory keeps on one container: what is to be done, when, and why."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from registrator.desired.restart_loops import RestartLoop
from registrator.model import LeftOut, Reason


class Hint(NamedTuple):
    """Something happened to a container at `time`, in ns of the engine's clock (0: unknown).

    With `gone` it ended, and there is nothing to inspect.
    """

    time: float = 0
    gone: bool = False

    def then(self, later: Hint | None) -> Hint:
        """What holds after a hint that came later. Hints may come in the wrong order.

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
    """What is to be done about one container.

    `hint` says why it has to be looked at now, if it has. `moved` says that it joined or left a
    network. `retry_at` is when to look again without a hint, and `wait` the pause that led to it.
    `left_out` says why an unknown container has no services yet.
    """

    hint: Hint | None = None
    moved: bool = False
    retry_at: float = math.inf
    wait: float = 0.0
    left_out: LeftOut | None = None
    loop: RestartLoop = field(default_factory=RestartLoop)

    @property
    def uninspected(self) -> bool:
        """Whether the container runs and could not be inspected even once."""
        return self.left_out is not None and self.left_out.reason is Reason.NOT_INSPECTED

    def add(self, hint: Hint) -> None:
        """Add a hint to those that wait."""
        self.hint = self.hint.then(hint) if self.hint else hint

    def is_done(self, now: float) -> bool:
        """Whether nothing is left to do or to remember."""
        return (
            self.hint is None and not self.moved and self.retry_at == math.inf
        ) and self.loop.forget(now)
