"""Another Python or other libraries, with this package and what its development needs."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from compatibility.recipe import ROOT, Recipe, Unavailable, run
from compatibility.recipes.debian import Debian


@dataclass(frozen=True)
class Python(Debian):
    """A virtual environment of the suite's Python. The suites run in it.

    The one program is the interpreter.
    """

    def make(self, folder: Path) -> None:
        super().make(folder)
        (name,) = self.programs
        root = folder / self.suite
        # Debian's ensurepip looks for pip's wheel in a folder of the machine.
        run([str(root / "usr/bin" / name), "-m", "venv", "--without-pip", str(folder)], folder)
        (wheel,) = root.glob("usr/share/python-wheels/pip-*.whl")
        pip = [str(folder / "bin/python"), "-m", "pip", "--disable-pip-version-check"]
        run(
            [*pip, "install", "-q", "pip", "-e", f"{ROOT}[dev]"], folder, {"PYTHONPATH": str(wheel)}
        )

    def environment(self, folder: Path) -> Mapping[str, str]:
        """Have every process find this checkout's package and its present entry points first."""
        return {"PYTHONPATH": str(ROOT)}


@dataclass(frozen=True)
class Environment(Recipe):
    """A virtual environment of a Python that the machine has, with the libraries that pip chooses.

    `number` is ``3.12``, for example. pip keeps to `constraints`, such as ``kazoo==2.10``.
    """

    number: str
    constraints: tuple[str, ...] = ()

    def make(self, folder: Path) -> None:
        run([find(self.number), "-m", "venv", str(folder)], folder)
        (folder / "constraints.txt").write_text("\n".join(self.constraints) + "\n")
        pip = [str(folder / "bin/python"), "-m", "pip", "--disable-pip-version-check"]
        words = ["install", "-q", "-c", str(folder / "constraints.txt"), "-e", f"{ROOT}[dev]"]
        run([*pip, *words], folder)

    def environment(self, folder: Path) -> Mapping[str, str]:
        """Have every process find this checkout's package and its present entry points first."""
        return {"PYTHONPATH": str(ROOT)}


def find(number: str) -> str:
    """The machine's Python of this version: the one on PATH, or one of pyenv.

    A program of pyenv may be on PATH and refuse to run. Raises `Unavailable`.
    """
    pyenv = Path("~/.pyenv/versions").expanduser()
    for program in (shutil.which(f"python{number}"), *pyenv.glob(f"{number}.*/bin/python")):
        if program and not subprocess.run([program, "-c", ""], capture_output=True).returncode:
            return str(program)
    raise Unavailable(f"there is no program python{number}")


def oldest() -> tuple[str, ...]:
    """Constraints with the oldest version of every library that pyproject.toml allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds = (re.match(r"([\w-]+)>=([\w.]+)", each) for each in project["dependencies"])
    return tuple(f"{bound[1]}=={bound[2]}" for bound in bounds if bound)
