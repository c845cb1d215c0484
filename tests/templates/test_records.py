"""The original's results of 631 templates, and the differences that docs/differences.md lists.

``parity/templates.json`` has its answers, and ``parity/inspections.json`` the containers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from registrator.config import ConfigErrors, configure
from registrator.derive import derivation
from registrator.desired.metadata import read_metadata, tags_of
from registrator.desired.rules import Rules
from registrator.desired.services import services
from registrator.engine.answers import container_of
from registrator.model import Offer, Reason

ROOT = Path(__file__).resolve().parents[2]
PARITY = ROOT / "tests/parity"
CASES: list[list[Any]] = json.loads((PARITY / "templates.json").read_text())["cases"]
INSPECTIONS: dict[str, Any] = json.loads((PARITY / "inspections.json").read_text())
DOCUMENT = (ROOT / "docs/differences.md").read_text()

# Each difference by its row in the document, with how it comes out and the cases that it concerns.
WORKS, LEFT_OUT, REFUSED = "works", "left out", "refused"
DIFFERENCES = {
    "Fields": (WORKS, """
        field-HostName field-consolesize field-cpuset-json-name field-labels-lower
        field-lower-id field-maskedpaths field-mount-type field-mountlabel
        field-networks-ipamconfig field-oomkilldisable-json-name field-platform
        field-processlabel field-sandboxid ports-hostip-lower"""),
    "Kinds of numbers and texts": (WORKS, """
        field-ports-index-string splitIndex-int64 strSlice-int64-arg"""),
    "Methods of Go's types": (LEFT_OUT, """
        field-created-format-rfc field-created-location field-created-month
        field-created-truncate-bad field-created-unix field-created-utc field-created-year
        field-finishedat-iszero field-portmappingapi field-startedat-sub field-state-statestring
        m-created-date m-duration-seconds"""),
    "Go's own notation": (LEFT_OUT, """
        b-printf-T b-printf-T-types b-printf-sharp-v m-dot m-printf-v-logconfig"""),
    "Control characters": (LEFT_OUT, """
        b-println k-string k-string-newline-esc field-lower-config label-map-raw-full
        mIndex-newline-label multiline result-nul result-u2028 static-newline-tab"""),
    "Complex numbers": (REFUSED, "k-complex"),
    "Templates in templates": (REFUSED, """
        define-only define-only-with-space define-tags define-template template-missing
        template-self"""),
    "A mistake in a template": (REFUSED, "st-ignored-bad-template st-noports-bad-template"),
}  # fmt: skip
EXCEPTED = {name: (row, how) for row, (how, names) in DIFFERENCES.items() for name in names.split()}


def read(template: str) -> Any:
    """The configuration with these tags."""
    return configure({"tags": template}, ["consul://127.0.0.1:8500"], {})


def offer(template: str, container: str) -> tuple[Offer, list[str]]:
    """The services of a container, and the tags that it sets itself."""
    config = read(template)
    found = container_of(INSPECTIONS[container], (), derivation(config))
    own = tags_of(read_metadata(found).settings(80))
    return services(found, config.rules("vm", "127.0.0.1")), list(own)


def outcome(template: str, container: str) -> Any:
    """This agent's answer to a case, in the form of the original's."""
    try:
        found, own = offer(template, container)
    except ConfigErrors as error:
        return "parsing" if str(error).startswith("-tags is no template: ") else str(error)
    for each in found.left_out:
        if each.reason is Reason.REJECTED:
            return "execution" if "-tags cannot be evaluated" in str(each) else str(each)
    made = {}
    for service in found.services:
        own = list(tags_of(read_metadata(container_of(INSPECTIONS[container])).settings(
            service.private_port)))  # fmt: skip
        rest = list(service.tags[len(own) :])
        udp = [rest.pop()] if service.protocol == "udp" else []
        made[service.id] = [service.name, [*reversed(own), *reversed(rest), *udp]]
    return made


def stripped(answer: Any) -> Any:
    """An answer without blanks around the tags: those of SERVICE_TAGS and of plain -tags."""
    return {
        key: [name, [tag.strip() for tag in tags if tag.strip()]]
        for key, (name, tags) in answer.items()
    }


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_the_original_s_answer(case: list[Any]) -> None:
    name, container, template, *answers = case
    made = outcome(template, container)
    if name in EXCEPTED:
        how = EXCEPTED[name][1]
        assert made not in answers, "it is no difference"
        shown = "parsing" if made == "parsing" else LEFT_OUT if isinstance(made, str) else WORKS
        assert {REFUSED: "parsing"}.get(how, how) == shown
        return
    # The tags of a template keep their blanks, as in the original.
    if "{{" not in template or container == "svctags":
        answers = [stripped(answer) for answer in answers]
    assert made in answers


def test_every_difference_is_a_row_of_the_document() -> None:
    table = DOCUMENT.partition("\n## Templates\n")[2]
    rows = {line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")}
    assert rows >= DIFFERENCES.keys()
    assert "Blanks around a tag" in rows
    assert {name for name, *_ in CASES} >= EXCEPTED.keys()


def test_there_are_all_records() -> None:
    assert len(CASES) == 631
    assert len(EXCEPTED) < 60
    assert Rules("vm").tags == ()


# The functions as the original's issue #677 shows them, with that issue's results.
ECS = "arn:aws:ecs:region:xxxxxxxxxxxx:task/368f4403-0ee4-4f4c-b7a5-be50c57db5cf"


@pytest.mark.parametrize(
    ("template", "tags"),
    [
        ("test,service,backend", ("test", "service", "backend")),
        ("{{ splitIndex -1 \"/\" \"" + ECS + "\" }}", ("368f4403-0ee4-4f4c-b7a5-be50c57db5cf",)),
        ("{{ split \",\" \"/proc/bus,/proc/fs,/proc/irq\" }}", ("[/proc/bus /proc/fs /proc/irq]",)),
        ("{{ split \"-\" .Config.Hostname | sIndex 0 }}", ("ecs",)),
        ("{{ toUpper \"foo\" }}", ("FOO",)),
        ("{{ toLower \"FoO\" }}", ("foo",)),
        ("{{ replace -1 \"=\" \"\" \"=foo=\" }}", ("foo",)),
        ("{{ matchFirstElement \"^SERVICE_\" .Config.Env }}", ("SERVICE_8105_NAME=foo",)),
        ("{{ mIndex \"com.amazonaws.ecs.task-arn\" .Config.Labels }}", (ECS,)),
    ],
)  # fmt: skip
def test_examples_of_the_issue_that_brought_templates(template: str, tags: tuple[str, ...]) -> None:
    answer = INSPECTIONS["portlabels"] | {
        "Config": INSPECTIONS["portlabels"]["Config"] | {"Hostname": "ecs-1"}
    }
    config = read(template)
    found = container_of(answer, (), derivation(config))
    [service] = services(found, config.rules("vm", "127.0.0.1")).services
    assert service.tags == tags
