"""The planner: its decision table row by row, and its properties."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrator.model import Actual, Entry, Mark, Plan, Service
from registrator.sync.plan import Here, by_key, diff, looked

OUR_ADDRESS, OTHER_ADDRESS = "127.0.0.7", "127.0.0.8"
ADDRESSES = frozenset({OUR_ADDRESS})
HERE = Here("h", ADDRESSES, ADDRESSES)


def entry(key: str, content: str = "new", alternate: str | None = None) -> Entry:
    return Entry(key, content, Service("h:web:80", "web", OUR_ADDRESS, 1, 1), alternate)


def actual(content: str, mark: Mark, held: bool = True, address: str = OUR_ADDRESS) -> Actual:
    return Actual(content, mark, held, "h:web:80", address)


def plan(desired: list[Entry], found: dict[str, Actual], cleanup: bool = True) -> Plan:
    return diff(
        {e.key: e for e in desired},
        found,
        HERE,
        dangling=lambda _: cleanup,
    )


def test_what_stands_and_what_is_desired_are_one_text_in_memory() -> None:
    def copy(text: str) -> str:
        return "".join(list(text))

    wanted = entry("k", "a text")
    found = actual(copy("a text"), Mark.OURS)
    assert found.content is not wanted.content
    first = looked({}, {"k": found, "other": found}, {"k": wanted})
    assert first["k"] == first["other"] == found
    assert first["k"].content is wanted.content
    again = looked(first, {"k": actual(copy("a text"), Mark.OURS)}, {"k": wanted})
    assert again["k"] is first["k"]
    undesired = looked({}, {"k": found}, {})
    later = looked(undesired, {"k": actual(copy("a text"), Mark.OURS)}, {"k": wanted})
    assert later["k"].content is wanted.content, "it is desired only since the last look"
    assert looked(first, {"k": actual("new", Mark.OURS)}, {})["k"].content == "new"


def test_an_unmarked_entry_at_the_containers_own_address_is_adopted_but_not_removed() -> None:
    """Without ``-ip``, the original registers containers with their own network there."""
    own = "172.18.0.2"
    shop = Service("h:web:80", "web", OUR_ADDRESS, 1, 1, former_addresses=(own,))
    found = {"h:web:80": actual("old", Mark.NONE, address=own)}
    adopted = plan([Entry("h:web:80", "new", shop)], found)
    assert [each.key for each in adopted.register] == ["h:web:80"]
    assert not adopted.conflicts
    assert plan([entry("h:web:80")], found).conflicts
    assert plan([], found) == Plan()


@pytest.mark.parametrize(
    ("found", "registered", "conflict"),
    [
        (None, True, False),
        (actual("new", Mark.OURS), False, False),
        (actual("new", Mark.OURS, held=False), True, False),
        (actual("old", Mark.OURS), True, False),
        (actual("new", Mark.NONE), True, False),
        (actual("new", Mark.NONE, address=OTHER_ADDRESS), False, True),
        (actual("new", Mark.OTHERS), False, True),
    ],
)
def test_desired(found: Actual | None, registered: bool, conflict: bool) -> None:
    made = plan([entry("k")], {"k": found} if found else {})
    assert bool(made.register) == registered
    assert set(made.conflicts) == ({"k"} if conflict else set())
    assert not made.deregister
    assert bool(made) == registered


@pytest.mark.parametrize(
    ("found", "removed"),
    [
        (actual("x", Mark.OURS), True),
        (actual("x", Mark.OURS, held=False, address=OTHER_ADDRESS), True),
        (actual("x", Mark.NONE), True),
        (actual("x", Mark.NONE, address=OTHER_ADDRESS), False),
        (actual("x", Mark.OTHERS), False),
    ],
)
def test_not_desired(found: Actual, removed: bool) -> None:
    assert plan([], {"k": found}).deregister == (("k",) if removed else ())
    assert not plan([], {"k": found}, cleanup=False)


@pytest.mark.parametrize(
    ("service_id", "ours"),
    [
        ("h:web:80", True),
        ("h:web_1.x-y:53:udp", True),
        ("h:web:80:tcp", False),
        ("h:web", False),
        ("hh:web:80", False),
        ("g:web:80", False),
        ("redis-1", False),
        ("", False),
    ],
)
def test_unmarked_is_ours_by_the_originals_form_of_id(service_id: str, ours: bool) -> None:
    found = Actual("", Mark.NONE, id=service_id, address=OUR_ADDRESS)
    assert HERE.owns(found) is ours


SHOP = Service("shop", "web", OUR_ADDRESS, 8080, 80, tags=("a", "b"))
FACTS = {"name": "web", "address": OUR_ADDRESS, "port": 8080, "tags": ["b", "a"]}


@pytest.mark.parametrize(
    ("facts", "adopted"),
    [
        (FACTS, True),
        ({"name": "web", "port": 8080}, True),
        ({}, False),
        (FACTS | {"name": "db"}, False),
        (FACTS | {"port": 80}, False),
        (FACTS | {"tags": ["a"]}, False),
    ],
)
def test_an_unmarked_entry_with_an_id_of_its_own_is_adopted_only_as_the_originals(
    facts: dict[str, object], adopted: bool
) -> None:
    found = Actual("old", Mark.NONE, id="shop", address=OUR_ADDRESS, facts=facts)
    made = plan([Entry("shop", "new", SHOP)], {"shop": found})
    assert bool(made.register) is adopted
    assert bool(made.conflicts) is not adopted


@pytest.mark.parametrize(
    ("mark", "service_id", "address", "ours"),
    [
        (Mark.TWIN, "twin:web:80", OTHER_ADDRESS, False),
        (Mark.TWIN, "former:web:80", OUR_ADDRESS, True),
        (Mark.UNTOLD, "h:web:80", OTHER_ADDRESS, True),
        (Mark.UNTOLD, "shop", OUR_ADDRESS, True),
        (Mark.UNTOLD, "shop", OTHER_ADDRESS, False),
        (Mark.UNTOLD, "twin:web:80", OTHER_ADDRESS, False),
    ],
)
def test_an_entry_with_our_engines_id_is_ours_only_if_it_is_this_hosts(
    mark: Mark, service_id: str, address: str, ours: bool
) -> None:
    found = {"k": Actual("old", mark, id=service_id, address=address, host="twin")}
    assert bool(plan([], found).deregister) is ours
    made = plan([entry("k")], found)
    assert bool(made.register) is ours
    assert bool(made.conflicts) is not ours


def test_an_entry_that_names_no_host_is_claimed_by_the_host_that_runs_its_service() -> None:
    """Version 1.0.0 wrote it, with an id of the user's own at a container's address."""
    here = Here("h", frozenset(), frozenset())
    service = Service("shop", "shop", "172.17.0.2", 80, 80)
    found = actual("old", Mark.UNTOLD, address="172.17.0.2")
    assert here.claims(found, service)
    assert here.claims(replace(found, facts={"address": "172.17.0.2", "port": 80}), service)
    assert not here.claims(replace(found, facts={"port": 81}), service)
    assert not here.claims(replace(found, address="172.17.0.3"), service)
    assert not here.claims(replace(found, mark=Mark.TWIN), service)


def test_an_entry_that_cannot_name_the_host_is_written_once() -> None:
    """In Consul's key-value store an id of the user's own may look like another host's."""
    found = {"k": Actual("new", Mark.TWIN, id="twin:web:80", address=OUR_ADDRESS, host="twin")}
    assert not plan([entry("k")], found)


