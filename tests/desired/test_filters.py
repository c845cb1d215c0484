"""Filters: each term, each mistake, the globs by a model, and what each registry is to hold."""

from __future__ import annotations

import fnmatch
import logging
import re
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.fakes import container

from registrator.desired.containers import Containers
from registrator.desired.filters import FORM, Filter, fits, parse_filter
from registrator.desired.rules import Rules
from registrator.desired.services import services
from registrator.model import Container, Offer, Reason, Snapshot

PUBLIC = "label=public"
WEB = Container(
    id="0" * 64,
    name="shop-web-1",
    image="acme/web:1.0",
    hostname="0" * 12,
    labels={"public": "", "tier": "front,edge", "SERVICE_NAME": "web"},
    network_mode="front",
    networks={"front": "172.18.0.2", "shop_back": "172.19.0.2"},
)


@pytest.mark.parametrize(
    ("text", "admitted"),
    [
        ("label=public", True),
        ("label=private", False),
        ("label!=private", True),
        ("label!=public", False),
        ("label=public=", True),
        ("label=public=yes", False),
        ("label!=public=yes", True),
        ("label!=private=yes", True),
        ("label=tier=front*", True),
        (r"label=tier=front\,edge", True),
        ("label=tier=*edge", True),
        ("label=SERVICE_NAME=web", True),
        ("name=shop-*", True),
        ("name=shop", False),
        ("name=SHOP-WEB-1", False),
        ("image=acme/web:*", True),
        ("image=acme/web", False),
        ("image!=*:debug", True),
        ("network=front", True),
        ("network=*_back", True),
        ("network!=front", False),
        ("network!=other", True),
        ("network=host", False),
        ("label=public,name=shop-*,image!=*:debug", True),
        ("label=public,name=other", False),
        (" label=public , name=shop-web-1 ", True),
    ],
)
def test_terms(text: str, admitted: bool) -> None:
    assert parse_filter(text).admits(WEB) is admitted


def test_networks_are_those_that_the_container_uses() -> None:
    front = parse_filter("network=front")
    member = replace(WEB, network_mode=f"container:{'1' * 64}", networks={})
    assert not front.admits(member)
    assert front.admits(member, WEB)
    for mode in ("host", "none"):
        assert parse_filter(f"network={mode}").admits(replace(WEB, network_mode=mode, networks={}))


def test_the_labels_that_the_engine_has_to_keep() -> None:
    assert parse_filter("label=a,label!=b=x,name=c").labels == ("a", "b")


@pytest.mark.parametrize(
    "text",
    ["", ",", "label=public,", "public", "label", "label=", "label=!x", "label=k!=v", "label=a*",
     "label==x", "labels=x", "name=", "name~x", "Name=x", "name=a\nb", "name=\x00",
     "name=a\\", "name=" + "x" * 256],
)  # fmt: skip
def test_mistakes(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(FORM)) as caught:
        parse_filter(text)
    assert not text or f"term {2 if text == 'label=public,' else 1}" in str(caught.value)


def test_one_spelling() -> None:
    assert parse_filter(" name=a , image=b") == parse_filter("name=a,image=b")
    assert not Filter()
    assert Filter().admits(WEB)
    assert parse_filter("name=a")


TEXTS = st.text("ab*[?.\n", max_size=12)


@given(TEXTS, TEXTS)
@example("*a*a", "a")
@example("a*a", "a")
@example("*a*b*b", "ab")
def test_a_glob_is_that_of_fnmatch_without_its_other_signs(glob: str, text: str) -> None:
    model = fnmatch.translate(glob.replace("[", "[[]").replace("?", "[?]"))
    assert fits(glob, text) is (re.fullmatch(model, text) is not None)


def test_a_hostile_text_takes_no_longer_than_its_length() -> None:
    """With backtracking this would not end."""
    assert not fits("*" + "a*" * 60 + "b", "a" * 1_000_000)
    assert not fits("*" + "a*" * 60 + "b*", "a" * 1_000_000)


LIKELY = st.from_regex(r"((label|name|image|network)!?=[a\\ *=]{0,4},?){1,3}", fullmatch=True)


