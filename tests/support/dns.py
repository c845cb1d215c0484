"""DNS as dig asks it."""

from __future__ import annotations

import subprocess
from typing import NamedTuple

from support.servers import program


class Record(NamedTuple):
    """A record of an answer. `ttl` is in seconds. `data` has the words of its value."""

    name: str
    ttl: int
    kind: str
    data: tuple[str, ...]


def ask(server: str, name: str, kind: str, *options: str) -> list[Record]:
    """The records of an answer and those that come along. Raises `OSError` without an answer.

    `server` is ``address:port``. `options` are dig's, such as ``+tcp``.
    """
    ip, _, port = server.partition(":")
    dig = program("dig", package="bind9-dnsutils")
    shown = ["+noall", "+answer", "+additional", "+time=5", "+tries=1"]
    done = subprocess.run(
        [dig, f"@{ip}", "-p", port, name, kind, *shown, *options],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode:
        raise OSError(done.stdout)
    rows = [line.split() for line in done.stdout.splitlines() if line and line[0] != ";"]
    return [Record(row[0], int(row[1]), row[3], tuple(row[4:])) for row in rows]


def instances(server: str, name: str, *options: str) -> set[str]:
    """The addresses and ports of a service's SRV records, as ``address:port``."""
    records = ask(server, name, "SRV", *options)
    hosts = {record.name: record.data[0] for record in records if record.kind == "A"}
    found = [record.data for record in records if record.kind == "SRV"]
    return {f"{hosts.get(target, target)}:{port}" for _, _, port, target in found}