def test_a_containers_address_does_not_tell_two_hosts_apart() -> None:
    """Docker gives the same addresses to the containers of every host."""
    address = "172.17.0.2"
    here = Here("h", frozenset({OUR_ADDRESS, address}), frozenset({OUR_ADDRESS}))
    for mark in (Mark.TWIN, Mark.UNTOLD):
        assert not here.owns(Actual("", mark, id="shop", address=address))


def test_a_hostname_is_no_pattern() -> None:
    found = Actual("", Mark.NONE, id="hxa:web:80", address=OUR_ADDRESS)
    assert not Here("h.a", ADDRESSES).owns(found)


def test_keys_that_clash() -> None:
    tcp, udp = entry("a"), entry("a", alternate="a:udp")
    for order in ([tcp, udp], [udp, tcp]):
        chosen, clashes = by_key(order)
        assert chosen["a"].service is tcp.service
        assert chosen["a:udp"].service is udp.service
        assert clashes == []
    assert list(by_key([udp])[0]) == ["a"]
    chosen, clashes = by_key([entry("a", "one"), entry("a", "two")])
    assert chosen["a"].content == "two"
    assert [(lost.content, won.content) for lost, won in clashes] == [("one", "two")]
    taken = [entry("a"), entry("a:udp", "one"), entry("a", "two", alternate="a:udp")]
    chosen, clashes = by_key(taken)
    assert (chosen["a:udp"].key, chosen["a:udp"].content) == ("a:udp", "two")
    assert [(lost.content, won.content) for lost, won in clashes] == [("one", "two")]


@pytest.mark.parametrize(("address", "shown"), [("10.9.9.9", "10.9.9.9"), ("", "no address")])
def test_a_conflict_says_where_the_other_entry_is(address: str, shown: str) -> None:
    found = {"a": actual("theirs", Mark.NONE, address=address)}
    assert plan([entry("a")], found).conflicts == {"a": f"somebody else registered it with {shown}"}


KEYS = st.sampled_from("abcdef")
ACTUALS = st.builds(
    actual, st.sampled_from(["new", "old"]), st.sampled_from(Mark), st.booleans(),
    st.sampled_from([OUR_ADDRESS, OTHER_ADDRESS]),
)  # fmt: skip


@given(st.sets(KEYS), st.dictionaries(KEYS, ACTUALS))
def test_a_carried_out_plan_leaves_nothing_to_do(
    wanted: set[str], found: dict[str, Actual]
) -> None:
    desired = [entry(key) for key in wanted]
    first = plan(desired, found)
    after = {key: a for key, a in found.items() if key not in first.deregister}
    after |= {e.key: actual(e.content, Mark.OURS) for e in first.register}
    second = plan(desired, after)
    assert not second
    assert second.conflicts == first.conflicts
    for key, a in found.items():
        if a.mark is Mark.OTHERS:
            assert after[key] is a
    for key in wanted - set(first.conflicts):
        assert after[key].content == "new"
        assert after[key].mark not in (Mark.OTHERS, Mark.NONE)
