"""TLS for all backends: the files that variables name, and plain words for a failed handshake."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from registrator.backend import ConfigError


class File(NamedTuple):
    """A variable and the file that it names. `path` is empty if the variable is not set."""

    variable: str
    path: str


def file(environ: Mapping[str, str], *variables: str) -> File:
    """The file that the first of these variables names. Variables that are not set are skipped."""
    found = ((name, environ[name]) for name in variables if environ.get(name))
    return File(*next(found, (variables[0], "")))


@dataclass(frozen=True)
class Client:
    """A client's files for TLS. Operators replace them, so every handshake reads them again.

    They are read once at the start, to find mistakes. Raises `ConfigError`. Without `verify`, any
    server is accepted.
    """

    authority: File
    certificate: File
    key: File
    verify: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        client_context(self.authority, self.certificate, self.key)

    def handshake(self) -> ssl.SSLContext:
        """The context for one handshake. Raises `ssl.SSLError` if the files are of no use now."""
        try:
            context = client_context(self.authority, self.certificate, self.key)
        except ConfigError as error:
            raise ssl.SSLError(ssl.SSL_ERROR_SSL, str(error)) from None
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def client_context(authority: File, certificate: File, key: File) -> ssl.SSLContext:
    """A context that verifies the server's certificate and host name. Raises `ConfigError`.

    Without an `authority`, the system's authorities count. The certificate's file may contain the
    key.
    """
    if key.path and not certificate.path:
        raise ConfigError(f"{key.variable} is set without {certificate.variable}")
    try:
        context = ssl.create_default_context(cafile=authority.path or None)
    except OSError as error:
        what = _what(error, "the file contains no certificate in PEM format")
        raise ConfigError(f"{authority.variable} {authority.path}: {what}") from None
    # Python 3.13 made its own defaults stricter than those of the registries' clients, which take
    # certificates without key identifiers, and authorities that are not self-signed.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if certificate.path:
        try:
            # Without a password here, ssl would ask for one at the terminal.
            context.load_cert_chain(certificate.path, key.path or None, password="")
        except (OSError, ValueError) as error:
            files = [f"{each.variable} {each.path}" for each in (certificate, key) if each.path]
            what = _what(error, "no certificate with its key, unencrypted and in PEM format")
            raise ConfigError(f"{', '.join(files)}: {what}") from None
    return context


def _what(error: Exception, wrong_content: str) -> str:
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
        return error.strerror or str(error)
    return wrong_content


def reason(error: ssl.SSLError | ssl.CertificateError) -> str:
    """Why a handshake failed, for the operator."""
    what = getattr(error, "reason", None) or ""
    if isinstance(error, ssl.SSLCertVerificationError):
        details = (error.verify_message or str(error)).rstrip(".")
        return f"TLS: the server's certificate is not accepted ({details})"
    if what == "WRONG_VERSION_NUMBER":
        return "TLS: the server does not speak TLS at this port"
    if "EOF" in what:
        return "TLS: the server closed the connection (does it speak TLS at this port?)"
    if "ALERT" in what:
        details = what.partition("ALERT_")[2].replace("_", " ").lower()
        return f"TLS: the server refuses our certificate, or requires one ({details})"
    return f"TLS: {what.replace('_', ' ').lower() or error.strerror or error}"
