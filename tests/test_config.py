"""Options and environment become one configuration, or a report of every mistake at once."""

import contextlib
import itertools
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrator.backend import ConfigError, Unavailable
from registrator.config import Config, ConfigErrors, configure
from registrator.desired.addresses import COMPOSE_PROJECT
from registrator.desired.filters import Filter, parse_filter
from registrator.desired.rules import Rules
from registrator.desired.services import COMPOSE_SERVICE
from registrator.options import OPTIONS, misspelt
from registrator.uri import parse

SECRET = "s3cret"


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"file://{tmp_path}/services.json"


def mistakes(
    given: Mapping[str, str | None] | None = None,
    uris: list[str] | None = None,
    environ: dict[str, str] | None = None,
) -> list[str]:
    """The mistakes in these. Without URIs, all but that they are missing."""
    with pytest.raises(ConfigErrors) as caught:
        configure(given or {}, uris or [], environ or {})
    assert SECRET not in str(caught.value)
    found = list(caught.value.mistakes)
    if not uris:
        assert "registry URI is missing" in found[-1]
        found.pop()
    return found


def test_the_defaults(uri: str) -> None:
    config = configure({}, [uri], {})
    assert config == Config((parse(uri),))
    assert (config.cleanup, config.resync, config.deregister) == (True, 60, "always")
    assert (config.retry_attempts, config.retry_interval) == (-1, 2.0)
    assert (config.internal, config.explicit, config.ttl, config.ttl_refresh) == (
        False,
        False,
        0,
        0,
    )
    assert (config.log_level, config.log_format) == ("info", "text")


def test_the_help_shows_the_defaults_that_hold() -> None:
    """`Option.default` is for the help, `Config` has the value: they must not differ."""
    config = Config(())
    for option in OPTIONS:
        value = getattr(config, option.field)
        if not value and (not option.default or option.default[0] in "ft"):
            continue  # found out later, or false
        if option.default.startswith("the "):
            assert value == ""
        else:
            assert option.read(option.default) == value, option.name


def test_every_option(uri: str) -> None:
    config = configure(
        {
            "ip": "192.0.2.1", "internal": "true", "network": "front", "explicit": "1",
            "useIpFromLabel": "addr", "tags": "a\\,b, c", "hostname": "h", "cleanup": "F",
            "deregister": "on-success", "resync": "0", "ttl": "30", "ttl-refresh": "10.5",
            "deregister-on-stop": "true", "deregister-on-pause": "1", "health": "true",
            "retry-attempts": "3", "retry-interval": "500", "log-level": "debug",
            "log-format": "json", "filter": "label=a,name=b",
        },
        [uri],
        {},
    )  # fmt: skip
    assert config == Config(
        uris=(parse(uri),), ip="192.0.2.1", internal=True, network="front", explicit=True,
        use_ip_from_label="addr", tags=("a,b", "c"), hostname="h", cleanup=False,
        deregister="on-success", resync=0, ttl=30, ttl_refresh=10.5, retry_attempts=3,
        deregister_on_stop=True, deregister_on_pause=True, health=True, retry_interval=0.5,
        log_level="debug", log_format="json", filter=parse_filter("label=a,name=b"),
    )  # fmt: skip
    assert config.rules("found", "192.0.2.9") == Rules(
        "h", "192.0.2.9", "192.0.2.1", True, "front", True, "addr", ("a,b", "c"),
        parse_filter("label=a,name=b"), on_stop=True, on_pause=True, health=True,
    )  # fmt: skip
    assert configure({}, [uri], {}).rules("found", "192.0.2.9").hostname == "found"


def test_a_filter_of_each_registry(uri: str) -> None:
    plain, repeated = "consul://a", f"{uri}?filter=label=k%3Dv&filter=image!=*%40sha256:*,name=x%2B"
    config = configure({"filter": "label=all"}, [repeated, plain], {})
    own = parse_filter("label=k=v,image!=*@sha256:*,name=x+")
    assert config.registry_filters == (own, Filter())
    assert config.labels == ("all", "k", COMPOSE_SERVICE, COMPOSE_PROJECT)
    rules = config.rules("h", "192.0.2.9")
    assert (rules.filter.text, rules.filters) == ("label=all", (own, Filter()))
    assert str(config.uris[0]) == f"{uri}?filter={own.text}"
    assert configure({}, [plain], {}).rules("h", "").filters == ()


