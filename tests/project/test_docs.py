"""The documents say what is so: tables equal the code, links lead somewhere, options exist."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.consul import ENOUGH

from registrator.backend import schemes
from registrator.backends.consul import checks as consul_checks
from registrator.cli import Words, split
from registrator.commands.table import COMMANDS
from registrator.desired import untrusted
from registrator.desired.metadata import OWN_KEYS
from registrator.model import Reason, Service
from registrator.options import OPTIONS
from registrator.status.facts import of_reason
from registrator.system.log import KEYS, MAX_TEXT
from registrator.uri import parse

ROOT = Path(__file__).resolve().parents[2]
DOCS = sorted(ROOT.glob("docs/**/*.md"))
ALL = [*ROOT.glob("*.md"), *DOCS, *ROOT.glob("examples/**/README.md")]
CODE = [*ROOT.glob("registrator/**/*.py"), *ROOT.glob("backends/**/*.py")]
RUN, SERVICES = (ROOT / "docs" / f"{n}.md" for n in ("run", "services"))
REGISTRIES = ROOT / "docs/registries"
YOUR_OWN = REGISTRIES / "your-own.md"
# The page of each scheme, without its `-tls` or `-unix`, and the prefix of its variables.
PAGES = {
    "consul": ("consul.md", "CONSUL"),
    "consulkv": ("consul-kv.md", "CONSUL"),
    "etcd": ("etcd.md", "ETCDCTL"),
    "file": ("file.md", ""),
    "skydns2": ("skydns.md", "ETCDCTL"),
    "zookeeper": ("zookeeper.md", "ZOOKEEPER"),
}

each_document = pytest.mark.parametrize("path", ALL, ids=lambda path: str(path.relative_to(ROOT)))


def fenced(path: Path, *languages: str) -> Iterator[str]:
    """The blocks of code in one of the languages."""
    for language, text in re.findall(r"^```(\w*)\n(.*?)^```", path.read_text(), re.M | re.S):
        if language in languages:
            yield text


def anchors(path: Path) -> set[str]:
    """The headings as GitHub makes them into anchors."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def section(text: str, heading: str) -> str:
    """The text below a heading of the second level."""
    return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def test_the_least_rights_are_those_of_the_pages_and_of_the_tests() -> None:
    """Each registry's tests show on a real server that they are enough, and that less is not."""
    table = section((REGISTRIES / "README.md").read_text(), "Least rights")
    rows = {page: row for row in table.splitlines() for page in re.findall(r"\((.*?)#rights", row)}
    assert rows.keys() == {page for page, _ in PAGES.values()}
    for page, row in rows.items():
        rights = set(re.findall("`(.*?)`", row))
        text = section((REGISTRIES / page).read_text(), "Rights")
        assert rights, page
        assert all(f"`{right}`" in text for right in rights), page
        if page == "consul.md":
            assert rights == set(re.findall(r'\w+ ".*?" \{.*?\}', ENOUGH))


@pytest.mark.parametrize("path", [ROOT / "README.md", RUN], ids=lambda path: path.stem)
def test_the_option_table_is_that_of_the_command(path: Path) -> None:
    rows = [f"| `{f'-{o.name} {o.metavar}'.strip()}` | {o.default} | {o.help} |\n" for o in OPTIONS]
    table = "".join(["| option | default | meaning |\n| --- | --- | --- |\n", *rows])
    assert f"<!-- options -->\n{table}<!-- /options -->" in path.read_text()


class Asked(dict[str, str]):
    """Attributes that remember which of them were asked for."""

    def __init__(self, attrs: dict[str, str], keys: set[str]) -> None:
        super().__init__(attrs)
        self.keys_asked = keys

    def get(self, key: str, default: Any = None) -> Any:
        self.keys_asked.add(key)
        return super().get(key, default)


def check_keys() -> set[str]:
    """Every attribute that a health check is made of."""
    found: set[str] = set()
    consul_checks.wanted(Service("i", "n", "127.0.0.1", 1, 1, attrs=Asked({}, found)))
    for key in tuple(found):
        attrs = Asked({key: "0"}, found)
        consul_checks.wanted(Service("i", "n", "127.0.0.1", 1, 1, attrs=attrs))
    return found


