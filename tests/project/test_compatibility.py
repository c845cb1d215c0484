"""`make compatibility`: the table of versions, making one, and the table of results."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from compatibility import __main__ as command
from compatibility import document, recipe, suites, versions
from compatibility.document import BEGIN, END, Row, merge, read, table
from compatibility.recipe import Recipe, Unavailable, make
from compatibility.recipes import go, python
from compatibility.recipes.python import Python
from compatibility.suites import Outcome, Suite, read_results
from compatibility.versions import VERSIONS, Version, obtain

RESULTS = """
<testsuites><testsuite>
<testcase classname="a.b" name="good"/>
<testcase classname="a.b" name="bad"><failure message="no"/></testcase>
<testcase classname="a.b" name="broken"><error message="no"/></testcase>
<testcase classname="a.b" name="absent"><skipped message="no"/></testcase>
</testsuite></testsuites>
"""


@dataclass(frozen=True)
class Script(Recipe):
    """Makes a program that prints its version. A recipe with `broken` makes none."""

    prints: str = "tool version 1.2.3"
    broken: str = ""

    def make(self, folder: Path) -> None:
        with (folder / "log").open("a") as log:
            log.write("made\n")
        if self.broken:
            raise Unavailable(self.broken)
        program = folder / "bin/tool"
        program.write_text(f"#!/bin/sh\necho {self.prints}\n")
        program.chmod(0o755)

    def environment(self, folder: Path) -> Mapping[str, str]:
        return {"TOOL_FOLDER": str(folder)}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(versions, "CACHE", tmp_path)
    return tmp_path


def version(name: str, **fields: str) -> Version:
    return Version(name, "tool", (Suite("s", ()),), (Script(**fields),))


def test_every_version_has_a_name_of_its_own() -> None:
    names = [each.name for each in VERSIONS]
    assert len(set(names)) == len(names)
    assert all(each.suites for each in VERSIONS)
    for each in VERSIONS:
        assert len({suite.name for suite in each.suites}) == len(each.suites)


def test_every_suite_names_tests_that_exist() -> None:
    for each in VERSIONS:
        for suite in each.suites:
            paths = [word for word in suite.arguments if word.startswith("tests/")]
            assert paths
            assert [path for path in paths if not (recipe.ROOT / path).exists()] == []


def test_versions_are_chosen_by_name_or_by_its_beginning() -> None:
    assert [each.name for each in command.choose(["etcd-3.6.8"])] == ["etcd-3.6.8"]
    assert [each.name for each in command.choose(["etcd-3.6"])] == ["etcd-3.6.8", "etcd-3.6.16"]
    assert {each.name.partition("-")[0] for each in command.choose(["etcd"])} == {"etcd"}
    assert command.choose([]) == [*VERSIONS]
    with pytest.raises(LookupError, match=r"no etcd-3\.6\.1; there are .*etcd-3\.6\.16"):
        command.choose(["etcd-3.6.1"])


@pytest.mark.parametrize("name", ["tool-1", "tool-1.2", "tool-1.2.3"])
def test_a_version_is_made_and_comes_first_on_the_path(name: str, cache: Path) -> None:
    environment, number = obtain(version(name))
    assert number == "1.2.3"
    assert environment["PATH"] == f"{cache / name / 'bin'}:{os.environ['PATH']}"
    assert environment["TOOL_FOLDER"] == str(cache / name)


def test_an_old_environment_of_python_finds_the_present_entry_points(tmp_path: Path) -> None:
    """It is kept for long, and another checkout may have made it."""
    old = tmp_path / "registrator-1.dist-info"
    old.mkdir()
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: registrator\nVersion: 1\n")
    (old / "entry_points.txt").write_text("[registrator.backends]\nconsul = old:Old\n")
    code = (
        "import importlib.metadata, sys\n"
        f"sys.path.append({str(tmp_path)!r})\n"
        "print(*importlib.metadata.entry_points(group='registrator.backends', name='consul'))"
    )
    environment = {**os.environ, **Python("suite", (), ()).environment(tmp_path)}
    command = [sys.executable, "-S", "-c", code]
    found = subprocess.run(
        command, env=environment, cwd="/", capture_output=True, text=True, check=True
    )
    assert "registrator.backends.consul" in found.stdout


def test_each_program_of_go_has_a_module_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[Path, str]] = []
    monkeypatch.setattr(go, "run", lambda words, folder, _: ran.append((folder, words[1])))
    make([go.Go(("m/a@v1",), {"a": "m/a"}), go.Go(("m/b@v1",), {"b": "m/b"})], tmp_path / "x")
    folders = [tmp_path / "x/go" / name for name in "ab"]
    assert ran == [(folder, word) for folder in folders for word in ("mod", "get", "build")]


def test_a_python_on_the_path_that_refuses_to_run_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As pyenv's does, if another version is the chosen one."""
    inside = tmp_path / ".pyenv/versions/3.99.1/bin"
    for folder, status in ((tmp_path, 127), (inside, 0)):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "python3.99").write_text(f"#!/bin/sh\nexit {status}\n")
        (folder / "python3.99").chmod(0o755)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (inside / "python").symlink_to("python3.99")
    assert python.find("3.99") == str(inside / "python")
    with pytest.raises(Unavailable, match=r"no program python3\.98"):
        python.find("3.98")