@given(st.text(max_size=40) | LIKELY)
def test_any_text_is_a_filter_or_a_mistake(text: str) -> None:
    try:
        found = parse_filter(text)
    except ValueError:
        return
    assert found
    assert parse_filter(found.text) == found
    assert found.admits(WEB) in (True, False)


# What is registered


def test_a_container_that_the_filter_excludes_offers_nothing() -> None:
    rules = Rules("h", forced_ip="127.0.0.7", filter=parse_filter(PUBLIC))
    assert len(services(labelled("a", public=""), rules).services) == 1
    [left_out] = services(labelled("b"), rules).left_out
    assert (left_out.port, str(left_out)) == (None, Reason.FILTERED.value)


def labelled(name: str, started_at: int = 0, **labels: str) -> Container:
    made = container(name)
    return replace(made, labels={**made.labels, **labels}, started_at=started_at or made.started_at)


class Shelf:
    """Containers under the filters of some registries. "" is that of a registry without one."""

    def __init__(self, *filters: str) -> None:
        parsed = tuple(parse_filter(text) if text else Filter() for text in filters)
        rules = Rules("h", forced_ip="127.0.0.7", filters=parsed)
        self.containers = Containers(rules, frozenset())

    def put(self, *found: Container) -> Snapshot:
        for each in found:
            self.containers.put(each.id, each)
        self.containers.derive(set())
        return self.containers.snapshot(complete=True, settled=True)

    @property
    def offers(self) -> Mapping[str, Offer]:
        return self.containers.offers


def test_each_registry_has_a_view_of_its_own() -> None:
    shelf = Shelf("", PUBLIC)
    snapshot = shelf.put(labelled("a"), labelled("b", public=""))
    assert snapshot.services.keys() == {"h:a:80", "h:b:80"}
    view = snapshot.views[PUBLIC]
    assert (set(view.services), set(view.excluded)) == ({"h:b:80"}, {"h:a:80"})
    assert (view.addresses, view.complete, view.settled) == (snapshot.addresses, True, True)
    assert [offer.left_out for offer in shelf.offers.values()] == [(), ()]


def test_without_filters_there_are_no_views() -> None:
    assert Shelf().put(labelled("a")).views == {}


def test_a_view_without_a_change_is_the_same_one() -> None:
    """So its registry has nothing to do."""
    shelf = Shelf("", PUBLIC)
    first = shelf.put(labelled("b", public=""), labelled("a"))
    second = shelf.put(labelled("a"))
    assert second.views[PUBLIC] is first.views[PUBLIC]
    assert shelf.put(labelled("c", public="")).views[PUBLIC] is not first.views[PUBLIC]


def with_id(name: str, started_at: int, **labels: str) -> Container:
    return labelled(name, started_at, SERVICE_ID="one", **labels)


def test_an_excluded_container_takes_no_id_from_another_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shelf = Shelf(PUBLIC, "label!=public")
    snapshot = shelf.put(with_id("a", 1, public=""), with_id("b", 2))
    names = {text: view.services["one"].name for text, view in snapshot.views.items()}
    assert names == {PUBLIC: "a", "label!=public": "b"}
    assert [view.excluded for view in snapshot.views.values()] == [{}, {}]
    assert [offer.left_out for offer in shelf.offers.values()] == [(), ()]
    assert caplog.messages == []


def test_where_one_registry_takes_both_one_loses_its_id() -> None:
    for filters in (("", PUBLIC), ("", "label!=public"), ("name=*", PUBLIC)):
        shelf = Shelf(*filters)
        snapshot = shelf.put(with_id("a", 1, public=""), with_id("b", 2))
        assert snapshot.services["one"].container_name == "b"
        reasons = [[each.reason for each in offer.left_out] for offer in shelf.offers.values()]
        assert reasons == [[Reason.SAME_ID], []], filters


def test_what_a_filter_excludes_is_told_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    rules = Rules("h", forced_ip="127.0.0.7", filter=parse_filter(PUBLIC))
    containers = Containers(rules, frozenset())
    made = labelled("a")
    containers.put(made.id, made)
    containers.derive(set())
    containers.snapshot(complete=True, settled=True)
    [_, record] = caplog.records
    assert record.levelno == logging.DEBUG
    assert record.getMessage().endswith("not registered: the filter excludes it")
