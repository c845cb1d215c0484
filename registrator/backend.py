"""The protocol that a backend implements, its errors, and how one is found by URI scheme.

A backend is our code for one kind of registry. It holds a connection and nothing else: what is
desired, what is actual and when to try again are the reconciler's.
``docs/registries/your-own.md`` shows how a package of your own adds a scheme.

The errors::

    BackendError
     +-- ConfigError    the URI or the environment is wrong; found at start, exit 2
     +-- Unavailable    no address answered in time; try again later
     +-- SessionLost    what was written under our lease or session may be gone; list again
     +-- Rejected       this service can never be written as it is; the others go on
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Protocol

from registrator.model import Actual, Entry, Identity, Plan, Service
from registrator.uri import RegistryURI

GROUP = "registrator.backends"


class BackendError(Exception):
    """The root of what a backend may raise; its text is fit for a log line, without secrets."""


class ConfigError(BackendError):
    """The URI or the environment is wrong; trying again will not help."""


class Unavailable(BackendError):
    """The registry did not answer, or not in time, at any of its addresses."""


class SessionLost(BackendError):
    """The lease or session ended: what was written under it may be gone."""


class Rejected(BackendError):
    """This service cannot be written to this registry as it is."""


def _nobody() -> None:
    """Stands for the wake-up where nobody waits."""


@dataclass(frozen=True)
class Context:
    """All that a backend is made from.

    `ttl` and `ttl_refresh` are seconds, both 0 where entries are to live for ever. `timeout` is
    the deadline in seconds of every single call to the registry. `wake` may be called from any
    thread to have the entries listed and put right at once.
    """

    uri: RegistryURI
    identity: Identity = field(default_factory=lambda: Identity("", ""))
    ttl: float = 0
    ttl_refresh: float = 0
    timeout: float = 2.0
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    wake: Callable[[], None] = _nobody


class Backend(Protocol):
    """One registry, as the reconciler uses it, from one thread.

    A backend is made by calling it with a `Context`. That reads the URI, the environment and the
    files they name and raises `ConfigError`, but opens no connection: options are checked that
    way before anything runs. Every call ends within the deadline times the number of addresses;
    none sleeps, none retries beyond one pass over the addresses, none swallows an error.
    """

    def __init__(self, context: Context) -> None:
        """Raise `ConfigError` where the URI or the environment is wrong."""

    @property
    def keepalive_interval(self) -> float | None:
        """Seconds until `keepalive` is to be called next; None where nothing needs it."""

    def entry(self, service: Service) -> Entry:
        """The key and content that `service` has here. Pure; may raise `Rejected`."""

    def list(self) -> Mapping[str, Actual]:
        """Every entry of this owner, by key: complete, or it raises.

        Entries without an owner's mark come too, and those of others that were seen, marked as
        such: they are neither written over nor removed.
        """

    def apply(self, plan: Plan) -> Mapping[str, str]:
        """Register and deregister, in as few round trips as the registry allows.

        Idempotent: registering what stands and deregistering what is gone both succeed. Registers
        first, so that nothing that moves to another key is ever missing. Returns the keys that
        the registry rejected, each with the reason. Raises `Unavailable` or `SessionLost`
        where it is not known what was written.
        """

    def keepalive(self) -> None:
        """Keep alive what was written: O(1) requests however many entries there are."""

    def close(self) -> None:
        """Let go of the connection and leave the entries standing."""


def secret(environ: Mapping[str, str], name: str) -> str:
    """The secret in the variable `name` or in the file that ``<name>_FILE`` names; empty for none.

    Files may be exchanged while the agent runs: whoever was refused asks again. Raises
    `ConfigError` where both are set, and for a file that cannot be read or is empty.
    """
    path = environ.get(f"{name}_FILE")
    if not path:
        return environ.get(name, "")
    if environ.get(name):
        raise ConfigError(f"both {name} and {name}_FILE are set; give one of them")
    try:
        text = Path(path).read_text("utf-8").strip()
    except OSError as error:
        raise ConfigError(f"{name}_FILE {path} cannot be read: {error.strerror}") from None
    except UnicodeError:
        raise ConfigError(f"{name}_FILE {path} is no text in UTF-8") from None
    if not text:
        raise ConfigError(f"{name}_FILE {path} is empty")
    return text


def require_known_options(uri: RegistryURI, *known: str) -> None:
    """Raise `ConfigError` for an option of the URI that is neither `known` nor the core's own."""
    if unknown := uri.unknown_options(*known):
        allowed = ", ".join(sorted(("timeout", *known)))
        raise ConfigError(f"unknown option {', '.join(unknown)}; there is {allowed}")


def schemes() -> dict[str, EntryPoint]:
    """The URI schemes that installed packages offer, by name."""
    return {point.name: point for point in entry_points(group=GROUP)}


def load(scheme: str) -> Callable[[Context], Backend]:
    """The backend for a URI scheme; only its own module is imported.

    Raises `ConfigError` for a scheme that nobody offers and for a backend that fails to import.
    """
    known = schemes()
    if scheme not in known:
        raise ConfigError(
            f"unknown registry scheme {scheme!r}; known are {', '.join(sorted(known))}"
        )
    try:
        factory: Callable[[Context], Backend] = known[scheme].load()
    except Exception as error:
        raise ConfigError(f"the backend for {scheme}:// cannot be loaded: {error}") from error
    return factory
