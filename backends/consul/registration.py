"""A service as Consul's agent has it: what is registered, what is read back, its health check.

Pure. The content that entries are compared by is exactly what the agent gives back: name,
address, port, tags, Meta and which of our checks stand. A check's definition cannot be read
back, but it follows from the address and the attributes; these are all in Meta, and a digest of
them is where Consul's limits keep one out.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Collection, Mapping
from typing import Any

from registrator.backend import Rejected
from registrator.model import Service

from .transport import printable

OWNER = "registrator-owner"
"""The Meta key that marks a service as ours: the owner's name."""

DIGEST = "registrator-digest"
"""The Meta key with a hash of what the check follows from, where not all of that is in Meta: an
attribute that Consul cannot hold, or the container whose id a command is given."""

DEFAULT_INTERVAL = "10s"
"""How often a check runs unless ``check_interval`` says otherwise; the original's default."""

# What Consul takes for a span of time: the syntax of Go's time.ParseDuration.
_DURATION = re.compile(r"[-+]?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)")

# Consul's own limits (structs.ValidateMetadata); values are counted in bytes. One bad pair
# rejects the whole registration, and `consul-` is reserved.
_META_PAIRS = 64
_META_KEY = re.compile(r"(?!consul-|registrator-)[A-Za-z0-9_-]{1,128}")
_META_VALUE = 512


def meta(service: Service, owner: str) -> tuple[dict[str, str], list[str]]:
    """The Meta to register, our mark included, and the attributes that Consul cannot hold."""
    legal = {
        key: value
        for key, value in sorted(service.attrs.items())
        if _META_KEY.fullmatch(key) and len(value.encode()) <= _META_VALUE
    }
    kept = dict(list(legal.items())[: _META_PAIRS - 2])
    left_out = sorted(set(service.attrs) - set(kept))
    container = service.container_id if service.attrs.get("check_cmd") else ""
    if left_out or container:
        text = json.dumps([dict(service.attrs), container], sort_keys=True)
        kept[DIGEST] = hashlib.sha256(text.encode()).hexdigest()[:16]
    return kept | {OWNER: owner}, left_out


def check_id(service_id: str) -> str:
    """The id of a service's own check: the one that Consul itself would choose."""
    return f"service:{service_id}"


def alias_id(service_id: str) -> str:
    """The id of the check that follows the owner's TTL check; no `check_id` of another's."""
    return f"registrator:{service_id}"


def possible_check_ids(service_id: str) -> set[str]:
    """The ids of all checks that a service of ours may have."""
    return {check_id(service_id), alias_id(service_id)}


def check_ids(body: Mapping[str, Any]) -> list[str]:
    """The ids of the checks that are registered with a service."""
    checks = [body["Check"]] if "Check" in body else []
    return [check["CheckID"] for check in (*checks, *body.get("Checks", ()))]


def foreign(checks: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The checks whose ids an id of ours could be equal to by accident or intent.

    Consul names the checks of a service `db` that has several `service:db:1`, `service:db:2`: a
    service `db:1` must not take the place of the first. The value is the service's id.
    """
    services = {key: check.get("ServiceID") or "" for key, check in checks.items()}
    return {key: owner for key, owner in services.items() if key not in possible_check_ids(owner)}


def content(body: Mapping[str, Any], checks: Collection[str]) -> str:
    """Canonical text of a service, be it ours to write or read back; `checks` are check ids."""
    return json.dumps(
        {
            "name": body.get("Name") or body.get("Service") or "",
            "address": body.get("Address") or "",
            "port": body.get("Port") or 0,
            "tags": body.get("Tags") or [],
            "meta": body.get("Meta") or {},
            "checks": sorted(checks),
        },
        sort_keys=True,
    )


def require_legal_id(service_id: str) -> None:
    """Raise `Rejected` for an id that Consul would take but never let go of.

    Deregistering names the id in the URL's path, which Consul's HTTP server cleans by a redirect
    (``//``, dot segments) and refuses where it holds anything not printable.
    """
    segments = service_id.split("/")
    if not service_id:
        raise Rejected("Consul would make the name the id where this is empty")
    if "" in segments[:-1] or {".", ".."} & set(segments) or not printable(service_id):
        raise Rejected(f"Consul cannot deregister the id {service_id[:80]!r}: it is no clean path")


def require_text(service: Service) -> None:
    """Raise `Rejected` for halves of surrogate pairs: Consul would put U+FFFD in their place."""
    texts = [service.id, service.name, service.address, service.tags, dict(service.attrs)]
    try:
        json.dumps(texts, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise Rejected("its metadata are not valid Unicode") from error


def check(service: Service) -> dict[str, Any] | None:
    """The health check that the attributes ask for, as gliderlabs/registrator builds it.

    The first that is set of http, https, cmd, script, ttl, tcp and grpc. Raises `Rejected` for a
    command that a shell could not split, and for what is no duration: Consul's own answer to that
    does not say which key it means.
    """
    attrs = service.attrs
    made = _probe(service)
    if made is None:
        return None
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
    """What the check does, without how often."""
    attrs = service.attrs
    host = f"[{service.address}]" if ":" in service.address else service.address
    target = f"{host}:{service.port}"
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
        raise Rejected(f"SERVICE_{key.upper()}: {value[:80]!r} is no duration, such as 15s")
    return value


def _split(key: str, command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise Rejected(f"{key}: {str(error).lower()}") from error
    if not words:
        raise Rejected(f"{key} names no command")
    return words
