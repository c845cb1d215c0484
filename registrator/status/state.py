"""The one state behind the page, the commands and the metrics: a pure function of the `Board`.

`state` makes the answer of ``/api/state``. The types are in
`registrator/status/schema.py`::

    schema      1. Under this number, fields are only added
    agent       hostname (the first part of ids), version, started, and addresses:
                policy ("published" or "internal"), address (empty: none is known, or each
                container's own), text ("published ports at 192.0.2.10")
    summary     verdict (one sentence), well (whether nothing needs attention), attention (how many
                things do: ports, registries, the engine), containers, services, and
                ports (the number for each outcome, also if it is 0)
    outcomes    by name: text (what it means), remedy (what to do), attention (whether it needs any)
    engine      state ("starting", "up" or "down"), address, version, since, error, failures,
                next_attempt
    registries  a row for each URI, in its order: name (the URI without secrets), state, server (the
                one in use, or empty), since, outage_since, error, failures (attempts in a row that
                failed), next_attempt, last_listing, and counts: registered, pending, refused,
                conflicts. The state is "starting", "in_sync", "behind" (something is to be written)
                or "down"
    containers  a group for each container, by name: id, name, image (both may be empty: it was
                never inspected), started, and ports
    ports       a row for each port: port and protocol (null: the row concerns the whole container,
                or its service has no port), outcome, why (the particulars, empty if it is
                registered), service (null if it has none), and registries
    service     id, name, address, port, tags
    registries  of a row: state (an outcome) and why for each registry, in the order above
                (empty without a service)

An outcome is `registered`, `pending`, or the name of a `Reason` in lower case. A service is
registered if the registry's realised snapshot holds the very same object, and no problem is known.
The row's outcome is the one that matters most: what needs attention, then `pending`, then
`registered`. Moments are seconds since the epoch, and null means never. No field changes while
nothing happens, so that the ETag stays. There is no environment, no label and no attribute.

Every text may come from a container or a server. It is data: show it as text, never as markup.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter

from registrator.model import LeftOut, Offer, Reason, Service
from registrator.status.board import Board
from registrator.status.outcomes import ATTENTION, PENDING, REGISTERED, name_of, outcomes
from registrator.status.rows import EngineRow, RegistryRow
from registrator.status.schema import (
    Addresses,
    Agent,
    Counts,
    EngineState,
    Group,
    Head,
    PortState,
    RegistryState,
    ServiceState,
    Standing,
    State,
    Summary,
)

SCHEMA = 1

# After so many containers the other threads may run.
BREATH = 20

AWAY, FILTERED = name_of(Reason.REGISTRY_AWAY), name_of(Reason.FILTERED)
REFUSED = name_of(Reason.REFUSED)
CONFLICTS = frozenset({name_of(Reason.OTHERS_ENTRY), name_of(Reason.SAME_KEY)})


def state(board: Board) -> State:
    """The whole state, by the schema above."""
    tally = Tally(len(board.registries))
    groups = [tally.add(group) for group in _groups(board)]
    return State(**_head(board, tally), containers=groups)


def rendered(board: Board, breathe: Callable[[], None] = lambda: None) -> bytes:
    """The whole state as JSON. Calls `breathe` after every few containers.

    The caller lets the other threads run then. All at once would keep Python's lock for longer than
    an event may wait.
    """
    tally = Tally(len(board.registries))
    texts = []
    for number, group in enumerate(_groups(board), 1):
        texts.append(_dumps(tally.add(group)))
        if not number % BREATH:
            breathe()
    head = _dumps(_head(board, tally))
    return f'{head[:-1]},"containers":[{",".join(texts)}]}}\n'.encode("ascii")


def counted(board: Board, breathe: Callable[[], None] = lambda: None) -> "Tally":
    """The counts of the state, without the state. Calls `breathe` as `rendered` does."""
    tally = Tally(len(board.registries))
    for number, group in enumerate(_groups(board), 1):
        tally.add(group)
        if not number % BREATH:
            breathe()
    return tally


def _dumps(value: object) -> str:
    """JSON in ASCII only: any text is fit for any reader, also half of a surrogate pair."""
    return json.dumps(value, separators=(",", ":"))


class Tally:
    """Counts while the groups are made."""

    def __init__(self, registries: int) -> None:
        self.containers = self.services = 0
        self.ports: Counter[str] = Counter()
        self.states: list[Counter[str]] = [Counter() for _ in range(registries)]

    def add(self, group: Group) -> Group:
        """Count a group, and return it."""
        self.containers += 1
        for row in group["ports"]:
            self.ports[row["outcome"]] += 1
            self.services += row["service"] is not None
            for counter, standing in zip(self.states, row["registries"], strict=False):
                counter[standing["state"]] += 1
        return group

    def counts(self, index: int) -> Counts:
        """The four counts of one registry."""
        found = self.states[index]
        return Counts(
            registered=found[REGISTERED],
            pending=found[PENDING] + found[AWAY],
            refused=found[REFUSED],
            conflicts=sum(found[name] for name in CONFLICTS),
        )


def _groups(board: Board) -> Iterator[Group]:
    rows = [report.row for report in board.registries]
    by_name = ((_name(offer), key, offer) for key, offer in board.offers.items())
    for name, container_id, offer in sorted(by_name, key=itemgetter(0, 1)):
        container = offer.container
        ports = [_port_of(service, rows) for service in offer.services]
        ports += [_left_out(each) for each in offer.left_out]
        yield Group(
            id=container_id,
            name=name,
            image=container.image if container else "",
            started=_moment(container.started_at / 1e9 if container else 0.0),
            ports=sorted(ports, key=lambda row: (row["port"] or 0, row["protocol"] or "")),
        )


def _name(offer: Offer) -> str:
    return offer.container.name if offer.container else ""


def _left_out(each: LeftOut) -> PortState:
    return PortState(
        port=each.port.private if each.port else None,
        protocol=each.port.protocol if each.port else None,
        outcome=name_of(each.reason),
        why=str(each),
        service=None,
        registries=[],
    )


def _port_of(service: Service, rows: Sequence[RegistryRow]) -> PortState:
    """The row of a port that has a service."""
    standings = [_standing(service, row) for row in rows]
    worst = min(standings, key=_urgency, default=Standing(state=PENDING, why=""))
    return PortState(
        port=service.private_port or None,
        protocol=service.protocol if service.private_port else None,
        outcome=worst["state"],
        why=worst["why"],
        service=ServiceState(
            id=service.id,
            name=service.name,
            address=service.address,
            port=service.port,
            tags=list(service.tags),
        ),
        registries=standings,
    )


def _urgency(standing: Standing) -> int:
    """The place in the order of what matters most, 0 first."""
    name = standing["state"]
    if name in ATTENTION:
        return 0
    return {PENDING: 1, REGISTERED: 2}.get(name, 3)


def _standing(service: Service, row: RegistryRow) -> Standing:
    """How a service stands in one registry."""
    realised = row.realised
    if realised is not None and realised.excluded.get(service.id) is service:
        return Standing(state=FILTERED, why=Reason.FILTERED.value)
    if realised is None or realised.services.get(service.id) is not service:
        if row.failures:
            return Standing(state=AWAY, why=row.error or Reason.REGISTRY_AWAY.value)
        return Standing(state=PENDING, why="it is about to be written")
    if problem := row.problems.get(service.id):
        return Standing(state=name_of(problem.reason), why=problem.text)
    return Standing(state=REGISTERED, why="")


def _head(board: Board, tally: Tally) -> Head:
    registries = [
        _registry(report.row, tally.counts(index)) for index, report in enumerate(board.registries)
    ]
    engine = _engine(board.engine.row)
    return Head(
        schema=SCHEMA,
        agent=Agent(
            hostname=board.agent.hostname,
            version=board.agent.version,
            started=_moment(board.agent.started),
            addresses=Addresses(
                policy=board.agent.policy,
                address=board.agent.address,
                text=board.agent.addresses,
            ),
        ),
        summary=_summary(engine, registries, tally),
        outcomes=outcomes(),
        engine=engine,
        registries=registries,
    )


def _engine(row: EngineRow) -> EngineState:
    state = "down" if row.failures else "up" if row.last_success else "starting"
    return EngineState(
        state=state,
        address=row.address,
        version=row.version,
        since=_moment(row.since),
        error=row.error,
        failures=row.failures,
        next_attempt=_moment(row.next_attempt),
    )


def _registry(row: RegistryRow, counts: Counts) -> RegistryState:
    if row.failures:
        state = "down"
    elif row.realised is None:
        state = "starting"
    else:
        state = "in_sync" if row.in_sync and not counts["pending"] else "behind"
    return RegistryState(
        name=row.name,
        state=state,
        server=row.server,
        since=_moment(row.since),
        outage_since=_moment(row.since if row.failures else 0.0),
        error=row.error,
        failures=row.failures,
        next_attempt=_moment(row.next_attempt),
        last_listing=_moment(row.last_listing),
        counts=counts,
    )


def _moment(seconds: float) -> float | None:
    return round(seconds, 3) or None


def _summary(engine: EngineState, registries: list[RegistryState], tally: Tally) -> Summary:
    down = sum(each["state"] == "down" for each in registries)
    ports = sum(tally.ports[name] for name in ATTENTION)
    attention = ports + down + (engine["state"] == "down")
    return Summary(
        verdict=_verdict(engine, len(registries), tally, attention),
        well=not attention and engine["state"] == "up",
        attention=attention,
        containers=tally.containers,
        services=tally.services,
        ports={name: tally.ports[name] for name in outcomes()},
    )


def _verdict(engine: EngineState, registries: int, tally: Tally, attention: int) -> str:
    if engine["state"] != "up":
        yet = " yet" if engine["state"] == "starting" else ""
        return f"The Docker engine does not answer{yet}"
    if attention:
        return f"{attention} {'needs' if attention == 1 else 'need'} attention"
    if pending := tally.ports[PENDING]:
        return f"{pending} of {tally.services} services are about to be written"
    if not tally.services:
        return "No container offers a service"
    where = {1: "in the registry", 2: "in both registries"}.get(registries, "in all registries")
    if any(states[FILTERED] for states in tally.states):
        where = "as the filters say"
    if tally.services == 1:
        return f"The only service stands {where}"
    return f"All {tally.services} services stand {where}"
