"""The places of keys in Consul's store: which keys are legal, and which begin as this host's."""

from registrator.backend import ConfigError, Rejected
from registrator.uri import RegistryURI

from .transport import printable

MAX_KEY = 4096


def place(uri: RegistryURI) -> tuple[str, str]:
    """The socket's path, for ``consulkv-unix``, and the prefix of all keys."""
    socket_path, path = "", uri.path
    if uri.scheme.endswith("-unix"):
        socket_path, _, path = uri.path.partition(":/")
    prefix = path.strip("/")
    if not prefix:
        return socket_path, ""
    try:
        require_legal(prefix)
    except Rejected as error:
        raise ConfigError(str(error)) from None
    return socket_path, f"{prefix}/"


def require_legal(path: str) -> None:
    """Raise `Rejected` if this is not a key, or if a URL cannot ask Consul for it."""
    if {"", ".", ".."} & set(path.split("/")) or not printable(path):
        raise Rejected(
            f"{path[:80]!r} is not a legal key: a part is empty or dots, or it is not printable"
        )
    if len(path.encode()) > MAX_KEY:
        raise Rejected(f"{path[:80]!r}… has more than {MAX_KEY} bytes")


def host_tree(key: str, hostname: str) -> str:
    """The beginning that a key shares with all of this host's ids under the same name.

    Empty for an id that does not name this host. The form is ``<prefix>/<name>/<hostname>:``.
    """
    folder, slash, service_id = key.rpartition("/")
    start = f"{hostname}:"
    return f"{folder}{slash}{start}" if hostname and service_id.startswith(start) else ""
