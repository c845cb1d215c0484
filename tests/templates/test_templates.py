"""The language of templates beyond the records: its messages, its reach and its limits."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from registrator.templates import EvaluationError, Template, TemplateError
from registrator.templates.limits import BYTES_A_STEP, MAX_BYTES, MAX_STEPS, Limits, Output
from registrator.templates.parser import MAX_DEPTH

PARITY = Path(__file__).resolve().parents[1] / "parity"
FULL: dict[str, Any] = json.loads((PARITY / "inspections.json").read_text())["full"]


def made(template: str, answer: Any = None) -> str:
    return Template(template).evaluate(FULL if answer is None else answer)


def labels(**pairs: Any) -> Any:
    """An inspection with these labels."""
    return {"Config": {"Labels": pairs}}


def refusal(template: str) -> str:
    """Why the text is no template."""
    with pytest.raises(TemplateError) as caught:
        Template(template)
    return str(caught.value)


def failure(template: str, answer: Any = None) -> str:
    """Why the template cannot be evaluated."""
    parsed = Template(template)
    with pytest.raises(EvaluationError) as caught:
        parsed.evaluate(FULL if answer is None else answer)
    return str(caught.value)


# Messages


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ .ID", "an action has no end: }} is missing"),
        ("a\n {{ foo .ID }}", "line 2, column 5: there is no function 'foo'"),
        ("{{ if .ID }}x", "line 1, column 14: an end is missing"),
        ("x{{ end }}", "line 1, column 5: end has nothing that it belongs to"),
        ("{{ else }}", "line 1, column 4: else has nothing that it belongs to"),
        ("{{ $x }}", "line 1, column 4: the variable $x is not set"),
        ("{{ $x = 1 }}", "line 1, column 4: the variable $x is not set"),
        ("{{ }}", "line 1, column 4: an action has no value"),
        ("{{ if }}x{{ end }}", "line 1, column 7: if has no value"),
        ("{{ print () }}", "line 1, column 11: a pair of parentheses has no value"),
        ("{{ range $a, $b, $c := .ID }}{{ end }}",
         "line 1, column 16: range sets too many variables"),
        ("{{ range $a, .ID }}{{ end }}",
         "line 1, column 14: a second variable and := have to follow the comma"),
        ("{{ break }}", "line 1, column 4: break stands outside of a range"),
        ("{{ range .ID }}{{ else }}{{ continue }}{{ end }}",
         "line 1, column 29: continue stands outside of a range"),
        ("{{ range .ID }}{{ break 1 }}{{ end }}", "line 1, column 19: }} has to follow break"),
        ("{{ .ID | 1 }}", "line 1, column 10: a function has to stand behind |"),
        ("{{ print (.ID }}", "line 1, column 15: a value is missing"),
        ("{{ .ID) }}", "line 1, column 7: ')' cannot stand here"),
        ("{{ print if }}", "line 1, column 10: if has to be the first word of an action"),
        ("{{ 1.ID }}", "line 1, column 4: a number is not of a form that is known"),
        ("{{ true.ID }}", "line 1, column 4: it has no fields"),
        ("{{ print\"a\" }}", "line 1, column 9: a character that cannot follow"),
        ("{{ (1)(2) }}", "line 1, column 7: '(' has to stand behind a blank"),
        ("{{ \"a }}", "line 1, column 4: a text or character without an end that cannot stand in "
         "an action"),
        ("{{ # }}", "line 1, column 4: a character that cannot stand in an action"),
        ("{{ \"\\d\" }}",
         "line 1, column 4: a constant has a backslash before what cannot follow it"),
        ("{{ \"\\400\" }}", "line 1, column 4: a constant has a byte of more than 255"),
        ("{{ \"\\ud800\" }}", "line 1, column 4: a constant has a character that does not exist"),
        ("{{ 'ab' }}", "line 1, column 4: a constant in single quotes has to be one character"),
        ("{{ 9223372036854775808 }}", "line 1, column 4: a number has more than 64 bits"),
        ("{{/* x }}", "the comment at line 1, column 5 has no end"),
        ("{{/* x */ }}", "}} has to follow the comment that ends at line 1, column 8"),
        ("{{ httpGet \"u\" }}", "line 1, column 4: httpGet is not supported: get the value before "
         "the agent starts, such as with -tags \"az=$(curl …)\""),
        ("{{ .ID | jsonParse \"a\" }}", "line 1, column 10: jsonParse is not supported: get the "
         "value before the agent starts, such as with -tags \"az=$(curl …)\""),
        ("{{ template \"x\" }}", "line 1, column 4: template is not supported: write its text at "
         "the place of its use"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_place(template: str, message: str) -> None:
    assert refusal(template) == message


@pytest.mark.parametrize("word", ["define", "template", "block", "call", "js", "httpGet"])
def test_what_go_has_and_this_has_not_is_refused(word: str) -> None:
    assert f"{word} is not supported: " in refusal(f'{{{{ {word} "x" }}}}')


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("a\n{{ .Nope }}", "line 2, column 4: the object Container has no field 'Nope'"),
        ("{{ .Node.Name }}", "line 1, column 4: what has to have the field 'Name' is not there"),
        ("{{ .ID.x }}", "line 1, column 4: a text has no field 'x'"),
        ("{{ .Created.Unix }}", "line 1, column 4: a time has no field 'Unix'"),
        ("{{ toUpper .State.Pid }}", "line 1, column 12: it needs a text and has a number"),
        ("{{ sIndex .ID .Args }}", "line 1, column 11: it needs a whole number and has a text"),
        ("{{ sIndex true .Args }}", "line 1, column 11: it needs a whole number and has a boolean"),
        ("{{ join \",\" .Mounts }}", "line 1, column 13: it needs a list of texts and has a list"),
        ("{{ mIndex \"a\" .Args }}", "line 1, column 15: it needs a map of texts and has a list"),
        ("{{ .ID 1 }}", "line 1, column 4: what is no function has arguments"),
        ("{{ nil }}", "line 1, column 4: nil is no command"),
        ("{{ len 1 2 }}", "line 1, column 4: len has 2 arguments and needs 1"),
        ("{{ index .Args 9 }}", "line 1, column 4: an index is out of range"),
        ("{{ index .State \"a\" }}", "line 1, column 4: the object State has no item by a text"),
        ("{{ slice .State }}", "line 1, column 4: it cannot slice the object State this way"),
        ("{{ slice .ID true }}", "line 1, column 4: slice has a bound that is no number"),
        ("{{ slice .ID 2 1 }}", "line 1, column 4: slice has bounds in the wrong order"),
        ("{{ len .State }}", "line 1, column 4: the object State has no length"),
        ("{{ eq 1 \"a\" }}", "line 1, column 4: it compares a number with a text"),
        ("{{ eq .Args .Args }}", "line 1, column 4: it compares a list with a list"),
        ("{{ lt true true }}", "line 1, column 4: it compares a boolean with a boolean"),
        ("{{ eq 1 }}", "line 1, column 4: eq needs two values"),
        ("{{ range .ID }}{{ end }}", "line 1, column 10: range cannot go over a text"),
        ("{{ strSlice .ID -1 }}", "line 1, column 4: strSlice has a negative bound"),
        ("{{ sIndex 0 .HostConfig.Links }}",
         "line 1, column 4: it takes an item of an empty list"),
        ("{{ matchFirstElement \"(\" .Args }}",
         "line 1, column 4: a regular expression cannot be read"),
        ("{{ printf \"%T\" 1 }}", "line 1, column 4: printf has no %T here"),
        ("{{ printf \"%#v\" 1 }}", "line 1, column 4: printf has no %#v here"),
        ("{{ $x := $x }}", "line 1, column 10: the variable $x is not set"),
    ],
)  # fmt: skip
def test_an_error_is_named_with_its_place(template: str, message: str) -> None:
    assert failure(template) == message


# What newer versions of Go have, and what no record shows


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ range .Args }}{{ if eq . \"-p\" }}{{ break }}{{ end }}{{ . }}{{ end }}", "-f"),
        ("{{ range .Args }}{{ if eq . \"-p\" }}{{ continue }}{{ end }}{{ . }}{{ end }}", "-f80"),
        ("{{ range 2 }}{{ range 3 }}{{ if . }}{{ break }}{{ end }}x{{ end }}{{ end }}", "xx"),
        ("{{ range $i, $x := 2 }}{{ $i }}{{ $x }}{{ end }}", "0011"),
        ("{{ range 0 }}x{{ else }}none{{ end }}", "none"),
        ("{{ with .Node }}a{{ else with .Args }}{{ . }}{{ else }}c{{ end }}", "[-f -p 80]"),
        ("{{ or .ID (index .Args 99) | len }}", "64"),
        ("{{ and .Node (index .Args 99) | print }}", "<nil>"),
        ("{{ .Args | or .ID | len }}", "64"),
        ("{{ .Args | and .ID }}", "[-f -p 80]"),
        ("{{ $i := 0 }}{{ $x := 0 }}{{ range $i, $x = .Args }}{{ end }}{{ $i }}{{ $x }}", "280"),
        ("{{ (index .Mounts 0).Type }}", "bind"),
        ("{{ .hostconfig.cpushares }}", "512"),
        ("{{ range $p, $b := .NetworkSettings.Ports }}{{ $p.Port }} {{ $p.Proto }}{{ end }}",
         "80 tcp"),
        ("{{ range $p, $b := .NetworkSettings.Ports }}{{ eq $p \"80/tcp\" }}{{ end }}", "true"),
        ("{{ len (index .NetworkSettings.Ports \"80/tcp\") }}", "1"),
        ("{{ slice .Args 1 2 3 }}{{ slice .Args 1 }}{{ slice .Args }}", "[-p][-p 80][-f -p 80]"),
        ("{{ printf \"%s\" .Config.Labels.nothere }}", "%!s(<nil>)"),
        ("{{ printf \"%[3]d\" 1 }}{{ printf \"%*d\" \"a\" 1 }}", "%!d(BADINDEX)%!(BADWIDTH)1"),
        ("{{ printf \"%.*f|%.f\" 1 2.55 2.5 }}", "2.5|2"),
        ("{{ printf \"%-4d|%4x|%o|%#o|%O|%b|%c|%U\" 7 255 8 8 8 5 65 65 }}",
         "7   |  ff|10|010|0o10|101|A|U+0041"),
        ("{{ printf \"%.3d|%x|%+.2e|%G\" 7 -255 0.5 1e-7 }}", "007|-ff|+5.00e-01|1E-07"),
        ("{{ printf \"%q %q\" \"a\\\"\\\\\\x7f\\xff\" '\\'' }}", r'"a\"\\\x7f\xff"' + r" '\''"),
        ("{{ printf \"%+q %#q\" \"\\U0001F600\" \"a`\" }}", '"\\U0001f600" "a`"'),
        ("{{ printf \"%v %s\" .Config.Volumes .Created }}",
         "map[] 2026-11-24 18:04:45.847867493 +0000 UTC"),
        ("{{ print .State.Health.Status \"x\" }}", "x"),
        ("{{ 'a' }}{{ '\\n' }}{{ '\\x41' }}{{ '\\101' }}", "97106565"),
        ("{{ 0b11 }} {{ 1_0 }} {{ .5 }} {{ -1e-9 }} {{ 08 }}", "3 10 0.5 -1e-09 8"),
        ("{{ \"\\u00e9\\U0001F600\\a\" }}", "é😀\a"),
        ("{{ `a\r\n` }}", "a\n"),
        ("{{ slice \"é\" 0 1 }}{{ slice \"é\" 1 2 }}", "é"),
        ("{{ slice \"日\" 0 2 }}", "\ufffd\ufffd"),
        ("{{ toUpper \"ŉǆﬁᾳ\" }}{{ toLower \"İΑΣ\" }}", "ŉǄﬁᾼi\u03b1\u03c3"),
        ("{{ lt \"z\" \"é\" }}{{ le 1.5 1.5 }}{{ gt 2 1 }}{{ ge 1 2 }}", "truetruetruefalse"),
        ("{{ eq .Node nil }}{{ eq .ID nil }}{{ ne 1 2 }}", "truefalsetrue"),
        ("{{ html 1 true nil \"<\" }}", "1 true&lt;no value&gt;&lt;"),
    ],
)  # fmt: skip
def test_more_of_the_language(template: str, text: str) -> None:
    assert made(template) == text


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [(0, "0s"), (1, "1ns"), (1500, "1.5µs"), (2_000_000, "2ms"), (90 * 10**9, "1m30s"),
     (3600 * 10**9, "1h0m0s"), (-1_500_000_000, "-1.5s"), (10 * 10**9, "10s")],
)  # fmt: skip
def test_time_spans(nanoseconds: int, text: str) -> None:
    answer = {"Config": {"Healthcheck": {"Interval": nanoseconds}}}
    assert made("{{ .Config.Healthcheck.Interval }}", answer) == text


@pytest.mark.parametrize(
    ("moment", "text"),
    [("2026-01-02T03:04:05Z", "2026-01-02 03:04:05 +0000 UTC"),
     ("2026-01-02T03:04:05.120Z", "2026-01-02 03:04:05.12 +0000 UTC"),
     ("2026-01-02T03:04:05.5+02:00", "2026-01-02 03:04:05.5 +0200 +0200"),
     ("soon", "soon"), (None, "0001-01-01 00:00:00 +0000 UTC")],
)  # fmt: skip
def test_times(moment: str | None, text: str) -> None:
    assert made("{{ .Created }}", {"Created": moment}) == text


# What an engine leaves out, sets to null, or gives another type


@pytest.mark.parametrize("answer", [{}, {"Config": None, "State": None, "HostConfig": None}])
def test_an_empty_inspection_has_the_zero_values_of_go(answer: Any) -> None:
    assert made("{{ .ID }}|{{ .State.Running }}|{{ .State.Pid }}|{{ .Args }}", answer) == (
        "|false|0|[]"
    )
    assert made("{{ .Config }}{{ .HostConfig }}", answer) == "<nil><nil>"
    assert "is not there" in failure("{{ .Config.Image }}", answer)


def test_another_type_than_the_known_one_counts_as_it_is() -> None:
    answer = {"Config": {"Entrypoint": "sh", "Tty": 3, "Labels": ["a"], "Image": {"a": [None]}}}
    text = "{{ .Config.Entrypoint }} {{ .Config.Tty }} {{ .Config.Labels }} {{ .Config.Image }}"
    assert made(text, answer) == "sh 3 [a] map[a:[<nil>]]"
    assert made("{{ .Config.Image.A }}", answer) == "[<nil>]"
    assert made("{{ .Config.Image.b }}", answer) == "<no value>"
    assert made("{{ .State.Pid }} {{ .RestartCount }}", {"State": {"Pid": 10**30}}) == "1e+30 0"
    assert made("{{ .State.Pid }}", {"State": {"Pid": 10**400}}) == "+Inf"


def test_halves_of_characters_are_none() -> None:
    assert made("{{ .Config.Labels.a }}", labels(a="x\ud800\udc80y")) == "x\ufffd\ufffdy"
    assert made('{{ matchFirstElement "x" .Args }}', {"Args": ["x\udfff"]}) == "x\ufffd"


def test_nothing_but_the_data_is_in_reach() -> None:
    for name in ("__class__", "__init__", "raw", "kind", "at", "items"):
        assert "has no field" in failure(f"{{{{ .State.{name} }}}}")
        assert made(f"{{{{ .Config.Labels.{name} }}}}") == "<no value>"
    assert made("{{ .Config.Labels.tmpl }}") == "{{.ID}}", "data is no template"


# Limits


@pytest.mark.parametrize(
    "template",
    [
        "{{ range 99999999999 }}{{ end }}",
        "{{ range 101 }}{{ range 101 }}{{ end }}{{ end }}",
        "{{ range 9999 }}{{ $x := print $.Config }}{{ end }}",
        "{{ range 9999 }}{{ $x := len $.Config.Labels.big }}{{ end }}",
        '{{ range 9999 }}{{ $x := join "" $.Args }}{{ end }}',
        '{{ range 9999 }}{{ $x := matchAllElements "a" $.Args }}{{ end }}',
        '{{ range 9999 }}{{ $x := split "a" $.Config.Labels.big }}{{ end }}',
        '{{ range 9999 }}{{ $x := printf "%d%d%d%d" 1 2 3 4 }}{{ end }}',
    ],
)
def test_steps_have_a_limit(template: str) -> None:
    answer = {"Args": ["a" * 100] * 500, "Config": {"Labels": {"big": "a" * 50_000}}}
    assert f"it takes more than {MAX_STEPS:,} steps" in failure(template, answer)


@pytest.mark.parametrize(
    "template",
    [
        "{{ range 4000 }}12345678123456781{{ end }}",
        '{{ replace -1 "a" .ID .ID | replace -1 "a" .ID | replace -1 "a" .ID }}',
        "{{ .Config.Labels.big }}{{ .Config.Labels.big }}",
        "{{ $x := print .Config.Labels.big .Config.Labels.big }}",
        "{{ toUpper .Config.Labels.huge | len }}",
        "{{ len (join .ID .Args) }}",
        '{{ printf "%70000d" 1 | len }}',
        '{{ printf "%.70000d" 1 | len }}',
        '{{ printf "%*d" 70000 1 | len }}',
        "{{ html .Config.Labels.less | len }}",
        "{{ urlquery .Config.Labels.less | len }}",
        '{{ printf "%x" .Config.Labels.big | len }}',
    ],
)
def test_texts_have_a_limit(template: str) -> None:
    big = {"big": "a" * 40_000, "huge": "a" * 70_000, "less": "<" * 40_000}
    answer = {"ID": "a" * 1000, "Args": ["a"] * 100, "Config": {"Labels": big}}
    assert f"it makes a text of over {MAX_BYTES // 1024} KiB" in failure(template, answer)


def test_the_limit_of_texts_is_in_bytes() -> None:
    half = "é" * (MAX_BYTES // 2)
    assert made("{{ .Config.Labels.a }}", labels(a=half)) == half
    assert "KiB" in failure("{{ .Config.Labels.a }}", labels(a=half + "a"))


def test_depth_has_a_limit() -> None:
    def nested(depth: int) -> str:
        return "{{ print " + "(" * depth + "1" + ")" * depth + " }}"

    assert made(nested(MAX_DEPTH)) == "1"
    assert "blocks and parentheses in each other" in refusal(nested(MAX_DEPTH + 1))
    assert "in each other" in refusal("{{ if 1 }}" * 41)
    chain = "{{ if 0 }}" + "{{ else if 0 }}" * 500 + "{{ else }}x{{ end }}"
    assert made(chain) == "x", "else if does not nest"
    deep: Any = "x"
    for _ in range(300):
        deep = [deep]
    assert "nested too deeply" in failure("{{ .Deep }}", {"Deep": deep})


def test_a_pattern_has_a_limit() -> None:
    assert "more than 1000 characters" in failure(
        "{{ matchFirstElement .ID .Args }}", {"ID": "a" * 1001, "Args": ["a"]}
    )


def test_only_a_match_imports_the_regular_expressions() -> None:
    sys.modules.pop("re2", None)
    assert made('{{ join "" .Args }}') == "-f-p80"
    assert "re2" not in sys.modules
    assert made('{{ matchFirstElement "^-p" .Args }}') == "-p"
    assert "re2" in sys.modules


def test_the_limits_are_exact_and_those_of_the_document() -> None:
    limits = Limits()
    for _ in range(9_998):
        limits.step(BYTES_A_STEP - 1)
    limits.step(BYTES_A_STEP)
    assert limits.steps == MAX_STEPS == 10_000
    with pytest.raises(EvaluationError):
        limits.step()
    out = Output(Limits())
    out.add("é" * 32 * 1024)
    with pytest.raises(EvaluationError):
        out.add("x")
    assert "at most 10,000 steps and 64 KiB" in (PARITY.parents[1] / "docs/services.md").read_text()
