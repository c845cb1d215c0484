"""A container's settings change nothing but its own entry. Legal ones come back whole."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.kinds import PLAIN, everywhere, over
from contract.registry import OTHER, OWNER, Registry, ours, reconcile, service, shown
from registrator.backend import Backend, Rejected
from registrator.model import Service

# A name and an id that every registry takes as they are.
LEGAL = [
    "web", "Web", "größe", "gro\u0308ße", "服务", "a b", "a:b", "a.b", "a_b", "a,b", "a=b&c", "a+b",
    "%2F", "%2e%2e", "%00", "$x{}", "\\", "\\n", "...", "-x", "--", "#x", "?recurse", "a;b", "'",
    '"', "`id`", "$(id)", "*", "[a]", "{a", "<a>", "|", "~", "^", "@", "x" * 255, "null", "0",
]  # fmt: skip

HOSTILE = [
    "", ".", "..", "../../x", "a/../b", "a/../../b", "a/./b", "a//b", "/", "//", "/x", "x/", "a/b",
    "..\\..\\x", "%2e%2e/%2e%2e/x", "..%2f..%2fx", "\0", "a\0b", "a\nb", "\r\n\r\nPUT /v1/kv/x",
    " ", "\t", "\x1b[2J", "\x7f", "\x85", "\u2028", "\u202e", "\ufeff", "\ud800", "\udc80x",
    "😀", "\ufffe", "x" * 10_000, "é" * 5_000, "a/" * 3_000 + "a", "?dc=x", "x?cas=0",
    f"registrator:{OWNER}", f"registrator:{OTHER}", "zookeeper", "neighbour",
    "neighbour:c0:80", "neighbour:c1:80", "services", "_catalog", '{"owner":"engine-2"}',
]  # fmt: skip


def settle(registry: Registry, backend: Backend, *services: Service) -> int:
    """Register what can be, hold it to the contract, and remove it. Returns how many there were."""
    entries, reasons = {}, []
    for each in services:
        try:
            entry = backend.entry(each)
        except Rejected as error:
            reasons.append(str(error))
        else:
            entries[entry.key] = entry
    # Neither nothing nor all of what is wrong is a clear reason.
    assert all(10 < len(reason) < 400 for reason in reasons), reasons
    plan, rejected = reconcile(backend, *services)
    left_out = rejected.keys() | plan.conflicts.keys()
    stand = {key: entry for key, entry in entries.items() if key not in left_out}
    assert registry.read() == {key: shown(entry.service) for key, entry in stand.items()}
    assert {k: a.content for k, a in ours(backend).items()} == {
        key: entry.content for key, entry in stand.items()
    }
    assert not {entry.key for entry in reconcile(backend, *services).plan.register} & stand.keys()
    reconcile(backend)
    assert registry.read() == {}
    return len(stand)


@everywhere
def test_every_legal_character(registry: Registry) -> None:
    services = [service(n, text, id=text) for n, text in enumerate(LEGAL)]
    assert settle(registry, registry.make(), *services) == len(LEGAL)


@over(("fake", "file", *PLAIN, "consulkv-json", "etcd-json"))
@given(texts=st.sets(st.text(st.characters(), max_size=20), min_size=20, max_size=40))
@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_text(registry: Registry, texts: set[str]) -> None:
    services = (service(n, text, id=text) for n, text in enumerate(sorted(texts)))
    backend = registry.make()
    settle(registry, backend, *services)
    backend.close()


@everywhere
def test_nothing_is_changed_outside_of_ones_own(registry: Registry) -> None:
    registry.plant()
    before = registry.outside()
    backend = registry.make()
    taken = 0
    for text in HOSTILE:
        fields: dict[str, Any] = {
            "name": text, "id": text, "tags": (text,), "attrs": {text: text, "x": text},
            "address": text, "container_name": text, "container_hostname": text,
        }  # fmt: skip
        # Each field alone as well, since one that is refused hides the others.
        for each in ({name: value} for name, value in fields.items()):
            taken += settle(registry, backend, replace(service(), **each))
        taken += settle(registry, backend, replace(service(), **fields | {"address": "10.0.0.1"}))
        assert registry.outside() == before, f"{text[:40]!r} reached out"
    assert taken > len(HOSTILE)


@everywhere
def test_an_id_equal_to_another_hosts(registry: Registry) -> None:
    """However often it is tried, and when the container that claims it goes."""
    theirs = registry.make(OTHER)
    owned = service(0, id="shared", address="10.0.0.2")
    reconcile(theirs, owned)
    before = registry.read()
    listed = ours(theirs)
    thief = registry.make()
    for _ in range(2):
        reconcile(thief, owned, replace(owned, tags=("stolen",)))
        reconcile(thief)
    assert registry.read() == before
    assert ours(theirs) == listed


@pytest.mark.parametrize("text", ["\ud800", "\0", "a\nb"])
@over(("file", *PLAIN, "consulkv-json", "etcd-json"))
def test_metadata_that_is_no_text(registry: Registry, text: str) -> None:
    settle(registry, registry.make(), service(tags=(text,), attrs={"x": text}))
