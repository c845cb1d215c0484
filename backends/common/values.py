"""Values of entries: how to write them (``?value=json``), and how to read what is stored.

Anybody may have stored a value, so it may contain anything.
"""

import json
import re
from typing import Any

from registrator.backend import ConfigError, Rejected
from registrator.model import Identity
from registrator.uri import RegistryURI

# The fields of a JSON value that tell whose it is. ``host`` is SkyDNS's word for the address.
OWNER, HOST = "owner", "host_name"


def encode(text: str) -> bytes:
    """The text in UTF-8. Raises `Rejected` for half of a surrogate pair, which UTF-8 lacks."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise Rejected("its metadata is not valid Unicode") from error


def wants_json(uri: RegistryURI) -> bool:
    """Whether the URI asks for ``value=json`` instead of a plain ``ip:port``."""
    choice = uri.options.get("value", "plain")
    if choice not in ("plain", "json"):
        raise ConfigError(f"the option value must be plain or json, not {choice!r}")
    return choice == "json"


def marks(identity: Identity) -> dict[str, str]:
    """The fields of a JSON value that tell whose it is."""
    return {OWNER: identity.owner, HOST: identity.hostname}


def json_in(value: str) -> dict[str, Any]:
    """The JSON object in a value. Empty if the value is not an object."""
    if not value.lstrip().startswith("{"):
        return {}
    try:
        document: dict[str, Any] = json.loads(value)
    except (ValueError, RecursionError):
        return {}
    return document


def address_in(value: str) -> str:
    """The address in a value, from JSON or ``ip:port``. Empty if the value has none."""
    if value.startswith("{"):
        document = json_in(value)
        return str(document.get("address") or document.get("host") or "")
    return value.rpartition(":")[0].strip("[]")


def host_in(value: str) -> str:
    """The name of the host that wrote a JSON value. Empty if it tells none."""
    host = json_in(value).get(HOST)
    return host if isinstance(host, str) else ""


def host_in_id(service_id: str) -> str:
    """The host in an id that the agent or gliderlabs/registrator made. Empty for other ids.

    The form is ``host:container:port``, with ``:udp`` for UDP.
    """
    found = re.fullmatch(r"([^:]+):[a-zA-Z0-9][a-zA-Z0-9_.-]*:\d+(:udp)?", service_id)
    return found[1] if found else ""
