"""Who may import whom: the stages of the core side by side, and no registry in it.

Data flows engine -> desired -> sync -> backends. Each stage knows the words of `registrator.model`,
and only `registrator.agent` and `registrator.commands` join the stages.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "registrator"

# The words and contracts that everybody may use, from the bottom up.
PUBLIC = {
    "registrator": "",
    "registrator.derived": "",
    "registrator.ownership": "",
    "registrator.model": "derived ownership",
    "registrator.uri": "",
    "registrator.http": "",
    "registrator.health": "",
    "registrator.backend": "model uri",
}

# Every folder of the core, with what its modules may import of ours besides each other.
FOLDERS = {
    "system": "uri",
    "status": "model uri",
    "engine": "derived model http status system",
    "templates": "",
    "desired": "model status system",
    "sync": "model backend status system",
    "listener": "health status system",
}

# What stands above the folders, from the bottom up.
TOP = {
    "registrator.options": "desired listener model templates",
    "registrator.registries": "uri backend",
    "registrator.config": "uri backend desired listener options registries templates",
    "registrator.identity": "model config engine",
    "registrator.derive": "derived model config desired templates",
    "registrator.host_address": "config system",
    "registrator.agent": (
        "__init__ model uri backend health registries config identity derive host_address"
        " system status engine desired sync listener"
    ),
    "registrator.commands": (
        "__init__ model uri backend options registries config identity derive host_address"
        " system status engine desired sync listener"
    ),
    "registrator.cli": "__init__ options config agent commands system",
    "registrator.__main__": "cli",
}
BACKENDS_MAY = {f"registrator.{name}" for name in ("backend", "http", "model", "uri")}


def name_of(path: Path) -> str:
    """The dotted name of a module's file, seen from the repository's root."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def core_files() -> list[Path]:
    """Every module of the core. The backends are linked into it, and are no part of it."""
    files = CORE.rglob("*.py")
    return sorted(path for path in files if "backends" not in path.relative_to(CORE).parts)


def backend_files() -> list[Path]:
    """Every module of the backends."""
    return sorted((ROOT / "backends").rglob("*.py"))


MODULES = {name_of(path): path for path in (*core_files(), *backend_files())}


def imports(path: Path) -> Iterator[str]:
    """Our modules that a file imports, wherever in it, by their dotted names."""
    own = name_of(path)
    package = own if path.name == "__init__.py" else own.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level]
            base = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            inner = [f"{base}.{alias.name}" for alias in node.names]
            found = [each if each in MODULES else base for each in inner]
        else:
            continue
        yield from (each for each in found if each.split(".")[0] in ("registrator", "backends"))


def place_of(module: str) -> str:
    """The name of a module in the rules: its folder, or its own name if it stands in none."""
    rest = module.removeprefix("registrator").removeprefix(".")
    return rest.split(".")[0] or "__init__"


def test_every_module_of_the_core_has_its_place() -> None:
    names = {name for name in MODULES if name.startswith("registrator")}
    in_folders = {name for name in names if place_of(name) in FOLDERS}
    places = {".".join(name.split(".")[:2]) for name in names - in_folders}
    assert places == {*PUBLIC, *TOP}


def test_the_places_are_layers() -> None:
    below = {"__init__"}
    for place, allowed in (PUBLIC | FOLDERS | TOP).items():
        assert set(allowed.split()) <= below, place
        below.add(place_of(place) if place.startswith("registrator") else place)


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("registrator")])
def test_core_imports_only_what_its_place_allows(module: str) -> None:
    place = place_of(module)
    rules = FOLDERS | {place_of(name): allowed for name, allowed in (PUBLIC | TOP).items()}
    allowed = set(rules[place].split())
    if place in (*FOLDERS, "commands"):
        allowed.add(place)
    assert {place_of(name) for name in imports(MODULES[module])} <= allowed


@pytest.mark.parametrize("path", backend_files(), ids=name_of)
def test_backends_know_four_modules_of_the_core(path: Path) -> None:
    of_the_core = {name for name in imports(path) if name.startswith("registrator")}
    assert of_the_core <= BACKENDS_MAY


@pytest.mark.parametrize("path", backend_files(), ids=name_of)
def test_backends_know_only_their_own_folder_and_common(path: Path) -> None:
    own = path.relative_to(ROOT).parts[1]
    others = {name for name in imports(path) if name.startswith("backends")}
    assert {name.split(".")[1] for name in others} <= {own, "common"}


def test_no_import_goes_in_a_circle() -> None:
    """Python runs most circles until somebody imports the other end first."""
    known = {name: set(imports(path)) & MODULES.keys() - {name} for name, path in MODULES.items()}
    left = dict(known)
    while left:
        free = [name for name, others in left.items() if not others & left.keys()]
        assert free, f"these import each other: {sorted(left)}"
        for name in free:
            del left[name]


@pytest.mark.parametrize(
    ("module", "packages"),
    [
        ("registrator.agent", "consul etcd3 grpc kazoo"),
        ("registrator.backends.file", "consul etcd3 grpc kazoo"),
        ("registrator.backends.consul.backend", "etcd3 grpc kazoo"),
        ("registrator.backends.consul.kv", "registrator.backends.consul.backend etcd3 grpc kazoo"),
        ("registrator.backends.etcd.backend", "consul kazoo"),
        ("registrator.backends.zookeeper.backend", "consul etcd3 grpc"),
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
