"""``registrator check``: whether the options are right, and the engine and the registries answer.

It tries no write, as a write could disturb the agent that runs.
"""

import json as texts
from contextlib import ExitStack

import click

from registrator.config import Config
from registrator.status.state import state

from .alone import Registries, host_of, told_alone
from .asking import FINE, UNREACHABLE, counted, table

FINE_OPTIONS = ("options", "fine")


def run(config: Config, json: bool = False) -> int:
    """Show it, and return the exit code. Wrong options have ended the command before."""
    rows = [FINE_OPTIONS]
    with host_of(config) as host, ExitStack() as opened:
        engine = host.board.engine.row
        rows.append(("engine", f"{engine.version} at {engine.address}"))
        reports = []
        for report, _, found in Registries(config, host, opened).compare(host.look()):
            reports.append(report)
            if found is None:
                rows.append((report.row.name, f"does not answer: {report.row.error}"))
                continue
            where = f" ({report.row.server})" if report.row.server else ""
            ours, others = found.ours, len(found.actual) - found.ours
            rows.append(
                (report.row.name,
                 f"answers{where}; {counted(ours, 'entry', 'entries')} ours, {others} others';"
                 " writing not tried")
            )  # fmt: skip
        made = told_alone(state(host.board))
    click.echo(texts.dumps(made) if json else "\n".join(table(rows)))
    return UNREACHABLE if any(report.row.failures for report in reports) else FINE
