"""The documents and docstrings are in plain English: short sentences in the usual order.

Readers are operators, and many of them are not native speakers. A program sees only a part of what
makes a text hard: two sentences joined by a semicolon, a sentence that begins with a clause about
something that the reader does not know yet, and a sentence of many words.
"""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    {
        *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("examples/**/README.md"),
    }
)
EXISTING = [path for path in DOCUMENTS if path.exists()]

PARTS = ("registrator", "backends", "tests", "benchmarks", "compatibility", "scripts")
CODE = [path for part in PARTS for path in (ROOT / part).glob("**/*.py")]

# Aim at 15 words. A name in a code span or a link is one word each.
MAX_WORDS = 28

# A sentence's end. A colon ends a clause: what follows it must not be inverted either.
SENTENCE = re.compile(r"(?<=[.!?])[\"')*]*\s+(?=[\"'(*]*[A-Z])")
HARD_OPENING = re.compile(r"(?:^|: )[\"'(*]*(Of|Where|What|Whoever|Whether|That which) [a-z]")


def prose(text: str) -> Iterator[str]:
    """Paragraphs, list items and cells of tables, each in one line, with code as one word."""
    text = re.sub(r"^```.*?^```|<!--.*?-->", "", text, flags=re.M | re.S)
    text = re.sub(r"``.*?``|`[^`]*`", "Code", text)
    text = re.sub(r"!?\[([^]]*)\]\([^)]*\)", r"\1", text)
    blocks: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            blocks += [[cell] for cell in line.strip("|").split("|")]
        elif match := re.match(r"\s*(?:[-*] |\d+\. |> )(.*)", line):
            blocks.append([match[1]])
        elif not line.strip() or line.startswith("#"):
            blocks.append([])
        else:
            blocks[-1].append(line)
    for block in blocks:
        if joined := " ".join(" ".join(block).split()):
            yield joined


def faults(text: str) -> list[str]:
    """The hard sentences of a document, each with the reason."""
    found = []
    for block in prose(text):
        for sentence in SENTENCE.split(block):
            if ";" in sentence:
                found.append(f"semicolon: {sentence}")
            if HARD_OPENING.search(sentence):
                found.append(f"opening: {sentence}")
            if (words := len(sentence.split())) > MAX_WORDS:
                found.append(f"{words} words: {sentence}")
    return found


@pytest.mark.parametrize("path", EXISTING, ids=lambda path: str(path.relative_to(ROOT)))
def test_sentences_are_plain(path: Path) -> None:
    assert faults(path.read_text()) == []


def docstrings(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


def comments(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type == tokenize.COMMENT:
                yield token.string


def without_code(text: str) -> str:
    return re.sub(r"::\n(?:\n|(?: {4}).*\n?)+|``.*?``|`[^`]*`", "", text)


def test_there_is_code_to_read() -> None:
    assert len(CODE) > 100
    assert without_code("it runs `a; b` ; then") == "it runs  ; then"


def test_no_docstring_opens_with_a_clause() -> None:
    """`Whether` is common for functions that return a bool."""
    opening = re.compile(r"(Of|Where|What|Whoever) [a-z`]")
    assert [f"{f}: {d[:60]}" for f in CODE for d in docstrings(f) if opening.match(d)] == []


def test_no_docstring_and_no_comment_has_a_semicolon() -> None:
    texts = ((f, text) for f in CODE for text in (*docstrings(f), *comments(f)))
    assert [f"{f}: {text}" for f, text in texts if ";" in without_code(text)] == []


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("The label wins; the variable\nloses.", "semicolon"),
        ("| a | It stays; it goes later. |", "semicolon"),
        ("Fine. Of a variable and a label the label wins.", "opening"),
        ("- Where both are set, it ends.", "opening"),
        ("It is simple.\n\n**Rule**: What is set wins.", "opening"),
        (f"A {'very ' * MAX_WORDS}long sentence.", "words"),
    ],
)
def test_hard_sentences_are_found(text: str, kind: str) -> None:
    assert [fault for fault in faults(text) if kind in fault.partition(":")[0]]


@pytest.mark.parametrize(
    "text",
    [
        "If both set a key, the label wins. The log says so.",
        "Run `a; b; c`, then read [the page](x.md).\n\n```sh\na; b\n```\n",
        "| `a; b` | The agent waits. |\n\n## What it does\n",
        f"{'A short sentence. ' * MAX_WORDS}",
    ],
)
def test_plain_sentences_are_not_complained_of(text: str) -> None:
    assert faults(text) == []
