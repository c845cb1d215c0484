"""Certificates that variables name, and what the operator reads of those that are of no use."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path

import pytest
from support.certificates import Authority

from registrator.backend import ConfigError
from registrator.backends.common import tls


@pytest.fixture
def files(tmp_path: Path) -> Mapping[str, str]:
    """Files by a name for each: those that fit, those that don't, and none."""
    authority = Authority(tmp_path / "ca")
    cert, key = authority.issue("client")
    _, stranger = authority.issue("stranger")
    text, both = tmp_path / "text", tmp_path / "both"
    text.write_text("hello")
    both.write_bytes(cert.read_bytes() + key.read_bytes())
    named = {"ca": authority.ca, "cert": cert, "key": key, "stranger": stranger}
    return {name: str(path) for name, path in {**named, "text": text, "both": both}.items()} | {
        "": "",
        "nowhere": "/nowhere",
    }


def context(files: Mapping[str, str], authority: str, cert: str, key: str) -> ssl.SSLContext:
    environ = {"A": files[authority], "C": files[cert], "K": files[key]}
    return client(environ).handshake()


def client(environ: Mapping[str, str], *, verify: bool = True) -> tls.Client:
    return tls.Client(*(tls.file(environ, name) for name in ("A", "C", "K")), verify=verify)


@pytest.mark.parametrize("named", ["ca cert key", "ca both ", " cert key", "ca  "])
def test_what_is_complete_verifies(files: Mapping[str, str], named: str) -> None:
    made = context(files, *named.split(" "))
    assert made.check_hostname
    assert made.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("nowhere  ", "A /nowhere: No such file or directory"),
        ("text  ", "A .*/text: the file contains no certificate in PEM format"),
        (" nowhere ", "C /nowhere: No such file or directory"),
        (" cert nowhere", "C .*, K /nowhere: No such file or directory"),
        (
            " cert stranger",
            "C .*, K .*: no certificate with its key.*PEM format",
        ),
        (" text text", "C .*, K .*: no certificate with its key.*PEM format"),
        ("  key", "K is set without C"),
    ],
)
def test_mistakes_name_the_variable_and_the_file(
    files: Mapping[str, str], named: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{message}$"):
        context(files, *named.split(" "))


def test_the_first_variable_that_is_set_counts() -> None:
    assert tls.file({"B": "/b", "A": ""}, "A", "B") == ("B", "/b")
    assert tls.file({}, "A", "B") == ("A", "")


def test_every_handshake_reads_the_files_again(files: Mapping[str, str]) -> None:
    made = client({"C": files["cert"], "K": files["key"]})
    assert made.handshake() is not made.handshake()
    Path(files["key"]).write_text("")
    with pytest.raises(ssl.SSLError) as caught:
        made.handshake()
    assert tls.reason(caught.value).startswith("TLS: C ")
    assert "no certificate with its key" in tls.reason(caught.value)


def test_without_verification_any_server_is_accepted(files: Mapping[str, str]) -> None:
    made = client({"A": files["ca"]}, verify=False).handshake()
    assert not made.check_hostname
    assert made.verify_mode is ssl.CERT_NONE


def test_no_more_is_asked_of_a_certificate_than_the_registries_clients_ask() -> None:
    """Whatever this Python's own defaults are."""
    flags = client({}).handshake().verify_flags
    assert not flags & ssl.VERIFY_X509_STRICT
    assert flags & ssl.VERIFY_X509_PARTIAL_CHAIN
