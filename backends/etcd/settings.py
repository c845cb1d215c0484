"""Who we are to etcd, and whom we trust: from the URI, the environment, and files.

The variables are those of etcdctl. Files may be exchanged while the agent runs, so they are read
at every connection and login, and once at the start, to find mistakes.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping

from registrator.backend import ConfigError, Context, secret

from ..common import tls


def credentials(context: Context) -> tuple[str, str]:
    """User and password from the URI, else from the environment as etcdctl reads it, or files."""
    user, password = context.uri.user, context.uri.password
    if not user:
        user, _, password = secret(context.environ, "ETCDCTL_USER").partition(":")
    password = password or secret(context.environ, "ETCDCTL_PASSWORD")
    if bool(user) != bool(password):
        raise ConfigError("etcd needs a user and a password, or neither")
    return user, password


def certificates(environ: Mapping[str, str]) -> dict[str, str]:
    """The files for TLS, as the etcd3 package takes them; readable, and each key with its own."""
    authority = tls.file(environ, "ETCDCTL_CACERT")
    certificate, key = tls.file(environ, "ETCDCTL_CERT"), tls.file(environ, "ETCDCTL_KEY")
    if bool(certificate.path) != bool(key.path):
        raise ConfigError("ETCDCTL_CERT and ETCDCTL_KEY go together")
    tls.client_context(authority, certificate, key)  # tells of what gRPC only fails with
    roots = authority.path or ssl.get_default_verify_paths().cafile
    if not roots:
        raise ConfigError("this system has no root certificates; set ETCDCTL_CACERT")
    files = {"ca_cert": roots, "cert_cert": certificate.path, "cert_key": key.path}
    return {name: path for name, path in files.items() if path}
