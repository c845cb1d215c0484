"""The registration of a service in Consul, without a server."""

from __future__ import annotations

from typing import Any

import pytest
from support.consul import service

from registrator.backend import Rejected
from registrator.backends.consul.checks import foreign, service_of, wanted
from registrator.backends.consul.registration import (
    DIGEST,
    HOST,
    OWNER,
    TAGS,
    body,
    content,
    kept_tags,
    known,
    meta,
    require_legal_id,
)
from registrator.model import Service

ME = {OWNER: "me", HOST: "host"}
WITH_TAGS: dict[str, Any] = {"tag_override": True, "tags": ("own",)}
EVERY = {"Interval": "10s", "CheckID": "service:host:c0:80"}


def check(service: Service) -> dict[str, object] | None:
    """Its only check."""
    found = wanted(service)
    assert len(found) < 2
    return found[0] if found else None


@pytest.mark.parametrize(
    ("attrs", "expected"),
    [
        (
            {"check_http": "/health", "check_interval": "15s", "check_timeout": "1s",
             "check_http_method": "HEAD"},
            {"HTTP": "http://127.9.0.1:20000/health", "Method": "HEAD", "Timeout": "1s",
             "Interval": "15s"},
        ),
        (
            {"check_https": "/", "check_https_method": "PUT", "check_tls_skip_verify": "true"},
            {"HTTP": "https://127.9.0.1:20000/", "Method": "PUT", "TLSSkipVerify": True},
        ),
        (
            {"check_cmd": "test 'a b'"},
            {"Args": ["check-cmd", "000000000000", "80", "test", "a b"]},
        ),
        (
            {"check_script": "/probe '$SERVICE_IP' $SERVICE_PORT"},
            {"Args": ["/probe", "127.9.0.1", "20000"]},
        ),
        ({"check_tcp": "true", "check_timeout": "2s"}, {"TCP": "127.9.0.1:20000", "Timeout": "2s"}),
        (
            {"check_grpc": "1", "check_grpc_use_tls": "1", "check_tls_skip_verify": "false"},
            {"GRPC": "127.9.0.1:20000", "GRPCUseTLS": True},
        ),
        ({"check_http": "/a", "check_tcp": "true"}, {"HTTP": "http://127.9.0.1:20000/a"}),
        ({"check_tcp": "", "check_grpc": "1"}, {"GRPC": "127.9.0.1:20000"}),
        (
            {"check_tcp": "1", "check_initial_status": "passing", "check_deregister_after": "5m"},
            {"TCP": "127.9.0.1:20000", "Status": "passing",
             "DeregisterCriticalServiceAfter": "5m"},
        ),
    ],
)  # fmt: skip
def test_checks(attrs: dict[str, str], expected: dict[str, object]) -> None:
    assert check(service(attrs=attrs)) == EVERY | expected


def test_a_command_follows_its_container() -> None:
    """It is given the container's id, which Consul's agent does not tell of a check."""
    now, later = (service(attrs={"check_cmd": "true"}, container_id=c * 64) for c in "ab")
    assert meta(now, ME)[0][DIGEST] != meta(later, ME)[0][DIGEST]
    assert meta(now, ME)[1] == []
    assert DIGEST not in meta(service(attrs={"check_tcp": "1"}), ME)[0]


def test_a_ttl_check_has_no_interval() -> None:
    attrs = {"check_ttl": "30s", "check_initial_status": "passing", "check_interval": "5s"}
    expected = {"TTL": "30s", "Status": "passing", "CheckID": "service:host:c0:80"}
    assert check(service(attrs=attrs)) == expected


def test_no_check_and_ipv6() -> None:
    assert check(service(attrs={"check_interval": "5s"})) is None
    made = check(service(attrs={"check_http": "/"}, address="fd00::1"))
    assert made is not None
    assert made["HTTP"] == "http://[fd00::1]:20000/"


@pytest.mark.parametrize("command", ["echo 'open", "  ", "a \\"])
def test_a_command_that_no_shell_could_split(command: str) -> None:
    with pytest.raises(Rejected, match="SERVICE_CHECK_SCRIPT"):
        check(service(attrs={"check_script": command}))


