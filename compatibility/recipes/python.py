"""Another Python, with this package and what its development needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from compatibility.recipe import ROOT, run
from compatibility.recipes.debian import Debian


@dataclass(frozen=True)
class Python(Debian):
    """A virtual environment of the suite's Python; the suites run in it.

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
