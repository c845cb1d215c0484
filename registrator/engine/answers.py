"""Turns an inspection's answer into a container, and a listing into its rows.

Engines from 20.10 to 29 and Podman's API leave out different parts of an answer, or set them to
null, or name them otherwise. Images and labels put texts into it that no engine checks.
"""

import json
import logging
import re
import signal
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from sys import intern
from types import MappingProxyType
from typing import Any

from registrator.derived import NOTHING_DERIVED, Derived
from registrator.model import (
    METADATA_PREFIX,
    Container,
    ContainerHealth,
    EngineUnavailable,
    Port,
    Unreadable,
)

log = logging.getLogger("registrator.engine")

# The ids and names of containers. They become parts of paths.
CONTAINER_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")

# The words of engines for the health of a container.
HEALTH = {health.value: health for health in ContainerHealth}

# How a listing's text ends, such as "Up 3 minutes (healthy)". Podman lacks the word "health".
_LISTED_HEALTH = re.compile(r"\((healthy|unhealthy|(?:health: )?starting)\)")

# Python's digits include those of all alphabets.
_PORT = re.compile(r"([0-9]{1,5})(?:/(tcp|udp|sctp))?")
_HOST_PORT = re.compile(r"[0-9]{1,5}")

# As Docker reads the text of a signal. Its real-time signals are 34 to 64 on every machine.
_SIGNAL_NUMBER = re.compile(r"[0-9]{1,3}")
_REAL_TIME = re.compile(r"RT(MIN|MAX)([+-][0-9]{1,2})?")
_LAST_SIGNAL = 64

# Seconds from a stop signal to SIGKILL, unless the container sets another time.
_STOP_TIMEOUT = 10

# One empty mapping for all containers without a second address: thousands take memory.
NO_ADDRESSES: Mapping[str, str] = MappingProxyType({})

# With this key a container without ports may have a service.
_PORTS_KEY = f"{METADATA_PREFIX}PORTS"

# Matches what separates the items of a JSON array, and its ends.
_BETWEEN = re.compile(r"\s*(\[\s*\]|[\[,\]])\s*")


# Makes of a whole answer what the operator's templates say. It raises nothing.
Derive = Callable[[Mapping[str, Any]], Derived]


def container_of(
    answer: Any, labels: tuple[str, ...] = (), derive: Derive | None = None
) -> Container:
    """The container in an inspection's answer. Texts that many containers share exist once.

    `derive` is asked for each container that runs, and has ports or lists some. Raises `Unreadable`
    if the answer has another form than an engine's.
    """
    try:
        return _container(answer, labels, derive)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise Unreadable("its inspection has a form that is not known") from error


def _container(
    answer: Mapping[str, Any], labels: tuple[str, ...], derive: Derive | None
) -> Container:
    config = answer.get("Config") or {}
    host = answer.get("HostConfig") or {}
    state = answer.get("State") or {}
    runs = bool(state.get("Running")) and not state.get("Restarting")
    mode = host.get("NetworkMode") or ""
    pairs = (text.partition("=") for text in config.get("Env") or ())
    env = {intern(key): intern(value) for key, _, value in pairs if key.startswith(METADATA_PREFIX)}
    ports, unreadable = _ports(answer)
    kept = {
        intern(key): intern(value)
        for key, value in (config.get("Labels") or {}).items()
        if key.startswith(METADATA_PREFIX) or key in labels
    }
    lists_ports = any(key.upper() == _PORTS_KEY for key in (*env, *kept))
    networks, networks_6 = _networks(answer.get("NetworkSettings") or {}, mode)
    health = state.get("Health") or {}
    return Container(
        id=_id(answer["Id"]),
        name=(answer.get("Name") or "").removeprefix("/"),
        image=intern(config.get("Image") or ""),
        hostname=_text(config.get("Hostname")),
        env=env,
        labels=kept,
        network_mode=intern(mode),
        networks=networks,
        networks_6=networks_6,
        ports=ports,
        started_at=_nanoseconds(state.get("StartedAt") or ""),
        exit_code=None if runs else int(state.get("ExitCode") or 0),
        unreadable=unreadable,
        stop_signal=_stop_signal(config),
        stop_timeout=_stop_timeout(config.get("StopTimeout")),
        paused=bool(state.get("Paused")),
        derived=(
            derive(answer)
            if derive is not None and runs and (ports or lists_ports)
            else NOTHING_DERIVED
        ),
        health=HEALTH.get(_text(health.get("Status")), ContainerHealth.NONE),
        probed_at=max(
            (_nanoseconds(str(p.get("End"))) for p in health.get("Log") or ()), default=0
        ),
    )


def _id(value: Any) -> str:
    """A text. Raises `TypeError` for anything else, also for null."""
    if not isinstance(value, str):
        raise TypeError(f"not a text: {type(value)}")
    return value


def _text(value: Any) -> str:
    """A text, or an empty one for null. Raises `TypeError` for anything else."""
    if not isinstance(value or "", str):
        raise TypeError(f"not a text: {type(value)}")
    return value or ""


def _stop_signal(config: Mapping[str, Any]) -> int:
    """The signal that asks the container to end, or 0 if events cannot tell which one was sent.

    A label `signal` overwrites what the event tells. SIGTERM counts if the setting is none.
    """
    if "signal" in (config.get("Labels") or {}):
        return 0
    return signal_number(str(config.get("StopSignal") or "")) or signal.SIGTERM.value


