"""The paths that are answered, each by one function: the one table of them.

This module and those that it needs are imported with the first request.
"""

import logging
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from registrator.health import Health, is_stuck, problems
from registrator.listener.answers import JSON, Answer, text
from registrator.listener.page import Page
from registrator.listener.rendered import Rendered, breathe
from registrator.listener.requests import Refused, Request, check_origin, parse
from registrator.status.board import Board
from registrator.status.state import rendered
from registrator.system.memory import import_prometheus_client_without_its_server

log = logging.getLogger("registrator.listener")


class Path(NamedTuple):
    """The answer of a path. A `guarded` one is not for what other sites make a browser ask."""

    answer: Callable[[Request], Answer]
    guarded: bool = False


class Site:
    """All that the agent answers. For one thread."""

    def __init__(self, board: Board, health: Health) -> None:
        self._board = board
        self._health = health
        self._exposition: Rendered | None = None
        state = Rendered(partial(rendered, board, breathe), JSON)
        self.paths = {
            "/": Path(Page().answer, guarded=True),
            "/livez": Path(self._livez),
            "/readyz": Path(self._readyz),
            "/metrics": Path(self._metrics),
            "/api/state": Path(state.answer, guarded=True),
        }

    def answer(self, head: bytes) -> bytes:
        """The answer to the head of a request, whatever it is."""
        request = None
        try:
            request = parse(head)
            found = self._answer(request)
        except Refused as why:
            found = self.refusal(why)
        except Exception:
            # A bug in an answer must not end the agent, whose work is another.
            log.error("a bug ended an answer; report this", exc_info=True)
            found = text(500, "the agent has a bug: its log says more")
        return found.encode(body=request is None or request.method != "HEAD")

    def refusal(self, why: Refused) -> Answer:
        """The answer to what is refused. It counts."""
        self._board.refused += 1
        return text(why.status, str(why), headers=why.headers)

    def _answer(self, request: Request) -> Answer:
        path = self.paths.get(request.path)
        if path is None:
            return text(404, f"there is {', '.join(self.paths)}")
        if path.guarded:
            check_origin(request, self._names())
        return path.answer(request)

    def _names(self) -> set[str]:
        """The names of this host, in lower case."""
        names = ("localhost", socket.gethostname(), self._board.agent.hostname)
        return {name.lower() for name in names if name}

    def _livez(self, _: Request) -> Answer:
        return self._stuck() or text(200, "alive")

    def _readyz(self, _: Request) -> Answer:
        # Not those of the note, which may be 2 s old.
        wrong = self._board.problems()
        return self._stuck() or (text(503, *wrong) if wrong else text(200, "well"))

    def _metrics(self, request: Request) -> Answer:
        # Imported late: the library needs 0.7 MiB, and not everybody scrapes.
        import_prometheus_client_without_its_server()
        from registrator.listener.exposition import KIND, Exposition

        if self._exposition is None:
            self._exposition = Rendered(Exposition(self._board, breathe).text, KIND)
        return self._exposition.answer(request)

    def _stuck(self) -> Answer | None:
        note, now = self._health.text, time.monotonic()
        return text(503, *problems(note, now)) if is_stuck(note, now) else None
