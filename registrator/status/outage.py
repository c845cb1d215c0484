"""A fault as the operator reads of it: when it begins, while it lasts, and when it ends."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable


class Outage:
    """The failures in a row of one thing, logged: the first, every tenth, and the recovery."""

    def __init__(
        self, name: str, log: logging.Logger, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name = name
        self._log = log
        self._clock = clock
        self._since = 0.0
        self._told = False
        self.failures = 0

    def failed(self, reason: object, *, told: bool = False, lost: bool = False) -> None:
        """Count a failure; `reason` says what happened and must be fit for the log.

        One that the operator is `told` of elsewhere is logged for debugging only; one after which
        something may be `lost` is logged whatever its number.
        """
        self.failures += 1
        if self.failures == 1:
            self._since = self._clock()
            self._told = told
        if told:
            self._log.debug("%s: %s", self._name, reason)
        elif lost:
            self._told = False
            self._log.warning("%s: %s; putting right what is missing", self._name, reason)
        elif self._told or self.failures == 1:
            self._told = False
            self._log.warning("%s: %s; trying again until it is right", self._name, reason)
        elif self.failures % 10 == 0:
            self._log.warning(
                "%s: still failing after %.0f s and %d attempts: %s",
                self._name, self._clock() - self._since, self.failures, reason,
            )  # fmt: skip

    def over(self, outcome: object = "") -> bool:
        """Note a success; returns whether that ended an outage. `outcome` is what was put right."""
        if not self.failures:
            return False
        lasted = self._clock() - self._since
        detail = f": {outcome}" if outcome else ""
        self._log.log(
            logging.DEBUG if self._told else logging.INFO,
            "%s: right again after %.1f s%s", self._name, lasted, detail,
        )  # fmt: skip
        self.failures = 0
        return True
