"""The completion for bash: it is made of the present tables, and bash completes with it."""

from __future__ import annotations

import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

from registrator.commands.table import COMMANDS
from registrator.options import OPTIONS

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "packaging/bash/registrator"

# Prints what the last word may become.
ASK = """
source "$1"; shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_registrator
printf '%s\\n' "${COMPREPLY[@]}"
"""


def completed(*words: str, path: str = "/usr/bin:/bin") -> list[str]:
    bash = shutil.which("bash")
    assert bash
    done = subprocess.run(
        [bash, "--norc", "-c", ASK, "ask", str(FILE), "registrator", *words],
        capture_output=True, text=True, timeout=60, check=True, env={"PATH": path},
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.split()


def test_it_is_made_of_the_present_tables() -> None:
    made = runpy.run_path(str(ROOT / "scripts/completion.py"))["completion"]()
    assert FILE.read_text() == made, "run scripts/completion.py"


def test_the_first_word_is_a_command_or_an_option() -> None:
    assert completed("") == [*COMMANDS]
    assert completed("wi") == ["withdraw"]
    assert completed("-ttl") == ["-ttl", "-ttl-refresh"]
    assert completed("--ttl-") == ["--ttl-refresh"]
    names = [*(option.name for option in OPTIONS), "version", "help"]
    assert completed("-") == [f"-{name}" for name in names]


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_its_options(name: str) -> None:
    own = [option.name for option in COMMANDS[name].options]
    agents = [option.name for option in OPTIONS] if COMMANDS[name].alone else []
    assert completed(name, "-") == [f"-{each}" for each in (*agents, *own, "help")]


def test_a_value_is_left_to_the_user() -> None:
    assert completed("-hostname", "") == []
    assert completed("--ip", "-") == []
    assert completed("-internal", "-hostn") == ["-hostname"]


def test_explain_completes_names_of_containers(tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    bad = tmp_path / "bad"
    names = f"web\n$(touch {bad})\n`touch {bad}`\n; touch {bad}\n-x\ndb\n"
    (tmp_path / "names").write_text(names)
    docker.write_text(f"#!/bin/sh\ncat {tmp_path}/names\n")
    docker.chmod(0o755)
    assert completed("explain", "", path=f"{tmp_path}:/usr/bin:/bin") == ["web", "db"]
    assert completed("explain", "w", path=f"{tmp_path}:/usr/bin:/bin") == ["web"]
    assert not bad.exists(), "a name was carried out"
    assert completed("list", "w", path=f"{tmp_path}:/usr/bin:/bin") == []
