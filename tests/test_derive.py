"""The templates of the options, from the command line to a container and its services."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from registrator.config import ConfigErrors, configure
from registrator.derive import derivation
from registrator.derived import NOTHING_DERIVED, Derived
from registrator.desired.left_out import lines
from registrator.desired.services import services
from registrator.engine.answers import container_of
from registrator.model import Offer, Reason

PARITY = Path(__file__).resolve().parent / "parity"
INSPECTIONS: dict[str, Any] = json.loads((PARITY / "inspections.json").read_text())
URI = "consul://127.0.0.1:8500"


def offer(answer: Any, **given: str) -> tuple[Offer, list[str]]:
    """The services of a container with these options, and the lines about the others."""
    config = configure(given, [URI], {})
    found = container_of(answer, config.labels, derivation(config))
    made = services(found, config.rules("vm", "127.0.0.1"))
    return made, [text for _, text, _ in lines(found, made.left_out)]


def tags(container: str, template: str) -> list[tuple[str, ...]]:
    made, said = offer(INSPECTIONS[container], tags=template)
    assert said == []
    return [service.tags for service in made.services]


def names(answer: Any, template: str, **given: str) -> list[str]:
    made, _ = offer(answer, name=template, **given)
    assert {each.reason for each in made.left_out} <= {Reason.NO_SUCH_PORT}
    return [service.name for service in made.services]


def test_tags_follow_those_of_the_container_and_stand_before_udp() -> None:
    assert tags("twoports", "a,{{ .Config.Hostname }}") == [
        ("svc1", "svc2", "a", "ns1", "udp"),
        ("p80", "a", "ns1"),
    ]


def test_one_expression_may_give_many_tags() -> None:
    assert tags("full", "{{ .Config.Labels.csv }},z") == [("a", "b", "c", "z")]
    assert tags("full", "{{ .Config.Labels.esc }}") == [("x,y",)]
    assert tags("full", "{{ if .Node }}none{{ end }}") == [()]


def test_without_braces_nothing_is_derived() -> None:
    assert derivation(configure({"tags": "a,b"}, [URI], {})) is None
    found = container_of(INSPECTIONS["full"])
    assert found.derived is NOTHING_DERIVED


def test_only_a_running_container_with_ports_is_evaluated() -> None:
    asked = []

    def derive(answer: Any) -> Derived:
        asked.append(answer["Name"])
        return Derived(("x",))

    ended = copy.deepcopy(INSPECTIONS["full"])
    ended["State"]["Running"] = False
    for answer in (ended, INSPECTIONS["noports"], INSPECTIONS["twoports"]):
        container_of(answer, (), derive)
    assert asked == ["/dns-1"], "once for both ports"
    listing = copy.deepcopy(INSPECTIONS["noports"])
    listing["Config"]["Env"] = ["SERVICE_ports=80"]
    container_of(listing, (), derive)
    assert asked[1:] == [listing["Name"]], "a list may name ports that the image does not expose"


def test_an_error_leaves_out_the_ports_that_count_with_one_warning() -> None:
    made, said = offer(INSPECTIONS["twoports"], tags="{{ .Config.Nope }}")
    assert made.services == ()
    [line] = said
    assert "container dns-1 (" in line
    assert "80/tcp" in line
    assert "53/udp" in line
    assert line.endswith(
        "-tags cannot be evaluated for it: line 1, column 4: the object Config has no field 'Nope'"
    )
    made, said = offer(INSPECTIONS["ignored"], tags="{{ .Config.Nope }}")
    assert "SERVICE_IGNORE is set" in said[0]
    made, said = offer(INSPECTIONS["plain"], tags="{{ .Config.Nope }}", explicit="true")
    assert "SERVICE_NAME is not set" in said[0]


@pytest.mark.parametrize("template", ['{{ "a\\nb" }}', '{{ "a\\x00" }}', '{{ "a\\u2028" }}'])
def test_a_tag_has_no_control_characters(template: str) -> None:
    made, [line] = offer(INSPECTIONS["full"], tags=template)
    assert made.services == ()
    assert line.endswith("80/tcp: -tags has control characters")


def test_a_tag_has_a_limit() -> None:
    template = '{{ printf "%04096d" 1 }}'
    assert [len(tag) for each in tags("full", template) for tag in each] == [4096]
    _, [line] = offer(INSPECTIONS["full"], tags=template.replace("6", "7"))
    assert line.endswith("-tags has a tag of over 4096 bytes")


def test_a_name_is_that_of_services_without_one() -> None:
    plain, twoports = INSPECTIONS["plain"], INSPECTIONS["twoports"]
    assert names(plain, "{{ strSlice .Name 1 }}") == ["plain"]
    assert names(twoports, " {{ .Config.Hostname }} ") == ["ns1-53", "ns1-80"]
    assert names(plain, "fixed") == ["fixed"]
    assert names(INSPECTIONS["full"], "{{ .ID }}") == ["foo"], "SERVICE_NAME wins"
    assert names(INSPECTIONS["portlabels"], "{{ .ID }}") == ["foo"], "SERVICE_8105_NAME wins"


def test_an_empty_name_means_the_image() -> None:
    template = "{{ with .Config.Labels.app }}{{ . }}{{ end }} "
    assert names(INSPECTIONS["plain"], template) == ["web"]
    assert names(INSPECTIONS["twoports"], template) == ["web-53", "web-80"]


def test_explicit_still_asks_for_a_name_of_the_container() -> None:
    made, said = offer(INSPECTIONS["plain"], name="x", explicit="true")
    assert made.services == ()
    assert "-explicit is given and SERVICE_NAME is not set" in said[0]


def test_an_unusable_name_leaves_out_only_what_would_have_it() -> None:
    made, [line] = offer(INSPECTIONS["plain"], name="{{ .Nope }}")
    assert made.services == ()
    assert ": -name cannot be evaluated for it: line 1, column 4: " in line
    made, [line] = offer(INSPECTIONS["plain"], name="..")
    assert line.endswith("-name has a path segment '.' or '..'")
    made, said = offer(INSPECTIONS["full"], name="{{ .Nope }}")
    assert ([each.name for each in made.services], said) == (["foo"], [])


def test_an_image_by_its_id_is_named_by_compose_or_its_container() -> None:
    answer = copy.deepcopy(INSPECTIONS["idimage"])
    answer["Config"]["Image"] = answer["Image"]
    assert [service.name for service in offer(answer)[0].services] == ["byid"]
    answer["Config"]["Labels"]["com.docker.compose.service"] = "shop"
    assert [service.name for service in offer(answer)[0].services] == ["shop"]


@pytest.mark.parametrize("option", ["tags", "name"])
def test_a_mistake_is_reported_at_the_start_without_the_template(option: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        configure({option: "s3cret {{ foo }}"}, [URI], {})
    assert str(caught.value) == (
        f"-{option} is no template: line 1, column 11: there is no function 'foo'"
    )


def test_a_variable_may_be_a_template_too() -> None:
    config = configure({}, [URI], {"REGISTRATOR_NAME": "{{ .Name }}", "REGISTRATOR_TAGS": "a"})
    derive = derivation(config)
    assert derive is not None
    assert derive({"Name": "/x"}) == Derived((), "/x")
    assert config.rules("vm", "127.0.0.1").tags == ("a",)
