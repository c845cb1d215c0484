"""Who may import whom: the core in layers, and no registry in it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Every module of the core, from the bottom up, with all that it may import of ours.
CORE = {
    "__init__": "",
    "cmdline": "",
    "health": "",
    "log": "",
    "memory": "",
    "outage": "",
    "systemd": "",
    "untrusted": "",
    "hostaddr": "",
    "model": "",
    "uri": "",
    "services": "model untrusted",
    "plan": "model",
    "backend": "model uri",
    "docker_answers": "model",
    "docker_context": "",
    "docker_engine": "model docker_answers docker_context",
    "stock": "model services",
    "inventory": "model services stock docker_answers docker_engine",
    "reconciler": "model uri plan backend outage",
    "config": "model uri services backend untrusted",
    "agent": (
        "__init__ health log memory model uri backend config docker_engine hostaddr inventory"
        " outage reconciler systemd"
    ),
    "cli": "__init__ cmdline config memory agent",
    "__main__": "cli",
}
BACKENDS_MAY = {"registrator.backend", "registrator.model", "registrator.uri"}


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports, wherever in it; relative ones begin with a dot."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            for alias in node.names:
                inner = f"{base.rstrip('.')}.{alias.name}"
                is_module = base in ("registrator", "registrator.backends", ".") and (
                    alias.name in (*CORE, "backends")
                    or (ROOT / "backends" / f"{alias.name}.py").exists()
                )
                yield inner if is_module else base


def ours(path: Path) -> set[str]:
    """The modules of this repository among a file's imports."""
    return {name for name in imports(path) if name.split(".")[0] in ("", "registrator", "backends")}


def test_every_module_of_the_core_has_its_place() -> None:
    assert {path.stem for path in (ROOT / "registrator").glob("*.py")} == set(CORE)


def test_the_places_are_layers() -> None:
    below: set[str] = set()
    for module, allowed in CORE.items():
        assert set(allowed.split()) <= below, module
        below.add(module)


@pytest.mark.parametrize("module", CORE)
def test_core_imports_only_what_its_place_allows(module: str) -> None:
    allowed = {
        "registrator" if name == "__init__" else f"registrator.{name}"
        for name in CORE[module].split()
    }
    assert ours(ROOT / "registrator" / f"{module}.py") <= allowed


@pytest.mark.parametrize("path", sorted((ROOT / "backends").glob("*.py")), ids=lambda p: p.stem)
def test_backends_know_three_modules_of_the_core(path: Path) -> None:
    of_the_core = {name for name in ours(path) if not name.startswith(".")}
    assert of_the_core <= BACKENDS_MAY
    for name in ours(path) - of_the_core:
        assert (path.parent / f"{name.removeprefix('.')}.py").exists(), name


@pytest.mark.parametrize(
    ("module", "packages"),
    [
        ("registrator.agent", "consul etcd3 grpc kazoo"),
        ("registrator.backends.file", "consul etcd3 grpc kazoo"),
        ("registrator.backends.consul", "etcd3 grpc kazoo"),
        ("registrator.backends.etcd", "consul kazoo"),
        ("registrator.backends.zookeeper", "consul etcd3 grpc"),
    ],
)
def test_a_registrys_packages_come_with_its_scheme_only(module: str, packages: str) -> None:
    code = (
        f"import sys, {module}\n"
        f"found = set({packages.split()!r}) & set(sys.modules)\n"
        "sys.exit(f'imported: {found}' if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
