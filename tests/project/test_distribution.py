"""The installed package: the link `registrator/backends` becomes real files in sdist and wheel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "registrator", "backends")
BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])('dist')"


def modules(folder: Path) -> set[str]:
    """Every module below a folder, by its path."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*.py")}


def build(tree: Path, what: str) -> Path:
    """Build `sdist` or `wheel` of a tree, without network."""
    subprocess.run(
        [sys.executable, "-c", BUILD, f"build_{what}"],
        cwd=tree, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    (made,) = (tree / "dist").glob("*.whl" if what == "wheel" else "*.tar.gz")
    return made


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources as a fresh clone has them, with the link."""
    folder = tmp_path_factory.mktemp("checkout")
    ignored = shutil.ignore_patterns("__pycache__")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder)
    assert (folder / "registrator/backends").is_symlink()
    return folder


@pytest.fixture(scope="module")
def unpacked(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist's content."""
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(build(checkout, "sdist")) as archive:
        assert not [member.name for member in archive if member.issym() or member.islnk()]
        # Debian 12 has Python 3.11.2, whose `extractall` does not take a filter yet.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(folder)
    (content,) = folder.iterdir()
    return content


@pytest.fixture(scope="module", params=["checkout", "unpacked"])
def wheel(request: pytest.FixtureRequest) -> Path:
    """A wheel of the clone, and one of the sdist."""
    tree: Path = request.getfixturevalue(request.param)
    return build(tree, "wheel")


def expected() -> set[str]:
    core = {name for name in modules(ROOT / "registrator") if not name.startswith("backends/")}
    return core | {f"backends/{name}" for name in modules(ROOT / "backends")}


def test_the_sdist_has_every_module(unpacked: Path) -> None:
    assert modules(unpacked / "registrator") == expected()


def test_the_wheel_has_every_module_once(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
    assert len(names) == len(set(names))
    assert {re.sub("^registrator/", "", name) for name in names} == expected() | {
        "py.typed",
        "listener/page.html",
    }


def test_every_scheme_loads_from_the_wheel(checkout: Path, tmp_path: Path) -> None:
    """The wheel's folder comes before the checkout, from which these tests run."""
    with zipfile.ZipFile(build(checkout, "wheel")) as archive:
        archive.extractall(tmp_path)
    code = (
        "import sys\n"
        "from registrator.backend import load, schemes\n"
        "for name in schemes():\n"
        "    print(name, sys.modules[load(name).__module__].__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)},
        check=True, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    loaded = dict(line.split() for line in done.stdout.splitlines())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert loaded.keys() == project["entry-points"]["registrator.backends"].keys()
    assert all(Path(file).is_relative_to(tmp_path) for file in loaded.values()), loaded
