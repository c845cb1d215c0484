"""Who we are to etcd, and whom we trust: from the URI, the environment, and files.

The variables are those of etcdctl. Files may be exchanged while the agent runs, so they are read
at every connection and login, and once at the start, to find mistakes.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path

from registrator.backend import ConfigError, Context


def credentials(context: Context) -> tuple[str, str]:
    """User and password from the URI, else from the environment as etcdctl reads it, or files."""
    user, password = context.uri.user, context.uri.password
    if not user:
        user = _setting(context.environ, "ETCDCTL_USER")
        user, _, password = user.partition(":")
    password = password or _setting(context.environ, "ETCDCTL_PASSWORD")
    if bool(user) != bool(password):
        raise ConfigError("etcd: a user and a password are needed, or neither")
    return user, password


def _setting(environ: Mapping[str, str], name: str) -> str:
    """A variable's value, or the content of the file that ``<name>_FILE`` names."""
    path = environ.get(f"{name}_FILE")
    if not path:
        return environ.get(name, "")
    if environ.get(name):
        raise ConfigError(f"etcd: both {name} and {name}_FILE are set")
    try:
        return Path(path).read_text("utf-8").strip()
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"etcd: {name}_FILE cannot be read: {error}") from None


def certificates(environ: Mapping[str, str]) -> dict[str, str]:
    """The files for TLS, as the etcd3 package takes them; readable, and each key with its own."""
    paths = ssl.get_default_verify_paths()
    files = {
        "ca_cert": environ.get("ETCDCTL_CACERT") or paths.cafile or "",
        "cert_cert": environ.get("ETCDCTL_CERT", ""),
        "cert_key": environ.get("ETCDCTL_KEY", ""),
    }
    if not files["ca_cert"]:
        raise ConfigError("etcd: this system has no root certificates; set ETCDCTL_CACERT")
    if bool(files["cert_cert"]) != bool(files["cert_key"]):
        raise ConfigError("etcd: ETCDCTL_CERT and ETCDCTL_KEY are needed, or neither")
    given = {name: path for name, path in files.items() if path}
    for path in given.values():
        try:
            Path(path).read_bytes()
        except OSError as error:
            raise ConfigError(f"etcd: a certificate or key cannot be read: {error}") from None
    return given