DURATIONS = ["check_interval", "check_timeout", "check_ttl", "check_deregister_after"]


def with_duration(key: str, value: str) -> dict[str, str]:
    return ({} if key == "check_ttl" else {"check_http": "/"}) | {key: value}


@pytest.mark.parametrize("key", DURATIONS)
@pytest.mark.parametrize(
    "value",
    ["15", "15 s", " 15s", "s", "1d", "1.2.3s", ".s", "1h30", "00", "often", "\u0661s", "15s\n"],
)
def test_what_is_no_duration_is_rejected_with_its_key(key: str, value: str) -> None:
    with pytest.raises(Rejected) as raised:
        check(service(attrs=with_duration(key, value)))
    expected = f"SERVICE_{key.upper()}: {value!r} is not a duration such as 15s"
    assert str(raised.value) == expected


@pytest.mark.parametrize("key", DURATIONS)
@pytest.mark.parametrize(
    "value",
    ["0", "+0", "-0", "0s", "15s", "1.5h", "1.h", ".5m", "1h30m5s", "-1m", "+2ms", "3us", "3µs",
     "3μs", "100ns"],
)  # fmt: skip
def test_what_consul_takes_for_a_duration_is_passed_on_as_it_is(key: str, value: str) -> None:
    made = check(service(attrs=with_duration(key, value)))
    assert made is not None
    assert value in made.values()


def test_a_duration_that_is_of_no_use_to_the_check_does_not_matter() -> None:
    ttl = {"check_ttl": "30s", "check_interval": "15", "check_timeout": "15"}
    assert check(service(attrs=ttl)) == {"TTL": "30s", "CheckID": "service:host:c0:80"}
    http = check(service(attrs={"check_tcp": "1", "check_ttl": "", "check_timeout": ""}))
    assert http == EVERY | {"TCP": "127.9.0.1:20000"}
    assert check(service(attrs={"check_interval": "15"})) is None


def test_further_checks_have_a_number_and_their_own_details() -> None:
    attrs = {
        "check_http": "/a", "check_timeout": "2s",
        "check_10_tcp": "1", "check_2_https": "/b", "check_2_https_method": "HEAD",
        "check_2_grpc": "1", "check_2_interval": "30s", "check_3_interval": "5s",
        "check_0_tcp": "1", "check_04_tcp": "1", "check_100_tcp": "1",
    }  # fmt: skip
    first, second, tenth = wanted(service(attrs=attrs))
    assert first == {
        "HTTP": "http://127.9.0.1:20000/a", "Interval": "10s", "Timeout": "2s",
        "CheckID": "service:host:c0:80",
    }  # fmt: skip
    assert second == {
        "HTTP": "https://127.9.0.1:20000/b", "Method": "HEAD", "Interval": "30s",
        "Name": "Service 'web0' check 2", "CheckID": "registrator-check-2:host:c0:80",
    }  # fmt: skip
    assert tenth == {
        "TCP": "127.9.0.1:20000", "Interval": "10s",
        "Name": "Service 'web0' check 10", "CheckID": "registrator-check-10:host:c0:80",
    }  # fmt: skip


def test_a_fault_of_a_further_check_names_its_key() -> None:
    attrs = {"check_tcp": "1", "check_2_tcp": "1", "check_2_timeout": "15"}
    with pytest.raises(Rejected, match="SERVICE_CHECK_2_TIMEOUT: '15' is not a duration"):
        wanted(service(attrs=attrs))
    with pytest.raises(Rejected, match="SERVICE_CHECK_3_CMD: no closing quotation"):
        wanted(service(attrs={"check_3_cmd": "'"}))


def test_a_command_of_a_further_check_follows_its_container() -> None:
    now, later = (service(attrs={"check_2_cmd": "true"}, container_id=c * 64) for c in "ab")
    assert meta(now, ME)[0][DIGEST] != meta(later, ME)[0][DIGEST]


@pytest.mark.parametrize(
    ("key", "owner"),
    [
        ("service:db:1", "db:1"),
        ("registrator:db:1", "db:1"),
        ("registrator-check-2:db:1", "db:1"),
        ("registrator-check-99:", ""),
        ("registrator-check-0:db", None),
        ("registrator-check-100:db", None),
        ("registrator-check-:db", None),
        ("registrator-check-2", None),
        ("_service_maintenance:db", None),
        ("serfHealth", None),
    ],
)
def test_a_checks_id_tells_whose_it_would_be(key: str, owner: str | None) -> None:
    assert service_of(key) == owner


