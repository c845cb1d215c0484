"""Every rule of `services()`, by example, by what the original wrote, and by properties."""

import dataclasses
import json
import logging
import random
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrator.desired.left_out import lines
from registrator.desired.metadata import split_tags
from registrator.desired.rules import Rules
from registrator.desired.services import default_name, services
from registrator.desired.untrusted import (
    MAX_ATTRIBUTES,
    MAX_METADATA,
    MAX_NAME,
    MAX_RECORDS,
    MAX_SERVICES,
    MAX_TAG,
    ip_address,
    shown,
)
from registrator.model import Container, LeftOut, Port, Reason, Service

PARITY = Path(__file__).parents[1] / "parity"
CASES = json.loads((PARITY / "cases.json").read_text())
GOLDEN = json.loads((PARITY / "golden.json").read_text())

WEB = Container(
    id="0123456789abcdef",
    name="web1",
    image="acme/web:1.0",
    hostname="0123456789ab",
    network_mode="bridge",
    networks={"bridge": "172.17.0.2"},
    ports=(Port(80, "tcp", "0.0.0.0", 8080), Port(80, "tcp", "::", 8080)),
)
TWO = dataclasses.replace(
    WEB, ports=(Port(80, "tcp", "0.0.0.0", 8080), Port(443, "tcp", "0.0.0.0", 8443))
)
RULES = Rules(hostname="host", host_ip="192.0.2.1")


WHO = "container web1 (0123456789ab): not registered: "


def told(
    container: Container,
    rules: Rules = RULES,
    peer: Container | None = None,
    level: int = logging.WARNING,
) -> list[str]:
    """The lines of one level about what a container leaves out."""
    left_out = services(container, rules, peer).left_out
    return [text for its_level, text, _ in lines(container, left_out) if its_level == level]


def made(
    container: Container, rules: Rules = RULES, peer: Container | None = None
) -> list[Service]:
    """The services of a container about which there is nothing to warn of."""
    assert told(container, rules, peer) == []
    return list(services(container, rules, peer).services)


def with_env(container: Container, **env: str) -> Container:
    return dataclasses.replace(container, env=env)


def one(rules: Rules = RULES, labels: dict[str, str] | None = None, **env: str) -> Service:
    """The one service of a container with this metadata."""
    [service] = made(dataclasses.replace(WEB, env=env, labels=labels or {}), rules)
    return service


def warning(container: Container, rules: Rules = RULES, peer: Container | None = None) -> str:
    """The one warning about a container that has no service."""
    assert services(container, rules, peer).services == ()
    [text] = told(container, rules, peer)
    assert f"container {container.name} ({container.id[:12]})" in text
    return text


# What the original wrote


def container_of(case: dict[str, Any]) -> Container:
    """A case's container as the engine would show it."""
    image = CASES["images"][case["image"]]
    published = {p if "/" in p else f"{p}/tcp": n for p, n in case.get("ports", {}).items()}
    if case.get("publish_all"):
        published |= {p if "/" in p else f"{p}/tcp": 40000 + int(p) for p in image["expose"]}
    exposed = {p if "/" in p else f"{p}/tcp" for p in image["expose"]}
    return Container(
        id="0123456789abcdef",
        name=f"par-{case['name']}",
        image=image["repo"],
        hostname="0123456789ab",
        env=dict(pair.split("=", 1) for pair in image.get("env", [])) | case.get("env", {}),
        labels=case.get("labels", {}),
        network_mode=case.get("network_mode", "bridge"),
        networks={} if case.get("network_mode") == "host" else {"bridge": "172.17.0.9"},
        ports=tuple(
            Port(int(p.split("/")[0]), p.split("/")[1], "0.0.0.0", published.get(p, 0))
            for p in sorted(exposed | set(published))
        ),
    )


def rules_of(case: dict[str, Any]) -> Rules:
    words = case.get("options", [])
    return Rules(
        hostname="{host}",
        host_ip="192.0.2.1",
        forced_ip="127.10.20.30",
        internal="-internal" in words,
        explicit="-explicit" in words,
        tags=split_tags(words[words.index("-tags") + 1]) if "-tags" in words else (),
    )


@pytest.mark.parametrize("case", CASES["cases"], ids=lambda case: case["name"])
def test_parity_with_the_original(case: dict[str, Any]) -> None:
    """The same as the original registers in Consul, but for the order of tags and for `ignore`."""
    expected = {
        key: (
            entry["name"],
            entry["address"].replace("{container-ip}", "172.17.0.9"),
            {"{host-port-80}": 40080, "{host-port-443}": 40443}.get(entry["port"], entry["port"]),
            entry["tags"],
            {k: v for k, v in entry["meta"].items() if k != "ignore"},
        )
        for key, entry in GOLDEN[case["name"]]["consul"].items()
    }
    found = made(container_of(case), rules_of(case))
    assert {s.id: (s.name, s.address, s.port, sorted(s.tags), s.attrs) for s in found} == expected


