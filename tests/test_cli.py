"""The command line as a user has it: forms of options, help, every mistake, exit codes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import registrator.agent
import registrator.commands.withdraw
from registrator import __version__
from registrator.cli import EXAMPLES, main, split
from registrator.commands.table import COMMANDS
from registrator.config import Config
from registrator.options import OPTIONS

CONSUL = "consul://127.0.0.1:8500"


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("REGISTRATOR_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """The configurations that the agent was run with. It ends with exit code 7."""
    configs: list[Config] = []

    def run(config: Config) -> int:
        configs.append(config)
        return 7

    monkeypatch.setattr(registrator.agent, "run", run)
    return configs


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Run the command in this process. Gives its exit code."""
    monkeypatch.setattr(sys, "argv", ["registrator", *words])
    with pytest.raises(SystemExit) as caught:
        main()
    assert isinstance(caught.value.code, int)
    return caught.value.code


# Forms


@pytest.mark.parametrize(
    "words",
    [
        ["-ip", "192.0.2.1", "-internal", CONSUL],
        ["--ip", "192.0.2.1", "--internal", CONSUL],
        ["-ip=192.0.2.1", "-internal=true", CONSUL],
        ["--ip=192.0.2.1", "--internal=true", CONSUL],
        [CONSUL, "-ip", "192.0.2.1", "-internal=true"],
        ["-internal", CONSUL, "--ip=192.0.2.1"],
        ["-ip=10.0.0.1", "-ip=192.0.2.1", "-internal=false", "-internal=true", CONSUL],
        ["-internal", "-ip", "192.0.2.1", "--", CONSUL],
    ],
)
def test_one_meaning_in_every_form(words: list[str]) -> None:
    found = split(words)
    assert found.given == {"ip": "192.0.2.1", "internal": "true"}
    assert (found.uris, found.wrong) == ([CONSUL], [])


def test_values_as_go_takes_them() -> None:
    found = split(["-retry-attempts", "-1", "-tags=a=b,c", "-hostname=", "-ip", "--", CONSUL])
    assert found.given == {"retry-attempts": "-1", "tags": "a=b,c", "hostname": "", "ip": "--"}
    assert found.uris == [CONSUL]


@pytest.mark.parametrize("word", ["false", "true", "0", "T"])
def test_a_boolean_takes_no_following_value(word: str) -> None:
    found = split(["-cleanup", word, CONSUL])
    assert found.wrong == [f"-cleanup needs its value after '=': -cleanup={word}"]
    assert found.uris == [CONSUL], "it is not blamed on a URI"


@pytest.mark.parametrize("words", [["-cleanup", "no"], ["-cleanup=true", "false"]])
def test_another_word_after_a_boolean_is_a_uri(words: list[str]) -> None:
    found = split(words)
    assert (found.given, found.uris, found.wrong) == ({"cleanup": "true"}, words[1:], [])


def test_after_two_dashes_nothing_is_an_option() -> None:
    found = split(["--", "-ip", "--"])
    assert (found.given, found.uris, found.wrong) == ({}, ["-ip", "--"], [])


def test_unknown_options_are_named_without_what_may_be_secret() -> None:
    found = split(["-foo", "--bar=s3cret", "-s3cret", "---ip", "-consul://s3cret@h", "-tags"])
    assert found.wrong == [
        "unknown option -foo",
        "unknown option -bar",
        *["a word that starts with - is not an option"] * 3,
        "-tags needs a value",
    ]


@given(st.lists(st.text(max_size=12)))
def test_no_word_is_lost(words: list[str]) -> None:
    found = split(words)
    assert bool(words in ([], ["--"])) == (not any(found))


# Runs


def test_the_agent_runs_with_what_was_said(
    monkeypatch: pytest.MonkeyPatch, ran: list[Config], tmp_path: Path
) -> None:
    monkeypatch.setenv("REGISTRATOR_RESYNC", "5")
    monkeypatch.setenv("REGISTRATOR_CLEANUP", "false")
    uris = [f"file://{tmp_path}/{name}.json" for name in "ab"]
    assert call(monkeypatch, uris[0], "-cleanup=true", "-explicit", uris[1]) == 7
    [config] = ran
    assert [str(uri) for uri in config.uris] == uris
    assert (config.resync, config.cleanup, config.explicit) == (5, True, True)


