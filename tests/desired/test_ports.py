"""`SERVICE_PORTS`, `SERVICE_NETWORK`, `SERVICE_ALIASES`, `-family 6` and an interface in `-ip`."""

from __future__ import annotations

import dataclasses
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrator.desired.addresses import COMPOSE_PROJECT
from registrator.desired.left_out import lines
from registrator.desired.rules import Rules
from registrator.desired.services import services
from registrator.desired.untrusted import MAX_ALIASES, MAX_NAME, MAX_SERVICES
from registrator.model import Container, Port, Reason, Service

TWO = Container(
    id="0123456789abcdef",
    name="web1",
    image="acme/web:1.0",
    hostname="0123456789ab",
    network_mode="bridge",
    networks={"bridge": "172.17.0.2", "p_back": "10.1.0.2", "back": "10.2.0.2"},
    networks_6={"back": "2001:db8:2::2"},
    ports=(
        Port(80, "tcp", "0.0.0.0", 8080),
        Port(80, "tcp", "::", 8086),
        Port(443, "tcp", "0.0.0.0", 8443),
        Port(9000, "tcp"),
    ),
)
RULES = Rules(hostname="h", host_ip="192.0.2.1")
INTERNAL = dataclasses.replace(RULES, internal=True)
SIX = dataclasses.replace(RULES, host_ip="2001:db8::1", family=6)


def env(container: Container = TWO, **pairs: str) -> Container:
    return dataclasses.replace(container, env=pairs)


def said(
    container: Container,
    rules: Rules = RULES,
    peer: Container | None = None,
    level: int = logging.WARNING,
) -> list[str]:
    """The lines of one level, without the container's name."""
    left_out = services(container, rules, peer).left_out
    found = [text for its, text, _ in lines(container, left_out) if its == level]
    return [text.partition("not registered: ")[2] for text in found]


def made(
    container: Container, rules: Rules = RULES, peer: Container | None = None
) -> list[Service]:
    """The services of a container about which there is nothing to warn of."""
    assert said(container, rules, peer) == []
    return list(services(container, rules, peer).services)


def at(container: Container, rules: Rules = RULES, peer: Container | None = None) -> list[str]:
    return [f"{each.address} {each.port}" for each in made(container, rules, peer)]


# SERVICE_PORTS


def test_exactly_the_listed_ports_are_registered_and_only_they_count_for_the_name() -> None:
    [service] = made(env(SERVICE_PORTS=" 80 "))
    assert (service.id, service.name, service.port, service.attrs) == ("h:web1:80", "web", 8080, {})
    assert [each.name for each in made(env(SERVICE_PORTS="443/tcp,80,80/tcp"))] == [
        "web-80", "web-443",
    ]  # fmt: skip
    assert said(env(SERVICE_PORTS="80"), level=logging.DEBUG) == [
        "443/tcp, 9000/tcp: SERVICE_PORTS does not name it"
    ]
    assert [each.port for each in made(env(SERVICE_PORTS=""))] == [8080, 8443]


def test_a_key_for_a_port_that_is_not_there_is_told() -> None:
    def missing(container: Container) -> list[str]:
        found = services(container, RULES)
        assert [each.port for each in found.services] == [8080, 8443], "it harms nobody"
        return [f"{left.port and left.port.private}: {left}" for left in found.left_out
                if left.reason is Reason.NO_SUCH_PORT]  # fmt: skip

    ends = "names it, and the container does not have it"
    keys = {"SERVICE_99_TAGS": "a", "service_98_NAME": "x", "SERVICE_80_TAGS": "b",
            "SERVICE_99_NAME": "x", "SERVICE_9_\x1bX": "", "SERVICE_7": "7"}  # fmt: skip
    assert missing(dataclasses.replace(TWO, env=keys)) == [
        f"9: 'SERVICE_9_\\x1bX' {ends}", f"99: SERVICE_99_NAME {ends}",
    ]  # fmt: skip
    assert missing(dataclasses.replace(TWO, labels={"SERVICE_81_ID": "x"})) == [
        f"81: SERVICE_81_ID {ends}"
    ]
    assert missing(env(SERVICE_80_NAME="a", SERVICE_9000_NAME="b")) == [], "it has both"
    many = {f"SERVICE_{number}_NAME": "x" for number in range(10000, 30000)}
    assert len(services(dataclasses.replace(TWO, env=many), RULES).left_out) <= MAX_SERVICES + 1
    listed = services(env(SERVICE_PORTS="99", SERVICE_99_NAME="x"), RULES).left_out
    assert Reason.NO_SUCH_PORT not in {each.reason for each in listed}, "SERVICE_PORTS names it"
    assert said(dataclasses.replace(TWO, env=keys)) == [], "no warning"