# Metadata


def test_what_a_plain_container_offers() -> None:
    assert one() == Service(
        id="host:web1:80",
        name="web",
        address="192.0.2.1",
        port=8080,
        private_port=80,
        container_id=WEB.id,
        container_name="web1",
        container_hostname=WEB.hostname,
    )


def test_a_label_wins_over_a_variable() -> None:
    assert one(labels={"SERVICE_NAME": "label"}, SERVICE_NAME="env").name == "label"
    assert one(labels={"SERVICE_Name": "label"}, SERVICE_NAME="env").name == "label"
    assert one(labels={"SERVICE_REGION": "x"}, SERVICE_80_REGION="y").attrs == {"region": "y"}


def test_the_prefix_is_upper_case_and_the_rest_of_a_key_any() -> None:
    service = one(SERVICE_Tags="a", SERVICE_80_nAme="n", service_region="x", SERVICE_Foo_Bar="Baz")
    assert (service.tags, service.name, service.attrs) == (("a",), "n", {"foo_bar": "Baz"})


def test_of_two_spellings_of_a_key_the_upper_case_one_wins() -> None:
    assert one(SERVICE_name="lower", SERVICE_NAME="upper", SERVICE_Name="mixed").name == "upper"


def test_a_key_for_a_port_holds_for_it_only_and_beats_a_generic_one() -> None:
    container = with_env(
        TWO, SERVICE_80_NAME="http", SERVICE_443_NAME="https", SERVICE_TAGS="both",
        SERVICE_443_TAGS="tls", SERVICE_8443_WRONG="x", SERVICE_70000_WRONG="x", SERVICE_080_A="x",
    )  # fmt: skip
    http, https = made(container)
    assert (http.name, http.tags, http.attrs) == ("http", ("both",), {})
    assert (https.name, https.tags, https.attrs) == ("https", ("tls",), {})


def test_a_port_without_a_key_or_with_letters_is_a_plain_attribute() -> None:
    assert one(SERVICE_80="a", SERVICE_80X_NAME="b", SERVICE__X="c", SERVICE_="no key").attrs == {
        "80": "a",
        "80x_name": "b",
        "_x": "c",
    }


def test_attributes_keep_their_values() -> None:
    script = "curl -s\n\thttp://$SERVICE_IP:$SERVICE_PORT/ \r\n"
    assert one(SERVICE_CHECK_SCRIPT=script, SERVICE_EMPTY="").attrs == {
        "check_script": script,
        "empty": "",
    }
    assert one(OTHER="x", SERVICES_NAME="x", SERVICE_IP="192.0.2.9", SERVICE_ID="x").attrs == {}


# Ports


def test_only_published_ports_are_registered() -> None:
    assert made(dataclasses.replace(WEB, ports=(Port(80, "tcp"),))) == []
    assert made(dataclasses.replace(WEB, ports=())) == []
    [service] = made(dataclasses.replace(WEB, ports=(Port(81, "tcp"), *WEB.ports)))
    assert (service.name, service.private_port) == ("web", 80)


def test_exposed_ports_are_on_the_host_network() -> None:
    container = dataclasses.replace(
        WEB, network_mode="host", networks={}, ports=(Port(80, "tcp"), Port(53, "udp"))
    )
    found = made(container)
    assert [(s.port, s.address, s.name) for s in found] == [
        (53, "192.0.2.1", "web-53"),
        (80, "192.0.2.1", "web-80"),
    ]
    internal = made(container, dataclasses.replace(RULES, internal=True, forced_ip="192.0.2.7"))
    assert [s.address for s in internal] == ["192.0.2.7", "192.0.2.7"]


def test_of_several_bindings_the_first_ipv4_one_counts() -> None:
    bindings = (
        Port(80, "tcp", "::", 1),
        Port(80, "tcp", "198.51.100.2", 2),
        Port(80, "tcp", "198.51.100.3", 3),
    )
    [service] = made(dataclasses.replace(WEB, ports=bindings))
    assert (service.address, service.port) == ("198.51.100.2", 2)
    [service] = made(dataclasses.replace(WEB, ports=(Port(80, "tcp", "2001:db8::2", 4),)))
    assert (service.address, service.port) == ("2001:db8::2", 4)


@pytest.mark.parametrize("value", ["true", "false", "0", " "])
def test_ignore_by_any_non_empty_value(value: str) -> None:
    assert made(with_env(WEB, SERVICE_IGNORE=value)) == []
    assert made(with_env(WEB, SERVICE_80_IGNORE=value)) == []
    assert len(made(with_env(WEB, SERVICE_IGNORE=""))) == 1
    [service] = made(with_env(TWO, SERVICE_IGNORE=value, SERVICE_443_IGNORE=""))
    assert service.private_port == 443


