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
from registrator.desired.services import Rules, split_tags
from registrator.desired.untrusted import MAX_NAME, MAX_TAG, ip_address, unprintable
from registrator.model import Identity
from registrator.uri import RegistryURI, parse

ENVIRONMENT_PREFIX = "REGISTRATOR_"
DEFAULT_TIMEOUT = 2.0
MAX_TIMEOUT = 300.0

# As Go's strconv.ParseBool reads them.
BOOLEANS = dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True) | dict.fromkeys(
    ("0", "f", "F", "FALSE", "false", "False"), False
)

# How near a variable's name is to an option's until it is taken for that one misspelt. `PORT`,
# `NAME` and the like, which Docker's links and Kubernetes set, are at two thirds at most.
NEAR = 0.8


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
    if text not in BOOLEANS:
        raise ValueError("must be true or false")
    return BOOLEANS[text]


def _ip(text: str) -> str:
    address = ip_address(text.strip())
    if address is None:
        raise ValueError("must be an IP address that clients can connect to")
    return address


def _seconds(least: float) -> Callable[[str], float]:
    """Reads seconds: 0 for never, or `least` and more, below which it would only be busy."""

    def read(text: str) -> float:
        number = re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text.strip(), re.ASCII)
        if not number or 0 < float(text) < least:
            raise ValueError(f"must be a number of seconds: 0, or at least {least:g}")
        return float(text)

    return read


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
           "0: only after a reconnect.", _seconds(0.1)),
    Option("ttl", "ttl", "Keeping in step", "SECONDS", "0",
           "Lease or TTL of entries, where the registry has it; 0: none.", _seconds(1)),
    Option("ttl-refresh", "ttl_refresh", "Keeping in step", "SECONDS", "0",
           "How often they are refreshed; goes with -ttl, and less than it.", _seconds(0.1)),
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
    given: Mapping[str, str | None],
    uris: Sequence[str],
    environ: Mapping[str, str],
    mistakes: Iterable[str] = (),
) -> Config:
    """The configuration that options by name, registry URIs and the environment make.

    An option wins over its variable; an empty text counts as not given, in either. Raises
    `ConfigErrors` with all mistakes, those already found (`mistakes`) first: that the options
    `given` as None cannot be read is one of these.
    """
    found = list(mistakes)
    values, unread = _values(given, environ, found)
    _contradictions(values, unread, found)
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


def misspelt(environ: Mapping[str, str]) -> list[str]:
    """A warning for each variable that is no option's, but nearly one's.

    It is no mistake: Docker's links and Kubernetes set variables with our prefix too.
    """
    options = {option.variable.removeprefix(ENVIRONMENT_PREFIX): option for option in OPTIONS}
    warnings = []
    for variable, text in sorted(environ.items()):
        match = re.fullmatch(ENVIRONMENT_PREFIX + r"([\w-]+)", variable, re.ASCII)
        if match and text and match[1] not in options and (near := _near(match[1], options)):
            meant = options[near]
            warnings.append(f"{variable} is not read; -{meant.name} is set by {meant.variable}")
    return warnings


def _near(name: str, names: Iterable[str]) -> str:
    """Which of the names is nearly this one; empty for none."""
    from difflib import get_close_matches  # Late, for the memory: hardly anybody needs it.

    return next(iter(get_close_matches(name.upper(), names, 1, NEAR)), "")


def _values(
    given: Mapping[str, str | None], environ: Mapping[str, str], mistakes: list[str]
) -> tuple[dict[str, Any], set[str]]:
    """The values by field, and the fields whose option was given but cannot be read."""
    values: dict[str, Any] = {}
    unread = set()
    for option in OPTIONS:
        shown, text = f"-{option.name}", given.get(option.name, "")
        if text == "" and (option.metavar or option.name not in given):
            shown, text = option.variable, environ.get(option.variable, "")
            if text == "":
                continue
        if text is None:
            unread.add(option.field)
            continue
        try:
            values[option.field] = option.read(text)
        except ValueError as error:
            unread.add(option.field)
            mistakes.append(f"{shown} {error}")
    return values, unread


def _contradictions(values: Mapping[str, Any], unread: set[str], mistakes: list[str]) -> None:
    """Options that do not go together; what cannot be read may well have been right."""
    ttl, refresh = values.get("ttl", 0), values.get("ttl_refresh", 0)
    if unread.isdisjoint(("ttl", "ttl_refresh")):
        if bool(ttl) != bool(refresh):
            mistakes.append("-ttl and -ttl-refresh go together: give both or neither")
        elif ttl and ttl <= refresh:
            mistakes.append("-ttl must be larger than -ttl-refresh")
    if "network" in values and not values.get("internal") and "internal" not in unread:
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
