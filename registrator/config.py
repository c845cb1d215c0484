"""One frozen `Config` from options and environment, with every mistake reported at once.

`OPTIONS` is the one table of options: the command line, the environment, the help and the
defaults are all read from it. No message shows a value, since a secret may have slipped into it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from registrator.backend import Backend, ConfigError, Context, load
from registrator.model import Identity
from registrator.services import Rules, split_tags
from registrator.untrusted import MAX_NAME, MAX_TAG, ip_address, unprintable
from registrator.uri import RegistryURI, parse

ENVIRONMENT_PREFIX = "REGISTRATOR_"
DEFAULT_TIMEOUT = 2.0
MAX_TIMEOUT = 300.0


class ConfigErrors(Exception):
    """All that is wrong with one call, a line each; none of it is secret."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = tuple(mistakes)


@dataclass(frozen=True, slots=True)
class Config:
    """What the operator said. Times are in seconds; an empty text stands for "not given".

    `tags` are appended to those of every service; `resync` 0 is never, `retry_attempts` -1 without
    end, `ttl` 0 for entries that live until they are removed.
    """

    uris: tuple[RegistryURI, ...]
    ip: str = ""
    internal: bool = False
    network: str = ""
    explicit: bool = False
    use_ip_from_label: str = ""
    tags: tuple[str, ...] = ()
    hostname: str = ""
    deregister: str = "always"
    cleanup: bool = True
    resync: float = 60
    ttl: float = 0
    ttl_refresh: float = 0
    retry_attempts: int = -1
    retry_interval: float = 2
    log_level: str = "info"
    log_format: str = "text"

    def rules(self, hostname: str, host_ip: str) -> Rules:
        """How services are made on this host, whose own name and address were found out."""
        return Rules(
            hostname=self.hostname or hostname,
            host_ip=host_ip,
            forced_ip=self.ip,
            internal=self.internal,
            network=self.network,
            explicit=self.explicit,
            ip_label=self.use_ip_from_label,
            tags=self.tags,
        )

    def context(
        self,
        uri: RegistryURI,
        identity: Identity,
        wake: Callable[[], None],
        environ: Mapping[str, str],
    ) -> Context:
        """All that the backend of one of the `uris` is made from."""
        return Context(
            uri=uri,
            identity=identity,
            ttl=self.ttl,
            ttl_refresh=self.ttl_refresh,
            timeout=_timeout(uri),
            environ=environ,
            wake=wake,
        )

    def backend(
        self,
        uri: RegistryURI,
        identity: Identity,
        wake: Callable[[], None],
        environ: Mapping[str, str],
    ) -> Backend:
        """The backend of one of the `uris`; raises `ConfigError` where something is wrong."""
        try:
            return load(uri.scheme)(self.context(uri, identity, wake, environ))
        except ConfigError as error:
            raise ConfigError(f"{uri}: {error}") from error


class Option(NamedTuple):
    """An option: ``-name``, ``--name`` and ``REGISTRATOR_NAME``.

    `field` is the one of `Config`, `read` makes its value from text or raises `ValueError` saying
    what the text should be. Without a `metavar` it is a boolean. `default` is for the help only.
    """

    name: str
    field: str
    group: str
    metavar: str
    default: str
    help: str
    read: Callable[[str], Any]

    @property
    def variable(self) -> str:
        """The environment variable that sets it where the command line doesn't."""
        return ENVIRONMENT_PREFIX + self.name.upper().replace("-", "_")


def _boolean(text: str) -> bool:
    """As Go's strconv.ParseBool reads it."""
    if text in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    if text in ("0", "f", "F", "FALSE", "false", "False"):
        return False
    raise ValueError("must be true or false")


def _ip(text: str) -> str:
    address = ip_address(text.strip())
    if address is None:
        raise ValueError("must be an IP address that clients can connect to")
    return address


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text.strip(), re.ASCII):
        raise ValueError("must be a number of seconds, 0 or more")
    return float(text)


def _milliseconds(text: str) -> float:
    if not re.fullmatch(r"0*[1-9][0-9]{0,8}", text.strip()):
        raise ValueError("must be a whole number of milliseconds, 1 or more")
    return int(text) / 1000


def _attempts(text: str) -> int:
    if not re.fullmatch(r"-1|[0-9]{1,9}", text.strip()):
        raise ValueError("must be a whole number, or -1 for attempts without end")
    return int(text)


def _word(text: str) -> str:
    if not text.strip() or unprintable(text) or len(text) > MAX_NAME:
        raise ValueError(f"must be 1 to {MAX_NAME} characters, without control characters")
    return text.strip()


def _tags(text: str) -> tuple[str, ...]:
    tags = split_tags(text)
    if any(unprintable(tag) or len(tag) > MAX_TAG for tag in tags):
        raise ValueError(f"must be tags of up to {MAX_TAG} characters, without control characters")
    return tags