def test_an_ignored_service_is_not_warned_of() -> None:
    assert made(with_env(WEB, SERVICE_IGNORE="1", SERVICE_NAME="../..", SERVICE_TAGS="\0")) == []


# What is left out on purpose


def notes(container: Container, rules: Rules = RULES) -> list[str]:
    """The ports that are left out on purpose, without the container's name."""
    found = told(container, rules, level=logging.DEBUG)
    assert all(text.startswith(WHO) for text in found)
    return [text.removeprefix(WHO) for text in found]


def test_a_container_without_ports_is_noted() -> None:
    assert notes(dataclasses.replace(WEB, ports=())) == ["it has no ports"]


def test_ports_that_are_not_published_are_noted() -> None:
    exposed = (Port(443, "tcp"), Port(53, "udp"))
    only = dataclasses.replace(WEB, ports=exposed)
    assert notes(only) == ["53/udp, 443/tcp: it is not published"]
    beside = dataclasses.replace(WEB, ports=(*WEB.ports, *exposed))
    assert notes(beside) == ["53/udp, 443/tcp: it is not published"]
    assert notes(beside, dataclasses.replace(RULES, internal=True)) == []


def test_ignored_ports_are_noted_with_the_key() -> None:
    assert notes(with_env(WEB, SERVICE_IGNORE="false")) == ["80/tcp: SERVICE_IGNORE is set"]
    assert notes(with_env(TWO, SERVICE_Ignore="1")) == ["80/tcp, 443/tcp: SERVICE_Ignore is set"]
    assert notes(with_env(TWO, SERVICE_443_IGNORE="1")) == ["443/tcp: SERVICE_443_IGNORE is set"]


def test_unnamed_services_are_noted_with_explicit() -> None:
    explicit = dataclasses.replace(RULES, explicit=True)
    expected = "443/tcp: -explicit is given and SERVICE_NAME is not set"
    assert notes(with_env(TWO, SERVICE_80_NAME="x", SERVICE_443_NAME=" "), explicit) == [expected]


def test_each_reason_is_a_note_of_its_own() -> None:
    ports = (*TWO.ports, Port(53, "udp"))
    mixed = dataclasses.replace(TWO, ports=ports, env={"SERVICE_80_IGNORE": "1"})
    assert notes(mixed) == ["53/udp: it is not published", "80/tcp: SERVICE_80_IGNORE is set"]


def test_nothing_is_noted_of_what_is_registered_or_warned_of() -> None:
    assert notes(TWO) == []
    assert notes(with_env(TWO, SERVICE_ID="\0")) == []


# Names, ids, tags


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("web", "web"),
        ("acme/web:1.0", "web"),
        ("registry.local:5000/team/web", "web"),
        ("registry.local:5000/team/web:2.1", "web"),
        ("acme/web@sha256:0123abcd", "web"),
        ("registry.local:5000/web:1.0@sha256:0123abcd", "web"),
    ],
)
def test_the_name_is_the_images(image: str, name: str) -> None:
    assert default_name(dataclasses.replace(WEB, image=image)) == name
    [service] = made(dataclasses.replace(WEB, image=image))
    assert service.name == name


def test_an_image_that_is_only_an_id_has_no_name() -> None:
    by_id = dataclasses.replace(WEB, image="sha256:0123abcd")
    assert [each.name for each in made(by_id)] == [by_id.name]
    composed = dataclasses.replace(by_id, labels={"com.docker.compose.service": "shop"})
    assert [each.name for each in made(composed)] == ["shop"]
    named = dataclasses.replace(WEB, labels={"com.docker.compose.service": "shop"})
    assert [each.name for each in made(named)] == ["web"]


def test_the_port_is_appended_to_a_name_that_several_share() -> None:
    assert [s.name for s in made(TWO)] == ["web-80", "web-443"]
    assert [s.name for s in made(with_env(TWO, SERVICE_NAME="x"))] == ["x-80", "x-443"]
    own = with_env(TWO, SERVICE_NAME="x", SERVICE_443_NAME="own")
    assert [s.name for s in made(own)] == ["x-80", "own"]
    assert [s.name for s in made(with_env(TWO, SERVICE_443_NAME=" "))] == ["web-80", "web-443"]


def test_ignored_ports_count_for_the_name() -> None:
    assert [s.name for s in made(with_env(TWO, SERVICE_443_IGNORE="1"))] == ["web-80"]


def test_unpublished_ports_do_not_count_for_the_name() -> None:
    assert one().name == "web"
    exposed = dataclasses.replace(WEB, ports=(*WEB.ports, Port(443, "tcp")))
    assert [s.name for s in made(exposed)] == ["web"]
    internal = made(exposed, dataclasses.replace(RULES, internal=True))
    assert [s.name for s in internal] == ["web-80", "web-443"]


