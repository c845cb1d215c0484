"""Spoils recorded inspections, listings and events in random places.

Whatever a container or an engine says: there is no exception but the agent's own kinds, no service
outside the limits, and no change of another container's services. `make fuzz` runs it for as long
as one likes. The corpus was recorded on the engines that its files are named after.
"""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.fakes import FakeEngine, container

from registrator.desired.inventory import Inventory
from registrator.desired.left_out import lines
from registrator.desired.rules import Rules
from registrator.desired.services import services
from registrator.desired.untrusted import MAX_NAME, MAX_RECORDS, MAX_SERVICES, ip_address
from registrator.engine.answers import container_of, rows
from registrator.engine.event_lines import parse_event
from registrator.model import Container, EngineUnavailable, Service, Snapshot, unprintable

CORPUS = [json.loads(path.read_text()) for path in sorted(Path(__file__).parent.glob("corpus/*"))]
INSPECTIONS = [answer for each in CORPUS for answer in each["inspections"].values()]
LISTINGS = [each["listing"] for each in CORPUS]
EVENTS = [event for each in CORPUS for event in each["events"]]

# `make fuzz` sets it.
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "300"))

NASTY = st.sampled_from(
    [
        "²", "²/tcp", "0/tcp", "99999/udp", "9" * 5000, "9" * 5000 + "/tcp", "--5", "-1", "", " ",
        "\x00", "\n", "\ud800", "\u2028", "..", "a/../b", "💥" * 100, "SERVICE_NAME=a\x00",
        "SERVICE_ID=..", "SERVICE_80_IP=fe80::1%eth0", "SERVICE_IP=0.0.0.0", "host", "container:",
        "SERVICE_PORTS=0", "SERVICE_PORTS=80,²", "SERVICE_PORTS=" + "1," * 9000 + "2",
        "SERVICE_PORTS=53/udp,80", "SERVICE_NETWORK=host", "SERVICE_80_NETWORK=\x00",
        "SERVICE_NETWORK=bridge", "SERVICE_ALIASES=..,a", "SERVICE_ALIASES=" + "a,b," * 99,
        "container:x", "default", "0001-01-01T00:00:00Z", "9999-99-99T99:99:99Z", "x" * 70_000,
    ]
)  # fmt: skip
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), NASTY
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(NASTY | st.sampled_from(["SERVICE_NAME", "80/tcp"]), inner, max_size=4)
    ),
    max_leaves=6,
)
RULES = [
    Rules("h", "192.0.2.1"),
    Rules("h", "192.0.2.1", internal=True),
    Rules("h", "192.0.2.1", explicit=True, ip_label="ip"),
    Rules("h", "", network="extra", internal=True),
    Rules("h", "2001:db8::1", family=6),
    Rules("h", "", interface="eth0"),
]
FUZZ = settings(max_examples=EXAMPLES, deadline=None)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every part of an answer."""
    inner: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    return [path, *(found for key, each in inner for found in places(each, (*path, key)))]


@st.composite
def spoilt(draw: st.DrawFn, answers: list[Any]) -> Any:
    """An answer of which up to four parts are other ones, or gone, or have another name."""
    made = copy.deepcopy(draw(st.sampled_from(answers)))
    for _ in range(draw(st.integers(0, 4))):
        path = draw(st.sampled_from(places(made)))
        if not path:
            made = draw(st.just(made) | VALUES)
            continue
        owner = made
        for key in path[:-1]:
            owner = owner[key]
        how = draw(st.sampled_from(["change", "remove", "rename"]))
        value = owner[path[-1]]
        if how != "change":
            del owner[path[-1]]
        if how == "change":
            owner[path[-1]] = draw(VALUES)
        elif how == "rename" and isinstance(owner, dict):
            owner[draw(NASTY)] = value
    return made


def check(service: Service) -> None:
    """Hold a service to the limits of every one. A service may have no port at all."""
    assert 0 < service.port < 65536 or service.port == service.private_port == 0
    assert 0 < service.private_port < 65536 or service.port == 0
    assert service.protocol in ("tcp", "udp", "sctp")
    assert ip_address(service.address) == service.address
    for text in (service.name, service.id):
        assert 0 < len(text.encode()) <= MAX_NAME
        assert not unprintable(text)
        assert not {".", ".."} & set(text.split("/"))
    assert all(tag and not unprintable(tag) for tag in service.tags)


def read(answer: Any) -> Container | None:
    """The container that the agent reads in an inspection, if it can."""
    try:
        return container_of(answer, ("ip",))
    except EngineUnavailable:
        return None


@FUZZ
@given(
    answer=spoilt(INSPECTIONS), peer=st.none() | spoilt(INSPECTIONS), rules=st.sampled_from(RULES)
)
def test_an_inspection(answer: Any, peer: Any, rules: Rules) -> None:
    found = read(answer)
    if found is None:
        return
    offer = services(found, rules, read(peer))
    assert len(offer.services) <= MAX_SERVICES
    size = sum(len(json.dumps(each.record)) for each in offer.services)
    assert size <= 8 * MAX_RECORDS, "JSON may write a character in six"
    for service in offer.services:
        check(service)
    for _, line, _ in lines(found, offer.left_out):
        assert not unprintable(line)
        assert len(line) < 2000


@FUZZ
@given(listing=spoilt(LISTINGS))
def test_a_listing(listing: Any) -> None:
    try:
        found = dict(rows(json.dumps(listing)))
    except EngineUnavailable:
        assert not isinstance(listing, list)
        return
    assert all(isinstance(key, str) and key and "/" not in key for key in found)


@FUZZ
@given(line=spoilt(EVENTS).map(lambda event: json.dumps(event).encode()) | st.binary(max_size=50))
def test_an_event(line: bytes) -> None:
    event = parse_event(line)
    if event is not None:
        assert "/" not in event.container_id
        assert 0 <= event.time < 2**63
        assert isinstance(event.action, str)
        hash(event)


class Spoilt(FakeEngine):
    """A fake engine in which one container's inspection is a spoilt answer."""

    def __init__(self, answer: Any) -> None:
        super().__init__(container("calm", 8000))
        self.answer = answer
        self.containers["evil"] = container("evil")

    def inspect(self, container_id: str, timeout: float | None = None) -> Container | None:
        """As `DockerEngine.inspect`."""
        if container_id == "evil":
            return container_of(self.answer)
        return super().inspect(container_id, timeout)

    def running(self) -> dict[str, int]:
        """As `DockerEngine.running`."""
        return dict(rows(json.dumps([{"Id": key} for key in self.containers])))


@FUZZ
@given(answer=spoilt(INSPECTIONS), events=st.lists(spoilt(EVENTS), max_size=4))
def test_the_services_of_another_container_stand(answer: Any, events: list[Any]) -> None:
    published: list[Snapshot] = []
    # This clock stands: a busy machine would make portions, and the first may lack the other one.
    rules = Rules("h", "192.0.2.1", on_stop=True, on_pause=True)
    inventory = Inventory(Spoilt(answer), rules, published.append, clock=lambda: 0.0)
    inventory.step()
    for line in events:
        event = parse_event(json.dumps(line).encode())
        if event is not None:
            inventory.mark(event)
    inventory.step()
    for snapshot in published:
        assert snapshot.services["h:calm:80"].port == 8000