def test_every_metadata_key_is_documented() -> None:
    keys = re.findall(r"`SERVICE_(?:[0-9]+_)?([A-Z_0-9]+)", SERVICES.read_text())
    documented = {re.sub("^CHECK_[0-9]+_", "CHECK_", key) for key in keys}
    assert {key.upper() for key in OWN_KEYS | check_keys()} <= documented
    checks = {key for key in documented if key.startswith("CHECK_")}
    assert checks == {key.upper() for key in check_keys()}
    readme = set(re.findall(r"`SERVICE_([A-Z_]+)`", (ROOT / "README.md").read_text()))
    assert readme == {key.upper() for key in OWN_KEYS}


def test_the_limits_are_those_of_the_code() -> None:
    limits = SERVICES.read_text().partition("## Limits")[2]
    kib = untrusted.MAX_METADATA // 1024
    for shown in (f"{untrusted.MAX_NAME} bytes", f"| {untrusted.MAX_TAG} bytes",
                  f"| {untrusted.MAX_ATTRIBUTES} attributes", f"| {kib} KiB"):  # fmt: skip
        assert shown in limits


@pytest.mark.parametrize("path", [ROOT / "README.md", REGISTRIES / "README.md"], ids=str)
def test_every_scheme_is_documented(path: Path) -> None:
    assert [name for name in schemes() if f"`{name}://" not in path.read_text()] == []


def test_every_scheme_is_on_its_registry_s_page() -> None:
    for name in schemes():
        page = (REGISTRIES / PAGES[name.partition("-")[0]][0]).read_text()
        assert f"`{name}://" in page, name


def variables(prefix: str) -> set[str]:
    """The variables with this prefix that the code reads."""
    pattern = rf"\b{prefix}_[A-Z_]*[A-Z]\b"
    return {name for path in CODE for name in re.findall(pattern, path.read_text())}


@pytest.mark.parametrize(("name", "prefix"), PAGES.values())
def test_every_variable_is_on_its_registry_s_page(name: str, prefix: str) -> None:
    read = variables(prefix) if prefix else set()
    assert len(read) > 2 or not prefix
    text = (REGISTRIES / name).read_text()
    assert [each for each in sorted(read) if each not in text] == []


def test_every_variable_of_the_engine_is_documented() -> None:
    read = variables("DOCKER")
    assert len(read) > 3
    assert [each for each in sorted(read) if each not in RUN.read_text()] == []


@each_document
def test_links_lead_somewhere(path: Path) -> None:
    # Code has brackets of its own.
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", path.read_text(), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:", target):
            continue
        name, _, anchor = target.partition("#")
        found = (path.parent / name).resolve() if name else path
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


def test_images_are_small_and_shown() -> None:
    """`scripts/screenshots.py` makes them."""
    images = [*ROOT.glob("docs/images/*")]
    assert len(images) >= 2
    assert [str(each) for each in images if each.stat().st_size >= 200_000] == []
    shown = "".join(path.read_text() for path in ALL)
    assert [each.name for each in images if f"images/{each.name})" not in shown] == []


@each_document
def test_uris_can_be_parsed(path: Path) -> None:
    known = "|".join(map(re.escape, schemes()))
    for uri in re.findall(rf"(?<![\w-])(?:{known}|folder)://[^\s`\"')|]*", path.read_text()):
        if not re.search(r"[…\[\]<>*]", uri) and not uri.endswith("://"):
            parse(uri.rstrip(".,;:"))


def commanded(args: list[str]) -> Words:
    """The words of a call of the agent, or of a command."""
    chosen = COMMANDS.get(args[0])
    return split(args[1:], chosen.options) if chosen else split(args)


