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
    made: ssl.SSLContext = tls.client_context(*(tls.file(environ, name) for name in "ACK"))
    return made


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
