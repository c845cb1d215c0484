"""The log lines that say which of a registry's servers is in use."""

import logging
from collections.abc import Callable

from registrator.uri import RegistryURI


class InUse:
    """Logs the first connection and each move, and repeats nothing.

    The reconciler logs when a registry fails and recovers. This class logs which server serves, and
    also tells it to `serves`.
    """

    def __init__(
        self,
        uri: RegistryURI,
        log: logging.Logger,
        serves: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._serves = serves
        self._name = str(uri)
        self._log = log
        self._server = ""

    def connected(
        self, server: str, details: str, why: str = "", *, already_logged: bool = False
    ) -> None:
        """Note a connection to `server`.

        `why` tells the address and the fault that ended the last connection. It is empty if no
        connection ended, or if an error that was raised gives the fault. `already_logged` means
        that the caller raises an error that names this move.
        """
        former, self._server = self._server, server
        self._serves(server)
        facts = {"registry": self._name, "server": server}
        if not former:
            self._log.info("%s: connected to %s, %s", self._name, server, details, extra=facts)
        elif already_logged or (server == former and not why):
            self._log.debug(
                "%s: connected to %s again, %s", self._name, server, details, extra=facts
            )
        elif server == former:
            self._log.warning(
                "%s: connected to %s again (%s)", self._name, server, why, extra=facts
            )
        else:
            level = logging.WARNING if why else logging.INFO
            self._log.log(
                level,
                "%s: moved to %s (%s)", self._name, server, why or f"{former} failed",
                extra=facts | {"event": "server_moved"},
            )  # fmt: skip
