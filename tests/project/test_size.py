"""Functions that fit on a screen, and modules that can be read in one sitting."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE = [*ROOT.glob("registrator/**/*.py"), *ROOT.glob("backends/**/*.py")]


def test_a_function_has_at_most_fifty_lines() -> None:
    long = {
        f"{path.relative_to(ROOT)}: {node.name}"
        for path in CODE
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.end_lineno
        if node.end_lineno - node.lineno >= 50
    }
    assert long == set()


def test_a_module_has_about_three_hundred_lines_at_most() -> None:
    lines = {path.relative_to(ROOT): len(path.read_text().splitlines()) for path in CODE}
    assert {path: count for path, count in lines.items() if count > 310} == {}
