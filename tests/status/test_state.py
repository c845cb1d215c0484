"""The state as a pure function of the board: outcomes, counts, verdict and what it leaves out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from typing import Any

import pytest
from support.fakes import container

from registrator.desired.rules import Rules
from registrator.desired.services import services
from registrator.model import (
    Container,
    LeftOut,
    Offer,
    Port,
    Problem,
    Reason,
    Service,
    Snapshot,
)
from registrator.status.board import Board
from registrator.status.state import BREATH, rendered, state

RULES = Rules("h", "192.0.2.1")
URIS = ("consul://h:8500", "etcd://h:2379")


def offer(of: Container) -> Offer:
    """The offer of a container, as `Containers` has it."""
    return dataclasses.replace(services(of, RULES), container=of)


def snapshot(offers: Iterable[Offer]) -> Snapshot:
    return Snapshot({each.id: each for offer in offers for each in offer.services})


def board(*containers: Container, uris: tuple[str, ...] = URIS) -> Board:
    """A board on which all of these stand in each registry."""
    made = Board(uris)
    made.engine.succeeded(version="20.10.24", address="unix:///var/run/docker.sock")
    made.offers = {each.id: offer(each) for each in containers}
    for report in made.registries:
        report.realised(snapshot(made.offers.values()), {})
    return made


def row(of: Board, number: int = 0, port: int = 0) -> Any:
    return state(of)["containers"][number]["ports"][port]


def test_a_service_that_stands_everywhere() -> None:
    web = container(
        env={"SERVICE_TAGS": "a,b", "SERVICE_CHECK_HTTP": "s3cret"}, started_at=2 * 10**9
    )
    made = state(board(web))
    (group,) = made["containers"]
    assert group == {
        "id": web.id,
        "name": "web",
        "image": "acme/web:1.0",
        "started": 2.0,
        "ports": [
            {
                "port": 80,
                "protocol": "tcp",
                "outcome": "registered",
                "why": "",
                "service": {
                    "id": "h:web:80",
                    "name": "web",
                    "address": "192.0.2.1",
                    "port": 32768,
                    "tags": ["a", "b"],
                },
                "registries": [{"state": "registered", "why": ""}] * 2,
            }
        ],
    }
    assert made["schema"] == 1
    assert made["summary"]["verdict"] == "The only service stands in both registries"
    assert made["summary"]["well"]
    assert made["summary"]["ports"]["registered"] == 1
    assert [each["state"] for each in made["registries"]] == ["in_sync", "in_sync"]
    assert "s3cret" not in json.dumps(made)


def test_a_new_service_is_pending_until_it_is_written() -> None:
    changed = board(container())
    old = changed.offers
    changed.offers = {key: offer(container(image="x/y")) for key in old}
    assert row(changed)["outcome"] == "pending"
    made = state(changed)
    assert made["registries"][0]["counts"]["pending"] == 1
    assert made["registries"][0]["state"] == "behind"
    assert made["summary"]["verdict"] == "1 of 1 services are about to be written"
    assert made["summary"]["well"]
    changed.registries[0].realised(snapshot(changed.offers.values()), {})
    assert [each["state"] for each in row(changed)["registries"]] == ["registered", "pending"]
    assert row(changed)["outcome"] == "pending"


def test_a_registry_that_is_away_keeps_what_it_had() -> None:
    made = board(container())
    made.registries[1].failed("no answer")
    made.registries[1].waits(4)
    assert row(made)["outcome"] == "registered"
    told = state(made)
    away = told["registries"][1]
    assert (away["state"], away["error"], away["failures"]) == ("down", "no answer", 1)
    assert away["server"] == ""
    assert away["outage_since"] is not None
    assert away["next_attempt"] is not None
    assert away["counts"]["registered"] == 1
    assert told["summary"]["attention"] == 1
    assert not told["summary"]["well"]
    made.offers = {**made.offers, "b": offer(container("other"))}
    other = row(made)
    assert other["outcome"] == "registry_away"
    assert other["registries"][0]["state"] == "pending"
    assert other["registries"][1] == {"state": "registry_away", "why": "no answer"}
    assert state(made)["registries"][1]["counts"]["pending"] == 1


@pytest.mark.parametrize(
    ("reason", "count"),
    [
        (Reason.REFUSED, "refused"),
        (Reason.OTHERS_ENTRY, "conflicts"),
        (Reason.SAME_KEY, "conflicts"),
    ],
)
def test_a_problem_of_one_registry_counts_there(reason: Reason, count: str) -> None:
    made = board(container())
    problem = {"h:web:80": Problem(reason, "the particulars")}
    made.registries[1].realised(snapshot(made.offers.values()), problem)
    found = row(made)
    assert (found["outcome"], found["why"]) == (reason.name.lower(), "the particulars")
    first, second = state(made)["registries"]
    assert first["counts"] == {"registered": 1, "pending": 0, "refused": 0, "conflicts": 0}
    assert second["counts"] == {**dict.fromkeys(first["counts"], 0), count: 1}
    assert state(made)["summary"]["verdict"] == "1 needs attention"


def test_a_registry_whose_filter_excludes_it() -> None:
    made = board(container())
    whole = snapshot(made.offers.values())
    made.registries[1].realised(Snapshot(excluded=whole.services), {})
    found = row(made)
    assert [each["state"] for each in found["registries"]] == ["registered", "filtered"]
    assert found["outcome"] == "registered"
    assert state(made)["summary"]["well"]
    assert state(made)["summary"]["verdict"] == "The only service stands as the filters say"
    made.registries[0].realised(Snapshot(excluded=whole.services), {})
    assert row(made)["outcome"] == "filtered"
    assert state(made)["registries"][0]["state"] == "in_sync"
    assert state(made)["registries"][0]["counts"]["registered"] == 0


def test_a_service_without_a_port_concerns_the_whole_container() -> None:
    made = board(container())
    (only,) = made.offers.values()
    bare = dataclasses.replace(only.services[0], port=0, private_port=0)
    made.offers = {"c": Offer((bare,), (), only.container)}
    found = row(made)
    assert (found["port"], found["protocol"], found["service"]["port"]) == (None, None, 0)


def test_each_port_that_is_left_out_has_its_reason() -> None:
    ports = (Port(80, "tcp", "0.0.0.0", 8080), Port(53, "udp"), Port(443, "tcp", "0.0.0.0", 8443))
    made = board(container(ports=ports, env={"SERVICE_443_NAME": ".."}))
    rows = state(made)["containers"][0]["ports"]
    assert [(each["port"], each["protocol"], each["outcome"]) for each in rows] == [
        (53, "udp", "not_published"),
        (80, "tcp", "registered"),
        (443, "tcp", "rejected"),
    ]
    assert rows[0]["why"] == Reason.NOT_PUBLISHED.value
    assert "SERVICE_443_NAME" in rows[2]["why"]
    assert rows[2]["registries"] == []
    assert state(made)["summary"]["attention"] == 1


def test_a_container_of_which_nothing_is_known() -> None:
    made = board()
    made.offers = {"c" * 64: Offer(left_out=(LeftOut(None, Reason.NOT_INSPECTED),))}
    (group,) = state(made)["containers"]
    assert (group["name"], group["image"], group["started"]) == ("", "", None)
    assert group["ports"][0]["port"] is None
    assert group["ports"][0]["outcome"] == "not_inspected"


def test_before_the_engine_answers_nothing_is_well() -> None:
    made = Board(URIS)
    summary = state(made)["summary"]
    assert (summary["verdict"], summary["well"]) == ("The Docker engine does not answer yet", False)
    assert [each["state"] for each in state(made)["registries"]] == ["starting"] * 2
    made.engine.failed("connection refused")
    told = state(made)
    assert told["engine"]["state"] == "down"
    assert told["summary"]["attention"] == 1


def test_the_agent_tells_its_addresses() -> None:
    made = Board(URIS)
    made.tell_agent(hostname="web01", address="192.0.2.1", version="1.1.0", started=5.0)
    agent = state(made)["agent"]
    assert (agent["hostname"], agent["version"], agent["started"]) == ("web01", "1.1.0", 5.0)
    assert agent["addresses"]["text"] == "published ports at 192.0.2.1"
    made.tell_agent(address="")
    assert "no address" in state(made)["agent"]["addresses"]["text"]
    made.tell_agent(policy="internal", network="front")
    assert state(made)["agent"]["addresses"]["text"].endswith("in the network front")


def test_the_server_in_use_is_told_with_the_next_success() -> None:
    made = board(container())
    made.registries[0].serves("h:8500")
    assert state(made)["registries"][0]["server"] == ""
    made.registries[0].realised(snapshot(made.offers.values()), {})
    assert state(made)["registries"][0]["server"] == "h:8500"


def test_the_text_is_the_state_in_ascii_whatever_the_names_are() -> None:
    hostile = "<img src=x onerror=alert(1)>\u2028\ud800\x00é"
    names = [f"{hostile}{number}" for number in range(3 * BREATH)]
    made = board(*(container(name, id=f"{i:064x}", image=hostile) for i, name in enumerate(names)))
    breaths: list[int] = []
    text = rendered(made, lambda: breaths.append(1))
    assert text.isascii()
    assert json.loads(text) == state(made)
    assert len(breaths) == 3


def test_nothing_changes_while_nothing_happens() -> None:
    """Otherwise each look would get the whole state again."""
    made = board(container())
    before = rendered(made)
    made.engine.succeeded()
    for report in made.registries:
        report.realised(snapshot(made.offers.values()), {})
    assert rendered(made) == before


def test_no_field_of_a_service_comes_in_by_itself() -> None:
    """The state has the fields that it names, and no other one that `Service` may get."""
    service = row(board(container()))["service"]
    assert service.keys() < {each.name for each in dataclasses.fields(Service)}
    assert service.keys().isdisjoint({"attrs", "container_hostname", "former_addresses"})
