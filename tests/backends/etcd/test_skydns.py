"""SkyDNS's layout in a real etcd, and the making of DNS labels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from support.etcd import Backends, keys, revision, running

from registrator.backend import ConfigError, Rejected
from registrator.backends.etcd.skydns import LABEL, label
from registrator.model import Mark, Plan, Service

SERVICE = Service("host:web1:80", "web", "10.0.0.1", 8080, 80)
ID = f"host-web1-80-{hashlib.sha256(b'host:web1:80').hexdigest()[:8]}"


@pytest.fixture
def make() -> Iterator[Backends]:
    with closing(Backends()) as backends:
        yield backends


def test_the_layout_that_skydns_and_coredns_read(tmp_path: Path, make: Backends) -> None:
    with running(tmp_path) as etcd:
        backend = make(f"skydns2://{etcd.address}/cluster.local")
        six = replace(SERVICE, id="six", address="fd00::1")
        entries = tuple(map(backend.entry, (SERVICE, six)))
        assert backend.apply(Plan(entries)) == {}
        rest = '"port":8080,"ttl":30,"host_name":"host"}'
        assert keys(etcd, "/") == {
            f"/skydns/local/cluster/web/{ID}": f'{{"host":"10.0.0.1",{rest}',
            "/skydns/local/cluster/web/six": f'{{"host":"fd00::1",{rest}',
        }
        before = revision(etcd)
        found = make(f"skydns2://{etcd.address}/Cluster.Local.").list()
        assert {key: each.content for key, each in found.items()} == keys(etcd, "/")
        assert {(each.mark, each.held) for each in found.values()} == {(Mark.OURS, True)}
        assert {each.address for each in found.values()} == {"10.0.0.1", "fd00::1"}
        assert revision(etcd) == before
        others = make(f"skydns2://{etcd.address}/cluster.local", owner="engine-2").list(found)
        assert {each.mark for each in others.values()} == {Mark.OTHERS}


def test_an_etcd_backend_on_the_same_keys_is_another_owner(tmp_path: Path, make: Backends) -> None:
    with running(tmp_path) as etcd:
        backend = make(f"skydns2://{etcd.address}/local", ttl=60)
        backend.apply(Plan((backend.entry(SERVICE),)))
        backend.keepalive()
        other = make(f"etcd://{etcd.address}/skydns/local", ttl=60)
        (found,) = other.list(backend.list()).values()
        assert found.mark is Mark.OTHERS


@pytest.mark.parametrize("text", ["a", "web", "a-b", "0", "x" * 63])
def test_a_label_stays(text: str) -> None:
    assert label(text) == text


def test_what_is_no_label_is_made_one_and_kept_apart() -> None:
    texts = ["a.b", "a_b", "a:b", "A.b", "-a", "a-", "ü", "ö", "名前", "_", "a b", "x" * 64,
             "x" * 65, "X", "host:web:80", "host:web:80:udp"]  # fmt: skip
    labels = [label(text) for text in texts]
    assert len({*labels}) == len(texts)
    for each in labels:
        assert LABEL.fullmatch(each)
        assert len(each) <= 63


def test_names_differ_by_more_than_case(make: Backends) -> None:
    backend = make("skydns2://h/local")
    upper, lower = (backend.entry(replace(SERVICE, name=name)).key for name in ("Web", "web"))
    assert upper == lower == f"/skydns/local/web/{ID}"
    dotted = backend.entry(replace(SERVICE, name="a.b/c")).key.split("/")
    assert dotted[:3] == ["", "skydns", "local"]
    assert len(dotted) == 5


def test_the_content_is_json(make: Backends) -> None:
    entry = make("skydns2-tls://h/local").entry(SERVICE)
    assert json.loads(entry.content) == {
        "host": "10.0.0.1",
        "port": 8080,
        "ttl": 30,
        "host_name": "host",
    }


@pytest.mark.parametrize("ttl", [1, 5, 3600, 604_800])
def test_the_time_to_live_of_dns_records(make: Backends, ttl: int) -> None:
    """CoreDNS takes the smaller one of this and of the lease's, which it reads wrongly."""
    entry = make(f"skydns2://h/local?dns-ttl={ttl}", ttl=30).entry(SERVICE)
    assert json.loads(entry.content)["ttl"] == ttl


@pytest.mark.parametrize("text", ["0", "-1", "604801", "1.5", "30s", "", "x", "٣", "9" * 400])
def test_no_time_to_live(make: Backends, text: str) -> None:
    with pytest.raises(ConfigError, match="dns-ttl must be 1 to 604800 whole seconds"):
        make(f"skydns2://h/local?dns-ttl={text}")


@pytest.mark.parametrize("text", ["", ".", "..", "a/../b", "a\0", "a\n"])
def test_illegal_names_and_ids(make: Backends, text: str) -> None:
    backend = make("skydns2://h/local")
    with pytest.raises(Rejected):
        backend.entry(replace(SERVICE, name=text))
    with pytest.raises(Rejected):
        backend.entry(replace(SERVICE, id=text))


@pytest.mark.parametrize(
    "uri",
    ["skydns2://h", "skydns2://h/", "skydns2://h/a..b", "skydns2://h/a/b", "skydns2://h/-a.b",
     "skydns2://h/a_b", f"skydns2://h/{'a' * 64}", f"skydns2://h/{'a.' * 63}a",
     "skydns2://h/local?value=json", "skydns2://h/ü"],
)  # fmt: skip
def test_configuration_errors(make: Backends, uri: str) -> None:
    with pytest.raises(ConfigError):
        make(uri)
