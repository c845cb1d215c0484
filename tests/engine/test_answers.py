"""Inspections and listings in the forms that engines give, and the containers made of them."""

import json
import logging
from typing import Any

import pytest

from registrator.engine.answers import container_of, fingerprint, rows, signal_number
from registrator.model import Container, ContainerHealth, Port

ID = "0123456789abcdef" * 4

PORTS = [{"PrivatePort": 80, "PublicPort": 8080}, {"PrivatePort": 443}]
ROW: dict[str, Any] = {
    "Id": ID,
    "Names": ["/web1"],
    "State": "running",
    "Status": "Up 5 minutes",
    "Labels": {"a": "b"},
    "NetworkSettings": {"Networks": {"bridge": {"IPAddress": "172.17.0.2"}}},
    "Ports": PORTS,
}


def test_all_that_is_read_of_an_inspection() -> None:
    answer = {
        "Id": ID,
        "Name": "/web1",
        "Config": {
            "Image": "acme/web:1.0",
            "Hostname": "0123456789ab",
            "Env": ["PATH=/bin", "SERVICE_NAME=a=b", "SERVICE_EMPTY", "MY_SERVICE_NAME=x"],
            "Labels": {"SERVICE_TAGS": "t", "address": "10.9.0.1", "other": "x"},
            "ExposedPorts": {"80/tcp": {}, "443/tcp": {}},
            "StopSignal": "SIGQUIT",
            "StopTimeout": 30,
        },
        "HostConfig": {"NetworkMode": "default"},
        "State": {
            "Running": True, "Restarting": False, "Paused": True, "ExitCode": 0,
            "StartedAt": "2026-01-02T03:04:05.123456789Z",
        },
        "NetworkSettings": {
            "Networks": {"bridge": {"IPAddress": "172.17.0.2"}, "a": {"IPAddress": "10.1.0.2"}},
            "Ports": {
                "53/udp": [{"HostIp": "192.0.2.1", "HostPort": "5353"}],
                "80/tcp": [
                    {"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"},
                ],
            },
        },
    }  # fmt: skip
    found = container_of(answer, labels=("address",))
    assert found == Container(
        id=ID,
        name="web1",
        image="acme/web:1.0",
        hostname="0123456789ab",
        env={"SERVICE_NAME": "a=b", "SERVICE_EMPTY": ""},
        labels={"SERVICE_TAGS": "t", "address": "10.9.0.1"},
        network_mode="default",
        networks={"bridge": "172.17.0.2", "a": "10.1.0.2"},
        ports=(
            Port(53, "udp", "192.0.2.1", 5353),
            Port(80, "tcp", "0.0.0.0", 8080),
            Port(80, "tcp", "::", 8080),
            Port(443, "tcp"),
        ),
        started_at=1767323045_123456_000,
        stop_signal=3,
        stop_timeout=30,
        paused=True,
    )
    assert list(found.networks) == ["bridge", "a"], "its main network comes first"


@pytest.mark.parametrize(
    "answer",
    [
        {"Id": "x"},
        {"Id": "x", "Config": None, "HostConfig": None, "State": None, "NetworkSettings": None},
        {
            "Id": "x",
            "Config": {"Env": None, "Labels": None, "ExposedPorts": None},
            "NetworkSettings": {"Ports": None, "Networks": None},
            "State": {"StartedAt": "never"},
        },
        {"Id": "x", "NetworkSettings": {"Ports": {"80/tcp": None, "nonsense": []}, "Networks": {}}},
    ],
)
def test_answers_with_parts_missing(answer: dict[str, object]) -> None:
    found = container_of(answer)
    assert found.id == "x"
    assert found.started_at == 0
    assert all(port.host_port == 0 for port in found.ports)


