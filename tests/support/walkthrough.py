"""The commands of a document, run as a reader would type them.

A ``console`` block has commands, each after ``$ ``, and below a command what it prints. In an
``sh`` block every line is a command. A command without output below is run once. One with output
only looks, so it is repeated until it prints that, since a registry takes a moment. An agent in
the foreground is ended once it has found its engine and a registry.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Container, Mapping
from pathlib import Path
from typing import NamedTuple

from registrator.health import NAME, problems
from support.host import Host
from support.process import Process
from support.wait import until

BLOCK = re.compile(r"^```(console|sh)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FOREGROUND = re.compile(r"(\w+=\S+ +)*registrator .*://")
BLANK = re.compile(r"…|<[a-z][^>]*>")


class Command(NamedTuple):
    line: str
    output: str = ""
    comment: str = ""


def blocks(document: Path) -> list[list[Command]]:
    """The commands of a document, block by block."""
    found = []
    for language, block in BLOCK.findall(document.read_text()):
        if language == "sh":
            lines = [line.partition(" #") for line in re.split(r"(?<!\\)\n", block)]
            found.append([Command(a.rstrip(), "", b.strip()) for a, _, b in lines if a.strip()])
            continue
        parts = re.split(r"^\$ ", block, flags=re.MULTILINE)
        assert not parts[0], f"{document}: a block starts with no command: {parts[0]!r}"
        commands = [re.split(r"(?<!\\)\n", part, maxsplit=1) for part in parts[1:]]
        found.append([Command(line, output) for line, output in commands])
    return found


def walk(
    host: Host,
    document: Path,
    without: str = "^$",
    *,
    skip: Container[str] = (),
    folder: Path | None = None,
    environ: Mapping[str, str] | None = None,
    blanks: Mapping[str, str] | None = None,
) -> int:
    """Run all blocks but those that match `without`. Returns how many commands were run.

    Those in `skip` are not. They are run in `folder`, by default the document's, with variables of
    `environ`. In lines with blanks, such as ``<host>``, what `blanks` says is filled in.
    """
    folder = folder or document.parent
    variables = dict(environ or {})
    done = 0
    for block in blocks(document):
        if any(re.search(without, command.line) for command in block):
            continue
        for command in block:
            if command.line in skip:
                continue
            done += 1
            line = fill(command.line, blanks or {})
            if match := re.fullmatch(r"export (\w+)=(\S+)", line):
                variables[match[1]] = match[2]
            elif command.output:
                look(host, folder, line, command.output, variables)
            elif FOREGROUND.match(line.replace("\\\n", "")):
                look_at_agent(host, folder, line, variables)
            else:
                host.run("sh", "-c", line, folder=folder, environ=variables)
    return done


def fill(line: str, blanks: Mapping[str, str]) -> str:
    """The line with its blanks filled in. None may be left."""
    for blank, text in blanks.items():
        line = line.replace(blank, text)
    assert not BLANK.search(line), f"what stands for this? {line}"
    return line


def look(
    host: Host, folder: Path, line: str, output: str, variables: Mapping[str, str] | None = None
) -> None:
    """Repeat a command until it prints what it should."""
    last = ""

    def same() -> bool:
        nonlocal last
        both = f"{{ {line}\n}} 2>&1"
        last = host.run("sh", "-c", both, folder=folder, environ=variables, check=False)
        return shape(last) == shape(output)

    until(same, lambda: f"{line}\nprints {output!r}, not {last!r}")


def look_at_agent(host: Host, folder: Path, line: str, variables: Mapping[str, str]) -> None:
    """Run an agent in the foreground until all is well, and end it as its user would."""
    given = [f"{k}={v}" for k, v in {**host.environment(), **variables}.items()]
    run = ["env", "-i", f"--chdir={folder}", *given, "sh", "-c", f"exec env {line}"]
    agent = Process("agent", host.folder / "foreground", [*host.inside, *run])
    agent.log_file.unlink(missing_ok=True)
    try:
        agent.launch()
        agent.wait_log(r"Docker engine \S+ at ")
        agent.wait_log(r"connected to|: registered ")
        # It may have written the first part only.
        until(lambda: is_well(agent.pid), lambda: agent.tail())
        assert agent.stop() == 0, agent.tail()
        # A page's containers use the new keys on purpose.
        faults = [each for each in agent.log.splitlines() if "settings now" not in each]
        assert not re.search(" (WARN|ERROR)", "\n".join(faults)), agent.tail()
    finally:
        agent.kill()


def is_well(pid: int) -> bool:
    """Whether the health note of the agent with this process id has no problem."""
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # The agent may close others meanwhile.
            if str(file.readlink()).startswith(f"/memfd:{NAME} "):
                return not problems(file.read_text(), time.monotonic())
    return False


def shape(text: str) -> list[list[str]]:
    """Lines and words. The width of the columns may differ."""
    return [line.split() for line in text.strip().splitlines()]
