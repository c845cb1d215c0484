"""One frozen `Config` made of options and environment. All mistakes are reported at once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from registrator.backend import ConfigError, Context
from registrator.desired.addresses import COMPOSE_PROJECT
from registrator.desired.filters import EVERYTHING, Filter, parse_filter
from registrator.desired.rules import Rules
from registrator.desired.services import COMPOSE_SERVICE
from registrator.listener.addresses import ListenAddress
from registrator.options import OPTIONS, Option
from registrator.registries import make_backend
from registrator.templates import Template
from registrator.uri import RegistryURI, parse


class ConfigErrors(Exception):
    """All mistakes in one call, one line each, without secrets."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = tuple(mistakes)


@dataclass(frozen=True, slots=True)
class Config:
    """The operator's settings. Times are in seconds. An empty text stands for "not given".

    `ip` is an address or the name of an interface. `tags` are appended to the tags of every
    service. `name` is that of services whose containers give none. `resync` 0 means never,
    `retry_attempts` -1 means without end, `ttl` 0 means that entries live until they are removed.
    """

    uris: tuple[RegistryURI, ...]
    ip: str = ""
    family: int = 4
    internal: bool = False
    network: str = ""
    explicit: bool = False
    filter: Filter = EVERYTHING
    use_ip_from_label: str = ""
    tags: tuple[str, ...] | Template = ()
    name: Template | None = None
    hostname: str = ""
    health: bool = False
    deregister: str = "always"
    deregister_on_stop: bool = False
    deregister_on_pause: bool = False
    cleanup: bool = True
    former_engine: tuple[str, ...] = ()
    resync: float = 60
    ttl: float = 0
    ttl_refresh: float = 0
    retry_attempts: int = -1
    retry_interval: float = 2
    http: ListenAddress | None = None
    log_level: str = "info"
    log_format: str = "text"

    @property
    def registry_filters(self) -> tuple[Filter, ...]:
        """The filter of each registry, in the order of the URIs."""
        return tuple(map(_filter_of, self.uris))

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of containers that matter besides ``SERVICE_*``."""
        filters = (self.filter, *self.registry_filters)
        found = (
            self.use_ip_from_label,
            *(key for each in filters for key in each.labels),
            COMPOSE_SERVICE,
            COMPOSE_PROJECT,
        )
        return tuple(dict.fromkeys(filter(None, found)))

    @property
    def interface(self) -> str:
        """The interface that ``-ip`` names, or "" if it gives an address or is not given."""
        return "" if {".", ":"} & set(self.ip) else self.ip

    def rules(self, hostname: str, host_ip: str) -> Rules:
        """How to make services on this host. `hostname` and `host_ip` are what was found out."""
        filters = tuple(dict.fromkeys(self.registry_filters))
        return Rules(
            hostname=self.hostname or hostname,
            host_ip=host_ip,
            forced_ip=host_ip if self.interface else self.ip,
            interface=self.interface,
            family=self.family,
            internal=self.internal,
            network=self.network,
            explicit=self.explicit,
            ip_label=self.use_ip_from_label,
            tags=self.tags if isinstance(self.tags, tuple) else (),
            filter=self.filter,
            filters=filters if any(filters) else (),
            on_stop=self.deregister_on_stop,
            on_pause=self.deregister_on_pause,
            health=self.health,
        )

    @property
    def more_events(self) -> tuple[str, ...]:
        """The engine's events that only some options need."""
        stop = ("kill",) if self.deregister_on_stop else ()
        pause = ("pause", "unpause") if self.deregister_on_pause else ()
        return (*stop, *pause, "health_status") if self.health else (*stop, *pause)


def configure(
    given: Mapping[str, str | None],
    uris: Sequence[str],
    environ: Mapping[str, str],
    mistakes: Iterable[str] = (),
    *,
    needs_uri: bool = True,
) -> Config:
    """Make the configuration of options by name, registry URIs and the environment.

    An option wins over its variable. An empty text counts as not given in both. Raises
    `ConfigErrors` with all mistakes, and those that the caller found (`mistakes`) come first. An
    option `given` as None has no value, and the caller has already reported that.
    """
    found = list(mistakes)
    values, unread = _values(given, environ, found)
    _contradictions(values, unread, found)
    if needs_uri and not uris:
        found.append("a registry URI is missing, such as consul://127.0.0.1:8500")
    parsed = _uris(uris, found)
    config = Config(parsed, **values)
    for uri in parsed:
        context = Context(uri, ttl=config.ttl, ttl_refresh=config.ttl_refresh, environ=environ)
        try:
            make_backend(context).close()
        except ConfigError as error:
            found.append(str(error))
    if found:
        raise ConfigErrors(found)
    return config


def _values(
    given: Mapping[str, str | None],
    environ: Mapping[str, str],
    mistakes: list[str],
    options: Sequence[Option] = OPTIONS,
) -> tuple[dict[str, Any], set[str]]:
    """The values by field, and the fields whose option was given but has no readable value."""
    values: dict[str, Any] = {}
    unread = set()
    for option in options:
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


def own_values(
    options: Sequence[Option], given: Mapping[str, str | None], mistakes: list[str]
) -> dict[str, Any]:
    """The values of a command's own options by field. No variable sets them."""
    return _values(given, {}, mistakes, options)[0]


def _contradictions(values: Mapping[str, Any], unread: set[str], mistakes: list[str]) -> None:
    """Note options that do not go together. An unreadable value may have been meant well."""
    ttl, refresh = values.get("ttl", 0), values.get("ttl_refresh", 0)
    if unread.isdisjoint(("ttl", "ttl_refresh")):
        if bool(ttl) != bool(refresh):
            mistakes.append("-ttl and -ttl-refresh go together: give both or neither")
        elif ttl and ttl <= refresh:
            mistakes.append("-ttl must be larger than -ttl-refresh")
    if "network" in values and not values.get("internal") and "internal" not in unread:
        mistakes.append("-network needs -internal: give both, or neither")


def _filter_of(uri: RegistryURI) -> Filter:
    """The filter of a registry. Raises `ValueError` if it is wrong."""
    return parse_filter(uri.options["filter"]) if "filter" in uri.options else EVERYTHING


def _uris(texts: Sequence[str], mistakes: list[str]) -> tuple[RegistryURI, ...]:
    """The URIs that can be read. A wrong one is named by its place, as it may hold a secret."""
    found: dict[tuple[object, ...], RegistryURI] = {}
    for place, text in enumerate(texts, 1):
        try:
            uri = parse(text)
        except ValueError as error:
            mistakes.append(f"registry URI {place}: {error}")
            continue
        try:
            _filter_of(uri)
        except ValueError as error:
            mistakes.append(f"registry URI {place}: filter {error}")
            continue
        registry = (uri.scheme, frozenset(uri.addresses), uri.path.rstrip("/"))
        if registry in found:
            # With two filters, each would remove what the other one registers.
            mistakes.append(f"registry URI {place}: {uri} is given twice")
        found.setdefault(registry, uri)
    return tuple(found.values())