def test_a_listed_port_has_to_be_published_unless_the_address_is_the_containers() -> None:
    text = "{}: SERVICE_ports names it, but it is not published"
    listed = env(SERVICE_ports="80,9000,53/udp")
    assert [each.port for each in services(listed, RULES).services] == [8080]
    assert said(listed) == ["53/udp, 9000/tcp: SERVICE_ports names it, but it is not published"]
    reasons = {each.reason for each in services(listed, RULES).left_out}
    assert reasons == {Reason.NOT_LISTED, Reason.NOT_REACHABLE}
    found = made(listed, INTERNAL)
    assert [(each.port, each.protocol) for each in found] == [
        (53, "udp"), (80, "tcp"), (9000, "tcp"),
    ]  # fmt: skip
    on_host = dataclasses.replace(listed, network_mode="host", networks={}, ports=())
    assert [each.port for each in made(on_host)] == [53, 80, 9000]
    shares = dataclasses.replace(listed, network_mode="container:x", networks={}, ports=())
    assert [each.port for each in made(shares, RULES, TWO)] == [53, 80, 9000]
    named = env(SERVICE_PORTS="80,9000", SERVICE_NETWORK="back")
    assert at(named) == ["10.2.0.2 80", "10.2.0.2 9000"]
    one = env(SERVICE_PORTS="80,9000,9001", SERVICE_9000_NETWORK="back")
    assert [each.port for each in services(one, RULES).services] == [8080, 9000]
    assert said(one) == [text.format("9001/tcp").replace("ports", "PORTS")]
    published = env(SERVICE_PORTS="9000", SERVICE_NETWORK="host")
    assert said(published, INTERNAL) == [text.format("9000/tcp").replace("ports", "PORTS")]


def test_ignored_and_unnamed_ports_are_no_fault_of_the_list() -> None:
    listed = env(SERVICE_PORTS="80,9000", SERVICE_9000_IGNORE="1")
    assert [each.name for each in made(listed)] == ["web-80"]
    assert made(env(SERVICE_PORTS="x", SERVICE_IGNORE="1")) == []
    explicit = dataclasses.replace(RULES, explicit=True)
    assert made(env(SERVICE_PORTS="9000"), explicit) == []
    without = dataclasses.replace(TWO, ports=(), env={"SERVICE_PORTS": "x", "SERVICE_IGNORE": "1"})
    assert made(without) == []


@pytest.mark.parametrize(
    "wrong",
    ["x", "80,", ",", "80;443", "80/http", "65536", "-1", "²", "80-90", "080000", "0/udp",
     "80/tcp/", "8" * 100, "80,x\0", "1," * 40_000],
)  # fmt: skip
def test_a_list_that_cannot_be_read_is_one_warning_that_names_it(wrong: str) -> None:
    container = env(SERVICE_PORTS=wrong)
    assert services(container, RULES).services == ()
    [text] = said(container)
    assert "SERVICE_PORTS has " in text
    assert text.isprintable()
    assert len(text) < 300
    bare = dataclasses.replace(container, ports=())
    [text] = said(bare)
    assert "SERVICE_PORTS has " in text