def test_the_oldest_libraries_are_the_bounds_of_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(python, "ROOT", tmp_path)
    dependencies = ["a-b>=1.2,<2", "c_d>=3", "e"]
    (tmp_path / "pyproject.toml").write_text(f"[project]\ndependencies = {dependencies}\n")
    assert python.oldest() == ("a-b==1.2", "c_d==3")


def test_a_name_without_a_number_takes_what_is_there(cache: Path) -> None:
    assert obtain(version("tool-oldest"))[1] == "1.2.3"


def test_another_version_than_the_one_wanted_is_none(cache: Path) -> None:
    with pytest.raises(Unavailable, match=r"what can be had is 1\.2\.3"):
        obtain(version("tool-1.2.30"))
    with pytest.raises(Unavailable, match="prints no version"):
        obtain(version("tool-1", prints="hello"))


def test_a_version_is_made_once_and_again_when_its_recipe_changes(tmp_path: Path) -> None:
    log = tmp_path / "x/log"
    for _ in range(2):
        make((Script(),), tmp_path / "x")
        assert log.read_text() == "made\n"
    make((Script(), Script("another")), tmp_path / "x")
    assert log.read_text() == "made\n" * 2


def test_what_was_not_made_to_the_end_is_made_again(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(Unavailable):
            make((Script(broken="no network"),), tmp_path / "x")
    assert (tmp_path / "x/log").read_text() == "made\n"


def test_a_missing_program_and_a_failing_one_are_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no program no-such-compiler"):
        recipe.run(["no-such-compiler", "build"], tmp_path)
    with pytest.raises(Unavailable, match="sh -c failed: one / two"):
        recipe.run(["sh", "-c", "echo one; echo two; exit 3"], tmp_path)


def test_the_others_go_on_without_a_version(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = cache / "compatibility.md"
    page.write_text(f"{BEGIN}{END}")
    all_versions = (version("a-1", broken="no network"), version("b-1"))
    monkeypatch.setattr(command, "VERSIONS", all_versions)
    monkeypatch.setattr(document, "DOCUMENT", page)
    outcome = Outcome(3, 0, 0, 60.0)
    monkeypatch.setattr(suites, "run", lambda *_: (outcome, cache / "log"))
    monkeypatch.setattr("sys.argv", ["compatibility"])
    assert command.main() == 1
    shown = [(row.version, row.number, row.result) for row in read(page.read_text())]
    assert shown == [("a-1", "", "cannot be had: no network"), ("b-1", "1.2.3", "3 passed")]
    assert table(read(page.read_text())) == capsys.readouterr().out
    monkeypatch.setattr(suites, "run", lambda *_: (Outcome(4, 0, 0, 60.0), cache / "log"))
    monkeypatch.setattr("sys.argv", ["compatibility", "b-1", "--suite", "s"])
    assert command.main() == 0
    assert [row.result for row in read(page.read_text())][1:] == ["4 passed"]


def test_a_suite_has_variables_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "python"
    program.write_text('#!/bin/sh\necho "$STORE"\n')
    program.chmod(0o755)
    monkeypatch.setattr(suites, "LOGS", tmp_path / "logs")
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "STORE": "one"}
    for variables, wanted in (({"STORE": "two"}, "two\n"), ({}, "one\n")):
        _, log = suites.run(Suite("s", (), variables), "a-1", environment)
        assert log.read_text() == wanted


def test_what_pytest_tells() -> None:
    outcome = read_results(RESULTS, 1.0)
    assert str(outcome) == "2 failed, 1 passed, 1 skipped"
    assert outcome.failures == ("a.b::bad", "a.b::broken")
    assert not outcome.good
    assert str(read_results("<testsuites/>", 1.0)) == "did not run"
    assert not read_results("<testsuites/>", 1.0).good
    assert not Outcome(0, 0, 3, 1.0).good


def row(version: str, suite: str, result: str) -> Row:
    return Row(version, "1.0", suite, result, "", "2026-11-01")


def test_a_result_replaces_that_of_its_suite() -> None:
    order = {"c": ["x"], "b": ["x", "y"], "a": ["x"]}
    old = [row("a", "x", "old"), row("b", "x", "old"), row("b", "y", "old"), row("gone", "x", "")]
    new = [row("b", "x", "new")]
    wanted = [row("b", "x", "new"), row("b", "y", "old"), row("a", "x", "old")]
    assert merge(old, new, order) == wanted
    assert merge([row("a", "gone", "old")], new, order) == new


def test_a_reason_and_the_results_of_its_version_replace_each_other() -> None:
    order = {"b": ["x", "y"], "a": ["x"]}
    results = [row("b", "x", "old"), row("b", "y", "old"), row("a", "x", "old")]
    reason = row("b", "", "cannot be had: no network")
    assert merge(results, [reason], order) == [reason, results[-1]]
    assert merge([reason, results[-1]], results[1:2], order) == results[1:]
