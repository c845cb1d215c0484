"""ARCHITECTURE.md names files and functions that exist, and every folder of the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "ARCHITECTURE.md").read_text()
STEPS = re.findall(r"^\| \d+\. .* \| `(\S+)` \| `(\S+)` \|$", TEXT, re.M)


def defined(path: Path) -> set[str]:
    """The functions, classes and methods of a file. A method is ``Class.method``."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            methods = (each for each in node.body if isinstance(each, ast.FunctionDef))
            found |= {f"{node.name}.{each.name}" for each in methods}
    return found


def test_it_follows_a_container_through_all_stages() -> None:
    folders = {str(Path(file).parent) for file, _ in STEPS}
    stages = {f"registrator/{name}" for name in ("engine", "desired", "sync")}
    assert folders >= {*stages, "backends/consul"}


@pytest.mark.parametrize(("file", "function"), STEPS)
def test_each_step_names_a_function_that_exists(file: str, function: str) -> None:
    assert function in defined(ROOT / file)


def test_the_files_and_folders_that_it_names_exist() -> None:
    paths = re.findall(r"`((?:registrator|backends|tests|benchmarks|scripts)/[\w/.]*)`", TEXT)
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_it_names_every_folder_of_the_core() -> None:
    folders = {path.parent.name for path in ROOT.glob("registrator/*/__init__.py")} - {"backends"}
    assert [name for name in sorted(folders) if f"`registrator/{name}/`" not in TEXT] == []