def test_tcp_and_udp_on_one_port_are_two() -> None:
    dns = dataclasses.replace(WEB, ports=(Port(53, "udp", "", 53), Port(53, "tcp", "", 53)))
    assert [(s.id, s.name, s.tags) for s in made(dns)] == [
        ("host:web1:53", "web-53", ()),
        ("host:web1:53:udp", "web-53", ("udp",)),
    ]


def test_sctp_is_not_told_apart() -> None:
    both = dataclasses.replace(WEB, ports=(Port(80, "tcp", "", 1), Port(80, "sctp", "", 2)))
    [service], [text] = services(both, RULES).services, told(both)
    assert (service.id, service.port, service.tags) == ("host:web1:80", 2, ())
    assert "not registered: 80/tcp: " in text


def test_explicit_takes_named_services_only() -> None:
    explicit = dataclasses.replace(RULES, explicit=True)
    assert made(TWO, explicit) == []
    assert made(with_env(TWO, SERVICE_NAME="", SERVICE_TAGS="x"), explicit) == []
    assert [s.name for s in made(with_env(TWO, SERVICE_80_NAME="x"), explicit)] == ["x"]
    assert [s.name for s in made(with_env(TWO, SERVICE_NAME="x"), explicit)] == ["x-80", "x-443"]


def test_ids() -> None:
    assert one(SERVICE_ID="mine").id == "mine"
    assert one(SERVICE_ID=" mine ").id == "mine"
    assert one(SERVICE_ID="").id == "host:web1:80"
    udp = dataclasses.replace(WEB, ports=(Port(53, "udp", "", 53),), env={"SERVICE_ID": "mine"})
    assert [s.id for s in made(udp)] == ["mine"]


def test_an_id_that_several_ports_claim_is_the_first_ones() -> None:
    both = with_env(TWO, SERVICE_ID="mine")
    [service], [text] = services(both, RULES).services, told(both)
    assert (service.id, service.private_port) == ("mine", 80)
    assert "SERVICE_ID" in text
    assert "not registered: 443/tcp: " in text


def test_tags_in_order() -> None:
    rules = dataclasses.replace(RULES, tags=("dc1", "rack4"))
    assert one(rules, SERVICE_TAGS=" b, a,,\\,x\\,y ,").tags == ("b", "a", ",x,y", "dc1", "rack4")
    udp = dataclasses.replace(WEB, ports=(Port(53, "udp", "", 53),), env={"SERVICE_TAGS": "z"})
    assert made(udp, rules)[0].tags == ("z", "dc1", "rack4", "udp")
    assert one(SERVICE_TAGS="").tags == ()


# Addresses


def test_the_address_by_precedence() -> None:
    """Each step puts what wins over all before it."""
    container = dataclasses.replace(WEB, ports=(Port(80, "tcp", "0.0.0.0", 8080),))
    assert made(container)[0].address == "192.0.2.1"
    container = dataclasses.replace(WEB, ports=(Port(80, "tcp", "198.51.100.1", 8080),))
    assert made(container)[0].address == "198.51.100.1"
    rules = dataclasses.replace(RULES, forced_ip="192.0.2.2")
    assert made(container, rules)[0].address == "192.0.2.2"
    container = with_env(container, SERVICE_IP="192.0.2.3")
    assert made(container, rules)[0].address == "192.0.2.3"
    container = with_env(container, SERVICE_IP="192.0.2.3", SERVICE_80_IP="192.0.2.4")
    assert made(container, rules)[0].address == "192.0.2.4"
    container = dataclasses.replace(container, labels={"ip": "192.0.2.5/24"})
    rules = dataclasses.replace(rules, ip_label="ip")
    assert made(container, rules)[0].address == "192.0.2.5"
    assert made(container, dataclasses.replace(rules, internal=True))[0].address == "192.0.2.5"
    without = dataclasses.replace(container, labels={"ip": ""})
    assert made(without, rules)[0].address == "192.0.2.4"


@pytest.mark.parametrize("host_ip", ["", "0.0.0.0", "::"])
def test_a_binding_to_all_addresses_has_the_hosts(host_ip: str) -> None:
    [service] = made(dataclasses.replace(WEB, ports=(Port(80, "tcp", host_ip, 8080),)))
    assert service.address == "192.0.2.1"


def test_internal_takes_the_containers_address_and_port() -> None:
    container = dataclasses.replace(
        WEB, network_mode="front", networks={"front": "10.1.0.2", "back": "2001:DB8::2"}
    )
    rules = dataclasses.replace(RULES, internal=True, forced_ip="192.0.2.2")
    [service] = made(container, rules)
    assert (service.address, service.port) == ("10.1.0.2", 80)
    [service] = made(container, dataclasses.replace(rules, network="back"))
    assert service.address == "2001:db8::2"
    assert "not on the network other" in warning(
        container, dataclasses.replace(rules, network="other")
    )
    [service] = made(with_env(container, SERVICE_IP="192.0.2.3"), rules)
    assert service.address == "192.0.2.3"