def _one_of(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(f"must be {', '.join(choices[:-1])} or {choices[-1]}")
        return text

    return read


OPTIONS = (
    Option("ip", "ip", "Addresses", "ADDRESS", "found out",
           "Address registered for published ports.", _ip),
    Option("internal", "internal", "Addresses", "", "false",
           "Register exposed ports with the container's own address.", _boolean),
    Option("network", "network", "Addresses", "NAME", "the container's main one",
           "Network whose address -internal takes.", _word),
    Option("useIpFromLabel", "use_ip_from_label", "Addresses", "LABEL", "",
           "Take the address from this container label (a /mask is cut off); wins over all.",
           _word),
    Option("explicit", "explicit", "Services", "", "false",
           "Register only services that were given a name.", _boolean),
    Option("tags", "tags", "Services", "LIST", "",
           "Append these tags, separated by commas, to those of every service.", _tags),
    Option("hostname", "hostname", "Services", "NAME", "the host's",
           "First part of service ids.", _word),
    Option("deregister", "deregister", "Keeping in step", "POLICY", "always",
           "When a container ends, deregister always, or on-success: only after exit 0, a signal, "
           "or when the container is gone already.", _one_of("always", "on-success")),
    Option("cleanup", "cleanup", "Keeping in step", "", "true",
           "Remove our entries that have no service behind them.", _boolean),
    Option("resync", "resync", "Keeping in step", "SECONDS", "60",
           "List Docker and the registries again, and write the differences; "
           "0: only after a reconnect.", _seconds),
    Option("ttl", "ttl", "Keeping in step", "SECONDS", "0",
           "Lease or TTL of entries, where the registry has it; 0: none.", _seconds),
    Option("ttl-refresh", "ttl_refresh", "Keeping in step", "SECONDS", "0",
           "How often they are refreshed; goes with -ttl, and less than it.", _seconds),
    Option("retry-attempts", "retry_attempts", "Start", "N", "-1",
           "Attempts to reach a registry at start; -1: without end.", _attempts),
    Option("retry-interval", "retry_interval", "Start", "MS", "2000",
           "First wait between attempts in milliseconds; it grows, jittered, to 30 s.",
           _milliseconds),
    Option("log-level", "log_level", "Log", "LEVEL", "info",
           "Least level to log: debug, info, warning or error.",
           _one_of("debug", "info", "warning", "error")),
    Option("log-format", "log_format", "Log", "FORMAT", "text",
           "Log lines as text for people, or as a json object each.", _one_of("text", "json")),
)  # fmt: skip


def configure(
    given: Mapping[str, str],
    uris: Sequence[str],
    environ: Mapping[str, str],
    mistakes: Iterable[str] = (),
) -> Config:
    """The configuration that options by name, registry URIs and the environment make.

    An option wins over its variable; a variable that is empty counts as not set. Raises
    `ConfigErrors` with all mistakes, those already found (`mistakes`) first.
    """
    found = list(mistakes)
    values = _values(given, environ, found)
    _contradictions(values, found)
    parsed = _uris(uris, found)
    config = Config(parsed, **values)
    for uri in parsed:
        try:
            config.backend(uri, Identity("", ""), lambda: None, environ).close()
        except ConfigError as error:
            found.append(str(error))
    if found:
        raise ConfigErrors(found)
    return config


def _values(
    given: Mapping[str, str], environ: Mapping[str, str], mistakes: list[str]
) -> dict[str, Any]:
    values = {}
    for option in OPTIONS:
        text, shown = given.get(option.name), f"-{option.name}"
        if text is None:
            text, shown = environ.get(option.variable) or None, option.variable
        if text is not None:
            try:
                values[option.field] = option.read(text)
            except ValueError as error:
                mistakes.append(f"{shown} {error}")
    return values


def _contradictions(values: Mapping[str, Any], mistakes: list[str]) -> None:
    ttl, refresh = values.get("ttl", 0), values.get("ttl_refresh", 0)
    if bool(ttl) != bool(refresh):
        mistakes.append("-ttl and -ttl-refresh go together: give both or neither")
    elif ttl and ttl <= refresh:
        mistakes.append("-ttl must be larger than -ttl-refresh")
    if "network" in values and not values.get("internal"):
        mistakes.append("-network is of use with -internal only")


def _uris(texts: Sequence[str], mistakes: list[str]) -> tuple[RegistryURI, ...]:
    """The URIs that can be read; a wrong one is named by its place, since it may hold a secret."""
    if not texts:
        mistakes.append("a registry URI is missing, such as consul://127.0.0.1:8500")
    found: dict[tuple[object, ...], RegistryURI] = {}
    for place, text in enumerate(texts, 1):
        try:
            uri = parse(text)
        except ValueError as error:
            mistakes.append(f"registry URI {place}: {error}")
            continue
        registry = (uri.scheme, frozenset(uri.addresses), uri.path.rstrip("/"))
        if registry in found:
            mistakes.append(f"registry URI {place}: {uri} is given twice")
        found.setdefault(registry, uri)
    return tuple(found.values())


def _timeout(uri: RegistryURI) -> float:
    """The deadline of a call in seconds: ``?timeout=2``, ``2s`` or ``500ms``."""
    text = uri.options.get("timeout", str(DEFAULT_TIMEOUT))
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|)", text)
    seconds = float(match[1]) * {"ms": 0.001, "m": 60}.get(match[2], 1) if match else 0
    if not 0 < seconds <= MAX_TIMEOUT:
        raise ConfigError(
            f"timeout must be seconds, or a duration such as 500ms, up to {MAX_TIMEOUT:g} s"
        )
    return seconds