@pytest.mark.parametrize("text", ["", "s3cret", "name=a%0Ab", "label=a,s3cret"])
def test_a_wrong_filter_of_a_registry(uri: str, text: str) -> None:
    [mistake] = mistakes(uris=[f"{uri}?filter={text}"])
    assert mistake.startswith("registry URI 1: filter must be terms such as")
    assert "\n" not in mistake


def test_a_registry_has_one_filter(uri: str) -> None:
    """With two, each would remove what the other one registers."""
    [mistake] = mistakes(uris=[f"{uri}?filter=name=a", f"{uri}?filter=name=b"])
    assert mistake.endswith("?filter=name=b is given twice")


@pytest.mark.parametrize(
    ("given", "events"),
    [
        ({}, ()),
        ({"deregister-on-stop": "true"}, ("kill",)),
        ({"deregister-on-pause": "true"}, ("pause", "unpause")),
        ({"health": "true"}, ("health_status",)),
        ({"deregister-on-stop": "true", "health": "true"}, ("kill", "health_status")),
        (
            {"deregister-on-stop": "true", "deregister-on-pause": "true"},
            ("kill", "pause", "unpause"),
        ),
    ],
)
def test_events_that_only_an_option_needs(
    given: dict[str, str | None], events: tuple[str, ...], uri: str
) -> None:
    assert configure(given, [uri], {}).more_events == events


def test_every_option_has_a_variable(uri: str) -> None:
    names = {option.variable for option in OPTIONS}
    assert names >= {"REGISTRATOR_RETRY_ATTEMPTS", "REGISTRATOR_USEIPFROMLABEL", "REGISTRATOR_IP"}
    environ = {
        "REGISTRATOR_RETRY_ATTEMPTS": "7",
        "REGISTRATOR_USEIPFROMLABEL": "addr",
        "REGISTRATOR_CLEANUP": "false",
        "REGISTRATOR_TAGS": "a",
        "REGISTRATOR_NETWORK": "",  # empty is not set
        "REGISTRATOR_PORT": "tcp://192.0.2.1:80",  # Docker's links and Kubernetes set such ones
    }
    config = configure({"tags": "b"}, [uri], environ)
    assert (config.retry_attempts, config.use_ip_from_label) == (7, "addr")
    assert (config.cleanup, config.tags) == (False, ("b",))


def test_an_empty_value_counts_as_not_given(uri: str) -> None:
    empty = {option.name: "" for option in OPTIONS if option.metavar}
    assert configure(empty, [uri], {}) == configure({}, [uri], {})
    environ = {"REGISTRATOR_RESYNC": "5", "REGISTRATOR_TAGS": "a"}
    config = configure(empty, [uri], environ)
    assert (config.resync, config.tags) == (5, ("a",))


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("REGISTRATOR_INTRNAL", "INTERNAL"),
        ("REGISTRATOR_USE_IP_FROM_LABEL", "USEIPFROMLABEL"),
        ("REGISTRATOR_TTLREFRESH", "TTL_REFRESH"),
        ("REGISTRATOR_TTL-REFRESH", "TTL_REFRESH"),
        ("REGISTRATOR_TAG", "TAGS"),
        ("REGISTRATOR_ip", "IP"),
    ],
)
def test_a_misspelt_variable(variable: str, meant: str) -> None:
    [text] = misspelt({variable: SECRET})
    assert text.startswith(f"{variable} is not read;")
    assert text.endswith(f" REGISTRATOR_{meant}")
    assert SECRET not in text
    assert misspelt({variable: ""}) == [], "an empty one counts as not set"


