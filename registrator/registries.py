"""Makes the backend for each registry URI, with the time limit that the URI sets."""

import re
from dataclasses import replace

from registrator.backend import Backend, ConfigError, Context, load
from registrator.uri import RegistryURI

DEFAULT_TIMEOUT, MAX_TIMEOUT = 2.0, 300.0


def make_backend(context: Context) -> Backend:
    """The backend of the context's URI, which also sets the time limit of a call.

    Opens no connection. Raises `ConfigError`, which names the URI, if it or the environment is
    wrong.
    """
    uri = context.uri
    try:
        return load(uri.scheme)(replace(context, timeout=call_timeout(uri)))
    except ConfigError as error:
        raise ConfigError(f"{uri}: {error}") from error


def call_timeout(uri: RegistryURI) -> float:
    """Seconds that one call to the registry may take: ``?timeout=2``, ``2s`` or ``500ms``."""
    text = uri.options.get("timeout", str(DEFAULT_TIMEOUT))
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|)", text)
    timeout = float(match[1]) * {"ms": 0.001, "m": 60}.get(match[2], 1) if match else 0
    if not 0 < timeout <= MAX_TIMEOUT:
        raise ConfigError(
            f"timeout must be seconds, or a duration such as 500ms, up to {MAX_TIMEOUT:g} s"
        )
    return timeout