def signal_number(text: str) -> int:
    """The number of a signal such as ``SIGQUIT``, ``quit``, ``3`` or ``RTMIN+3``, or else 0."""
    name = text.upper().removeprefix("SIG")
    if _SIGNAL_NUMBER.fullmatch(name):
        number = int(name)
    elif real_time := _REAL_TIME.fullmatch(name):
        number = (34 if real_time[1] == "MIN" else _LAST_SIGNAL) + int(real_time[2] or 0)
        number = number if number >= 34 else 0
    else:
        found = signal.Signals.__members__.get(f"SIG{name}")
        number = found.value if found else 0
    return number if number <= _LAST_SIGNAL else 0


def _stop_timeout(told: Any) -> int:
    return told if type(told) is int else _STOP_TIMEOUT


def _nanoseconds(timestamp: str) -> int:
    """RFC 3339 as ns since the epoch, exact to the microsecond. 0 if it was never started."""
    try:
        return int(datetime.fromisoformat(timestamp).timestamp() * 10**6) * 1000
    except (ValueError, OverflowError):
        return 0


def _networks(
    settings: Mapping[str, Any], mode: str
) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """The container's address in each network. The network that it was started with comes first.

    The second value has the IPv6 address in each network in which it also has an IPv4 address.
    """
    found: Mapping[str, Any] = settings.get("Networks") or {}
    main = _main_network(found, "bridge" if mode in ("", "default") else mode)
    names = sorted(found, key=lambda name: (name != main, name))
    both = {
        name: [_text((found[name] or {}).get(key)) for key in ("IPAddress", "GlobalIPv6Address")]
        for name in names
    }
    if not found and settings.get("IPAddress"):
        both = {main: [_text(settings["IPAddress"]), ""]}
    addresses = {intern(name): four or six for name, (four, six) in both.items() if four or six}
    second = {intern(name): six for name, (four, six) in both.items() if four and six}
    return addresses, second or NO_ADDRESSES


def _main_network(found: Mapping[str, Any], mode: str) -> str:
    """The name of the network that a mode means: by its name, or by its id or the id's beginning.

    Engines up to 28 keep the mode as it was given to ``docker run --network``.
    """
    if mode in found:
        return mode
    if mode == "bridge" and found:
        # Podman uses this mode in every network. Its default network is called podman.
        return "podman"
    ids = {name: _text((found[name] or {}).get("NetworkID")) for name in found}
    return next((name for name in sorted(ids) if ids[name].startswith(mode)), mode)


def _ports(answer: Mapping[str, Any]) -> tuple[tuple[Port, ...], str]:
    """Every port: one for each binding, or one without a host port if there is no binding.

    The second value says which ports cannot be read. It is empty if all can.
    """
    bound = (answer.get("NetworkSettings") or {}).get("Ports") or {}
    exposed = (answer.get("Config") or {}).get("ExposedPorts") or {}
    found: dict[tuple[int, str], list[Port]] = {}
    strange = []
    for spec in {*bound, *exposed}:
        read = _PORT.fullmatch(spec)
        if read is None:
            strange.append(spec)
            continue
        number, protocol = int(read[1]), intern(read[2] or "tcp")
        told = [
            (intern(row.get("HostIp") or ""), str(row.get("HostPort") or ""))
            for row in bound.get(spec) or ()
        ]
        found.setdefault((number, protocol), []).extend(
            Port(number, protocol, address, int(port))
            for address, port in told
            if _HOST_PORT.fullmatch(port)
        )
    ports = (found[key] or [Port(*key)] for key in sorted(found))
    more = f" and {len(strange) - 1} more of its ports" if len(strange) > 1 else ""
    unreadable = f"its port {min(strange)[:40]!a}{more} cannot be read" if strange else ""
    return tuple(port for each in ports for port in each), unreadable


def rows(text: str, health: bool = False) -> Iterator[tuple[str, int]]:
    """The id of each container of a listing, with its `fingerprint`.

    A row without a readable id is left out, with a warning: inspections say what is gone. Raises
    `EngineUnavailable` if the text is not a JSON array.
    """
    strange = 0
    try:
        for row in items(text):
            found = row.get("Id") if isinstance(row, Mapping) else None
            if isinstance(found, str) and CONTAINER_ID.fullmatch(found):
                yield found, fingerprint(row, health)
            else:
                strange += 1
    except (ValueError, RecursionError) as error:
        raise EngineUnavailable(
            "the listing of containers is not JSON (is this a Docker engine?)"
        ) from error
    if strange:
        log.warning("the listing of containers has %d rows that cannot be read: left out", strange)


def items(text: str) -> Iterator[Any]:
    """The items of a JSON array, one after the other. Raises `ValueError` if it is not an array.

    With thousands of containers all rows at once would take more memory than everything else.
    """
    decode = json.JSONDecoder().raw_decode
    between = _BETWEEN.match(text)
    while between is not None and between[1][-1] != "]":
        item, end = decode(text, between.end())
        yield item
        between = _BETWEEN.match(text, end)
    if between is None:
        raise ValueError("not a JSON array")


def fingerprint(row: Mapping[str, Any], health: bool = False) -> int:
    """A digest of what a listing says of a container, without its age and the order of ports.

    With `health` the digest also changes with the container's health, if the listing tells it. An
    engine writes the keys of each object in the same order every time.
    """
    ports = row.get("Ports")
    if isinstance(ports, list):
        ports = sorted(map(json.dumps, ports))
    rest = [row.get(key) for key in ("Names", "State", "Labels", "NetworkSettings")]
    told = _LISTED_HEALTH.search(str(row.get("Status"))) if health else None
    return hash(json.dumps([ports or [], rest, told and told[1]]))
