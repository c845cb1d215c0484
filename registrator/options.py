"""The one table of options. The command line, the environment and the help all read it.

No message shows a value, since a secret may have slipped into it.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from registrator.desired.filters import parse_filter
from registrator.desired.metadata import split_tags
from registrator.desired.untrusted import MAX_NAME, MAX_TAG, ip_address, size
from registrator.listener.addresses import read_address
from registrator.model import unprintable
from registrator.templates import Template, TemplateError

ENVIRONMENT_PREFIX = "REGISTRATOR_"

# The words that Go's strconv.ParseBool reads.
BOOLEANS = dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True) | dict.fromkeys(
    ("0", "f", "F", "FALSE", "false", "False"), False
)

# A variable whose name is this near to that of an option counts as misspelt. Names such as `PORT`,
# which Docker's links and Kubernetes set, reach two thirds at most.
NEAR = 0.8


class Option(NamedTuple):
    """An option: ``-name``, ``--name`` and ``REGISTRATOR_NAME``.

    `field` names the field of `Config` that it sets. `read` makes the value from text, or raises
    `ValueError`, which says what the text must be. An option without a `metavar` is a boolean.
    `default` is for the help only.
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
        """The environment variable that sets the option if the command line does not."""
        return ENVIRONMENT_PREFIX + self.name.upper().replace("-", "_")


def boolean(text: str) -> bool:
    """Read a boolean as Go does."""
    if text not in BOOLEANS:
        raise ValueError("must be true or false")
    return BOOLEANS[text]


def _ip(text: str) -> str:
    """Read an address, or the name of an interface. Linux's names have 15 bytes at most."""
    name = text.strip()
    if re.fullmatch(r"[^\s/.:]{1,15}", name) and not unprintable(name) and size(name) < 16:
        return name
    address = ip_address(name)
    if address is None:
        raise ValueError("must be an IP address that clients can connect to, or an interface")
    return address


def _seconds(least: float) -> Callable[[str], float]:
    """Read seconds: 0 for never, or `least` and more. With less the agent would only be busy."""

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


def word(text: str) -> str:
    """Read a text without blanks around it."""
    if not text.strip() or unprintable(text) or len(text) > MAX_NAME:
        raise ValueError(f"must be 1 to {MAX_NAME} characters, without control characters")
    return text.strip()


def _words(text: str) -> tuple[str, ...]:
    return tuple(word(part) for part in text.split(","))


def _tags(text: str) -> tuple[str, ...] | Template:
    if "{{" in text:
        return _template(text)
    tags = split_tags(text)
    if any(unprintable(tag) or len(tag) > MAX_TAG for tag in tags):
        raise ValueError(f"must be tags of up to {MAX_TAG} characters, without control characters")
    return tags


def _template(text: str) -> Template:
    try:
        return Template(text)
    except TemplateError as error:
        raise ValueError(f"is no template: {error}") from None


def _one_of(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(f"must be {', '.join(choices[:-1])} or {choices[-1]}")
        return text

    return read


OPTIONS = (
    Option("ip", "ip", "Addresses", "ADDRESS", "the host's",
           "Address registered for published ports, or the interface that has it.", _ip),
    Option("family", "family", "Addresses", "KIND", "4",
           "Prefer IPv4 (4) or IPv6 (6) for bindings, the host and containers.",
           lambda text: int(_one_of("4", "6")(text))),
    Option("internal", "internal", "Addresses", "", "false",
           "Register exposed ports with the container's own address.", boolean),
    Option("network", "network", "Addresses", "NAME", "the container's main one",
           "Network whose address -internal takes.", word),
    Option("useIpFromLabel", "use_ip_from_label", "Addresses", "LABEL", "",
           "Take the address from this container label (a /mask is cut off). It wins over all.",
           word),
    Option("explicit", "explicit", "Services", "", "false",
           "Register only services that were given a name.", boolean),
    Option("filter", "filter", "Services", "TERMS", "",
           "Register only containers for which all these terms hold, such as "
           "label=public,image!=*:debug.", parse_filter),
    Option("tags", "tags", "Services", "LIST", "",
           "Append these tags, separated by commas, to those of every service. "
           "They may be a template.", _tags),
    Option("name", "name", "Services", "TEMPLATE", "the image's",
           "Name of the services of a container that sets no SERVICE_NAME.", _template),
    Option("health", "health", "Services", "", "false",
           "Take the health checks of containers into account: Consul shows their status, and "
           "other registries have only healthy services.", boolean),
    Option("hostname", "hostname", "Services", "NAME", "the host's",
           "First part of service ids.", word),
    Option("deregister", "deregister", "Keeping in step", "POLICY", "always",
           "Remove the entries of an ended container: always, or on-success (keep them after "
           "exit code 1 to 127).", _one_of("always", "on-success")),
    Option("deregister-on-stop", "deregister_on_stop", "Keeping in step", "", "false",
           "Remove the entries of a container as soon as it is told to stop.", boolean),
    Option("deregister-on-pause", "deregister_on_pause", "Keeping in step", "", "false",
           "Remove the entries of a container while it is paused.", boolean),
    Option("cleanup", "cleanup", "Keeping in step", "", "true",
           "Remove our entries that have no service behind them.", boolean),
    Option("former-engine", "former_engine", "Keeping in step", "ID", "",
           "An id that this host's Docker engine had before. Its entries are ours too. "
           "Separate several by commas.", _words),
    Option("resync", "resync", "Keeping in step", "SECONDS", "60",
           "List Docker and the registries again, and write the differences. "
           "0: only after a reconnect.", _seconds(0.1)),
    Option("ttl", "ttl", "Keeping in step", "SECONDS", "0",
           "Lease or TTL of entries, if the registry has it. 0: none.", _seconds(1)),
    Option("ttl-refresh", "ttl_refresh", "Keeping in step", "SECONDS", "0",
           "How often to refresh them. It goes with -ttl, and is less than it.", _seconds(0.1)),
    Option("retry-attempts", "retry_attempts", "Start", "N", "-1",
           "Retries of the first attempt to reach a registry. -1: without end.", _attempts),
    Option("retry-interval", "retry_interval", "Start", "MS", "2000",
           "First wait between attempts in milliseconds. It grows, jittered, to 30 s.",
           _milliseconds),
    Option("http", "http", "Seeing", "ADDRESS", "",
           "Answer who asks for the state over HTTP at ADDRESS:PORT, :PORT or unix:///path. "
           "There is no password. Without it, no port is open.", read_address),
    Option("log-level", "log_level", "Log", "LEVEL", "info",
           "Least level to log: debug, info, warning or error.",
           _one_of("debug", "info", "warning", "error")),
    Option("log-format", "log_format", "Log", "FORMAT", "text",
           "Log lines as text for people, or as a json object each.", _one_of("text", "json")),
)  # fmt: skip


def misspelt(environ: Mapping[str, str]) -> list[str]:
    """A warning for each variable whose name is nearly that of an option.

    It is not an error, because Docker's links and Kubernetes set variables with our prefix too.
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
    """The one of `names` that is nearly this one, or an empty text."""
    # Imported late to save memory, since hardly anybody needs it.
    from difflib import get_close_matches

    return next(iter(get_close_matches(name.upper(), names, 1, NEAR)), "")
