"""The sign of a running agent, as another process of this host sees it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from support.require import require

from registrator.system.presence import Presence, agent_is_here


def test_it_is_seen_as_long_as_it_lasts() -> None:
    owner = uuid4().hex
    assert not agent_is_here(owner, "h")
    first, second = Presence(owner, "h"), Presence(owner, "h")
    try:
        assert agent_is_here(owner, "h")
        assert not agent_is_here(owner, "other")
        assert not agent_is_here("other", "h")
        first.close()
        assert agent_is_here(owner, "h"), "the other one is still there"
    finally:
        second.close()
    assert not agent_is_here(owner, "h")


@contextlib.contextmanager
def elsewhere(owner: str, *prefix: str) -> Iterator[None]:
    """A process with the sign, which is killed in the end. `prefix` goes before its command."""
    code = (
        "import time; from registrator.system.presence import Presence\n"
        f"sign = Presence({owner!r}, 'h'); print('up', flush=True); time.sleep(1000)"
    )
    command = [*prefix, sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            yield
        finally:
            process.kill()


def test_it_ends_with_a_killed_process() -> None:
    owner = uuid4().hex
    with elsewhere(owner):
        assert agent_is_here(owner, "h")
    assert not agent_is_here(owner, "h")


def test_it_is_seen_in_another_network_namespace() -> None:
    """As an agent in a container without --net=host is, for root on the host."""
    require("root", os.geteuid() == 0, "root")
    owner = uuid4().hex
    with elsewhere(owner, "unshare", "--net"):
        assert agent_is_here(owner, "h")
    assert not agent_is_here(owner, "h")


def test_a_sandbox_without_such_sockets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(socket.socket, "bind", refuse, raising=False)
    Presence("o", "h").close()
    assert not agent_is_here("o", "h", tmp_path), "and no /proc either"