def test_the_network_that_a_container_was_started_with_comes_first() -> None:
    networks = {"a": {"IPAddress": "10.1.0.2"}, "b": {"IPAddress": ""}, "main": None}
    networks["main"] = {"IPAddress": "", "GlobalIPv6Address": "fd00::2"}
    answer = {
        "Id": "x",
        "HostConfig": {"NetworkMode": "main"},
        "NetworkSettings": {"Networks": networks, "Ports": {"80": [{"HostPort": "8080"}]}},
    }
    found = container_of(answer)
    assert list(found.networks.items()) == [("main", "fd00::2"), ("a", "10.1.0.2")]
    assert found.ports == (Port(80, "tcp", "", 8080),)
    old = container_of({"Id": "x", "NetworkSettings": {"IPAddress": "172.17.0.2"}})
    assert old.networks == {"bridge": "172.17.0.2"}


def test_a_container_between_two_restarts_does_not_run() -> None:
    state = {"Running": True, "Restarting": True, "ExitCode": 3}
    assert container_of({"Id": "x", "State": state}).exit_code == 3


@pytest.mark.parametrize("length", [64, 12, 3])
def test_the_network_that_a_container_was_started_with_may_be_named_by_its_id(length: int) -> None:
    number = "b7" * 32
    networks = {
        "a": {"IPAddress": "10.1.0.2", "NetworkID": "a1" * 32},
        "main": {"IPAddress": "10.2.0.2", "NetworkID": number},
    }
    answer = {
        "Id": "x",
        "HostConfig": {"NetworkMode": number[:length]},
        "NetworkSettings": {"Networks": networks},
    }
    assert list(container_of(answer).networks) == ["main", "a"]


@pytest.mark.parametrize(
    ("state", "code"),
    [
        ({"Running": True, "ExitCode": 3}, None),
        ({"Running": False, "ExitCode": 3}, 3),
        ({"Running": False}, 0),
        ({}, 0),
    ],
)
def test_a_container_that_runs_has_no_exit_code(state: dict[str, Any], code: int | None) -> None:
    assert container_of({"Id": "x", "State": state}).exit_code == code


@pytest.mark.parametrize(
    ("mode", "first"), [("", "bridge"), ("default", "bridge"), ("bridge", "bridge"), ("a", "a")]
)
def test_the_default_network_is_called_bridge(mode: str, first: str) -> None:
    networks = {"a": {"IPAddress": "10.1.0.2"}, "bridge": {"IPAddress": "172.17.0.2"}}
    answer = {
        "Id": "x",
        "HostConfig": {"NetworkMode": mode},
        "NetworkSettings": {"Networks": networks, "IPAddress": "172.17.0.9"},
    }
    found = container_of(answer).networks
    assert next(iter(found)) == first
    assert found["bridge"] == "172.17.0.2", "the address of the networks counts"


def test_podmans_default_network_is_called_podman() -> None:
    networks = {name: {"IPAddress": "10.1.0.2"} for name in ("a", "podman", "z")}
    answer = {"Id": "x", "HostConfig": {"NetworkMode": "bridge"}}
    found = container_of({**answer, "NetworkSettings": {"Networks": networks}})
    assert list(found.networks) == ["podman", "a", "z"]


def test_a_container_without_an_address_of_its_own() -> None:
    answer = {"Id": "x", "NetworkSettings": {"IPAddress": "", "Networks": {"a": None}}}
    assert container_of(answer).networks == {}


@pytest.mark.parametrize(
    ("specs", "text"),
    [
        (["80/tcp"], ""),
        (["y"], "its port 'y' cannot be read"),
        (["y", "x"], "its port 'x' and 1 more of its ports cannot be read"),
        (["y", "80/tcp", "x", "z"], "its port 'x' and 2 more of its ports cannot be read"),
        (["p" * 41], f"its port '{'p' * 40}' cannot be read"),
    ],
    ids=["none", "one", "two", "three", "a long one"],
)
def test_ports_that_cannot_be_read_are_told_in_one_text(specs: list[str], text: str) -> None:
    found = container_of({"Id": "x", "Config": {"ExposedPorts": {key: {} for key in specs}}})
    assert found.unreadable == text


