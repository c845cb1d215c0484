"""Which lines are written, in a process of its own as logging is one for all, and their JSON."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrator.system.log import KEYS, MAX_TEXT, Json, Text

CODE = """
import logging
from registrator.system import log
with log.on_stderr({level!r}, "text"):
    for name in ("registrator.x", "urllib3.connectionpool"):
        for level in ("debug", "info", "warning"):
            getattr(logging.getLogger(name), level)("%s %s", name, level)
"""


@pytest.mark.parametrize(
    ("level", "ours", "theirs"),
    [("debug", 3, 2), ("info", 2, 0), ("warning", 1, 0)],
)
def test_libraries_never_drown_our_own_lines(level: str, ours: int, theirs: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(level=level)], capture_output=True, text=True, timeout=60
    )
    lines = done.stderr.splitlines()
    assert sum("registrator.x" in line for line in lines) == ours
    assert sum("urllib3" in line for line in lines) == theirs


# Hypothesis leaves out halves of surrogate pairs, and seldom hits what ends a line for somebody.
ANY_TEXT = st.text(
    st.characters() | st.characters(categories=["Cs", "Cc", "Zl", "Zp"]) | st.sampled_from('"\\{}')
)


def made(message: str = "it", **facts: object) -> logging.LogRecord:
    """A record of a call with these facts as `extra`."""
    return logging.makeLogRecord(
        {"name": "registrator.x", "levelname": "INFO", "msg": message, **facts}
    )


def parsed(text: str) -> dict[str, Any]:
    """A line as a strict reader takes it: of UTF-8, of lines, and of JSON."""
    assert text.encode().decode() == text
    assert len(text.splitlines()) == 1
    found: dict[str, Any] = json.loads(text)
    assert json.dumps(found, ensure_ascii=False).encode(), "no half of a surrogate pair is in it"
    return found


def test_the_facts_of_a_line_are_keys_of_its_json_alone() -> None:
    record = made("%s: away", args=("it",), attempt=3, registry="consul://h", event="outage_began")
    line = Json().format(record)
    assert [*parsed(line)] == [
        "time", "level", "logger", "message", "event", "registry", "attempt",
    ]  # fmt: skip
    assert '"message": "it: away", "event": "outage_began", "registry": "consul://h"' in line
    assert Text().format(record).endswith(" INFO  it: away")


def test_a_key_that_nobody_knows_is_left_out() -> None:
    assert "secret" not in Json().format(made(token="secret"))


def test_facts_that_are_not_known_have_no_key() -> None:
    line = parsed(Json().format(made(server="", port=None, attempt=0, duration_seconds=0.0)))
    assert (line["attempt"], line["duration_seconds"]) == (0, 0.0)
    assert {"server", "port"}.isdisjoint(line)


def test_durations_are_in_microseconds_at_most() -> None:
    assert '"latency_seconds": 0.123457' in Json().format(made(latency_seconds=0.123456789))


@given(ANY_TEXT, st.dictionaries(st.sampled_from(KEYS), ANY_TEXT | st.integers() | st.none()))
def test_untrusted_texts_leave_it_one_valid_line(message: str, facts: dict[str, Any]) -> None:
    line = parsed(Json().format(made(message, **facts)))
    for key, value in {"message": message, **facts}.items():
        text = re.sub("[\ud800-\udfff]", "\ufffd", value) if isinstance(value, str) else value
        assert line.get(key, "") == ("" if text is None else text)


@pytest.mark.parametrize("key", ["message", "container", "service_id"])
def test_a_huge_text_is_cut(key: str) -> None:
    text = "\udc80\u2028\x9b\x00" * MAX_TEXT
    record = made(text) if key == "message" else made(**{key: text})
    line = Json().format(record)
    assert len(parsed(line)[key]) == MAX_TEXT
    assert parsed(line)[key].endswith("…")
    assert len(line) < 7 * MAX_TEXT


def test_a_traceback_is_part_of_the_line() -> None:
    try:
        raise ValueError("a\x85b\udc80")
    except ValueError:
        record = made(exc_info=sys.exc_info())
    assert "ValueError: a" in parsed(Json().format(record))["error"]
