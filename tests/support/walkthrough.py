"""A README's commands with what they print, as tests run them.

A ``console`` block has commands, each after ``$ ``, and below a command what it prints. A command
without output below is run once. One with output only looks, so it is repeated until it prints
that, since a registry takes a moment.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from support.host import Host
from support.wait import until

BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
READY = 30.0


class Command(NamedTuple):
    line: str
    output: str


def blocks(readme: Path) -> list[list[Command]]:
    """The commands of a README, block by block."""
    found = []
    for block in BLOCK.findall(readme.read_text()):
        parts = re.split(r"^\$ ", block, flags=re.MULTILINE)
        assert not parts[0], f"{readme}: a block starts with no command: {parts[0]!r}"
        commands = [part.partition("\n") for part in parts[1:]]
        found.append([Command(line, output) for line, _, output in commands])
    return found


def walk(host: Host, readme: Path, without: str = "^$") -> int:
    """Run all blocks but those that match `without`; returns how many commands there were."""
    variables: list[str] = []
    done = 0
    for block in blocks(readme):
        if any(re.search(without, command.line) for command in block):
            continue
        for command in block:
            done += 1
            if command.line.startswith("export "):
                variables.append(command.line)
            elif command.output:
                look(host, readme, "; ".join([*variables, command.line]), command.output)
            else:
                host.run("sh", "-c", "; ".join([*variables, command.line]), folder=readme.parent)
    return done


def look(host: Host, readme: Path, line: str, output: str) -> None:
    """Repeat a command until it prints what it should."""
    last = ""

    def same() -> bool:
        nonlocal last
        last = host.run("sh", "-c", line, folder=readme.parent, check=False)
        return shape(last) == shape(output)

    until(same, lambda: f"{line}\nprints {output!r}, not {last!r}", READY)


def shape(text: str) -> list[list[str]]:
    """Lines and words; how wide columns are differs."""
    return [line.split() for line in text.strip().splitlines()]
