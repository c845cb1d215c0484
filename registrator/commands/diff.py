"""``registrator diff``: what the agent would write, without a write.

It compares contents only. So it tells nothing of leases and sessions, which the running agent has.
It names the parts that differ, and never shows their values: they may hold secrets.
"""

import json as texts
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TypedDict

import click

from registrator.config import Config
from registrator.model import Actual, Entry, Mark, Reason
from registrator.uri import Address

from .alone import Registries, host_of
from .asking import FINE, NOT_FINE, UNREACHABLE, counted, harmless, table
from .reading import Comparison

REGISTER, CHANGE, REMOVE, PROBLEM = "+", "~", "-", "!"
INCOMPLETE = "a container cannot be inspected, so no entry counts as dangling"
CONFLICTS = (Reason.OTHERS_ENTRY, Reason.SAME_KEY)


class Difference(TypedDict):
    """One difference: a sign, the service's id or the entry's key, and what there is to say."""

    sign: str
    id: str
    text: str


class RegistryDifferences(TypedDict):
    """All differences of one registry. `error` says why it does not answer."""

    name: str
    error: str
    differences: list[Difference]
    conflicts: int
    refused: int


def run(config: Config, json: bool = False) -> int:
    """Show the differences of each registry, and return the exit code."""
    with host_of(config) as host, ExitStack() as opened:
        snapshot = host.look()
        found = [
            _differences(report.row.name, report.row.error, comparison)
            for report, _, comparison in Registries(config, host, opened).compare(snapshot)
        ]
    if not snapshot.complete:
        click.echo(f"registrator: {INCOMPLETE}", err=True)
    if json:
        click.echo(texts.dumps({"schema": 1, "registries": found}))
    else:
        _show(found)
    if any(each["error"] for each in found):
        return UNREACHABLE
    return NOT_FINE if any(each["differences"] for each in found) else FINE


def _differences(name: str, error: str, found: Comparison | None) -> RegistryDifferences:
    if found is None:
        return RegistryDifferences(name=name, error=error, differences=[], conflicts=0, refused=0)
    reasons = [problem.reason for problem in found.problems.values()]
    conflicts = sum(reason in CONFLICTS for reason in reasons)
    return RegistryDifferences(
        name=name,
        error="",
        differences=[*_lines(found)],
        conflicts=conflicts,
        refused=sum(reason is Reason.REFUSED for reason in reasons),
    )


def _lines(found: Comparison) -> Iterator[Difference]:
    for entry in found.plan.register:
        service, stands = entry.service, found.actual.get(entry.key)
        if stands is None:
            text = f"{service.name} {Address(service.address, service.port)}"
            yield Difference(sign=REGISTER, id=service.id, text=text)
        else:
            yield Difference(sign=CHANGE, id=service.id, text=differing(entry, stands))
    for key in found.plan.deregister:
        service_id = found.actual[key].id or key
        problem = found.problems.get(service_id)
        yield Difference(sign=REMOVE, id=service_id, text=problem.text if problem else "dangling")
    for service_id, problem in found.problems.items():
        if problem.reason in (*CONFLICTS, Reason.REFUSED):
            yield Difference(sign=PROBLEM, id=service_id, text=problem.text)


def differing(wanted: Entry, stands: Actual) -> str:
    """The names of the parts in which an entry differs from what stands. No value is shown."""
    if stands.mark is Mark.NONE:
        return "it names no owner: the agent takes it over"
    ours, theirs = _parts(wanted.content), _parts(stands.content)
    names = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
    if wanted.status not in ("", stands.status):
        names.append("status")
    return ", ".join(name.lower() for name in names) or "owner"


def _parts(content: str) -> dict[str, object]:
    """The parts of an entry's content by name. A plain value is one part, the address."""
    try:
        found = texts.loads(content)
    except ValueError:
        found = content
    return found if isinstance(found, dict) else {"address": content}


def _show(found: list[RegistryDifferences]) -> None:
    for number, each in enumerate(found):
        if len(found) > 1:
            click.echo("\n" * bool(number) + harmless(f"{each['name']}:"))
        if each["error"]:
            click.echo(harmless(f"registrator: {each['name']}: {each['error']}"), err=True)
            continue
        rows = [(f"{line['sign']} {line['id']}", line["text"]) for line in each["differences"]]
        for line in table(rows) if rows else ():
            click.echo(line)
        click.echo(_summary(each))


def _summary(found: RegistryDifferences) -> str:
    signs = [each["sign"] for each in found["differences"]]
    if not signs:
        return "no difference"
    parts = [
        f"{signs.count(REGISTER)} to register", f"{signs.count(CHANGE)} to change",
        f"{signs.count(REMOVE)} to remove", counted(found["conflicts"], "conflict"),
    ]  # fmt: skip
    return ", ".join([*parts, f"{found['refused']} refused"] if found["refused"] else parts)
