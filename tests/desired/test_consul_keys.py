"""The keys that only Consul knows: weights and the tag override."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrator.desired.rules import Rules
from registrator.desired.services import services
from registrator.model import Container, Offer, Port, Reason, Service


def offer(**env: str) -> Offer:
    container = Container(
        id="1" * 64, name="web", image="nginx", hostname="1", env=env,
        ports=(Port(80, "tcp", "0.0.0.0", 8080),),
    )  # fmt: skip
    return services(container, Rules("host", "127.0.0.1"))


def one(**env: str) -> Service:
    (service,) = offer(**env).services
    return service


def test_weights_and_the_tag_override_are_no_attributes() -> None:
    made = one(
        SERVICE_WEIGHT_PASSING=" 10 ", SERVICE_80_WEIGHT_WARNING="0",
        SERVICE_ENABLE_TAG_OVERRIDE="True", SERVICE_X="y",
    )  # fmt: skip
    assert (made.weights, made.tag_override, made.attrs) == ((10, 0), True, {"x": "y"})
    assert not {"weights", "tag_override"} & made.record.keys()


def test_a_container_without_them_has_consuls_own_defaults() -> None:
    made = one(SERVICE_WEIGHT_PASSING="", SERVICE_ENABLE_TAG_OVERRIDE="f")
    assert (made.weights, made.tag_override, made.attrs) == ((1, 1), False, {})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(
            ("SERVICE_WEIGHT_PASSING", each)
            for each in ("0", "65536", "-1", "1.5", "x", "²", "1e3")
        ),
        *(("SERVICE_80_WEIGHT_WARNING", each) for each in ("-1", "65536", "9" * 5000)),
        *(("SERVICE_Enable_Tag_Override", each) for each in ("yes", "2", "a\nb")),
    ],
)
def test_a_wrong_value_leaves_the_service_out_and_names_the_key(key: str, value: str) -> None:
    found = offer(**{key: value})
    assert found.services == ()
    (left_out,) = found.left_out
    assert left_out.reason is Reason.REJECTED
    assert left_out.text.startswith(f"{key} is ")
    assert left_out.text.isprintable()
    assert len(left_out.text) < 250


@given(st.text(), st.text(), st.text())
def test_no_value_gives_a_service_outside_of_consuls_limits(
    passing: str, warning: str, override: str
) -> None:
    found = offer(
        SERVICE_WEIGHT_PASSING=passing, SERVICE_WEIGHT_WARNING=warning,
        SERVICE_ENABLE_TAG_OVERRIDE=override,
    )  # fmt: skip
    assert len(found.services) + len(found.left_out) == 1
    for service in found.services:
        assert 1 <= service.weights[0] <= 65535
        assert 0 <= service.weights[1] <= 65535
        assert isinstance(service.tag_override, bool)
