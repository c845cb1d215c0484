"""The health checks of a service in Consul: which ones a container asks for, and all their ids.

The first check has keys such as ``SERVICE_CHECK_HTTP``, as in gliderlabs/registrator. Further ones
have a number: ``SERVICE_CHECK_2_HTTP``. These are pure functions.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from registrator.backend import Rejected
from registrator.model import METADATA_PREFIX, Service
from registrator.uri import Address

DEFAULT_INTERVAL = "10s"
"""How often a check runs without an interval of its own, as in the original."""

# A duration for Consul, in the syntax of Go's time.ParseDuration.
_DURATION = re.compile(r"[-+]?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)")

_NUMBERED = re.compile(r"check_([1-9][0-9]?)_.+", re.DOTALL)

# The parts before the service's id in the ids of our checks.
_KINDS = re.compile(r"service|registrator|registrator-health|registrator-check-[1-9][0-9]?")

# The field that says how a check works, and the type that an agent then tells of it.
_TYPES = {
    "HTTP": "http", "Args": "script", "TTL": "ttl", "TCP": "tcp", "GRPC": "grpc",
    "AliasService": "alias",
}  # fmt: skip


def check_id(service_id: str) -> str:
    """The id of a service's first check, which is the one that Consul itself would choose."""
    return f"service:{service_id}"


def alias_id(service_id: str) -> str:
    """The id of the check that follows the owner's TTL check."""
    return f"registrator:{service_id}"


def service_of(check_id: str) -> str | None:
    """The service whose check would get this id from us, or None if no check would."""
    kind, colon, service_id = check_id.partition(":")
    return service_id if colon and _KINDS.fullmatch(kind) else None


def foreign(checks: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The checks whose ids one of ours could equal by accident or intent, with their service's id.

    If a service `db` has several checks, Consul names them `service:db:1` and `service:db:2`. A
    service `db:1` of ours must not replace the first.
    """
    services = {key: check.get("ServiceID") or "" for key, check in checks.items()}
    return {key: owner for key, owner in services.items() if service_of(key) not in (None, owner)}


def types(body: Mapping[str, Any]) -> dict[str, str]:
    """The checks that are registered with a service: their types by id."""
    return {
        check["CheckID"]: next(kind for key, kind in _TYPES.items() if key in check)
        for check in body["Checks"]
    }


def wanted(service: Service) -> Sequence[dict[str, Any]]:
    """Every check that a service has by its own wish, as Consul takes it. Raises `Rejected`."""
    made = (check.definition() for check in _asked(service))
    return [definition for definition in made if definition]


def runs_command(service: Service) -> bool:
    """Whether a check gets the container's id. The attributes do not contain that id."""
    return any(check.get("cmd") for check in _asked(service))


def _asked(service: Service) -> Sequence["_Check"]:
    """The first check, and then those with a number."""
    numbers = {int(found[1]) for found in map(_NUMBERED.fullmatch, service.attrs) if found}
    return [_Check(service), *(_Check(service, f"{number}_") for number in sorted(numbers))]


@dataclass(frozen=True, slots=True)
class _Check:
    """A check that a container may ask for. `number` is such as ``2_``, and empty for the first."""

    service: Service
    number: str = ""

    def get(self, name: str) -> str:
        """The value of one of its keys, or an empty text if it is not set."""
        return self.service.attrs.get(f"check_{self.number}{name}", "")

    def key(self, name: str) -> str:
        """One of its keys, for the operator."""
        return f"{METADATA_PREFIX}CHECK_{self.number}{name.upper()}"

    @property
    def id(self) -> str:
        """Its id in Consul."""
        if not self.number:
            return check_id(self.service.id)
        return f"registrator-check-{self.number[:-1]}:{self.service.id}"

    def definition(self) -> dict[str, Any] | None:
        """The check as gliderlabs/registrator builds it, or None if it does nothing.

        Raises `Rejected` if a shell could not split a command, and for a wrong duration. Consul's
        own answer to a wrong duration does not name the key.
        """
        made = self._probe()
        if made is None:
            return None
        if not self.service.port and made.keys() & {"HTTP", "TCP", "GRPC"}:
            raise Rejected("it has no port (SERVICE_PORTS=0), and its check needs one")
        if "TTL" in made:
            made["TTL"] = self._duration("ttl")
        else:
            made["Interval"] = self._duration("interval") or DEFAULT_INTERVAL
            if timeout := self._duration("timeout"):
                made["Timeout"] = timeout
        if status := self.get("initial_status"):
            made["Status"] = status
        if after := self._duration("deregister_after"):
            made["DeregisterCriticalServiceAfter"] = after
        if self.number:
            made["Name"] = f"Service '{self.service.name}' check {self.number[:-1]}"
        return made | {"CheckID": self.id}

    def _probe(self) -> dict[str, Any] | None:
        """The part that says what the check does. The first key that is set decides."""
        service = self.service
        target = str(Address(service.address, service.port))
        for scheme in ("http", "https"):
            if path := self.get(scheme):
                made: dict[str, Any] = {"HTTP": f"{scheme}://{target}{path}"}
                if method := self.get(f"{scheme}_method"):
                    made["Method"] = method
                return made | self._flag("TLSSkipVerify", "tls_skip_verify")
        if command := self.get("cmd"):
            where = service.container_id[:12], str(service.private_port)
            return {"Args": ["check-cmd", *where, *self._split("cmd", command)]}
        if script := self.get("script"):
            script = script.replace("$SERVICE_IP", service.address)
            script = script.replace("$SERVICE_PORT", str(service.port))
            return {"Args": self._split("script", script)}
        if ttl := self.get("ttl"):
            return {"TTL": ttl}
        if self.get("tcp"):
            return {"TCP": target}
        if self.get("grpc"):
            flags = self._flag("TLSSkipVerify", "tls_skip_verify")
            return {"GRPC": target} | self._flag("GRPCUseTLS", "grpc_use_tls") | flags
        return None

    def _flag(self, field: str, name: str) -> dict[str, bool]:
        return {field: True} if self.get(name).lower() not in ("", "0", "f", "false") else {}

    def _duration(self, name: str) -> str:
        value = self.get(name)
        if value and not _DURATION.fullmatch(value):
            raise Rejected(f"{self.key(name)}: {value[:80]!r} is not a duration such as 15s")
        return value

    def _split(self, name: str, command: str) -> list[str]:
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise Rejected(f"{self.key(name)}: {str(error).lower()}") from error
        if not words:
            raise Rejected(f"{self.key(name)} names no command")
        return words
