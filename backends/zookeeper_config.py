"""What the URI and the environment say of ZooKeeper, checked before anything is opened."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kazoo.security import CREATOR_ALL_ACL, READ_ACL_UNSAFE

from registrator.backend import ConfigError
from registrator.uri import RegistryURI

# ZooKeeper Programmer's Guide, "The ZooKeeper Data Model". The server holds names as UTF-16 and
# takes each half of a surrogate pair for a character, so that all beyond U+FFFF is illegal too.
ILLEGAL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\uf8ff\ufff0-\uffff\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Settings:
    """`session_timeout` is in seconds, `credential` ``user:password``, `acl` kazoo's for nodes."""

    session_timeout: float
    credential: str = field(repr=False)
    acl: list[Any] | None
    tls: ssl.SSLContext | None


def settings(uri: RegistryURI, environ: Mapping[str, str]) -> Settings:
    """Read the options, the credential and the certificates; raises `ConfigError`."""
    if unknown := uri.unknown_options("session-timeout", "acl"):
        raise ConfigError(f"{uri}: unknown option {', '.join(unknown)}")
    for server in uri.servers(2181):
        try:
            server.host.encode("idna")
        except UnicodeError as error:
            raise ConfigError(f"{uri}: {server.host!r} is no host name") from error
    credential = _credential(uri, environ)
    tls = _tls(environ) if uri.scheme == "zookeeper-tls" else None
    return Settings(_session_timeout(uri), credential, _acl(uri, credential), tls)


def base_path(uri: RegistryURI) -> str:
    """The node that holds all services, without a slash at its end: empty for the root."""
    parts = uri.path.strip("/").split("/") if uri.path.strip("/") else []
    for part in parts:
        if reason := illegal(part):
            raise ConfigError(f"{uri}: {part!r} can't be a node's name in ZooKeeper: {reason}")
    if parts[:1] == ["zookeeper"]:
        raise ConfigError(f"{uri}: /zookeeper is ZooKeeper's own")
    return "".join(f"/{part}" for part in parts)


def illegal(name: str) -> str:
    """Why ZooKeeper does not take this for a node's name; empty where it does."""
    if not name:
        return "it is empty"
    if name in (".", ".."):
        return "it is relative"
    if "/" in name:
        return "it contains a slash"
    found = ILLEGAL.search(name)
    return f"it contains U+{ord(found[0]):04X}" if found else ""


def _session_timeout(uri: RegistryURI) -> float:
    text = uri.options.get("session-timeout", "10")
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 1 <= seconds <= 3600:
        raise ConfigError(f"{uri}: session-timeout is seconds from 1 to 3600, not {text!r}")
    return seconds


def _credential(uri: RegistryURI, environ: Mapping[str, str]) -> str:
    if uri.user or uri.password:
        source, text = str(uri), f"{uri.user}:{uri.password}"
        if ":" in uri.user:
            raise ConfigError(f"{uri}: the user's name contains a colon")
    elif environ.get("ZOOKEEPER_AUTH"):
        source, text = "ZOOKEEPER_AUTH", environ["ZOOKEEPER_AUTH"]
    elif name := environ.get("ZOOKEEPER_AUTH_FILE"):
        source = f"ZOOKEEPER_AUTH_FILE {name}"
        try:
            text = Path(name).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{source} can't be read: {_why(error)}") from error
    else:
        return ""
    user, _, password = text.partition(":")
    if not (user and password):
        raise ConfigError(f"{source}: ZooKeeper needs both, user:password")
    return text


def _acl(uri: RegistryURI, credential: str) -> list[Any] | None:
    choice = uri.options.get("acl")
    if choice not in (None, "private", "world-read"):
        raise ConfigError(f"{uri}: acl is private or world-read, not {choice!r}")
    if not credential:
        if choice:
            raise ConfigError(f"{uri}: acl={choice} needs a user and password")
        return None
    return [*CREATOR_ALL_ACL, *(READ_ACL_UNSAFE if choice == "world-read" else ())]


def _tls(environ: Mapping[str, str]) -> ssl.SSLContext:
    """Certificates and host names are verified, by the system's authorities if none is named."""
    authority = environ.get("ZOOKEEPER_CACERT") or None
    certificate, key = environ.get("ZOOKEEPER_CERT", ""), environ.get("ZOOKEEPER_KEY", "")
    if bool(certificate) != bool(key):
        raise ConfigError("ZOOKEEPER_CERT and ZOOKEEPER_KEY go together")
    try:
        context = ssl.create_default_context(cafile=authority)
    except OSError as error:
        raise ConfigError(f"ZOOKEEPER_CACERT {authority}: {_why(error)}") from error
    if certificate:
        try:
            # Without a password of its own, ssl would ask for one at the terminal.
            context.load_cert_chain(certificate, key, password="")
        except (OSError, ValueError) as error:
            message = f"ZOOKEEPER_CERT {certificate}, ZOOKEEPER_KEY {key}: {_why(error)}"
            raise ConfigError(message) from error
    return context


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
