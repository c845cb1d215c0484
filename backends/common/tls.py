"""TLS as all backends have it: files that variables name, and what to tell of a failure."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import NamedTuple

from registrator.backend import ConfigError


class File(NamedTuple):
    """A file, and the variable that names it; `path` is empty where none is named."""

    variable: str
    path: str


def file(environ: Mapping[str, str], *variables: str) -> File:
    """The file that the first of the variables names that is set."""
    found = ((name, environ[name]) for name in variables if environ.get(name))
    return File(*next(found, (variables[0], "")))


def client_context(authority: File, certificate: File, key: File) -> ssl.SSLContext:
    """Certificates and host names are verified, by the system's authorities if none is named.

    The key may stand in the certificate's file. Raises `ConfigError`.
    """
    if key.path and not certificate.path:
        raise ConfigError(f"{key.variable} is set without {certificate.variable}")
    try:
        context = ssl.create_default_context(cafile=authority.path or None)
    except OSError as error:
        message = f"{authority.variable} {authority.path}: {_why(error, 'no certificate in PEM')}"
        raise ConfigError(message) from None
    if certificate.path:
        try:
            # Without a password of its own, ssl would ask for one at the terminal.
            context.load_cert_chain(certificate.path, key.path or None, password="")
        except (OSError, ValueError) as error:
            files = [f"{each.variable} {each.path}" for each in (certificate, key) if each.path]
            why = _why(error, "no certificate with its key, unencrypted and in PEM")
            raise ConfigError(f"{', '.join(files)}: {why}") from None
    return context


def _why(error: Exception, wrong: str) -> str:
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
        return error.strerror or str(error)
    return wrong


def reason(error: ssl.SSLError | ssl.CertificateError) -> str:
    """What the operator reads of a failed handshake."""
    what = getattr(error, "reason", None) or ""
    if isinstance(error, ssl.SSLCertVerificationError):
        said = (error.verify_message or str(error)).rstrip(".")
        return f"TLS: its certificate is not accepted ({said})"
    if what == "WRONG_VERSION_NUMBER":
        return "TLS: the server does not speak it at this port"
    if "EOF" in what:
        return "TLS: the server closed the connection (does it speak TLS at this port?)"
    if "ALERT" in what:
        said = what.partition("ALERT_")[2].replace("_", " ").lower()
        return f"TLS: the server refuses our certificate, or wants one ({said})"
    return f"TLS: {what.replace('_', ' ').lower() or error}"
