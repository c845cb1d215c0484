"""Packages for Node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from compatibility.recipe import Recipe, run


@dataclass(frozen=True)
class Node(Recipe):
    """Fetches `packages` (``name@version``) and all that they depend on, for every script of Node.

    The packages' own scripts do not run.
    """

    packages: tuple[str, ...]

    def make(self, folder: Path) -> None:
        options = ["--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"]
        run(["npm", "install", *options, "--prefix", str(folder), *self.packages], folder)

    def environment(self, folder: Path) -> Mapping[str, str]:
        return {"NODE_PATH": str(folder / "node_modules")}