@pytest.mark.parametrize("internal", [False, True])
def test_a_container_in_anothers_network_has_that_ones_address(internal: bool) -> None:
    """The original registers its exposed ports at that address with and without -internal."""
    rules = dataclasses.replace(RULES, internal=internal, forced_ip="192.0.2.2")
    shares = dataclasses.replace(
        WEB, network_mode=f"container:{'f' * 64}", networks={}, ports=(Port(80, "tcp"),)
    )
    peer = dataclasses.replace(WEB, name="pod", networks={"bridge": "172.17.0.7"})
    [service] = made(shares, rules, peer)
    assert (service.id, service.address, service.port) == ("host:web1:80", "172.17.0.7", 80)
    assert "is not there" in warning(shares, rules)
    on_host = dataclasses.replace(peer, network_mode="host", networks={})
    [service] = made(shares, rules, on_host)
    assert service.address == "192.0.2.2"
    without = dataclasses.replace(peer, networks={})
    assert "container pod, whose network it shares, has no address" in warning(
        shares, rules, without
    )


def test_an_empty_address_is_never_registered() -> None:
    assert "the host's address is not known" in warning(WEB, Rules("host"))
    internal = dataclasses.replace(RULES, internal=True)
    assert "has no address" in warning(dataclasses.replace(WEB, networks={}), internal)
    none = dataclasses.replace(WEB, networks={"bridge": ""})
    assert "has no address" in warning(none, internal)
    assert "has no address" in warning(none, dataclasses.replace(internal, network="bridge"))


@pytest.mark.parametrize(
    "text",
    [
        "nonsense", "0.0.0.0", "::", "1.2.3.4.5", "fe80::1%eth0", "fe80::1%a\nb", "1.2.3.4 x",
        "9" * 999,
    ],
)  # fmt: skip
def test_an_address_that_is_none(text: str) -> None:
    said = warning(with_env(WEB, SERVICE_IP=text))
    assert f"SERVICE_IP is {shown(text)!r}, and not an IP address that clients can" in said
    assert "\n" not in said
    assert len(said) < 300
    labelled = dataclasses.replace(WEB, labels={"at": text})
    assert "label at" in warning(labelled, dataclasses.replace(RULES, ip_label="at"))


# Untrusted input


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("SERVICE_NAME", "a\0b"),
        ("SERVICE_NAME", "a\nb"),
        ("SERVICE_NAME", "../../x"),
        ("SERVICE_NAME", "a/../b"),
        ("SERVICE_NAME", "a/./b"),
        ("SERVICE_NAME", ".."),
        ("SERVICE_NAME", "x" * (MAX_NAME + 1)),
        ("SERVICE_NAME", "é" * (MAX_NAME // 2 + 1)),
        ("SERVICE_80_Name", "\x1b[31m"),
        ("SERVICE_ID", "a/../b"),
        ("SERVICE_ID", "\x7f"),
        ("SERVICE_ID", "a\u2028b"),
        ("SERVICE_ID", "\ud800"),
        ("SERVICE_ID", "x" * 10_000),
        ("SERVICE_TAGS", "fine," + "x" * (MAX_TAG + 1)),
        ("SERVICE_TAGS", "a,b\0"),
        ("SERVICE_REGION", "a\0"),
        ("SERVICE_REGION", "\udfff"),
        ("SERVICE_" + "X" * (MAX_NAME + 1), "long key"),
        ("SERVICE_REGION", "x" * MAX_METADATA),
        ("SERVICE_NAME", "x" * 5_000_000),
    ],
)
def test_hostile_metadata_rejects_that_service_only(key: str, value: str) -> None:
    text = warning(with_env(WEB, **{key: value}))
    assert key[:60] in text
    assert "80/tcp" in text
    assert text.isprintable()
    assert len(text) < 400
    # The other port has its own metadata, and goes on.
    name = key.removeprefix("SERVICE_").removeprefix("80_")
    both = with_env(TWO, **{f"SERVICE_80_{name}": value})
    [service], [text] = services(both, RULES).services, told(both)
    assert service.private_port == 443
    assert "not registered: 80/tcp: " in text


@pytest.mark.parametrize(
    ("key", "most"),
    [
        ("SERVICE_NAME", "n" * 255),
        ("SERVICE_NAME", "é" * 127 + "e"),
        ("SERVICE_ID", "i" * 255),
        ("SERVICE_TAGS", "t" * 4096),
        ("SERVICE_TAGS", "t," + "t" * 4096),
        ("SERVICE_REGION", "r" * (65536 - len("SERVICE_REGION"))),
    ],
)
def test_the_limits_of_docs_services_are_exact(key: str, most: str) -> None:
    assert made(with_env(WEB, **{key: most}))
    assert key in warning(with_env(WEB, **{key: most + "x"}))