def test_variables_that_nobody_misspelt() -> None:
    """Docker's links and Kubernetes set such for a service that is named after the agent."""
    names = ["PORT", "PORT_80_TCP", "PORT_80_TCP_ADDR", "PORT_80_TCP_PORT", "PORT_80_TCP_PROTO",
             "NAME", "ENV_PATH", "SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "HOST",
             "VERSION", "IMAGE", "OPTS", "URI", "", "INTRNAL\n"]  # fmt: skip
    environ = {f"REGISTRATOR_{name}": "x" for name in names} | {"INTRNAL": "x"}
    assert misspelt(environ | {option.variable: "x" for option in OPTIONS}) == []


@pytest.mark.parametrize("text", ["1", "t", "T", "true", "TRUE", "True"])
def test_gos_true(uri: str, text: str) -> None:
    assert configure({"internal": text}, [uri], {}).internal


@pytest.mark.parametrize("text", ["0", "f", "F", "false", "FALSE", "False"])
def test_gos_false(uri: str, text: str) -> None:
    assert not configure({"cleanup": text}, [uri], {}).cleanup


@pytest.mark.parametrize(
    ("option", "text"),
    [
        *itertools.product(["internal", "cleanup", "explicit"], ["", "yes", "TrUe", "2", SECRET]),
        *itertools.product(
            ["ip"],
            ["0.0.0.0", "::", "300.1.1.1", "h" * 16, "a/b", "a b", "::1%a", f"{SECRET}."],
        ),
        *itertools.product(
            ["resync", "ttl"], ["-1", " ", "x", "inf", "nan", "1e3", "5s", "\u0661"]
        ),
        *itertools.product(["retry-interval"], ["0", "-5", "1.5", "2s", " ", "9" * 20]),
        *itertools.product(["retry-attempts"], ["-2", "1.5", "x", " ", "9" * 20]),
        *itertools.product(["network", "hostname", "useIpFromLabel"], [" ", "a\0", "x" * 256]),
        ("deregister", "never"),
        ("log-level", "loud"),
        ("log-format", "xml"),
        ("tags", "a,b\0"),
        ("tags", "x" * 10_000),
    ],
)
def test_a_wrong_value(option: str, text: str) -> None:
    found = mistakes({option: text})
    assert found[0].startswith(f"-{option} must be ")
    [variable] = [o.variable for o in OPTIONS if o.name == option]
    if text:
        assert mistakes(environ={variable: text})[0].startswith(f"{variable} must be ")


@pytest.mark.parametrize(
    ("option", "least", "less"),
    [
        ("resync", "0.1", "0.09"),
        ("ttl", "1", "0.999"),
        ("ttl-refresh", "0.1", "0.000000001"),
    ],
)
def test_seconds_that_are_too_few(uri: str, option: str, least: str, less: str) -> None:
    assert mistakes({option: less}) == [
        f"-{option} must be a number of seconds: 0, or at least {least}"
    ]
    given = {"ttl": "30", "ttl-refresh": "0.1"}
    config = configure({**given, option: least}, [uri], {})
    [field] = [o.field for o in OPTIONS if o.name == option]
    assert getattr(config, field) == float(least)
    assert getattr(configure(dict.fromkeys([*given, option], "0"), [uri], {}), field) == 0


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"ttl": "30"}, "-ttl and -ttl-refresh go together"),
        ({"ttl-refresh": "30"}, "-ttl and -ttl-refresh go together"),
        ({"ttl": "30", "ttl-refresh": "0"}, "-ttl and -ttl-refresh go together"),
        ({"ttl": "10", "ttl-refresh": "10"}, "-ttl must be larger"),
        ({"ttl": "10", "ttl-refresh": "20"}, "-ttl must be larger"),
        ({"network": "front"}, "-network needs -internal"),
        ({"network": "front", "internal": "false"}, "-network needs -internal"),
    ],
)
def test_values_that_contradict_each_other(given: dict[str, str], reason: str) -> None:
    [text] = mistakes(given)
    assert reason in text


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({"ttl": "abc", "ttl-refresh": "10"}, ["-ttl must"]),
        ({"ttl": "30", "ttl-refresh": "0.01"}, ["-ttl-refresh must"]),
        ({"ttl": "30", "ttl-refresh": None}, []),
        ({"network": "x", "internal": "yes"}, ["-internal must"]),
        ({"network": "x", "internal": ""}, ["-internal must"]),
    ],
)
def test_what_cannot_be_read_contradicts_nothing(
    given: dict[str, str | None], wrong: list[str]
) -> None:
    found = mistakes(given)
    assert len(found) == len(wrong), found
    assert all(text.startswith(part) for part, text in zip(wrong, found, strict=True))