def test_only_checks_that_belong_to_another_service_than_their_ids_are_foreign() -> None:
    checks = {
        "service:db:1": {"ServiceID": "db"},
        "service:db": {"ServiceID": "db"},
        "registrator-check-2:db": {"ServiceID": "db"},
        "registrator-check-3:db": {"ServiceID": ""},
        "theirs": {"ServiceID": "db"},
    }
    assert foreign(checks) == {"service:db:1": "db", "registrator-check-3:db": ""}


def test_weights_count_and_the_usual_ones_are_not_written() -> None:
    usual, heavy = body(service(), ME), body(service(weights=(10, 0)), ME)
    assert "Weights" not in usual
    assert heavy["Weights"] == {"Passing": 10, "Warning": 0}
    told = {"Weights": {"Passing": 1, "Warning": 1}}
    assert content(usual, ()) == content({**usual, **told}, ()) != content(heavy, ())


def test_tags_do_not_count_if_others_may_change_them_but_our_own_do() -> None:
    ours = body(service(**WITH_TAGS), ME)
    theirs = {**ours, "Tags": ["theirs"]}
    assert content(ours, ()) == content(theirs, ())
    other = body(service(tag_override=True, tags=("new",)), ME)
    assert content(ours, ()) != content(other, ())
    assert content(ours, ()) != content(body(service(tags=("own",)), ME), ())
    assert TAGS not in body(service(), ME)["Meta"]


def test_tags_of_others_are_sent_again_until_our_own_change() -> None:
    ours = body(service(**WITH_TAGS), ME)
    theirs = {**ours, "Tags": ["theirs"]}
    assert kept_tags(ours, theirs) == ["theirs"]
    assert kept_tags(ours, {**theirs, "Tags": None}) == ()
    assert kept_tags(ours, {}) == ("own",)
    assert kept_tags(ours, {**theirs, "EnableTagOverride": False}) == ("own",)
    assert kept_tags(ours, {**theirs, "Meta": None}) == ("own",)
    other = body(service(tag_override=True, tags=("new",)), ME)
    assert kept_tags(other, theirs) == ("new",)


def test_meta_has_room_for_the_hash_of_the_tags() -> None:
    attrs = {f"k{i:03}": "v" for i in range(70)}
    assert len(meta(service(attrs=attrs, **WITH_TAGS), ME)[0]) == 63
    assert len(meta(service(attrs=attrs), ME)[0]) == 63


def test_meta_keeps_to_consuls_limits() -> None:
    attrs = {f"k{i:03}": "v" for i in range(70)}
    attrs |= {"a.b": "x", "consul-x": "x", OWNER: "thief", "long": "é" * 257, "fits": "é" * 256}
    kept, left_out = meta(service(attrs=attrs), ME)
    assert len(kept) == 63
    assert kept[OWNER] == "me"
    assert "fits" in kept
    assert {"a.b", "consul-x", OWNER, "long", "k061"} <= set(left_out)
    assert meta(service(attrs=attrs | {"a.b": "y"}), ME)[0][DIGEST] != kept[DIGEST]
    assert meta(service(attrs={"a": "b"}), ME) == ({"a": "b"} | ME, [])


def test_a_listing_has_the_keys_that_are_known() -> None:
    key, told = "h:web:80", "".join(["h:web", ":80"])
    assert told is not key
    found = known({told: {"ID": 1}, "other": {"ID": 2}}, [key, "ended"])
    assert found == {key: {"ID": 1}, "other": {"ID": 2}}
    assert next(iter(found)) is key


@pytest.mark.parametrize(
    "wrong", ["a//b", "../x", "x/../y", "x/.", "/lead", "..", "a\x01", "a\xa0", "", "a\U00030ea5"]
)
def test_ids_that_consul_would_not_let_go_of(wrong: str) -> None:
    with pytest.raises(Rejected):
        require_legal_id(wrong)
