"""The system's resolver with a test's own answers for some host names."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from support.wait import DEADLINE

Answer = Callable[[], tuple[str, ...]]


def resolve_as(monkeypatch: pytest.MonkeyPatch, host: str, answer: Answer) -> None:
    """Let `host` stand for the IPv4 addresses that `answer` returns, and leave all other names."""
    others = socket.getaddrinfo

    def getaddrinfo(asked: Any, port: Any, *args: Any, **options: Any) -> list[Any]:
        if asked != host:
            return others(asked, port, *args, **options)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in answer()]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


class Mute:
    """A resolver that returns no answer until `close`."""

    def __init__(self) -> None:
        self._closed = threading.Event()

    def __call__(self) -> tuple[str, ...]:
        self._closed.wait(DEADLINE)
        return ()

    def close(self) -> None:
        """Let every call return."""
        self._closed.set()
