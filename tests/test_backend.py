"""Rules for all backends: secrets from variables and files, and the options of a URI."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from support.consul import backend

from registrator.backend import (
    ConfigError,
    Context,
    Rejected,
    load,
    require_known_options,
    secret,
)
from registrator.model import Service
from registrator.uri import parse

# Every variable that a scheme reads a secret from, with what it needs beside it.
SECRETS = [
    (scheme, variable, beside)
    for schemes, variable, beside in (
        ("consul consul-tls consulkv consulkv-tls", "CONSUL_HTTP_TOKEN", {}),
        ("etcd etcd-tls skydns2 skydns2-tls", "ETCDCTL_USER", {}),
        ("etcd etcd-tls skydns2 skydns2-tls", "ETCDCTL_PASSWORD", {"ETCDCTL_USER": "kim"}),
        ("zookeeper zookeeper-tls", "ZOOKEEPER_AUTH", {}),
    )
    for scheme in schemes.split()
]


def uri(scheme: str, user: str = "") -> str:
    return f"{scheme}://{user}h" + ("/local" if scheme.startswith("skydns") else "")


def test_a_secret_is_in_a_variable_or_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("  from the file\n")
    assert secret({}, "X") == ""
    assert secret({"X": "", "X_FILE": ""}, "X") == ""
    assert secret({"X": "given"}, "X") == "given"
    assert secret({"X": "", "X_FILE": str(file)}, "X") == "from the file"


def test_files_that_hold_no_secret(tmp_path: Path) -> None:
    empty, binary = tmp_path / "empty", tmp_path / "binary"
    empty.write_text("\n")
    binary.write_bytes(b"\xff\xfe")
    for path, why in (
        (empty, "is empty"),
        (binary, "is not UTF-8 text"),
        (tmp_path, "cannot be read: Is a directory"),
        (tmp_path / "none", "cannot be read: No such file or directory"),
    ):
        with pytest.raises(ConfigError, match=f"^X_FILE {re.escape(str(path))} {why}$"):
            secret({"X_FILE": str(path)}, "X")


@pytest.mark.parametrize(("scheme", "variable", "beside"), SECRETS)
def test_every_backend_refuses_a_secret_given_twice(
    scheme: str, variable: str, beside: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    file.write_text("kim:s3cret")
    environ = {**beside, variable: "kim:s3cret", f"{variable}_FILE": str(file)}
    with pytest.raises(ConfigError, match=f"^both {variable} and {variable}_FILE are set") as said:
        load(scheme)(Context(parse(uri(scheme)), environ=environ))
    assert "s3cret" not in str(said.value)


@pytest.mark.parametrize(("scheme", "variable", "beside"), SECRETS)
def test_with_every_backend_the_uri_wins(
    scheme: str, variable: str, beside: dict[str, str]
) -> None:
    user = "t0ken@" if scheme.startswith("consul") else "kim:s3cret@"
    environ = {**beside, variable: "kim:s3cret", f"{variable}_FILE": "/nowhere"}
    load(scheme)(Context(parse(uri(scheme, user)), environ=environ)).close()


def test_an_unknown_option_is_told_with_those_there_are() -> None:
    given = parse("x://h?timeout=1&value=x&tiemout=3")
    require_known_options(given, "value", "tiemout")
    with pytest.raises(
        ConfigError, match=r"^unknown option tiemout; known are filter, timeout, value$"
    ):
        require_known_options(given, "value")


@pytest.mark.parametrize(
    "uri", ["consulkv://h/p", "etcd://h/p", "skydns2://h/local", "zookeeper://h/p", "file:///run/x"]
)
def test_a_service_without_a_port_is_for_consul_only(uri: str) -> None:
    """A backend opens no connection for that."""
    worker = Service("h:work:0", "work", "192.0.2.1", 0, 0)
    with closing(backend(uri)) as ours, pytest.raises(Rejected, match="it has no port"):
        ours.entry(worker)
    with closing(backend("consul://h")) as consul:
        assert consul.entry(worker).key == "h:work:0"
        reports = replace(worker, attrs={"check_ttl": "30s"})
        assert consul.entry(reports).key == "h:work:0"
        for key in ("check_tcp", "check_http", "check_grpc"):
            with pytest.raises(Rejected, match="its check needs one"):
                consul.entry(replace(worker, attrs={key: "/x"}))
