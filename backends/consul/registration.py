"""A service as Consul's agent holds it: its registration, what is read back, its health check.

These are pure functions. Entries are compared by exactly what the agent gives back: name,
address, port, tags, Meta, and which of our checks exist. The agent does not give back the
definition of a check. But the definition follows from the address and the attributes, and Meta
contains the attributes. If Consul's limits keep an attribute out, Meta contains a digest of all.
"""

import hashlib
import json
import re
import shlex
from collections.abc import Collection, Mapping
from sys import intern
from typing import Any

from registrator.backend import Rejected
from registrator.model import NO_FACTS, Actual, Identity, Mark, Service
from registrator.uri import Address

from ..common.values import encode
from .transport import printable

OWNER = "registrator-owner"
"""The Meta key that marks a service as ours. Its value is the owner's name."""

HOST = "registrator-host"
"""The Meta key with our hostname. It tells apart two hosts whose engines have one id."""

TOKEN = "registrator-token"
"""The Meta key with a hash of the ACL token's accessor id. Absent without a token.

A registration depends on its token: after a revocation Consul no longer syncs it."""

DIGEST = "registrator-digest"
"""The Meta key with a hash of the check's inputs, if Meta does not contain all of them. Meta can
lack an attribute that Consul cannot hold, or the container id that a command gets."""

DEFAULT_INTERVAL = "10s"
"""How often a check runs without ``check_interval``, as in the original."""

# A duration for Consul, in the syntax of Go's time.ParseDuration.
_DURATION = re.compile(r"[-+]?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)")

# Consul's own limits (structs.ValidateMetadata), values in bytes. One bad pair rejects the whole
# registration, and `consul-` is reserved.
_MAX_META_PAIRS = 64
_OWN_META_PAIRS = 4
_META_KEY = re.compile(r"(?!consul-|registrator-)[A-Za-z0-9_-]{1,128}")
_MAX_META_VALUE = 512


def marks(identity: Identity, token: str | None = None) -> dict[str, str]:
    """The Meta that says whose a registration is, and on which token it depends."""
    told = {OWNER: identity.owner, HOST: identity.hostname, TOKEN: token}
    return {key: value for key, value in told.items() if value}


def mark(service: Mapping[str, Any], identity: Identity) -> Mark:
    """Whose a service is, as an agent lists it."""
    meta = service.get("Meta") or {}
    return identity.mark(meta.get(OWNER), meta.get(HOST))


def depends(service: Mapping[str, Any], token: str | None) -> bool:
    """Whether a service, as listed, depends on another token than the one with this mark."""
    meta = service.get("Meta") or {}
    return token not in (None, meta.get(TOKEN, ""))


def again(service: Mapping[str, Any]) -> dict[str, Any]:
    """The body that registers a listed service as it is, so that it depends on the token in use.

    Consul removes a service from its catalog with the token that registered it. If that token is
    revoked, Consul never removes it.
    """
    same = {key: service[key] for key in ("ID", "Address", "Port", "Tags", "Meta")}
    return same | {"Name": service["Service"]}


