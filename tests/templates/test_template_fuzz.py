"""No text and no data makes a template raise anything but its own errors, or run on without end."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from registrator.templates import EvaluationError, Template, TemplateError
from registrator.templates.functions import FUNCTIONS
from registrator.templates.limits import MAX_BYTES

PARITY = Path(__file__).resolve().parents[1] / "parity"
TEMPLATES = [case[2] for case in json.loads((PARITY / "templates.json").read_text())["cases"]]
INSPECTIONS = list(json.loads((PARITY / "inspections.json").read_text()).values())

# `make fuzz` sets it.
FUZZ = settings(max_examples=int(os.environ.get("FUZZ_EXAMPLES", "100")), deadline=None)

NASTY = st.sampled_from(
    ["", "{{", "}}", "{{-", "-}}", "/*", "*/", '"', "`", "'", "\\", "\n", "$", "(", ")", "|", "=",
     ":=", ",", ".", "-", "0x", "1e999", "9" * 500, "\ud800", "\udc80", "²", "٣", "é", "a" * 70_000,
     "%", "%*d", "%[9]s", "%99999d", "%.99999f", "%#v", "%q", "{{range 9999999999}}", "{{end}}",
     "((a{100}){100}){100}", "(?i)[[:^alpha:]]\\pL*", "(" * 60, "{{if 1}}" * 60]
)  # fmt: skip
ATOMS = st.one_of(
    st.sampled_from(
        [".", "$", "nil", "true", "0", "-1", "2", "1.5", "1e300", "'x'", '"a"', '"80/tcp"', '"%v"',
         '"%*d %[1]q"', "`(a+)+$`", "$x", ".ID", ".Args", ".Config", ".Config.Labels", ".State.Pid",
         ".NetworkSettings.Ports", ".HostConfig.RestartPolicy", ".Config.Labels.team", ".Created",
         ".Config.Healthcheck.Interval", ".State", ".Mounts", ".Nope", ".Node"]
    ),
    st.integers().map(str),
    st.text(max_size=5).map(json.dumps),
)  # fmt: skip
EXPRESSIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.builds(
            lambda name, values: f"({name} {' '.join(values)})",
            st.sampled_from(sorted(FUNCTIONS)),
            st.lists(inner, max_size=4),
        ),
        st.builds(lambda one, name: f"({one} | {name})", inner, st.sampled_from(sorted(FUNCTIONS))),
    ),
    max_leaves=8,
)
BODIES = st.recursive(
    EXPRESSIONS.map(lambda text: f"{{{{ {text} }}}}"),
    lambda inner: st.builds(
        lambda start, one, other, body, more: (
            f"{{{{ {start} {one} }}}}{body}{{{{ else }}}}{more}{{{{ end }}}}{{{{ $x = {other} }}}}"
        ),
        st.sampled_from(["if", "with", "range", "range $i, $x :=", "with $x :=", "range $x ="]),
        EXPRESSIONS,
        EXPRESSIONS,
        inner,
        inner,
    ),
    max_leaves=4,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | NASTY,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
FIELDS = [
    "Args",
    "ID",
    "Created",
    "Config",
    "State",
    "NetworkSettings",
    "HostConfig",
    "Mounts",
    "x",
]
DATA = st.one_of(
    st.sampled_from(INSPECTIONS),
    st.dictionaries(st.sampled_from(FIELDS), JSON),
    st.builds(
        lambda labels, health, ports, pid: {
            "Config": {"Labels": labels, "Healthcheck": {"Interval": health}},
            "NetworkSettings": {"Ports": ports},
            "State": {"Pid": pid},
        },
        JSON, JSON, JSON, JSON,
    ),
)  # fmt: skip


@st.composite
def spoilt(draw: st.DrawFn) -> str:
    """A recorded template in which up to three pieces are other ones."""
    made: str = draw(st.sampled_from(TEMPLATES))
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(made)))
        end = draw(st.integers(start, min(len(made), start + 5)))
        made = made[:start] + draw(NASTY | st.text(max_size=3)) + made[end:]
    return made


def evaluated(text: str, answer: Any) -> str:
    """The text of a template, or an empty one if it is none or cannot be evaluated."""
    try:
        return Template(text).evaluate(answer)
    except (TemplateError, EvaluationError) as error:
        return "" if str(error) else "x" * 2 * MAX_BYTES


@FUZZ
@given(text=spoilt(), answer=DATA)
@example(text='{{ printf "%s" (printf "%*.*f" 65000 65000 1.0) }}', answer={})
def test_a_spoilt_template(text: str, answer: Any) -> None:
    made = evaluated(text, answer)
    assert len(made.encode()) <= MAX_BYTES + 3 * made.count("\ufffd")


@FUZZ
@given(text=BODIES, answer=DATA)
def test_a_template_of_expressions(text: str, answer: Any) -> None:
    made = evaluated("{{ $x := 1 }}" + text, answer)
    assert len(made.encode()) <= MAX_BYTES + 3 * made.count("\ufffd")


@FUZZ
@given(text=st.lists(NASTY | ATOMS | st.text(max_size=4), max_size=9).map("".join), answer=DATA)
def test_any_text(text: str, answer: Any) -> None:
    evaluated(text, answer)
    evaluated("{{ " + text + " }}", answer)


@settings(max_examples=25, deadline=None)
@given(piece=NASTY | spoilt() | st.text(min_size=1, max_size=3), inside=st.booleans())
def test_a_long_text(piece: str, inside: bool) -> None:
    """It would take minutes if any step took time in proportion to the rest of the text."""
    text = piece * (200_000 // max(1, len(piece)))
    evaluated("{{ " + text + " }}" if inside else text, {})