def test_ip_and_internal_go_together(uri: str) -> None:
    """The first is then for what has no address of its own, as on the host network."""
    assert configure({"ip": "192.0.2.1", "internal": "true"}, [uri], {}).internal


def test_all_mistakes_are_reported_at_once(uri: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        configure(
            {"ip": "x.", "ttl": "5", "network": "n", "internal": "yes"},
            ["nonsense", "no-such://a", "file:///no/such/folder/x", uri + "?timeout=soon"],
            {"REGISTRATOR_RESYNC": "x", "REGISTRATOR_IP": "ignored: the option wins"},
            ["unknown option -foo", "unknown option -bar"],
        )
    found = caught.value.mistakes
    expected = [
        "unknown option -foo", "unknown option -bar", "-ip must", "-internal must",
        "REGISTRATOR_RESYNC must", "go together", "registry URI 1: does not have the form",
        "unknown registry scheme", "folder /no/such/folder does not exist", "timeout must be",
    ]  # fmt: skip
    assert len(found) == len(expected)
    assert all(part in text for part, text in zip(expected, found, strict=True)), found


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"{SECRET}", "does not have the form"),
        (f"{SECRET}:{SECRET}@host:8500", "does not have the form"),
        (f"consul:{SECRET}@host", "does not have the form"),
        (f"consul://{SECRET}@host:99999", "out of range"),
        (f"consul://u:{SECRET}@x@host", "%40"),
        (f"consul://u:12/{SECRET}@host", "%40"),
        (f"no-such://{SECRET}@host?token={SECRET}", "unknown registry scheme 'no-such'"),
        (f"file://u:{SECRET}@/x.json", "three slashes"),
        (f"file://{SECRET}@/x.json?token={SECRET}", "three slashes"),
    ],
)
def test_a_wrong_uri_shows_no_secret(text: str, reason: str) -> None:
    [found] = mistakes(uris=[text])
    assert reason in found


def test_the_same_registry_twice(uri: str, tmp_path: Path) -> None:
    [text] = mistakes(uris=[uri, uri + "?timeout=1"])
    assert "given twice" in text
    assert len(configure({}, [uri, f"file://{tmp_path}/other.json"], {}).uris) == 2


@pytest.mark.parametrize("text", ["", "0", "-1", "x", "301", "6m", "1h", "0ms", "1 s"])
def test_a_deadline_that_is_none(uri: str, text: str) -> None:
    [found] = mistakes(uris=[f"{uri}?timeout={text.replace(' ', '%20')}"])
    assert "timeout must be" in found


def test_a_backend_that_finds_its_file_wrong_at_start(uri: str, tmp_path: Path) -> None:
    file = tmp_path / "services.json"
    file.write_text("root:x:0:0")
    # One that changed just now may be half written.
    os.utime(file, (0, 0))
    [found] = mistakes(uris=[uri])
    assert "move it away" in found


def test_errors_of_the_run_are_not_mistaken_for_those_of_the_configuration() -> None:
    assert not issubclass(ConfigErrors, ConfigError)
    assert not issubclass(ConfigErrors, Unavailable)


@given(
    st.dictionaries(st.sampled_from([o.name for o in OPTIONS]), st.text(max_size=12)),
    st.dictionaries(st.sampled_from([o.variable for o in OPTIONS]), st.text(max_size=12)),
    st.lists(st.text(max_size=20), max_size=3),
)
def test_whatever_is_given_it_is_a_configuration_or_a_report(
    given: dict[str, str], environ: dict[str, str], uris: list[str]
) -> None:
    with contextlib.suppress(ConfigErrors):
        assert configure(given, uris, environ).uris