def test_the_name_of_an_attribute_has_at_most_255_bytes() -> None:
    [service] = made(with_env(WEB, **{"SERVICE_" + "A" * 255: "x"}))
    assert service.attrs == {"a" * 255: "x"}
    assert "a name of over 255 bytes" in warning(with_env(WEB, **{"SERVICE_" + "A" * 256: "x"}))


def test_all_metadata_counts_for_the_limit_and_the_largest_is_named() -> None:
    half = 32768 - len("SERVICE_A")
    assert one(SERVICE_A="x" * half, SERVICE_B="y" * half)
    assert "most of them in SERVICE_B" in warning(
        with_env(WEB, SERVICE_A="x" * half, SERVICE_B="y" * (half + 1))
    )
    assert "most of them in SERVICE_A" in warning(
        with_env(WEB, SERVICE_A="x" * half, SERVICE_B="y" * half, SERVICE_C="")
    ), "the first of two that are as large"


def test_a_log_line_shows_eighty_characters_of_a_text() -> None:
    assert f"container {'n' * 80} (" in told(dataclasses.replace(WEB, name="n" * 80, image=""))[0]
    assert f"container {'n' * 79}… (" in told(dataclasses.replace(WEB, name="n" * 81, image=""))[0]


def test_paths_without_dots_alone_are_names() -> None:
    assert one(SERVICE_NAME="a..b", SERVICE_ID="i/…/...").id == "i/…/..."


def test_too_many_attributes() -> None:
    fine = {f"SERVICE_A{n}": "x" for n in range(MAX_ATTRIBUTES)}
    assert len(made(with_env(WEB, **fine))[0].attrs) == MAX_ATTRIBUTES
    assert "257 SERVICE_* attributes" in warning(with_env(WEB, SERVICE_B="x", **fine))


def test_one_reason_is_one_warning_whatever_the_number_of_ports() -> None:
    ports = tuple(Port(n, "tcp", "", n) for n in range(1, 500))
    text = warning(dataclasses.replace(WEB, ports=ports, env={"SERVICE_TAGS": "\0"}))
    assert "not registered: 1/tcp, 2/tcp, " in text


@pytest.mark.parametrize("port", [Port(0, "tcp", "", 80), Port(80, "tcp", "", 65536)])
def test_ports_out_of_range(port: Port) -> None:
    assert "out of range" in warning(dataclasses.replace(WEB, ports=(port,)))


def test_the_first_and_the_last_port_are_registered() -> None:
    [service] = made(dataclasses.replace(WEB, ports=(Port(1, "tcp", "", 65535),)))
    assert (service.private_port, service.port) == (1, 65535)
    [service] = made(dataclasses.replace(WEB, ports=(Port(65535, "tcp", "", 1),)))
    assert (service.private_port, service.port) == (65535, 1)


def test_a_container_whose_name_is_hostile() -> None:
    hostile = dataclasses.replace(WEB, name="a\nb")
    assert services(hostile, RULES).services == ()
    [text] = told(hostile)
    assert text.isprintable()
    assert "SERVICE_NAME is not set" in warning(dataclasses.replace(WEB, image=""))


# Properties

KEYS = st.one_of(
    st.sampled_from(
        [
            "NAME",
            "ID",
            "TAGS",
            "IP",
            "IGNORE",
            "Region",
            "80",
            "80_",
            "80_NAME",
            "443_ID",
            "53_TAGS",
            "PORTS",
            "NETWORK",
            "80_NETWORK",
            "ALIASES",
        ]
    ),
    st.text(max_size=12),
).map("SERVICE_{}".format)
VALUES = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        [
            "web",
            "a,b",
            "\\,",
            "192.0.2.8",
            "0.0.0.0",
            "a/../b",
            "x" * 300,
            "y" * 70000,
            "80",
            "0",
            "80,53/udp",
            "host",
            "front",
        ]
    ),
)
PAIRS = st.dictionaries(KEYS, VALUES, max_size=8)
PORTS = st.builds(
    Port,
    st.sampled_from([53, 80, 443, 0, 70000]),
    st.sampled_from(["tcp", "udp", "sctp"]),
    st.sampled_from(["", "0.0.0.0", "::", "127.0.0.1", "192.0.2.9", "nonsense"]),
    st.sampled_from([0, 80, 32768, 99999]),
)
ADDRESSES = st.sampled_from(["", "172.17.0.2", "2001:db8::2", "nonsense"])
CONTAINERS = st.builds(
    Container,
    id=st.text(max_size=20),
    name=st.one_of(st.just("web"), st.text(max_size=20)),
    image=st.one_of(st.just("acme/web:1"), st.text(max_size=30)),
    hostname=st.just("0123456789ab"),
    env=PAIRS,
    labels=PAIRS,
    network_mode=st.sampled_from(["bridge", "host", "none", "front", "container:x", ""]),
    networks=st.dictionaries(st.sampled_from(["bridge", "front"]), ADDRESSES),
    ports=st.lists(PORTS, max_size=6).map(tuple),
)
RULE_SETS = st.builds(
    Rules,
    hostname=st.just("host"),
    host_ip=ADDRESSES,
    forced_ip=ADDRESSES,
    internal=st.booleans(),
    network=st.sampled_from(["", "front"]),
    explicit=st.booleans(),
    ip_label=st.sampled_from(["", "SERVICE_IP"]),
    tags=st.sampled_from([(), ("dc1",)]),
)


