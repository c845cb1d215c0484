"""The health check, from the note to the command."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from conftest import RunAgent
from support.engine import Dockerd
from support.wait import until

from registrator import health
from registrator.health import MAX_AGE, Health, Note, main, notes, problems, socket_of


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc with the processes of the test only: other agents may run on this machine."""
    folder = tmp_path / "proc"
    folder.mkdir()
    return folder


def put(proc: Path, pid: int) -> None:
    (proc / str(pid)).symlink_to(f"/proc/{pid}")


def found(proc: Path) -> list[str]:
    return [line for note in notes(proc) for line in problems(note.text, time.monotonic())]


def test_a_note_is_found_and_replaced(proc: Path) -> None:
    put(proc, os.getpid())
    assert notes(proc) == []
    board = Health()
    try:
        assert found(proc) == ["the agent has only just started"]
        board.note(["one", "two"])
        assert found(proc) == ["one", "two"]
        board.note([])
        assert len(notes(proc)) == 1
        assert found(proc) == []
    finally:
        board.close()
    assert notes(proc) == []


def test_a_note_names_the_private_socket_and_takes_any_text(proc: Path) -> None:
    put(proc, os.getpid())
    board = Health()
    board.socket = "registrator-abc"
    try:
        assert [socket_of(note.text) for note in notes(proc)] == [""]
        board.note(["half a pair: \ud800"])
        assert [(note.pid, socket_of(note.text)) for note in notes(proc)] == [
            (os.getpid(), "registrator-abc")
        ]
        assert found(proc) == ["half a pair: ?"]
    finally:
        board.close()


def test_nothing_can_be_read_of_a_note_that_somebody_else_wrote() -> None:
    for text in ("anybody's text", "x", "1,5 registrator-abc\nwell"):
        assert socket_of(text) == ""


def test_an_old_note_is_a_stuck_agent() -> None:
    note = "100.0\nregistry: not in sync"
    assert problems(note, 100 + MAX_AGE) == ["registry: not in sync"]
    assert "stuck" in problems(note, 101 + MAX_AGE)[0]


def test_a_note_too_long_is_cut(proc: Path) -> None:
    put(proc, os.getpid())
    board = Health()
    try:
        board.note(["é" * health.SIZE])
        assert found(proc)
    finally:
        board.close()


def test_processes_that_tell_nothing_are_no_agents(proc: Path) -> None:
    (proc / "1").mkdir()
    (proc / "self").symlink_to("/proc/self")
    assert notes(proc) == []


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        ([], 1, "no agent"),
        (["{now}"], 0, "well"),
        (["{now}", "{now}\nsomething"], 1, "something"),
        ([""], 1, "just started"),
        (["anybody's text"], 1, "stuck"),
    ],
)
def test_the_command(
    given: list[str],
    code: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    texts = [Note(1, text.format(now=time.monotonic())) for text in given]
    monkeypatch.setattr(health, "notes", lambda: texts)
    assert main() == code
    assert words in capsys.readouterr().out


def test_an_agent_that_does_its_job_is_well(
    clean_engine: Dockerd, agent: RunAgent, proc: Path, tmp_path: Path
) -> None:
    running = agent(f"file://{tmp_path}/services.json")
    put(proc, running.pid)
    until(lambda: notes(proc) and not found(proc), lambda: str(found(proc)))
    clean_engine.freeze()
    until(lambda: "Docker engine: timed out" in found(proc), lambda: str(found(proc)))
    clean_engine.thaw()
    until(lambda: not found(proc), lambda: str(found(proc)))


def test_a_registry_that_is_away_is_a_problem(
    clean_engine: Dockerd, agent: RunAgent, proc: Path, tmp_path: Path
) -> None:
    away = "consul://secret-token@127.0.0.1:9"
    running = agent(away, f"file://{tmp_path}/services.json")
    put(proc, running.pid)
    wrong = until(lambda: [line for line in found(proc) if "9: not in sync" in line], "the note")
    until(lambda: len(found(proc)) == 1, lambda: str(found(proc)))
    assert "secret" not in wrong[0]
    running.freeze()
    try:
        until(lambda: "stuck" in found(proc)[0], lambda: str(found(proc)), MAX_AGE + 5)
    finally:
        running.thaw()