@each_document
def test_commands_have_options_that_exist(path: Path) -> None:
    for block in fenced(path, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            match = re.search(r"(?:^|[ /])registrator(?::latest)? +(\[options\] +)?(.*://.*)", line)
            if match and "…" not in line:
                words = commanded(shlex.split(match[2], comments=True))
                assert (words.wrong, len(words.uris) > 0) == ([], True), line


@each_document
def test_targets_of_make_exist(path: Path) -> None:
    targets = set(re.findall(r"^\.PHONY: (\w+)", (ROOT / "Makefile").read_text(), re.M))
    text = path.read_text()
    named = {*re.findall(r"`make (\w+)", text), *re.findall(r"^make (\w+)", text, re.M)}
    assert named <= targets


LOGS = {"debug", "info", "warning", "error", "critical", "log"}


def log_lines() -> Iterator[str]:
    """Patterns of all that the code logs: what is filled in may be anything.

    A line that is only passed on (``"%s", warning``) was made by an f-string, of which those count
    that begin with a text.
    """
    for node in (node for path in CODE for node in ast.walk(ast.parse(path.read_text()))):
        parts: list[str] = []
        if isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
            parts = [str(p.value) if isinstance(p, ast.Constant) else "" for p in node.values]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in LOGS:
            texts = [arg.value for arg in node.args[:2] if isinstance(arg, ast.Constant)]
            parts = re.split(r"%[-.0-9]*[a-z]", str(texts[0])) if texts else []
        if len(re.findall("[a-z]", "".join(parts))) > 5:
            yield ".*".join(map(re.escape, parts))


def test_log_lines_are_as_shown() -> None:
    table = section(RUN.read_text(), "The log")
    lines = re.findall(r"^\| `([^`]+)` \|", table, re.M)
    said = list(log_lines())
    assert len(lines) > 15
    assert [line for line in lines if not any(re.fullmatch(text, line) for text in said)] == []


def marked(name: str) -> list[str]:
    """The first column of a table in docs/run.md that stands between two marks."""
    table = re.findall(f"<!-- {name} -->\n(.*?)<!-- /{name} -->", RUN.read_text(), re.DOTALL)
    return re.findall(r"^\| `(\w+)` \|", "".join(table), re.M)


def facts() -> Iterator[tuple[str, str]]:
    """The keys of all facts that log calls give, with the value if it is written there."""
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Dict):
                for key, value in zip(node.keys, node.values, strict=True):
                    if isinstance(key, ast.Constant) and type(key.value) is str:
                        yield key.value, getattr(value, "value", "")


def test_the_keys_of_the_log_in_json_are_those_of_the_code() -> None:
    assert marked("keys") == [*KEYS]
    assert set(KEYS) <= {key for key, _ in facts()}, "one of them has no value anywhere"
    calls = (node for path in CODE for node in ast.walk(ast.parse(path.read_text())))
    given = {
        key.value
        for call in calls
        if isinstance(call, ast.keyword) and call.arg == "extra"
        for each in ast.walk(call.value)
        if isinstance(each, ast.Dict)
        for key in each.keys
        if isinstance(key, ast.Constant)
    }
    assert len(given) > 4
    assert given <= set(KEYS)


def test_the_events_of_the_log_in_json_are_those_of_the_code() -> None:
    written = {value for key, value in facts() if key == "event" and isinstance(value, str)}
    reasons = {str(of_reason(reason)["event"]) for reason in Reason}
    assert set(marked("events")) == (written - {""}) | reasons


def test_the_longest_text_of_the_log_in_json_is_as_documented() -> None:
    assert f"at most {MAX_TEXT} characters" in RUN.read_text()


# Texts of the system and of a registry, which the agent passes on.
PASSED_ON = {"Connection refused", "etcdserver"}


def texts() -> str:
    """Every text in the code, one a line. An f-string gives the texts between its fields."""
    trees = (ast.parse(path.read_text()) for path in CODE)
    nodes = (node for tree in trees for node in ast.walk(tree))
    return "\n".join(n.value for n in nodes if isinstance(n, ast.Constant) and type(n.value) is str)


@pytest.mark.parametrize("page", sorted(REGISTRIES.glob("*.md")), ids=lambda path: path.stem)
def test_messages_of_a_registry_are_as_shown(page: Path) -> None:
    """Those in the first column of "Troubleshooting", up to and after a colon or an ellipsis."""
    table = page.read_text().partition("## Troubleshooting")[2]
    quoted = re.findall(r"^\| [^|`]*`([^`]+)`[^|`]* \|", table, re.M)
    assert quoted or not table
    parts = {part.strip(" ();") for text in quoted for part in re.split(": |:? ?…", text)}
    said = texts()
    assert [part for part in sorted(parts - PASSED_ON) if part not in said] == []


def test_the_example_of_a_backend_is_complete() -> None:
    shown = re.findall(
        r"<!-- file: (\S+) -->\n```\w+\n(.*?)^```", YOUR_OWN.read_text(), re.M | re.S
    )
    folder = ROOT / "examples/backend-plugin"
    assert {ROOT / name for name, _ in shown} == {*folder.glob("*.toml"), *folder.glob("*.py")}
    for name, text in shown:
        assert text == (ROOT / name).read_text()
    assert sum(text.count("\n") for _, text in shown) <= 60