@given(CONTAINERS, RULE_SETS, st.none() | CONTAINERS)
def test_whatever_a_container_sets_its_services_are_sound(
    container: Container, rules: Rules, peer: Container | None
) -> None:
    offer = services(container, rules, peer)
    found = offer.services
    assert len({service.id for service in found}) == len(found)
    for service in found:
        assert ip_address(service.address) == service.address
        portless = service.port == service.private_port == 0
        assert 0 < service.port < 65536 or portless
        assert 0 < service.private_port < 65536 or portless
        assert service.name
        texts = [service.id, service.name, *service.tags, *service.attrs]
        assert all(unicodedata.category(c) not in ("Cc", "Cs") for text in texts for c in text)
        assert all(len(text) <= MAX_TAG for text in texts)
        assert not {".."} & {*service.id.split("/"), *service.name.split("/")}
        json.dumps(service.record, ensure_ascii=False).encode()
    said = [text for _, text, _ in lines(container, offer.left_out)]
    assert all(unicodedata.category(char) not in ("Cc", "Cs") for text in said for char in text)
    assert len(set(said)) == len(said)


@given(CONTAINERS, RULE_SETS)
def test_every_port_is_registered_or_left_out_with_a_reason(
    container: Container, rules: Rules
) -> None:
    offer = services(container, rules)
    mistyped = [each for each in offer.left_out if each.reason is Reason.NO_SUCH_PORT]
    ports = [each.port for each in offer.left_out if each.port and each not in mistyped]
    found = [f"{port.private}/{port.protocol}" for port in ports]
    found += [f"{service.private_port}/{service.protocol}" for service in offer.services]
    exposed = {f"{port.private}/{port.protocol}" for port in container.ports}
    assert exposed <= {*found}
    assert {each.private for each in container.ports}.isdisjoint(
        each.port.private for each in mistyped if each.port
    )
    if not any(key.upper() == "SERVICE_PORTS" for key in (*container.env, *container.labels)):
        assert {*found} == exposed
        assert bool(container.ports) != (LeftOut(None, Reason.NO_PORTS) in offer.left_out)


@given(CONTAINERS, RULE_SETS, st.randoms(use_true_random=False))
def test_the_order_of_metadata_does_not_matter(
    container: Container, rules: Rules, chance: random.Random
) -> None:
    def shuffled(pairs: Any) -> dict[str, str]:
        items = list(pairs.items())
        chance.shuffle(items)
        return dict(items)

    other = dataclasses.replace(
        container, env=shuffled(container.env), labels=shuffled(container.labels)
    )
    assert services(other, rules) == services(container, rules)


@given(CONTAINERS, RULE_SETS)
def test_ignored_means_none(container: Container, rules: Rules) -> None:
    labels = {k: v for k, v in container.labels.items() if "IGNORE" not in k.upper()}
    env = {k: v for k, v in container.env.items() if "IGNORE" not in k.upper()}
    ignored = dataclasses.replace(container, env=env, labels=labels | {"SERVICE_IGNORE": "1"})
    offer = services(ignored, rules)
    assert offer.services == ()
    assert {each.reason for each in offer.left_out} <= {
        Reason.IGNORED, Reason.NOT_PUBLISHED, Reason.NOT_LISTED, Reason.NO_PORTS,
        Reason.NO_SUCH_PORT,
    }  # fmt: skip
    assert offer.left_out


@given(st.lists(st.text(alphabet="ab,\\ é", max_size=8), max_size=6))
def test_tags_survive_escaping(tags: list[str]) -> None:
    """Readers get what an author escapes, but for blanks around it and empty ones."""
    tags = [tag for tag in tags if not tag.endswith("\\") and "\\," not in tag]
    text = ",".join(tag.replace(",", "\\,") for tag in tags)
    assert split_tags(text) == tuple(tag.strip() for tag in tags if tag.strip())


def with_ports(*ports: Port, **env: str) -> Container:
    """A container that has these ports, on the host's network."""
    return dataclasses.replace(WEB, ports=ports, env=env, network_mode="host")


EVERY_PORT = tuple(Port(number, "tcp") for number in range(1, 65536))


