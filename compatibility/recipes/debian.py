"""Programs from packages of another Debian release, which stay apart from the machine's own."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from compatibility.recipe import CACHE, ROOT, Recipe, Unavailable, run

FETCH = str(ROOT / "scripts" / "fetch-debian")
FOLDERS = ("usr/bin", "usr/sbin", "usr/lib/podman", "usr/libexec/docker")


@dataclass(frozen=True)
class Debian(Recipe):
    """Extracts `packages` of `suite` with all their dependencies, and shows `programs` on PATH.

    A program for which the machine's C library is too old uses the one that comes along.
    """

    suite: str
    packages: tuple[str, ...]
    programs: tuple[str, ...]

    def make(self, folder: Path) -> None:
        root = folder / self.suite
        run([FETCH, "--dependencies", self.suite, str(root), *self.packages], folder)
        for name in self.programs:
            found = [path for each in FOLDERS if (path := root / each / name).exists()]
            if not found:
                raise Unavailable(f"{name} is in none of the packages {', '.join(self.packages)}")
            bind(found[0].resolve(), root)
            (folder / "bin" / name).symlink_to(found[0])


@dataclass(frozen=True)
class Podman(Debian):
    """Podman with the helpers that it would look for in the machine's folders."""

    def make(self, folder: Path) -> None:
        super().make(folder)
        own = folder / "bin"
        (folder / "containers.conf").write_text(
            f'[engine]\nhelper_binaries_dir = ["{own}"]\nconmon_path = ["{own / "conmon"}"]\n'
            # New versions of crun, the other runtime, refuse a host with both cgroups v1 and v2.
            f'runtime = "runc"\n[engine.runtimes]\nrunc = ["{own / "runc"}"]\n'
        )

    def environment(self, folder: Path) -> Mapping[str, str]:
        return {"CONTAINERS_CONF_OVERRIDE": str(folder / "containers.conf")}


def bind(program: Path, root: Path) -> None:
    """Have a program use the libraries below `root`, unless those of the machine serve it.

    It can be run under its own name then, and run itself again through ``/proc/self/exe``, as
    engines do.
    """
    needs = subprocess.run(["ldd", program], capture_output=True, text=True)
    if "not found" not in needs.stdout + needs.stderr:
        return
    # Debian up to 11 has some libraries outside of usr.
    folders = [path for each in (root, root / "usr") for path in each.glob("lib/*-linux-gnu*")]
    (linker,) = (path for each in folders for path in each.glob("ld-linux*.so.*"))
    # An rpath that is forced holds for the libraries' own libraries too.
    rpath = ["--force-rpath", "--set-rpath", ":".join(map(str, folders))]
    run([fetch_patchelf(), "--set-interpreter", str(linker), *rpath, str(program)], root)


def fetch_patchelf() -> str:
    """Debian's patchelf, taken once."""
    folder = CACHE / "patchelf"
    program = folder / "usr/bin/patchelf"
    if not program.exists():
        run([FETCH, "bookworm", str(folder), "patchelf"], ROOT)
    return str(program)
