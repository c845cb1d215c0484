"""A service as Consul's agent holds it: its registration, and what is read back.

These are pure functions. Entries are compared by exactly what the agent gives back: name,
address, port, tags, Meta, weights, and which of our checks exist. The agent does not give back the
definition of a check. But the definition follows from the address and the attributes, and Meta
contains the attributes. If Consul's limits keep an attribute out, Meta contains a digest of all.

If others may change the tags (``SERVICE_ENABLE_TAG_OVERRIDE``), the tags are not compared. Consul's
agent takes theirs over from the catalog. Meta then has a hash of our own tags.
"""

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from sys import intern
from typing import Any

from registrator.backend import Rejected
from registrator.model import NO_FACTS, Actual, Identity, Mark, Service

from ..common.values import encode
from . import checks, container_health
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

TAGS = "registrator-tags"
"""The Meta key with a hash of our own tags, if others may change the tags."""

# Consul's own limits (structs.ValidateMetadata), values in bytes. One bad pair rejects the whole
# registration, and `consul-` is reserved.
_MAX_META_PAIRS = 64
_OWN_META_PAIRS = 4  # without `TAGS`, which few services have
_META_KEY = re.compile(r"(?!consul-|registrator-)[A-Za-z0-9_-]{1,128}")
_MAX_META_VALUE = 512

# Those that Consul gives a service without any. An old Consul tells none.
_WEIGHTS = {"Passing": 1, "Warning": 1}


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
    room = _MAX_META_PAIRS - _OWN_META_PAIRS - service.tag_override
    kept = dict(list(legal.items())[:room])
    left_out = sorted(set(service.attrs) - set(kept))
    container = service.container_id if checks.runs_command(service) else ""
    if left_out or container:
        kept[DIGEST] = _hash([dict(service.attrs), container])
    if service.tag_override:
        kept[TAGS] = _hash(service.tags)
    return {**kept, **marks}, left_out


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def body(service: Service, marks: Mapping[str, str]) -> dict[str, Any]:
    """The body of the request that registers a service. Raises `Rejected`."""
    made: dict[str, Any] = {
        "ID": service.id,
        "Name": service.name,
        "Address": service.address,
        "Port": service.port,
        "Tags": service.tags,
        "Meta": meta(service, marks)[0],
        "Checks": [*checks.wanted(service), *container_health.checks(service)],
    }
    if service.tag_override:
        made["EnableTagOverride"] = True
    weights = dict(zip(_WEIGHTS, service.weights, strict=True))
    if weights != _WEIGHTS:
        made["Weights"] = weights
    return made


def kept_tags(body: Mapping[str, Any], standing: Mapping[str, Any]) -> Sequence[str]:
    """The tags to register: those that stand, if others may change them and ours are as before."""
    told = (standing.get("Meta") or {}).get(TAGS)
    same = standing.get("EnableTagOverride") and told == body["Meta"].get(TAGS)
    tags: Sequence[str] = (standing.get("Tags") or ()) if same else body["Tags"]
    return tags


def facts(service: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a service that an agent lists, by the names of the fields of `Service`."""
    return {"name": service["Service"], "port": service["Port"], "tags": service["Tags"] or []}


def known(services: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    """The services of a listing by the very objects in `keys`, as far as these name them.

    New keys among a listing's garbage would keep its memory in use: 9 MiB with 5,000 services.
    """
    same = {key: key for key in keys}
    return {same.get(key, key): service for key, service in services.items()}


def actual(
    key: str,
    service: Mapping[str, Any],
    checks: Collection[str],
    identity: Identity,
    token: str | None,
    status: str = "",
) -> Actual:
    """The entry for a service that an agent lists, with the ids of its checks and its `status`.

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
        status=status,
        facts=facts(service) if whose is Mark.NONE else NO_FACTS,
    )


def planned(body: Mapping[str, Any]) -> str:
    """The canonical text of a service that is to be registered."""
    return content(body, checks.types(body))


def content(body: Mapping[str, Any], checks: Collection[str]) -> str:
    """The canonical text of a service, to write or as read back. `checks` are check ids.

    The token is no part of it. A service that depends on another token counts as not held.
    """
    meta = body.get("Meta") or {}
    override = body.get("EnableTagOverride")
    parts = {
        "name": body.get("Name") or body.get("Service") or "",
        "address": body.get("Address") or "",
        "port": body.get("Port") or 0,
        "tags": None if override else body.get("Tags") or [],
        "meta": {key: value for key, value in meta.items() if key != TOKEN},
        "checks": sorted(checks),
    }
    if (weights := body.get("Weights") or _WEIGHTS) != _WEIGHTS:
        parts["weights"] = weights
    return json.dumps(parts, sort_keys=True)


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
