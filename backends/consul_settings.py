"""What a URI and the environment say about reaching Consul: addresses, TLS, the token.

The environment is that of Consul's own clients; no proxy variable counts.
"""

from __future__ import annotations

import logging
import re
import socket
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import urllib3

from registrator.backend import ConfigError, Context
from registrator.uri import Address


class Endpoint(NamedTuple):
    """One server to connect to: a resolved address of a host, or a unix socket's path."""

    host: str
    ip: str
    port: int

    def __str__(self) -> str:
        if not self.ip:
            return self.host
        shown = str(Address(self.ip, self.port))
        return shown if self.host == self.ip else f"{Address(self.host, self.port)} ({self.ip})"


class Token:
    """The ACL token; one from a file is read again when Consul refuses it, as rotation needs."""

    def __init__(self, context: Context) -> None:
        uri, environ = context.uri, context.environ
        if uri.user and uri.password:
            raise ConfigError(f"{uri.scheme}://: give Consul's token alone: token@host")
        path = environ.get("CONSUL_HTTP_TOKEN_FILE", "")
        self._path = None if uri.user or uri.password or not path else Path(path)
        self.value = uri.user or uri.password or environ.get("CONSUL_HTTP_TOKEN", "")
        if self._path is not None:
            try:
                self.value = self._read(self._path)
            except OSError as error:
                raise ConfigError(f"CONSUL_HTTP_TOKEN_FILE: {error}") from error
        if not re.fullmatch(r"[!-~]*", self.value):
            raise ConfigError("the Consul token contains a blank or a control character")

    @staticmethod
    def _read(path: Path) -> str:
        return path.read_text("utf-8", "replace").strip()

    def reload(self) -> bool:
        """Read the file again; whether there is now another token to try."""
        if self._path is None:
            return False
        try:
            value = self._read(self._path)
        except OSError as error:
            logging.getLogger("registrator.consul").warning("CONSUL_HTTP_TOKEN_FILE: %s", error)
            return False
        changed = value != self.value and re.fullmatch(r"[!-~]*", value) is not None
        self.value = value if changed else self.value
        return changed


@dataclass
class Settings:
    """What URI and environment say about reaching Consul.

    `socket_path` is set for the ``-unix`` schemes, `tls` for the ``-tls`` ones.
    """

    addresses: tuple[Address, ...]
    timeout: float
    token: Token = field(repr=False)
    socket_path: str = ""
    tls: ssl.SSLContext | None = None
    server_name: str = ""

    @classmethod
    def read(cls, context: Context, socket_path: str = "") -> Settings:
        """Raises `ConfigError` for what is wrong in the URI or the environment."""
        uri = context.uri
        secure = uri.scheme.endswith("-tls")
        if uri.scheme.endswith("-unix") and (uri.addresses or not socket_path):
            raise ConfigError(f"{uri.scheme}:// takes the path of a socket: {uri.scheme}:///path")
        return cls(
            uri.servers(8501 if secure else 8500),
            context.timeout,
            Token(context),
            socket_path,
            _tls(context.environ) if secure else None,
            context.environ.get("CONSUL_TLS_SERVER_NAME", ""),
        )


def _tls(environ: Mapping[str, str]) -> ssl.SSLContext:
    """TLS as Consul's own clients read it from the environment.

    ``CONSUL_TLSCERT`` and ``CONSUL_TLSKEY`` are what the original's documentation names.
    """
    verify = environ.get("CONSUL_HTTP_SSL_VERIFY", "") or "true"
    if verify.lower() not in ("1", "t", "true", "0", "f", "false"):
        raise ConfigError("CONSUL_HTTP_SSL_VERIFY is neither true nor false")
    certificate = environ.get("CONSUL_CLIENT_CERT") or environ.get("CONSUL_TLSCERT")
    key = environ.get("CONSUL_CLIENT_KEY") or environ.get("CONSUL_TLSKEY")
    try:
        tls = ssl.create_default_context(cafile=environ.get("CONSUL_CACERT") or None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"CONSUL_CACERT: {error}") from error
    if key and not certificate:
        raise ConfigError("CONSUL_CLIENT_KEY is set without CONSUL_CLIENT_CERT")
    if certificate:
        try:
            tls.load_cert_chain(certificate, key or None)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"CONSUL_CLIENT_CERT, CONSUL_CLIENT_KEY: {error}") from error
    if verify.lower() in ("0", "f", "false"):
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    return tls


def resolve(address: Address, seconds: float) -> tuple[Endpoint, ...]:
    """Every address that a host name has now; raises `OSError`, in time.

    The resolver knows no deadline, hence the thread; it is a daemon so as not to hold up exit.
    """
    found: list[Endpoint] = []
    failed: list[str] = []

    def ask() -> None:
        try:
            rows = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
            ips = dict.fromkeys(str(row[4][0]) for row in rows)
            found.extend(Endpoint(address.host, ip, address.port) for ip in ips)
        except OSError as error:
            failed.append(error.strerror or str(error))

    if re.fullmatch(r"[0-9.]+|[0-9a-fA-F.]*:.*", address.host):
        return (Endpoint(address.host, address.host, address.port),)
    thread = threading.Thread(target=ask, name="resolve", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive() or not found:
        reason = failed[0] if failed else f"not resolved within {seconds:g} s"
        raise OSError(f"{address}: {reason}")
    return tuple(found)