def test_every_mistake_of_a_call_is_reported(
    monkeypatch: pytest.MonkeyPatch, ran: list[Config], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REGISTRATOR_LOG_LEVEL", "loud")
    code = call(
        monkeypatch, "-foo", "--bar=1", "-internal=maybe", "-ttl", "30", "-ip=s3cret.",
        "no-such://s3cret@h", "s3cret@h", "-hostname",
    )  # fmt: skip
    out, err = capsys.readouterr()
    assert (code, out, ran) == (2, "", [])
    lines = err.splitlines()
    expected = [
        "unknown option -foo", "unknown option -bar", "-hostname needs a value", "-ip must be",
        "-internal must be", "REGISTRATOR_LOG_LEVEL must be", "-ttl and -ttl-refresh go together",
        "registry URI 2: does not", "no-such://***@h: unknown registry scheme", "--help",
    ]  # fmt: skip
    assert len(lines) == len(expected)
    assert all(part in line for part, line in zip(expected, lines, strict=True)), err
    assert "s3cret" not in err


@pytest.mark.parametrize(
    ("words", "mistakes"),
    [
        (["-ttl", "abc", "-ttl-refresh", "10", CONSUL], ["-ttl must be"]),
        (["-ttl", "30", CONSUL, "-ttl-refresh"], ["-ttl-refresh needs a value"]),
        (["-internal=yes", "-network", "x", CONSUL], ["-internal must be"]),
        (["-internal", "true", "-network", "x", CONSUL], ["-internal needs its value after '='"]),
        (["-cleanup", "false", CONSUL], ["-cleanup needs its value after '='"]),
    ],
)
def test_nothing_follows_from_a_mistake(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    mistakes: list[str],
) -> None:
    assert call(monkeypatch, *words) == 2
    lines = capsys.readouterr().err.splitlines()[:-1]
    assert len(lines) == len(mistakes), lines
    assert all(part in line for part, line in zip(mistakes, lines, strict=True)), lines


def test_an_empty_value_is_none(monkeypatch: pytest.MonkeyPatch, ran: list[Config]) -> None:
    """As where a variable of a compose file is not set."""
    assert call(monkeypatch, "-ip", "", "-useIpFromLabel=", CONSUL) == 7
    assert (ran[0].ip, ran[0].use_ip_from_label) == ("", "")


def test_a_misspelt_variable_is_told_of(
    monkeypatch: pytest.MonkeyPatch, ran: list[Config], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REGISTRATOR_INTRNAL", "s3cret")
    assert call(monkeypatch, CONSUL) == 7
    assert not ran[0].internal
    assert capsys.readouterr().err == (
        "registrator: REGISTRATOR_INTRNAL is not read; -internal is set by REGISTRATOR_INTERNAL\n"
    )


def test_no_uri(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch) == 2
    assert "a registry URI is missing" in capsys.readouterr().err


# Commands


def test_a_command_is_the_first_word(
    monkeypatch: pytest.MonkeyPatch, ran: list[Config], tmp_path: Path
) -> None:
    calls: list[tuple[Config, str, bool]] = []

    def run(config: Config, owner: str = "", yes: bool = False) -> int:
        calls.append((config, owner, yes))
        return 9

    monkeypatch.setattr(registrator.commands.withdraw, "run", run)
    monkeypatch.setenv("REGISTRATOR_HOSTNAME", "h")
    monkeypatch.setenv("REGISTRATOR_OWNER", "no variable")
    monkeypatch.setenv("REGISTRATOR_YES", "true")
    uri = f"file://{tmp_path}/a.json"
    assert call(monkeypatch, "withdraw", "-ttl", "30", "-ttl-refresh=10", uri) == 9
    assert call(monkeypatch, "withdraw", uri, "-owner", "x", "-yes") == 9
    assert [(str(c.uris[0]), c.hostname, c.ttl, *own) for c, *own in calls] == [
        (uri, "h", 30, "", False),
        (uri, "h", 0, "x", True),
    ]
    assert call(monkeypatch, uri, "withdraw") == 2, "it is no URI elsewhere"
    assert ran == []


def test_mistakes_of_a_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "withdraw", "-owner", "a\nb", "-yes=perhaps", "-foo") == 2
    expected = ["unknown option -foo", "-owner must be", "-yes must be", "URI is missing",
                "'registrator withdraw --help'"]  # fmt: skip
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(expected)
    assert all(part in line for part, line in zip(expected, lines, strict=True)), lines
    assert call(monkeypatch, "-owner", "x", CONSUL) == 2, "the agent has no such option"
    assert "unknown option -owner" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["lst"], "lst is no command and no registry URI: did you mean list?"),
        (["explian", "web"], "explian is no command and no registry URI: did you mean explain?"),
        (["-ttl", "3", "list"], "list is a command: it has to be the first word"),
        (["diff", "chek", CONSUL], "chek is no command and no registry URI: did you mean check?"),
    ],
)
def test_a_misspelt_command(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    told: str,
) -> None:
    assert call(monkeypatch, *words) == 2
    assert capsys.readouterr().err.splitlines()[0] == f"registrator: {told}"


