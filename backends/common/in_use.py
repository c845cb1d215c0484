"""Which of a registry's servers is in use, as the operator reads of it."""

from __future__ import annotations

import logging

from registrator.uri import RegistryURI


class InUse:
    """A line at the first connection and at each move, and none that repeats what was said.

    That a registry is right again, the reconciler says; where it is now is said here.
    """

    def __init__(self, uri: RegistryURI, log: logging.Logger) -> None:
        self._name = str(uri)
        self._log = log
        self._server = ""

    def connected(self, server: str, details: str, why: str = "", *, told: bool = False) -> None:
        """Note a connection to `server`.

        `why` is what ended the one before, its address included: empty where nothing ended, or
        where an error that was raised says so. A move that one tells of is `told`.
        """
        former, self._server = self._server, server
        if not former:
            self._log.info("%s: connected to %s, %s", self._name, server, details)
        elif told or (server == former and not why):
            self._log.debug("%s: connected to %s again, %s", self._name, server, details)
        elif server == former:
            self._log.warning("%s: connected to %s again (%s)", self._name, server, why)
        else:
            level = logging.WARNING if why else logging.INFO
            self._log.log(
                level, "%s: moved to %s (%s)", self._name, server, why or f"{former} failed"
            )