def test_a_listing_names_each_container(caplog: pytest.LogCaptureFixture) -> None:
    text = json.dumps([ROW, {**ROW, "Id": "b"}], indent=1)
    assert [found for found, _ in rows(text)] == [ID, "b"]
    assert [*rows("[]")] == [*rows(" [ ] ")] == []
    assert caplog.messages == []


def test_rows_that_cannot_be_read_are_counted_in_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert [found for found, _ in rows(json.dumps([5, ROW, {"Id": "../x"}]))] == [ID]
    assert [(each.levelno, each.message) for each in caplog.records] == [
        (logging.WARNING, "the listing of containers has 2 rows that cannot be read: left out")
    ]


def test_a_listing_shows_changes_but_neither_age_nor_the_order_of_ports() -> None:
    same = {**ROW, "Status": "Up 6 minutes", "Ports": PORTS[::-1]}
    assert fingerprint(same) == fingerprint(ROW)
    changes: list[dict[str, Any]] = [
        {"Names": ["/web2"]}, {"State": "paused"}, {"Labels": {}}, {"NetworkSettings": {}},
        {"Ports": []}, {"Ports": [{"PrivatePort": 80}]},
    ]  # fmt: skip
    different = {fingerprint({**ROW, **change}) for change in changes}
    assert len(different - {fingerprint(ROW)}) == len(changes)


def test_ports_that_a_listing_leaves_out_are_none() -> None:
    """Engines write an empty list or null."""
    assert fingerprint({**ROW, "Ports": None}) == fingerprint({**ROW, "Ports": []})


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("SIGQUIT", 3), ("QUIT", 3), ("sigquit", 3), ("3", 3), ("SIGTERM", 15), ("KILL", 9),
        ("SIGWINCH", 28), ("STKFLT", 16), ("IO", 29), ("POLL", 29), ("RTMIN", 34), ("SIGRTMIN", 34),
        ("RTMIN+3", 37), ("SIGRTMIN+15", 49), ("RTMAX", 64), ("RTMAX-14", 50), ("64", 64),
        ("", 0), ("0", 0), ("65", 0), ("-3", 0), ("RTMIN-1", 0), ("RTMAX+1", 0), ("RTMIN+99", 0),
        ("SIGSIGQUIT", 0), ("_DFL", 0), ("²", 0), ("QUIT ", 0), ("x" * 10_000, 0),
    ],
)  # fmt: skip
def test_the_number_of_a_signal_is_that_of_the_engine(text: str, number: int) -> None:
    assert signal_number(text) == number


@pytest.mark.parametrize(
    ("config", "number"),
    [
        ({}, 15),
        ({"StopSignal": ""}, 15),
        ({"StopSignal": None}, 15),
        ({"StopSignal": "RTMIN+3"}, 37),
        ({"StopSignal": "3"}, 3),
        ({"StopSignal": 3}, 3),
        ({"StopSignal": "nonsense"}, 15),
        ({"StopSignal": ["SIGQUIT"]}, 15),
        ({"Labels": {"signal": "15"}, "StopSignal": "SIGQUIT"}, 0),
        ({"Labels": {"signal": ""}}, 0),
        ({"Labels": {"Signal": "15", "signals": "1"}}, 15),
    ],
)
def test_the_stop_signal_of_a_container(config: dict[str, Any], number: int) -> None:
    """A label `signal` overwrites what the engine's events tell, so none can be trusted."""
    found = container_of({"Id": ID, "Config": config}).stop_signal
    assert (found, type(found)) == (number, int)


@pytest.mark.parametrize(
    ("told", "seconds"),
    [(None, 10), (0, 0), (1, 1), (-1, -1), (10**9, 10**9), ("60", 10), (True, 10), (1.5, 10)],
)
def test_the_time_that_a_container_gets_to_stop(told: object, seconds: int) -> None:
    assert container_of({"Id": ID, "Config": {"StopTimeout": told}}).stop_timeout == seconds


