"""Mutation tests of the pure core: change one thing at a time, and see whether a test fails.

A mutant changes an operator, a number, a condition or a call's effect in one module. The module's
own unit tests run on it. A mutant that no test notices shows a rule that no test holds.
``make mutants`` runs all modules, and ``make mutants MODULE=sync/plan`` runs one.
"""

from __future__ import annotations

import ast
import copy
import importlib
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[1]
# Seconds for one test: without a change, and at least with one.
PATIENCE, LIMIT = 300.0, 30.0
# What the tests print, in the folder that is changed.
OUTPUT = "output"
FORK = multiprocessing.get_context("fork")

INVENTORY = [
    "desired/test_slow_engine.py", "desired/test_withdrawn.py", "desired/test_inventory.py"
]  # fmt: skip

# Each module with the tests that hold its rules.
MODULES = {
    "identity": ["test_identity.py"],
    "model": ["test_model.py", "sync/test_reconciler.py"],
    "desired/addresses": ["desired/test_services.py"],
    "desired/metadata": ["desired/test_services.py"],
    "desired/ports": ["desired/test_services.py"],
    "desired/services": ["desired/test_services.py"],
    "desired/untrusted": ["desired/test_services.py"],
    "desired/left_out": ["desired/test_left_out.py", "desired/test_inventory.py"],
    "desired/restart_loops": ["desired/test_restart_loops.py", "desired/test_inventory.py"],
    "desired/withdrawn": ["desired/test_withdrawn.py"],
    "desired/vanished": ["desired/test_slow_engine.py"],
    "desired/tasks": ["desired/test_tasks.py", *INVENTORY],
    "desired/containers": INVENTORY,
    "desired/agenda": INVENTORY,
    "desired/inspections": INVENTORY,
    "desired/inventory": INVENTORY,
    "engine/answers": ["engine/test_answers.py", "engine/test_hostile_answers.py"],
    "engine/event_lines": ["engine/test_event_lines.py", "engine/test_hostile_answers.py"],
    "sync/plan": ["sync/test_plan.py", "sync/test_reconciler.py"],
    "sync/reconciler": ["sync/test_reconciler.py"],
    "derive": ["test_derive.py"],
    **{
        f"templates/{name}": ["templates/test_templates.py", "templates/test_records.py"]
        for name in (
            "comparisons",
            "evaluate",
            "formats",
            "functions",
            "lexer",
            "limits",
            "numbers",
            "parser",
            "plain",
            "quotes",
            "values",
        )
    },
    "status/board": ["status/test_board.py"],
    "status/rows": ["status/test_report.py", "status/test_board.py"],
    "status/report": ["status/test_report.py", "sync/test_reconciler.py"],
}

SWAPS: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.And: ast.Or, ast.Or: ast.And, ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip


# The parts of a tree that have no effect, such as annotations and the `slots` of a class.
FORMAL = ("annotation", "returns", "decorator_list")


def variants(node: ast.AST) -> Iterator[ast.AST]:
    """The changed forms of a node. Each has one change."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        changed = copy.deepcopy(node)
        changed.ops[0] = SWAPS[type(node.ops[0])]()
        yield changed
    elif isinstance(node, ast.BoolOp | ast.BinOp) and type(node.op) in SWAPS:
        other = copy.deepcopy(node)
        other.op = SWAPS[type(node.op)]()
        yield other
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield ast.Constant(node.value + 1)
    elif isinstance(node, ast.If | ast.IfExp):
        negated = copy.deepcopy(node)
        negated.test = ast.UnaryOp(ast.Not(), negated.test)
        yield negated
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield ast.Pass()
    elif isinstance(node, ast.Continue):
        yield ast.Break()


def mutants(source: str) -> Iterator[tuple[int, str, str]]:
    """Each mutant of a source: its line, what it changes, and its text."""
    number = 0
    while True:
        found = _mutant(ast.parse(source), number)
        if found is None:
            return
        yield found
        number += 1


def _mutant(tree: ast.Module, number: int) -> tuple[int, str, str] | None:
    count = 0
    for parent in _walk(tree):
        for name, value in ast.iter_fields(parent):
            if name in FORMAL:
                continue
            for index, node in enumerate(value if isinstance(value, list) else [value]):
                if not isinstance(node, ast.AST):
                    continue
                for variant in variants(node):
                    if count == number:
                        line = getattr(node, "lineno", 0)
                        ast.copy_location(variant, node)
                        if isinstance(value, list):
                            value[index] = variant
                        else:
                            setattr(parent, name, variant)
                        ast.fix_missing_locations(tree)
                        before, after = (ast.unparse(each) for each in (node, variant))
                        change = f"{before.splitlines()[0]} -> {after.splitlines()[0]}"
                        return line, change, ast.unparse(tree)
                    count += 1
    return None


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a tree without those that have no effect."""
    yield node
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and name not in FORMAL:
                yield from _walk(child)


def fails(tests: list[str], limit: float) -> bool:
    """Whether a test fails on the code in this folder, or takes longer than `limit` seconds."""
    run = FORK.Process(target=_run_tests, args=(tests, limit))
    run.start()
    run.join()
    return run.exitcode != 0


def _run_tests(tests: list[str], limit: float) -> None:
    """Run tests in a fork of this process, which has loaded all libraries but not the agent."""
    output = os.open(OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.dont_write_bytecode = True
    options = [
        "-x", "-q", "-p", "no:cacheprovider", "--timeout", str(limit), "--noconftest",
        "--assert=plain", "-o", "pythonpath=. tests",
        "-W", "ignore::pytest.PytestAssertRewriteWarning",
    ]  # fmt: skip
    os._exit(pytest.main([*options, *(f"tests/{test}" for test in tests)]))


def run(module: str, tree: Path) -> tuple[int, int]:
    """Test all mutants of a module. Returns how many were killed of how many."""
    file = tree / "registrator" / f"{module}.py"
    source, tests = file.read_text(), MODULES[module]
    began = time.monotonic()
    if fails(tests, PATIENCE):
        sys.exit(f"{Path(OUTPUT).read_text()}\nthe tests of {module} fail without a change")
    # A mutant may never end. How long the tests take depends on what else the machine does.
    limit = LIMIT + 3 * (time.monotonic() - began)
    killed = total = 0
    for line, change, text in mutants(source):
        file.write_text(text)
        total += 1
        if fails(tests, limit):
            killed += 1
        else:
            print(f"registrator/{module}.py:{line}: alive: {change}", flush=True)
    file.write_text(source)
    return killed, total


def main() -> int:
    """Run the modules that are given, or all. Prints the score of each."""
    chosen = sys.argv[1:] or list(MODULES)
    importlib.import_module("docker")
    # Each run has the same examples, so each score is the same.
    settings.register_profile(
        "mutants", derandomize=True, database=None, max_examples=25, deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )  # fmt: skip
    settings.load_profile("mutants")
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        tree = Path(name) / "tree"
        ignored = shutil.ignore_patterns(".venv", ".cache", ".git", "__pycache__", ".*_cache")
        shutil.copytree(ROOT, tree, symlinks=True, ignore=ignored)
        os.chdir(tree)
        for module in chosen:
            killed, total = run(module, tree)
            print(f"| {module} | {killed} of {total} | {100 * killed / total:.0f} % |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
