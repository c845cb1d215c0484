"""How to reach Consul, from the URI and the environment: addresses, TLS, the token.

The variables are those of Consul's own clients. Proxy variables have no effect.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import urllib3

from registrator.backend import ConfigError, Context, secret
from registrator.uri import Address

from ..common import tls


class Endpoint(NamedTuple):
    """One server: a resolved address of a host, or the path of a unix socket as `host`."""

    host: str
    ip: str
    port: int

    def __str__(self) -> str:
        if not self.ip:
            return self.host
        shown = str(Address(self.ip, self.port))
        return shown if self.host == self.ip else f"{Address(self.host, self.port)} ({self.ip})"


class Token:
    """The ACL token. A token from a file is read again when Consul refuses it, to allow rotation.

    `problem` says why the last reading failed. It is empty otherwise.
    """

    def __init__(self, context: Context) -> None:
        if context.uri.user and context.uri.password:
            raise ConfigError("give Consul's token without a colon: token@host")
        self._context = context
        self.value = self._read()
        self.problem = ""

    def _read(self) -> str:
        uri = self._context.uri
        token = uri.user or uri.password or secret(self._context.environ, "CONSUL_HTTP_TOKEN")
        if not re.fullmatch(r"[!-~]*", token):
            raise ConfigError("the Consul token contains a blank or a character that is not ASCII")
        return token

    def reload(self, used: str) -> bool:
        """Read the file again, and return whether the token differs from the one `used`."""
        self.problem = ""
        try:
            self.value = self._read()
        except ConfigError as error:
            self.problem = str(error)
        return self.value != used


@dataclass
class Settings:
    """How to reach Consul.

    The ``-unix`` schemes set `socket_path`, the ``-tls`` schemes set `tls`. `dc` is the datacenter
    that every request is for (``?dc=``). It is empty for the server's own.
    """

    addresses: tuple[Address, ...]
    timeout: float
    token: Token = field(repr=False)
    socket_path: str
    tls: tls.Client | None
    server_name: str
    dc: str = ""

    @classmethod
    def read(cls, context: Context, socket_path: str = "") -> "Settings":
        """Read the URI and the environment. Raises `ConfigError`."""
        uri = context.uri
        secure = uri.scheme.endswith("-tls")
        if uri.scheme.endswith("-unix") and (uri.addresses or not socket_path):
            raise ConfigError(f"give the path of a socket: {uri.scheme}:///path")
        dc = uri.options.get("dc", "")
        if "dc" in uri.options and not re.fullmatch("[A-Za-z0-9_-]{1,64}", dc):
            raise ConfigError(f"{dc[:80]!r} in ?dc= is no name of a datacenter")
        return cls(
            uri.servers(8501 if secure else 8500),
            context.timeout,
            Token(context),
            socket_path,
            _tls(context.environ) if secure else None,
            context.environ.get("CONSUL_TLS_SERVER_NAME", ""),
            dc,
        )


def _tls(environ: Mapping[str, str]) -> tls.Client:
    """The TLS settings, from the variables of Consul's own clients.

    The original's documentation names ``CONSUL_TLSCERT`` and ``CONSUL_TLSKEY``.
    """
    verify = environ.get("CONSUL_HTTP_SSL_VERIFY", "") or "true"
    if verify.lower() not in ("1", "t", "true", "0", "f", "false"):
        raise ConfigError("CONSUL_HTTP_SSL_VERIFY must be true or false")
    files = tls.Client(
        tls.file(environ, "CONSUL_CACERT"),
        tls.file(environ, "CONSUL_CLIENT_CERT", "CONSUL_TLSCERT"),
        tls.file(environ, "CONSUL_CLIENT_KEY", "CONSUL_TLSKEY"),
        verify=verify.lower() in ("1", "t", "true"),
    )
    if not files.verify:
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    return files
