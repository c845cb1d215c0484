"""The protocol that a backend implements, its errors, and how a URI scheme finds its backend.

A backend is our code for one kind of registry. It holds a connection and nothing else. The
reconciler knows what is desired and what is actual, and decides when to try again.
``docs/registries/your-own.md`` shows how a package of your own adds a scheme.

The errors::

    BackendError
     +-- ConfigError    the URI or the environment is wrong: the command exits with 2 at start
     +-- Unavailable    no address answered in time: the reconciler tries again later
     +-- SessionLost    entries of our lease or session may be gone: the reconciler lists again
     +-- Rejected       the registry never takes this service as it is: the others go on
"""

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Protocol

from registrator.model import Actual, Entry, Identity, Plan, Service
from registrator.uri import COMMON_OPTIONS, RegistryURI

GROUP = "registrator.backends"


class BackendError(Exception):
    """The root of what a backend may raise. Its text is fit for a log line, without secrets."""


class ConfigError(BackendError):
    """The URI or the environment is wrong. Another attempt would not help."""


class Unavailable(BackendError):
    """The registry did not answer, or not in time, at any of its addresses."""


class SessionLost(BackendError):
    """The lease or session ended. The entries that were written under it may be gone.

    With `moved`, they may be missing because another server is in use now, as the text says.
    """

    def __init__(self, text: str, *, moved: bool = False) -> None:
        super().__init__(text)
        self.moved = moved


class Rejected(BackendError):
    """This registry cannot take this service as it is."""


@dataclass(frozen=True)
class Context:
    """Everything that a backend needs at its start.

    `ttl` and `ttl_refresh` are seconds. Both are 0 if entries have no time to live. `timeout` is
    the time limit of every single call to the registry, in seconds.

    A backend may call `wake` from any thread, so that the reconciler lists and corrects the entries
    at once. If a connection ended and nothing is known to be missing, it calls `wake_soon` instead.
    The agents of many hosts lose their connections at one moment. With `wake_soon` each of them
    comes back in a moment of its own.

    A backend may call `serves` from any thread with the server that it has moved to.

    With `read_only`, a command only looks while an agent may be running. A listing then writes
    nothing, and prolongs no lease or session of others. Nobody calls `apply` or `keepalive`.
    """

    uri: RegistryURI
    identity: Identity = field(default_factory=lambda: Identity("", ""))
    ttl: float = 0
    ttl_refresh: float = 0
    timeout: float = 2.0
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    wake: Callable[[], None] = lambda: None
    wake_soon: Callable[[], None] = lambda: None
    serves: Callable[[str], None] = lambda _: None
    read_only: bool = False


class Backend(Protocol):
    """One registry. The reconciler uses it from one thread.

    If it has an attribute ``any_thread`` that is true, the thread that has news may call it: still
    one call at a time. That saves the hand-over to the reconciler's own thread.

    If it has an attribute ``per_address`` that is true, an entry belongs to the address of the URI
    that took it. ``registrator withdraw`` then looks at each address by itself.

    If it has an attribute ``shows_health`` that is true, clients see the health of each service
    there. It then gets unhealthy services too, and gives its entries a status. Other registries
    have no unhealthy service.

    The call with a `Context` makes a backend. It reads the URI, the environment and the files that
    they name, and raises `ConfigError`. It opens no connection: the command checks its options
    this way before anything runs. Every call ends within the time limit times the number of
    addresses. No call sleeps, tries an address twice or swallows an error.
    """

    def __init__(self, context: Context) -> None:
        """Raise `ConfigError` if the URI or the environment is wrong."""

    @property
    def keepalive_interval(self) -> float | None:
        """Seconds between two calls of `keepalive`, or None if nothing needs it."""

    def entry(self, service: Service) -> Entry:
        """The key and content that `service` has here, made without a request.

        A service may have no port (`require_port`). Raises `Rejected`.
        """

    def list(self, keys: Collection[str] = (), /) -> Mapping[str, Actual]:
        """Every entry of this owner, and what stands at `keys`. Raises if it is not complete.

        `keys` are the places that the reconciler wants, or wanted and does not know to be free. The
        listing holds whatever stands there, with its mark. It also holds the entries without a mark
        that gliderlabs/registrator may have written for this host. More entries do no harm: the
        reconciler leaves those of other owners alone. But a listing must cost by what belongs to
        this host, and not by what others have in the registry.

        A method without `keys` is fine, too, if it lists all entries.
        """

    def apply(self, plan: Plan) -> Mapping[str, str]:
        """Register and deregister, in as few round trips as the registry allows.

        The call is idempotent: it succeeds for entries that exist already or are gone already.
        It registers first, so that a service that moves to another key is never missing. Returns
        the keys that the registry rejected, each with the reason. Raises `Unavailable` or
        `SessionLost` if the backend does not know what was written.
        """

    def keepalive(self) -> None:
        """Keep the entries alive, with the same number of requests for any number of entries."""

    def close(self) -> None:
        """End the connection. The entries stay."""


def listing(backend: Backend, keys: Collection[str]) -> Mapping[str, Actual]:
    """Call `Backend.list` with `keys`, or without them if a backend's method takes none."""
    takes_keys = inspect.signature(backend.list).parameters
    return backend.list(keys) if takes_keys else backend.list()


def require_port(service: Service) -> None:
    """Raise `Rejected` for a service without a port, as ``SERVICE_PORTS=0`` makes it."""
    if not service.port:
        raise Rejected("it has no port (SERVICE_PORTS=0): only Consul takes such a service")


def secret(environ: Mapping[str, str], name: str) -> str:
    """The secret in the variable `name`, or in the file that ``<name>_FILE`` names.

    The secret is empty if neither is set. A file may change while the agent runs, so a backend
    asks again after the registry refused its secret. Raises `ConfigError` if both are set, and
    for a file that cannot be read or is empty.
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
        raise ConfigError(f"{name}_FILE {path} is not UTF-8 text") from None
    if not text:
        raise ConfigError(f"{name}_FILE {path} is empty")
    return text


def require_known_options(uri: RegistryURI, *known: str) -> None:
    """Raise `ConfigError` for an option of the URI that is neither `known` nor one of all URIs."""
    if unknown := uri.unknown_options(*known):
        allowed = ", ".join(sorted((*COMMON_OPTIONS, *known)))
        raise ConfigError(f"unknown option {', '.join(unknown)}; known are {allowed}")


def schemes() -> dict[str, EntryPoint]:
    """The entry points of the installed packages, by URI scheme."""
    return {point.name: point for point in entry_points(group=GROUP)}


def load(scheme: str) -> Callable[[Context], Backend]:
    """Import and return the backend for a URI scheme, and no other backend.

    Raises `ConfigError` if no package offers the scheme, or if the backend fails to import.
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
