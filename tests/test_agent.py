"""The agent's beginning and end: an engine that is mute, away or wrongly named, and signals."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import RunAgent


@pytest.fixture
def mute(tmp_path: Path) -> Iterator[str]:
    """The address of an engine that accepts connections and never answers, as a frozen one."""
    path = tmp_path / "mute.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(50)
        yield f"unix://{path}"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_an_agent_that_waits_for_a_mute_engine(
    number: signal.Signals, mute: str, agent: RunAgent, tmp_path: Path
) -> None:
    waiting = agent(f"file://{tmp_path}/services.json", docker_host=mute)
    waiting.signal(number)
    assert waiting.exited(2) == 0
