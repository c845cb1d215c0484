"""Programs built from Go modules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from compatibility.recipe import Recipe, run


@dataclass(frozen=True)
class Go(Recipe):
    """Builds `programs` (name to package) of `modules` (path and version).

    A module of its own requires them, because Go ignores the ``replace`` lines of a dependency.
    `variables` (name to value) are set in the programs by the linker. `tags` choose among a
    program's parts.
    """

    modules: tuple[str, ...]
    programs: Mapping[str, str]
    variables: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()

    def make(self, folder: Path) -> None:
        source = folder / "go" / next(iter(self.programs))
        source.mkdir(parents=True)
        # One compiler at a time, as people use the machine meanwhile.
        settings = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=mod -trimpath -buildvcs=false -p=1"}
        run(["go", "mod", "init", "build"], source, settings)
        self.prepare(source)
        run(["go", "get", *self.modules], source, settings)
        flags = " ".join(["-s -w", *(f"-X {k}={v}" for k, v in self.variables.items())])
        for name, package in self.programs.items():
            target = str(folder / "bin" / name)
            options = [f"-ldflags={flags}", f"-tags={','.join(self.tags)}", "-o", target]
            run(["go", "build", *options, package], source, settings)

    def prepare(self, source: Path) -> None:
        """Change the new module in the folder `source` before it gets the modules."""