def test_a_container_without_a_port_is_one_service() -> None:
    for rules, address in ((RULES, "192.0.2.1"), (INTERNAL, "172.17.0.2")):
        for ports in (TWO.ports, ()):
            worker = dataclasses.replace(TWO, ports=ports, env={"SERVICE_PORTS": "0"})
            [service] = made(worker, rules)
            assert (service.id, service.name, service.address) == ("h:web1:0", "web", address)
            assert (service.port, service.private_port, service.protocol) == (0, 0, "tcp")
    assert at(env(SERVICE_PORTS="0", SERVICE_NETWORK="back")) == ["10.2.0.2 0"]
    assert made(env(SERVICE_PORTS="0", SERVICE_0_IGNORE="1")) == []
    for mixed in ("0,80", "0,53/udp"):
        [text] = said(env(SERVICE_PORTS=mixed))
        assert text.endswith("SERVICE_PORTS has ports beside 0, which means no port")


def test_an_exposed_port_0_is_not_a_service_without_a_port() -> None:
    hostile = dataclasses.replace(TWO, ports=(Port(0, "tcp"), *TWO.ports))
    assert "0/tcp: port 0 is out of range" in said(hostile, INTERNAL)
    assert "0/tcp: port 0 is out of range" in said(
        dataclasses.replace(hostile, env={"SERVICE_0_PORTS": "0"}), INTERNAL
    )


def test_a_list_is_as_long_as_a_container_may_have_services() -> None:
    many = env(SERVICE_PORTS=",".join(str(n) for n in range(1, 9000)))
    offer = services(many, INTERNAL)
    assert [each.port for each in offer.services] == [*range(1, MAX_SERVICES + 1)]
    assert Reason.TOO_MANY in {each.reason for each in offer.left_out}


# SERVICE_NETWORK


@pytest.mark.parametrize(
    "rules", [RULES, INTERNAL, dataclasses.replace(RULES, forced_ip="10.9.9.9")]
)
def test_a_network_gives_address_and_private_port_whatever_the_options_say(rules: Rules) -> None:
    container = env(SERVICE_NETWORK="back", SERVICE_443_NETWORK="host")
    assert [f"{s.private_port} {s.address} {s.port}" for s in made(container, rules)] == [
        "80 10.2.0.2 80",
        f"443 {rules.forced_ip or rules.host_ip} 8443",
        "9000 10.2.0.2 9000",
    ]


def test_host_means_published_ports_at_the_hosts_address() -> None:
    container = env(SERVICE_NETWORK="host")
    assert at(container, INTERNAL) == ["192.0.2.1 8080", "192.0.2.1 8443"]
    assert said(container, INTERNAL, level=logging.DEBUG) == ["9000/tcp: it is not published"]
    shares = dataclasses.replace(
        container, network_mode="container:x", networks={}, ports=(Port(80, "tcp"),)
    )
    assert at(shares, INTERNAL, TWO) == ["192.0.2.1 8080"], "the other container publishes it"
    on_host = dataclasses.replace(container, network_mode="host", ports=(Port(80, "tcp"),))
    assert at(on_host) == ["192.0.2.1 80"]


def test_a_network_of_a_compose_file_is_found_by_its_name_there() -> None:
    project = {COMPOSE_PROJECT: "p"}
    container = dataclasses.replace(TWO, labels=project, env={"SERVICE_80_NETWORK": "back"})
    assert "10.2.0.2 80" in at(container), "the very name comes first"
    only = {"bridge": "172.17.0.2", "p_back": "10.1.0.2"}
    assert "10.1.0.2 80" in at(dataclasses.replace(container, networks=only))
    without = dataclasses.replace(container, networks=only, labels={})
    [text] = said(without)
    key = "80/tcp: SERVICE_80_NETWORK"
    assert text == f"{key} names the network 'back', and the container has no address there"
    assert [each.port for each in services(without, RULES).services] == [8443]


