"""The services behind entries that go: the log names their containers, whatever happened before."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.fakes import FakeBackend, FakeRegistry

from registrator.backend import Rejected
from registrator.model import Actual, Entry, Identity, Plan, Service, Snapshot
from registrator.sync.gone import gone

A, B = (Service(f"h:{name}:80", name, "127.0.0.7", 1, 80) for name in "ab")


class Made(FakeBackend):
    """A backend that counts the entries which it makes. It rejects the service `b`."""

    def __init__(self) -> None:
        super().__init__(FakeRegistry(), Identity("engine-1", "h"))
        self.made = 0

    def entry(self, service: Service) -> Entry:
        self.made += 1
        if service.name == "b":
            raise Rejected("no")
        return super().entry(service)


@pytest.fixture
def backend() -> Made:
    return Made()


def found(told: str, before: Snapshot | None, now: list[Service], backend: Made) -> Service | str:
    """The result for an entry of `A`, if the registry tells this id."""
    entries = {each.id: Entry(each.id, "", each) for each in now}
    actual = {A.id: Actual("", id=told)}
    return gone(Plan((), (A.id,)), actual, before, entries, backend)[A.id]


def snapshot(*services: Service) -> Snapshot:
    return Snapshot({each.id: each for each in services})


def test_the_id_of_an_entry_leads_to_its_service(backend: Made) -> None:
    assert found(A.id, snapshot(A, B), [], backend) is A
    assert backend.made == 0


def test_an_entry_whose_id_the_registry_does_not_tell(backend: Made) -> None:
    assert found("a-host-name", snapshot(A, B), [], backend) is A


def test_only_services_that_are_desired_no_more_are_looked_at(backend: Made) -> None:
    changed, kept = replace(A, id="x"), replace(A, id="y")
    assert found("?", snapshot(A, kept), [changed, kept], backend) is A
    assert backend.made == 1


def test_an_entry_of_which_only_the_registry_knows(backend: Made) -> None:
    assert found("h:old:80", snapshot(B), [], backend) == "h:old:80"
    assert found("", snapshot(B), [], backend) == ""


def test_nothing_is_known_before_the_first_success(backend: Made) -> None:
    assert found(A.id, None, [], backend) == A.id
    assert backend.made == 0
