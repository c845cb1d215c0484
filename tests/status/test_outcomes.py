"""The one table of outcomes: it is complete, and the documents show it."""

from __future__ import annotations

from pathlib import Path

from registrator.desired.left_out import FAULTS
from registrator.model import Reason
from registrator.status.outcomes import ATTENTION, ON_PURPOSE, REMEDIES, name_of, outcomes

PAGE = Path(__file__).resolve().parents[2] / "docs/seeing.md"


def test_each_reason_says_what_to_do() -> None:
    assert REMEDIES.keys() == set(Reason)
    assert all(remedy and remedy[0].islower() for remedy in REMEDIES.values())


def test_each_reason_is_an_outcome() -> None:
    assert [*outcomes()] == ["registered", "pending", *map(name_of, Reason)]


def test_what_the_log_warns_of_needs_attention() -> None:
    assert not ON_PURPOSE & FAULTS
    assert {name_of(reason) for reason in FAULTS} <= ATTENTION
    assert {name_of(reason) for reason in ON_PURPOSE}.isdisjoint(ATTENTION)


def test_the_page_shows_the_table() -> None:
    rows = [
        f"| `{name}` | {each['text']} | {['no', 'yes'][each['attention']]} | {each['remedy']} |\n"
        for name, each in outcomes().items()
    ]
    head = "| outcome | meaning | needs attention | what to do |\n| --- | --- | --- | --- |\n"
    assert f"<!-- outcomes -->\n{head}{''.join(rows)}<!-- /outcomes -->" in PAGE.read_text()
