"""How to reach ZooKeeper, from the URI and the environment. Checked before anything opens."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kazoo.security import CREATOR_ALL_ACL, READ_ACL_UNSAFE

from registrator.backend import ConfigError, require_known_options, secret
from registrator.uri import RegistryURI

from ..common import tls

# Source: ZooKeeper Programmer's Guide, "The ZooKeeper Data Model". The server holds names as
# UTF-16 and checks each half of a surrogate pair. So all characters beyond U+FFFF are illegal too.
ILLEGAL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\uf8ff\ufff0-\uffff\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Settings:
    """Options, credential and certificates.

    `session_timeout` is in seconds. `credential` is ``user:password`` of the digest scheme. `acl`
    is for new nodes, in kazoo's form.
    """

    session_timeout: float
    credential: str = field(repr=False)
    acl: list[Any] | None
    tls: tls.Client | None


def settings(uri: RegistryURI, environ: Mapping[str, str]) -> Settings:
    """Read the settings. Raises `ConfigError`."""
    require_known_options(uri, "session-timeout", "acl")
    credential = _credential(uri, environ)
    files = None
    if uri.scheme == "zookeeper-tls":
        names = ("ZOOKEEPER_CACERT", "ZOOKEEPER_CERT", "ZOOKEEPER_KEY")
        files = tls.Client(*(tls.file(environ, name) for name in names))
    return Settings(_session_timeout(uri), credential, _acl(uri, credential), files)


def base_path(uri: RegistryURI) -> str:
    """The path of the node above all services, without a final slash. Empty for the root."""
    parts = uri.path.strip("/").split("/") if uri.path.strip("/") else []
    for part in parts:
        if reason := illegal(part):
            raise ConfigError(f"{part!r} cannot be the name of a ZooKeeper node: {reason}")
    if parts[:1] == ["zookeeper"]:
        raise ConfigError("ZooKeeper keeps /zookeeper for its own use")
    return "".join(f"/{part}" for part in parts)


def illegal(name: str) -> str:
    """Why this cannot be the name of a node. Empty if it can."""
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
        raise ConfigError(f"session-timeout must be 1 to 3600 seconds, not {text!r}")
    return seconds


def _credential(uri: RegistryURI, environ: Mapping[str, str]) -> str:
    if ":" in uri.user:
        raise ConfigError("a ZooKeeper user's name cannot contain a colon")
    given = uri.user or uri.password
    text = f"{uri.user}:{uri.password}" if given else secret(environ, "ZOOKEEPER_AUTH")
    user, _, password = text.partition(":")
    if text and not (user and password):
        source = "" if given else "ZOOKEEPER_AUTH: "
        raise ConfigError(f"{source}ZooKeeper needs both a user and a password, as user:password")
    return text


def _acl(uri: RegistryURI, credential: str) -> list[Any] | None:
    choice = uri.options.get("acl")
    if choice not in (None, "private", "world-read"):
        raise ConfigError(f"acl must be private or world-read, not {choice!r}")
    if not credential:
        if choice:
            raise ConfigError(f"acl={choice} needs a user and password")
        return None
    return [*CREATOR_ALL_ACL, *(READ_ACL_UNSAFE if choice == "world-read" else ())]