@pytest.mark.parametrize("word", ["tiger", "consul", "li\x1bst", "s3cret"])
def test_a_word_that_is_nothing_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], word: str
) -> None:
    assert call(monkeypatch, word) == 2
    told = capsys.readouterr().err
    assert told.startswith("registrator: registry URI 1: does not have the form")
    assert word not in told.replace(CONSUL, "")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert call(monkeypatch, name, "--help") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert f"Usage: registrator {name} {COMMANDS[name].usage}" in out
    assert all(f"  -{option.name} " in out for option in COMMANDS[name].options)
    assert max(map(len, out.splitlines())) <= 100
    assert call(monkeypatch, "--help") == 0
    out = capsys.readouterr().out
    assert COMMANDS[name].summary in out


# Help


@pytest.mark.parametrize("word", ["-help", "--help", "-h"])
def test_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], word: str
) -> None:
    assert call(monkeypatch, "-foo", word) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "Usage: registrator [options] <registry URI>..." in out
    for option in OPTIONS:
        assert f"  -{option.name} " in out
        assert f"\n{option.group}:\n" in out
    assert EXAMPLES in out
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize("word", ["-version", "--version"])
def test_version(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], word: str
) -> None:
    assert call(monkeypatch, word, CONSUL) == 0
    assert __version__ in capsys.readouterr().out


def test_the_examples_are_well_formed() -> None:
    meanings, lines = EXAMPLES.splitlines()[::2], EXAMPLES.splitlines()[1::2]
    assert all(meaning.startswith("  # ") for meaning in meanings)
    for line in lines:
        program, *words = line.split()
        assert program == "registrator"
        assert split(words).wrong == []
        assert split(words).uris


# As a program


@pytest.mark.parametrize(
    "program",
    [[sys.executable, "-m", "registrator"], [str(Path(sys.executable).with_name("registrator"))]],
)
def test_as_a_program(program: list[str]) -> None:
    wrong = subprocess.run([*program, "-foo"], capture_output=True, text=True, timeout=60)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "Traceback" not in wrong.stderr
    version = subprocess.run([*program, "--version"], capture_output=True, text=True, timeout=60)
    assert (version.returncode, version.stderr) == (0, "")


def test_help_needs_neither_docker_nor_a_registry() -> None:
    """Modules that take long to import are imported when they are needed."""
    code = (
        "import sys, registrator.cli; print([m for m in ('docker', 'consul') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.stdout.strip() == "[]"


def test_what_guesses_encodings_is_not_loaded() -> None:
    """It would take a tenth of the memory. What else wants it still finds it."""
    command = [sys.executable, "-W", "error", "-X", "importtime", "-m", "registrator", CONSUL]
    run = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=os.environ | {"DOCKER_HOST": "x"}
    )
    assert run.returncode == 2
    assert re.search(r"\| +docker\.api\n", run.stderr), "it came to look for the engine"
    assert not re.search(r"charset_normalizer\.|chardet\.|Warning", run.stderr)
    code = (
        "import registrator.system.memory as m;"
        "m.import_requests_without_charset_detection(); import charset_normalizer"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)