def test_a_network_that_it_is_not_attached_to_is_a_warning() -> None:
    for container in (
        env(SERVICE_NETWORK="other\n"),
        env(dataclasses.replace(TWO, network_mode="host", networks={}), SERVICE_NETWORK="other\n"),
    ):
        offer = services(container, RULES)
        assert offer.services == ()
        assert {each.reason for each in offer.left_out} == {Reason.NOT_ATTACHED}
        [text] = said(container)
        assert "SERVICE_NETWORK names the network 'other'" in text
    assert at(env(SERVICE_NETWORK="other", SERVICE_IP="192.0.2.3", SERVICE_PORTS="80")) == [
        "192.0.2.3 80"
    ]


def test_a_shared_network_is_that_of_the_other_container() -> None:
    shares = env(
        dataclasses.replace(
            TWO, network_mode="container:x", networks={}, networks_6={}, ports=(Port(80, "tcp"),)
        ),
        SERVICE_NETWORK="back",
    )
    assert at(shares, RULES, TWO) == ["10.2.0.2 80"]
    assert "is not there" in said(shares)[0]


# SERVICE_ALIASES


def test_aliases_are_the_same_service_by_other_names() -> None:
    container = env(SERVICE_PORTS="80", SERVICE_ALIASES=" b,c , b,,web", SERVICE_TAGS="x")
    web, *others = made(container)
    assert [(each.id, each.name) for each in others] == [
        ("h:web1:80:alias:b", "b"), ("h:web1:80:alias:c", "c"),
    ]  # fmt: skip
    for each in others:
        assert dataclasses.replace(each, id=web.id, name=web.name) == web
    assert web.attrs == {}


def test_an_alias_of_several_ports_has_the_port_at_its_end_as_a_name_has() -> None:
    container = env(SERVICE_ALIASES="b", SERVICE_443_ALIASES="own")
    assert [each.name for each in made(container)] == ["web-80", "b-80", "web-443", "own"]
    assert [each.name for each in made(env(SERVICE_ALIASES="b", SERVICE_443_ALIASES=""))] == [
        "web-80", "b-80", "web-443",
    ]  # fmt: skip


@pytest.mark.parametrize("wrong", ["fine,..", "a\nb", "x" * 256, "x" * MAX_NAME])
def test_an_alias_that_is_no_name_leaves_its_port_out(wrong: str) -> None:
    container = env(SERVICE_80_ALIASES=wrong)
    assert [each.private_port for each in services(container, RULES).services] == [443]
    [text] = said(container)
    assert "80/tcp: " in text
    assert "SERVICE_80_ALIASES" in text


def test_aliases_have_limits() -> None:
    names = [f"n{n}" for n in range(MAX_ALIASES + 1)]
    assert len(made(env(SERVICE_80_ALIASES=",".join(names[:-1])))) == MAX_ALIASES + 2
    [text] = said(env(SERVICE_80_ALIASES=",".join(names)))
    assert "SERVICE_80_ALIASES has 101 names, more than 100" in text
    listed = ",".join(str(n) for n in range(1, 101))
    many = env(SERVICE_PORTS=listed, SERVICE_ALIASES=",".join(names[:-1]))
    offer = services(many, INTERNAL)
    assert len(offer.services) == MAX_SERVICES // (MAX_ALIASES + 1) * (MAX_ALIASES + 1)
    assert Reason.TOO_MANY in {each.reason for each in offer.left_out}


def test_an_alias_goes_with_its_service() -> None:
    """The id is the lower port's, and the other port's alias is not registered either."""
    container = env(SERVICE_ID="mine", SERVICE_ALIASES="b")
    assert [each.id for each in services(container, RULES).services] == ["mine", "mine:alias:b-80"]
    [text] = said(container)
    assert text.startswith("443/tcp: SERVICE_ID is also the id of another port")
    clash = env(SERVICE_80_ALIASES="b", SERVICE_443_ID="h:web1:80:alias:b")
    assert [each.name for each in services(clash, RULES).services] == ["web-80", "b"]
    assert said(clash)[0].startswith("443/tcp: SERVICE_443_ID is also")


# -ip eth0


