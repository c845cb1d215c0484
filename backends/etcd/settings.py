"""User, password and certificates for etcd, from the URI, the environment and files.

The variables are those of etcdctl. Files may change while the agent runs. So they are read at
every connection and login, and once at the start to find mistakes.
"""

import ssl
from collections.abc import Mapping
from pathlib import Path

from registrator.backend import ConfigError, Context, secret

from ..common import tls


def credentials(context: Context) -> tuple[str, str]:
    """User and password from the URI, or from the variables of etcdctl, or from files."""
    user, password = context.uri.user, context.uri.password
    if not user:
        user, _, password = secret(context.environ, "ETCDCTL_USER").partition(":")
    password = password or secret(context.environ, "ETCDCTL_PASSWORD")
    if bool(user) != bool(password):
        raise ConfigError("etcd needs a user and a password, or neither")
    return user, password


def certificates(environ: Mapping[str, str]) -> dict[str, bytes]:
    """The contents of the files for TLS, as gRPC takes them. Raises `ConfigError` and `OSError`.

    They fit each other: gRPC aborts the process for an empty key.
    """
    authority = tls.file(environ, "ETCDCTL_CACERT")
    certificate, key = tls.file(environ, "ETCDCTL_CERT"), tls.file(environ, "ETCDCTL_KEY")
    if bool(certificate.path) != bool(key.path):
        raise ConfigError("set both ETCDCTL_CERT and ETCDCTL_KEY, or neither")
    # This says what is wrong with a file. gRPC would only fail.
    tls.client_context(authority, certificate, key)
    roots = authority.path or ssl.get_default_verify_paths().cafile
    if not roots:
        raise ConfigError("this system has no root certificates; set ETCDCTL_CACERT")
    files = {
        "root_certificates": roots,
        "certificate_chain": certificate.path,
        "private_key": key.path,
    }
    return {name: Path(path).read_bytes() for name, path in files.items() if path}
