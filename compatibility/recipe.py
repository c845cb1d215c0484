"""A recipe makes one version of a program, once, and keeps it in a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Resolved, because programs are bound to the paths of their libraries.
CACHE = (ROOT / ".cache" / "compatibility").resolve()
# Seconds that one command of a recipe may take: Consul takes five minutes on an idle machine.
TIMEOUT = 7200.0


class Unavailable(Exception):
    """A version cannot be had on this machine. The text says what is missing."""


class Recipe:
    """Makes programs. A subclass is a frozen dataclass: `repr` tells whether it has changed."""

    def make(self, folder: Path) -> None:
        """Put programs into ``folder/bin``, and anything else into `folder`.

        Raises `Unavailable`.
        """
        raise NotImplementedError

    def environment(self, folder: Path) -> Mapping[str, str]:
        """Variables that the tests need besides PATH."""
        return {}


def make(recipes: Sequence[Recipe], folder: Path) -> Mapping[str, str]:
    """Make all `recipes` in `folder` unless that is done. Returns the environment to use them.

    The environment has ``folder/bin`` first on PATH. Raises `Unavailable`.
    """
    stamp = folder / "recipes"
    wanted = repr(recipes)
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "bin").mkdir(parents=True)
        for recipe in recipes:
            recipe.make(folder)
        stamp.write_text(wanted)
    environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    for recipe in recipes:
        environment.update(recipe.environment(folder))
    return environment


def run(command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> str:
    """Run a command of a recipe in `folder`. Returns what it prints. Raises `Unavailable`."""
    if not shutil.which(command[0]):
        raise Unavailable(f"there is no program {command[0]}")
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{' '.join(command[:2])} took over {TIMEOUT:g} s") from None
    if done.returncode:
        raise Unavailable(f"{' '.join(command[:2])} failed: {last_lines(done.stdout)}")
    return done.stdout


def last_lines(text: str, number: int = 3) -> str:
    """The last lines that are not empty, as one line."""
    return " / ".join([line.strip() for line in text.splitlines() if line.strip()][-number:])