def meta(service: Service, marks: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The Meta to register, with our marks, and the attributes that Consul cannot hold."""
    legal = {
        key: value
        for key, value in sorted(service.attrs.items())
        if _META_KEY.fullmatch(key) and len(value.encode()) <= _MAX_META_VALUE
    }
    kept = dict(list(legal.items())[: _MAX_META_PAIRS - _OWN_META_PAIRS])
    left_out = sorted(set(service.attrs) - set(kept))
    container = service.container_id if service.attrs.get("check_cmd") else ""
    if left_out or container:
        text = json.dumps([dict(service.attrs), container], sort_keys=True)
        kept[DIGEST] = hashlib.sha256(text.encode()).hexdigest()[:16]
    return {**kept, **marks}, left_out


def check_id(service_id: str) -> str:
    """The id of a service's own check, which is the one that Consul itself would choose."""
    return f"service:{service_id}"


def alias_id(service_id: str) -> str:
    """The id of the check that follows the owner's TTL check. Never equal to a `check_id`."""
    return f"registrator:{service_id}"


def possible_check_ids(service_id: str) -> set[str]:
    """The ids of all checks that one of our services may have."""
    return {check_id(service_id), alias_id(service_id)}


# What a check does by, and the type that an agent then tells of it.
_TYPES = {
    "HTTP": "http", "Args": "script", "TTL": "ttl", "TCP": "tcp", "GRPC": "grpc",
    "AliasService": "alias",
}  # fmt: skip


def check_types(body: Mapping[str, Any]) -> dict[str, str]:
    """The checks that are registered with a service: their types by id."""
    checks = [body["Check"]] if "Check" in body else []
    return {
        check["CheckID"]: next(kind for key, kind in _TYPES.items() if key in check)
        for check in (*checks, *body.get("Checks", ()))
    }


def foreign(checks: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The checks whose ids one of ours could equal by accident or intent, with their service's id.

    If a service `db` has several checks, Consul names them `service:db:1` and `service:db:2`. A
    service `db:1` of ours must not replace the first.
    """
    services = {key: check.get("ServiceID") or "" for key, check in checks.items()}
    return {key: owner for key, owner in services.items() if key not in possible_check_ids(owner)}


def body(service: Service, marks: Mapping[str, str]) -> dict[str, Any]:
    """The body of the request that registers a service. Raises `Rejected`."""
    made: dict[str, Any] = {
        "ID": service.id,
        "Name": service.name,
        "Address": service.address,
        "Port": service.port,
        "Tags": service.tags,
        "Meta": meta(service, marks)[0],
    }
    if own := check(service):
        made["Check"] = own
    return made


def facts(service: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a service that an agent lists, by the names of the fields of `Service`."""
    return {"name": service["Service"], "port": service["Port"], "tags": service["Tags"] or []}


def actual(
    key: str,
    service: Mapping[str, Any],
    checks: Collection[str],
    identity: Identity,
    token: str | None,
) -> Actual:
    """The entry for a service that an agent lists, with the ids of its checks.

    It is held if it depends on the token with the mark `token`, or if that is not known.
    """
    whose = mark(service, identity)
    return Actual(
        content(service, checks),
        whose,
        held=not depends(service, token),
        id=key,
        address=intern(service.get("Address") or ""),
        host=service["Meta"][HOST] if whose is Mark.TWIN else "",
        facts=facts(service) if whose is Mark.NONE else NO_FACTS,
    )


def content(body: Mapping[str, Any], checks: Collection[str]) -> str:
    """The canonical text of a service, to write or as read back. `checks` are check ids.

    The token is no part of it. A service that depends on another token counts as not held.
    """
    meta = body.get("Meta") or {}
    parts = {
        "name": body.get("Name") or body.get("Service") or "",
        "address": body.get("Address") or "",
        "port": body.get("Port") or 0,
        "tags": body.get("Tags") or [],
        "meta": {key: value for key, value in meta.items() if key != TOKEN},
        "checks": sorted(checks),
    }
    # What is read back and what was written are one text in memory.
    return intern(json.dumps(parts, sort_keys=True))


def require_legal_id(service_id: str) -> None:
    """Raise `Rejected` for an id that Consul would accept but could never deregister.

    The URL's path names the id to deregister. Consul's HTTP server cleans this path by a redirect
    (``//``, dot segments), and refuses a path that is not printable.
    """
    segments = service_id.split("/")
    if not service_id:
        raise Rejected("its id is empty, and Consul would use the name as id")
    if "" in segments[:-1] or {".", ".."} & set(segments) or not printable(service_id):
        raise Rejected(f"Consul cannot deregister the id {service_id[:80]!r}: not a clean path")


def require_unicode(service: Service) -> None:
    """Raise `Rejected` for half of a surrogate pair: Consul would replace it by U+FFFD."""
    texts = [service.id, service.name, service.address, service.tags, dict(service.attrs)]
    encode(json.dumps(texts, ensure_ascii=False))


def check(service: Service) -> dict[str, Any] | None:
    """The health check that the attributes request, as gliderlabs/registrator builds it.

    The first one that is set counts: http, https, cmd, script, ttl, tcp, grpc. Raises `Rejected`
    if a shell could not split a command, and for a wrong duration. Consul's own answer to a wrong
    duration does not name the key.
    """
    attrs = service.attrs
    made = _probe(service)
    if made is None:
        return None
    if not service.port and made.keys() & {"HTTP", "TCP", "GRPC"}:
        raise Rejected("it has no port (SERVICE_PORTS=0), and its check needs one")
    if "TTL" in made:
        made["TTL"] = _duration(attrs, "check_ttl")
    else:
        made["Interval"] = _duration(attrs, "check_interval") or DEFAULT_INTERVAL
        if timeout := _duration(attrs, "check_timeout"):
            made["Timeout"] = timeout
    if attrs.get("check_initial_status"):
        made["Status"] = attrs["check_initial_status"]
    if after := _duration(attrs, "check_deregister_after"):
        made["DeregisterCriticalServiceAfter"] = after
    return made | {"CheckID": check_id(service.id)}


def _probe(service: Service) -> dict[str, Any] | None:
    """The part of a check that says what it does. The rest says how often."""
    attrs = service.attrs
    target = str(Address(service.address, service.port))
    for scheme in ("http", "https"):
        if path := attrs.get(f"check_{scheme}"):
            made: dict[str, Any] = {"HTTP": f"{scheme}://{target}{path}"}
            if method := attrs.get(f"check_{scheme}_method"):
                made["Method"] = method
            return made | _flag(attrs, "TLSSkipVerify", "check_tls_skip_verify")
    if command := attrs.get("check_cmd"):
        words = _split("check_cmd", command)
        return {"Args": ["check-cmd", service.container_id[:12], str(service.private_port), *words]}
    if script := attrs.get("check_script"):
        script = script.replace("$SERVICE_IP", service.address)
        script = script.replace("$SERVICE_PORT", str(service.port))
        return {"Args": _split("check_script", script)}
    if ttl := attrs.get("check_ttl"):
        return {"TTL": ttl}
    if attrs.get("check_tcp"):
        return {"TCP": target}
    if attrs.get("check_grpc"):
        flags = _flag(attrs, "TLSSkipVerify", "check_tls_skip_verify")
        return {"GRPC": target} | _flag(attrs, "GRPCUseTLS", "check_grpc_use_tls") | flags
    return None


def _flag(attrs: Mapping[str, str], name: str, key: str) -> dict[str, bool]:
    return {name: True} if attrs.get(key, "").lower() not in ("", "0", "f", "false") else {}


def _duration(attrs: Mapping[str, str], key: str) -> str:
    value = attrs.get(key, "")
    if value and not _DURATION.fullmatch(value):
        raise Rejected(f"SERVICE_{key.upper()}: {value[:80]!r} is not a duration such as 15s")
    return value


def _split(key: str, command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise Rejected(f"{key}: {str(error).lower()}") from error
    if not words:
        raise Rejected(f"{key} names no command")
    return words