@pytest.mark.parametrize(("told", "paused"), [(True, True), (False, False), (None, False)])
def test_whether_a_container_is_paused(told: bool | None, paused: bool) -> None:
    state = {"Running": True, "Paused": told}
    assert container_of({"Id": ID, "State": state}).paused == paused


def test_a_network_may_have_addresses_of_both_kinds() -> None:
    networks = {
        "both": {"IPAddress": "10.1.0.2", "GlobalIPv6Address": "2001:db8::2"},
        "four": {"IPAddress": "10.2.0.2", "GlobalIPv6Address": ""},
        "six": {"IPAddress": "", "GlobalIPv6Address": "2001:db8:6::2"},
        "none": {"IPAddress": "", "GlobalIPv6Address": None},
    }
    found = container_of({"Id": "x", "NetworkSettings": {"Networks": networks}})
    assert found.networks == {"both": "10.1.0.2", "four": "10.2.0.2", "six": "2001:db8:6::2"}
    assert found.networks_6 == {"both": "2001:db8::2"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Up 2 minutes (healthy)", "Up 2 minutes (unhealthy)"),
        ("Up 1 second (health: starting)", "Up 1 second (healthy)"),
        ("Up 1 second", "Up 1 second (health: starting)"),
        ("Up 1 second (starting)", "Up 1 second (unhealthy)"),
        ("Up 1 second", "Up 1 second (healthy)"),
    ],
)
def test_a_listing_shows_another_health_only_if_it_counts(before: str, after: str) -> None:
    old, new = {**ROW, "Status": before}, {**ROW, "Status": after}
    older = {**ROW, "Status": after.replace("Up", "Up 3 hours and")}
    assert fingerprint(old, health=True) != fingerprint(new, health=True)
    assert fingerprint(new, health=True) == fingerprint(older, health=True)
    assert fingerprint(old) == fingerprint(new)


@pytest.mark.parametrize("status", [None, 3, ["healthy"], "(healthiest)", "healthy"])
def test_a_listing_without_a_health(status: object) -> None:
    assert fingerprint({**ROW, "Status": status}, health=True) == fingerprint(ROW)


@pytest.mark.parametrize(
    ("state", "health"),
    [
        ({}, ContainerHealth.NONE),
        ({"Health": None}, ContainerHealth.NONE),
        ({"Health": {"Status": ""}}, ContainerHealth.NONE),
        ({"Health": {"Status": "none"}}, ContainerHealth.NONE),
        ({"Health": {"Status": "of a new kind"}}, ContainerHealth.NONE),
        ({"Health": {"Status": "starting", "Log": None}}, ContainerHealth.STARTING),
        ({"Health": {"Status": "healthy"}}, ContainerHealth.HEALTHY),
        ({"Health": {"Status": "unhealthy"}}, ContainerHealth.UNHEALTHY),
    ],
)
def test_the_health_of_a_container(state: dict[str, object], health: ContainerHealth) -> None:
    answer = {"Id": "abc", "State": {"Running": True, **state}}
    assert container_of(answer).health is health


@pytest.mark.parametrize(
    ("log", "probed_at"),
    [
        (None, 0),
        ([], 0),
        ([{}, {"End": None}, {"End": "soon"}], 0),
        ([{"End": "1970-01-01T01:00:05.123456789+01:00"}], 5_123_456_000),
        ([{"End": "1970-01-01T00:00:03Z"}, {"End": "1970-01-01T00:00:04Z"}], 4 * 10**9),
    ],
)
def test_the_end_of_the_last_probe(log: object, probed_at: int) -> None:
    answer = {"Id": "abc", "State": {"Health": {"Status": "healthy", "Log": log}}}
    assert container_of(answer).probed_at == probed_at