def test_services_wait_for_the_address_of_an_interface() -> None:
    waiting = dataclasses.replace(RULES, host_ip="", interface="eth0")
    bound = dataclasses.replace(TWO, ports=(Port(80, "tcp", "192.0.2.7", 80),))
    for container in (bound, dataclasses.replace(TWO, network_mode="host")):
        assert services(container, waiting).services == ()
        [text] = said(container, waiting)
        assert "the interface eth0, which -ip names, has no address" in text
    assert at(env(bound, SERVICE_NETWORK="back"), waiting) == ["10.2.0.2 80"]
    there = dataclasses.replace(waiting, host_ip="192.0.2.5", forced_ip="192.0.2.5")
    assert at(bound, there) == ["192.0.2.5 80"]


# -family 6


def test_ipv6_is_preferred_for_bindings_the_host_and_containers() -> None:
    assert at(env(SERVICE_PORTS="80"), SIX) == ["2001:db8::1 8086"]
    assert at(env(SERVICE_PORTS="80"), dataclasses.replace(SIX, family=4)) == ["2001:db8::1 8080"]
    back = dataclasses.replace(SIX, internal=True, network="back")
    assert at(env(SERVICE_PORTS="80"), back) == ["2001:db8:2::2 80"]
    assert at(env(SERVICE_PORTS="80", SERVICE_NETWORK="back"), SIX) == ["2001:db8:2::2 80"]
    assert at(env(SERVICE_PORTS="80", SERVICE_NETWORK="back"), RULES) == ["10.2.0.2 80"]
    main = dataclasses.replace(SIX, internal=True)
    assert at(env(SERVICE_PORTS="80"), main) == ["172.17.0.2 80"], "its main network has no IPv6"


def test_a_binding_to_ipv6_counts_only_if_the_address_to_register_is_one() -> None:
    four = dataclasses.replace(SIX, forced_ip="192.0.2.7")
    assert at(env(SERVICE_PORTS="80"), four) == ["192.0.2.7 8080"]
    assert at(env(SERVICE_PORTS="80"), dataclasses.replace(SIX, host_ip="192.0.2.1")) == [
        "192.0.2.1 8080"
    ]
    own = dataclasses.replace(
        TWO, ports=(Port(80, "tcp", "192.0.2.8", 1), Port(80, "tcp", "2001:db8::8", 2))
    )
    assert at(own, dataclasses.replace(SIX, host_ip="192.0.2.1")) == ["2001:db8::8 2"]
    assert at(own, RULES) == ["192.0.2.8 1"]


# All together

TEXTS = st.sampled_from(["", "0", "80", "80,443", "53/udp,80", "x", "0,80", "9000", " 1 , 2 "])
NETWORKS = st.sampled_from(["", "host", "back", "bridge", "other", "p_back"])


@given(
    ports=TEXTS,
    network=NETWORKS,
    of_80=NETWORKS,
    aliases=st.sampled_from(["", "b", "b,c", "..", "web-80"]),
    rules=st.sampled_from([RULES, INTERNAL, SIX]),
)
def test_every_eligible_port_is_registered_or_has_a_reason(
    ports: str, network: str, of_80: str, aliases: str, rules: Rules
) -> None:
    container = env(
        SERVICE_PORTS=ports, SERVICE_NETWORK=network, SERVICE_80_NETWORK=of_80,
        SERVICE_ALIASES=aliases,
    )  # fmt: skip
    offer = services(container, rules)
    told = {(each.port.private, each.port.protocol) for each in offer.left_out if each.port}
    stand = {(each.private_port, each.protocol) for each in offer.services}
    assert not told & stand
    assert {(80, "tcp"), (443, "tcp"), (9000, "tcp")} <= told | stand
    for each in offer.services:
        assert each.port or ports == "0"
        assert each.attrs == {}
        if ports not in ("", "0"):
            protocol = "" if each.protocol == "tcp" else f"/{each.protocol}"
            assert f"{each.private_port}{protocol}" in [part.strip() for part in ports.split(",")]
