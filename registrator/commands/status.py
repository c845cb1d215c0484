"""``registrator status``: how the agent, its engine and its registries are."""

import time

import click

from registrator.status.outcomes import ATTENTION
from registrator.status.schema import EngineState, RegistryState, State

from .asking import counted, each, harmless, states, table

WORDS = {"in_sync": "in sync", "behind": "writing", "starting": "starting", "down": "down"}
HEAD = ("REGISTRY", "STATE", "SERVER", "REGISTERED", "PENDING", "REFUSED", "CONFLICTS")


def run(json: bool = False) -> int:
    """Show it for each agent that runs here. Returns the exit code."""
    found = states()
    return found.end(each(_show, found.states, json))


def _show(state: State) -> bool:
    now, agent, summary = time.time(), state["agent"], state["summary"]
    up = f"up {ago(agent['started'], now)}" if agent["started"] else ""
    words = (agent["hostname"], agent["version"], up, agent["addresses"]["text"])
    click.echo("  ".join(harmless(word) for word in words if word))
    click.echo(_engine(state["engine"], now, summary["containers"], summary["services"]))
    rows = [HEAD, *(_row(each, now) for each in state["registries"])]
    click.echo("\n".join(table(rows)))
    for registry in state["registries"]:
        if registry["error"]:
            click.echo(harmless(f"{registry['name']}: {registry['error']}{_next(registry, now)}"))
    ports = sum(summary["ports"][name] for name in ATTENTION)
    click.echo(f"{harmless(summary['verdict'])}{': see registrator list' if ports else ''}")
    return summary["well"]


def _engine(engine: EngineState, now: float, containers: int, services: int) -> str:
    if engine["state"] == "up":
        holds = f"{counted(containers, 'container')}, {counted(services, 'service')}"
        return f"engine  {harmless(engine['version'])}  answers  {holds}"
    since = f" for {ago(engine['since'], now)}" if engine["since"] else ""
    return f"engine  does not answer{since}: {harmless(engine['error'])}{_next(engine, now)}"


def _row(registry: RegistryState, now: float) -> tuple[str, ...]:
    word = WORDS.get(registry["state"], registry["state"])
    if registry["outage_since"]:
        word += f" for {ago(registry['outage_since'], now)}"
    counts = registry["counts"]
    numbers = (counts["registered"], counts["pending"], counts["refused"], counts["conflicts"])
    return (registry["name"], word, registry["server"] or "-", *map(str, numbers))


def _next(row: EngineState | RegistryState, now: float) -> str:
    """How many attempts failed, and when the next one comes."""
    if not row["next_attempt"]:
        return ""
    wait = max(0.0, row["next_attempt"] - now)
    return f"; {counted(row['failures'], 'attempt')} failed, the next one in {wait:.0f} s"


def ago(since: float | None, now: float) -> str:
    """A time in the largest unit that it has: ``3 d``."""
    seconds = max(0.0, now - (since or now))
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