def test_a_container_has_at_most_a_thousand_services_the_lower_ports_first() -> None:
    ports = [*EVERY_PORT]
    random.Random(1).shuffle(ports)
    offer = services(with_ports(*ports), RULES)
    assert [each.port for each in offer.services] == [*range(1, MAX_SERVICES + 1)]
    assert [each.reason for each in offer.left_out] == [Reason.TOO_MANY]
    assert [text for _, text, _ in lines(with_ports(*ports), offer.left_out)] == [
        f"{WHO}64535 ports from 1001/tcp on are too many: "
        "a container may have 1000 services or 4 MiB of metadata"
    ]
    enough = with_ports(*(Port(number, "tcp") for number in range(1, MAX_SERVICES + 1)))
    assert len(made(enough)) == MAX_SERVICES
    one_more = with_ports(*enough.ports, Port(2000, "tcp"))
    assert told(one_more)[0].startswith(f"{WHO}port 2000/tcp is too many: ")


def test_published_ports_come_before_exposed_ones() -> None:
    ports = [Port(number, "tcp") for number in range(1, MAX_SERVICES + 1)]
    published = Port(9999, "tcp", "0.0.0.0", 8080)
    rules = dataclasses.replace(RULES, internal=True)
    container = dataclasses.replace(with_ports(*ports, published), network_mode="bridge")
    offer = services(container, rules)
    assert [each.private_port for each in offer.services] == [*range(1, MAX_SERVICES), 9999]
    assert told(container, rules)[0].startswith(f"{WHO}port {MAX_SERVICES}/tcp is too many: ")


def test_the_lower_port_has_a_common_id_also_if_the_other_one_is_published() -> None:
    rules = dataclasses.replace(RULES, internal=True)
    ports = (Port(80, "tcp"), Port(443, "tcp", "0.0.0.0", 8443))
    container = dataclasses.replace(WEB, ports=ports, env={"SERVICE_ID": "one"})
    offer = services(container, rules)
    assert [each.private_port for each in offer.services] == [80]
    assert [(each.port, each.reason) for each in offer.left_out] == [
        (Port(443, "tcp"), Reason.SAME_ID)
    ]


def test_a_container_has_at_most_four_mebibytes_of_records() -> None:
    env = {f"SERVICE_X{number:03}": "v" * 230 for number in range(250)}
    container = with_ports(*EVERY_PORT, **env)
    offer = services(container, RULES)
    records = [json.dumps(each.record, separators=(",", ":")) for each in offer.services]
    assert MAX_RECORDS / 2 < sum(map(len, records)) < MAX_RECORDS * 1.1
    assert [each.port for each in offer.services] == [*range(1, len(records) + 1)]
    assert [each.reason for each in offer.left_out] == [Reason.TOO_MANY]


@pytest.mark.parametrize(("length", "registered"), [(32747, 128), (32748, 127)])
def test_four_mebibytes_of_records_are_allowed_and_a_byte_more_is_not(
    length: int, registered: int
) -> None:
    """Each record has an id of 13 characters, a name of 7, and one attribute."""
    ports = [Port(number, "tcp") for number in range(100, 228)]
    container = with_ports(*ports, SERVICE_X="v" * length)
    assert len(services(container, RULES).services) == registered


def test_a_port_with_a_fault_takes_no_room_from_the_others() -> None:
    """Each record has an id of 13 characters, a name of 7, and one attribute."""
    ports = [Port(number, "tcp") for number in range(100, 229)]
    container = with_ports(*ports, SERVICE_X="v" * 32747, SERVICE_150_TAGS="\0")
    offer = services(container, RULES)
    assert len(offer.services) == 128
    assert [each.reason for each in offer.left_out] == [Reason.REJECTED]


def test_ports_that_are_left_out_on_purpose_do_not_count() -> None:
    rules = dataclasses.replace(RULES, explicit=True)
    [service] = made(with_ports(*EVERY_PORT, SERVICE_40000_NAME="web"), rules)
    assert service.port == 40000


def test_ports_with_a_fault_count_and_one_line_names_the_first() -> None:
    container = with_ports(*EVERY_PORT, SERVICE_NAME="a\x00b")
    first, second = told(container)
    assert first.startswith(f"{WHO}1/tcp, 2/tcp, ")
    assert "20/tcp and 980 more: SERVICE_NAME has control characters" in first
    assert "64535 ports from 1001/tcp on are too many" in second


def test_what_is_not_published_takes_little_room() -> None:
    left_out = services(dataclasses.replace(WEB, ports=EVERY_PORT), RULES).left_out
    assert len(left_out) == MAX_SERVICES


def test_a_port_that_cannot_be_read_is_told_and_the_others_go_on() -> None:
    container = dataclasses.replace(WEB, unreadable="its port '\\xb2/tcp' cannot be read")
    assert [each.port for each in services(container, RULES).services] == [8080]
    assert told(container) == [f"{WHO}its port '\\xb2/tcp' cannot be read"]
    none = dataclasses.replace(container, ports=())
    assert [each.reason for each in services(none, RULES).left_out] == [Reason.UNREADABLE]
