"""The shared words: whose an entry is, when a plan is empty, and which text is fit for a log."""

from __future__ import annotations

import pytest

from registrator.model import (
    Actual,
    Container,
    Entry,
    Identity,
    LeftOut,
    Mark,
    Plan,
    Port,
    Reason,
    Service,
    Snapshot,
    unprintable,
)

US = Identity("engine-1", "h", ("engine-0",))
SERVICE = Service("h:a:80", "a", "127.0.0.7", 1000, 80)


@pytest.mark.parametrize(
    ("owner", "host", "mark"),
    [
        (None, None, Mark.NONE),
        ("", "h", Mark.NONE),
        ("engine-2", "h", Mark.OTHERS),
        ("engine-2", None, Mark.OTHERS),
        ("engine-1", "h", Mark.OURS),
        ("engine-1", "twin", Mark.TWIN),
        ("engine-1", None, Mark.UNTOLD),
        ("engine-1", "", Mark.UNTOLD),
        ("engine-0", "h", Mark.OURS),
        ("engine-0", "twin", Mark.TWIN),
    ],
)
def test_whose_an_entry_is_by_the_owner_and_the_host_that_it_names(
    owner: str | None, host: str | None, mark: Mark
) -> None:
    assert US.mark(owner, host) is mark


@pytest.mark.parametrize(
    ("found", "holder"),
    [
        (Actual("x", Mark.OTHERS), "another owner holds it"),
        (Actual("x", Mark.NONE), "somebody else registered it with no address"),
        (
            Actual("x", Mark.NONE, address="127.0.0.8"),
            "somebody else registered it with 127.0.0.8",
        ),
        (
            Actual("x", Mark.TWIN, host="twin"),
            "host twin, which has the same engine id, holds it",
        ),
        (Actual("x", Mark.UNTOLD), "host unknown, which has the same engine id, holds it"),
    ],
)
def test_a_conflict_names_the_holder(found: Actual, holder: str) -> None:
    assert found.holder == holder


def test_a_plan_is_empty_without_writes() -> None:
    """A conflict alone causes no request to the registry."""
    entry = Entry("k", "content", SERVICE)
    assert Plan(register=(entry,))
    assert Plan(deregister=("k",))
    assert not Plan(conflicts={"k": "another owner holds it"})


def test_a_reason_without_particulars_says_all_by_itself() -> None:
    port = Port(80, "tcp")
    assert str(LeftOut(port, Reason.NOT_PUBLISHED)) == "it is not published"
    assert str(LeftOut(port, Reason.IGNORED, "SERVICE_Ignore is set")) == "SERVICE_Ignore is set"


def test_where_the_original_registered_a_service_is_no_part_of_it() -> None:
    """Otherwise a container that joins a network would be written again."""
    moved = Service("h:a:80", "a", "127.0.0.7", 1000, 80, former_addresses=("172.17.0.2",))
    assert moved == SERVICE
    assert "former_addresses" not in moved.record


def test_a_record_has_its_attributes_in_order() -> None:
    """Registries compare texts: the same attributes have to make the same text."""
    service = Service("h:a:80", "a", "127.0.0.7", 1000, 80, attrs={"b": "2", "a": "1"})
    assert list(service.record["attrs"].items()) == [("a", "1"), ("b", "2")]
    assert service.record["id"] == "h:a:80"


def test_what_is_not_said_of_a_container_is_not_known() -> None:
    assert Port(80, "tcp").host_port == 0, "it is exposed, not published"
    assert Container("id", "name", "image", "hostname").started_at == 0
    assert Snapshot().complete
    assert Snapshot().settled


@pytest.mark.parametrize("text", ["", "web", "a b", "é", "日本", "…", "👩\u200d💻"])
def test_text_that_a_log_line_may_show(text: str) -> None:
    assert not unprintable(text)


@pytest.mark.parametrize(
    "text", ["\0", "a\nb", "\x7f", "é\n", "\x85", "\u2028", "\u2029", "\ud800"]
)
def test_text_that_would_break_a_log_line(text: str) -> None:
    assert unprintable(text)
