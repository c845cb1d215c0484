"""The commands that ask the running agent: what they print, and their exit codes."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from support.fakes import container
from support.wait import DEADLINE

from registrator.cli import command
from registrator.commands import asking, status, watch
from registrator.commands.table import COMMANDS
from registrator.desired.rules import Rules
from registrator.desired.services import services
from registrator.listener.client import Agent, Reply
from registrator.model import Container, LeftOut, Offer, Port, Problem, Reason, Snapshot
from registrator.status.board import Board
from registrator.status.rows import AgentRow
from registrator.status.state import rendered

RULES = Rules("h", "192.0.2.1")
URIS = ("consul://h:8500", "etcd://h:2379/s")
ID = "de412d4ddc70" + "0" * 52

Run = Callable[..., tuple[int, list[str]]]


def board(*containers: Container, more: dict[str, Offer] | None = None) -> Board:
    """A board on which all of these stand in each registry."""
    made = Board(URIS)
    made.agent = AgentRow("1.1.0", 1000.0, hostname="web01", address="192.0.2.1")
    made.engine.succeeded(version="20.10.24", address="unix:///var/run/docker.sock")
    offers = {each.id: replace(services(each, RULES), container=each) for each in containers}
    made.offers = {**offers, **(more or {})}
    services_ = (each for offer in offers.values() for each in offer.services)
    found = Snapshot({each.id: each for each in services_})
    for report in made.registries:
        report.realised(found, {})
    return made


def beside(monkeypatch: pytest.MonkeyPatch, boards: Sequence[Board | Exception]) -> list[Agent]:
    """Agents with these boards, by their process ids from 1 on. An error is the only answer."""
    answers = {
        str(pid): each if isinstance(each, Exception) else rendered(each)
        for pid, each in enumerate(boards, 1)
    }

    def answer(name: str, _: str) -> Reply:
        made = answers[name]
        if isinstance(made, Exception):
            raise made
        return Reply(200, {}, made)

    monkeypatch.setattr(asking, "ask", answer)
    return [Agent(name, int(name)) for name in answers]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command beside agents with these boards. Gives the exit code and the lines."""

    def run(boards: list[Board | Exception], *words: str) -> tuple[int, list[str]]:
        found = beside(monkeypatch, boards)
        monkeypatch.setattr(asking, "agents", lambda: found)
        with pytest.raises(SystemExit) as ended:
            command(list(words), prog_name="registrator")
        shown = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return code, (shown.out + shown.err).splitlines()

    return run


def test_status_shows_agent_engine_and_registries(run: Run) -> None:
    made = board(container())
    made.registries[1].failed("b:2379: no answer within 2 s")
    code, lines = run([made], "status")
    assert code == 1
    assert lines[0].startswith("web01  1.1.0  up ")
    assert lines[0].endswith("published ports at 192.0.2.1")
    assert lines[1] == "engine  20.10.24  answers  1 container, 1 service"
    assert tuple(lines[2].split()) == status.HEAD
    assert lines[3].split() == ["consul://h:8500", "in", "sync", "-", "1", "0", "0", "0"]
    assert lines[4].startswith("etcd://h:2379/s  down for 0 s")
    assert lines[5].startswith("etcd://h:2379/s: b:2379: no answer within 2 s")
    assert lines[6] == "1 needs attention", "the list has nothing to say of it"
    made.registries[0].realised(Snapshot(), {})
    made.registries[0].failed("no answer")
    assert run([made], "status")[1][-1] == "3 need attention: see registrator list"


def test_all_is_fine(run: Run) -> None:
    assert run([board(container())], "status")[0] == 0
    code, lines = run([board(container("web", 32769))], "list")
    assert code == 0
    assert [line.split() for line in lines] == [
        ["CONTAINER", "PORT", "STATE", "SERVICE", "ADDRESS", "WHY"],
        ["web", "80/tcp", "registered", "web", "192.0.2.1:32769"],
    ]
    assert run([board()], "list")[1] == ["no container runs here"]


def test_the_list_begins_with_what_needs_attention(run: Run) -> None:
    made = board(*(container(name, 32769 + n) for n, name in enumerate("abc")))
    realised = made.registries[0].row.realised
    assert realised is not None
    problem = Problem(Reason.REFUSED, "its id is reserved")
    made.registries[0].realised(realised, {"h:b:80": problem})
    code, lines = run([made], "list")
    assert code == 1
    assert [line.split()[0] for line in lines[1:]] == ["b", "a", "c"]
    assert lines[1].split()[2] == "refused", "the word for what a registry refuses"
    head, *counts = (run([made], "status")[1][place].split()[-4:] for place in (2, 3, 4))
    assert head == ["REGISTERED", "PENDING", "REFUSED", "CONFLICTS"]
    assert counts == [["2", "0", "1", "0"], ["3", "0", "0", "0"]]


def test_explain_says_why_and_what_to_do(run: Run) -> None:
    left_out = (LeftOut(Port(5432, "tcp"), Reason.NOT_PUBLISHED),)
    db = container("db", image="postgres:16", started_at=10**18)
    more = {ID: Offer(left_out=left_out, container=db)}
    for word in ("db", "/db", ID[:12], ID):
        code, lines = run([board(more=more)], "explain", word)
        assert code == 0, "somebody wants it so"
        assert lines == [
            "db (de412d4ddc70), postgres:16, running since 2001-09-09 01:46:40Z",
            "5432/tcp  left out: it is not published",
            "                    publish it with -p, or run the agent with -internal",
        ]


def test_explain_tells_each_registry(run: Run) -> None:
    made = board(container("web", 32769, env={"SERVICE_TAGS": "a,b"}))
    realised = made.registries[1].row.realised
    assert realised is not None
    problem = Problem(Reason.OTHERS_ENTRY, "another owner holds it")
    made.registries[1].realised(realised, {"h:web:80": problem})
    code, lines = run([made], "explain", "web")
    assert code == 1
    assert lines[1:] == [
        "80/tcp  web at 192.0.2.1:32769 as h:web:80 with the tags a, b",
        "  consul://h:8500: registered",
        "  etcd://h:2379/s: another owner holds it",
        f"{' ' * 19}remove the other entry, or set another SERVICE_ID or -hostname",
    ]


def test_a_container_that_nobody_knows(run: Run) -> None:
    code, lines = run([board()], "explain", "db\n")
    assert code == 1
    end = ": see registrator list"
    assert lines == [f"registrator: no running container has the name or the id 'db\\n'{end}"]


@pytest.mark.parametrize(
    ("operand", "hint"),
    [("b-", "'a\\x1bdb-' or db-1 or my-db-2"), ("shpo", "shop"), ("SHOP", ""), ("cache", "")],
)
def test_names_that_may_be_meant(run: Run, operand: str, hint: str) -> None:
    made = board(*map(container, ("db-1", "my-db-2", "a\x1bdb-", "shop")))
    code, (line,) = run([made], "explain", operand)
    assert code == 1
    wanted = f"did you mean {hint}?" if hint else "see registrator list"
    assert line.endswith(f": {wanted}")


def test_hostile_text_stays_in_its_line(run: Run) -> None:
    hostile = container("a\x1b[2J\nb", image="x\u2028y")
    for words in (["list"], ["explain", hostile.id]):
        _, lines = run([board(hostile)], *words)
        assert not any(char in "".join(lines) for char in "\x1b\u2028")
        assert "a\\x1b[2J\\nb" in "".join(lines)


def test_json_is_the_state(run: Run) -> None:
    made = board(container("web"))
    for name in ("status", "list"):
        code, lines = run([made, made], name, "-json")
        assert code == 0
        assert [json.loads(line)["schema"] for line in lines] == [1, 1]
    _, lines = run([made], "explain", "-json", "web")
    assert json.loads(lines[0])["ports"][0]["service"]["id"] == "h:web:80"


def test_several_agents_are_shown_one_after_the_other_with_their_names(run: Run) -> None:
    one, two = (f"agent web01[{pid}] for consul://h:8500, etcd://h:2379/s:" for pid in (1, 2))
    _, lines = run([board(), board()], "list")
    assert lines == [one, "no container runs here", "", two, "no container runs here"]
    _, lines = run([board(), board()], "status")
    assert [line for line in lines if line.startswith("agent ")] == [one, two]
    web = board(container("web"))
    _, (*lines,) = run([web, board(), web], "explain", "web")
    assert lines.index(two.replace("[2]", "[3]")) == len(lines) / 2 + 0.5
    assert (lines[0], lines[len(lines) // 2], len(lines)) == (one, "", 11)


def test_nobody_runs(run: Run) -> None:
    for name in ("status", "watch"):
        assert run([], name) == (
            3, ["registrator: no agent runs here, or it belongs to another user"],
        )  # fmt: skip


REFUSED = ConnectionRefusedError(111, "Connection refused")
SILENT = (REFUSED, TimeoutError("timed out"), ConnectionResetError(104, "Connection reset by peer"))


@pytest.mark.parametrize("words", [["status"], ["list"], ["explain", "web"]])
def test_an_agent_that_does_not_answer_hides_no_other(run: Run, words: list[str]) -> None:
    well = board(container("web", 32769))
    _, shown = run([well], *words)
    code, lines = run([REFUSED, well, *SILENT[1:]], *words)
    assert code == 3
    assert lines == [
        *shown,
        "registrator: the agent with the process id 1 does not answer: Connection refused"
        " (it may be in another network: ask it with docker exec)",
        "registrator: the agent with the process id 3 does not answer: timed out",
        "registrator: the agent with the process id 4 does not answer: Connection reset by peer",
    ]
    assert run([*SILENT], *words)[0] == 3
    assert len(run([*SILENT], *words)[1]) == 3, "nobody tells of containers"


def test_agents_that_do_not_answer_are_waited_for_once_and_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waiting = threading.Event()

    def ask(*_: str) -> Reply:
        waiting.wait(DEADLINE)
        return Reply(500, {}, b"")

    monkeypatch.setattr(asking, "ask", ask)
    monkeypatch.setattr(asking, "PATIENCE", 0.01)
    found = asking.asked([Agent("a", 1), Agent("b", 2)])
    assert not found.states
    assert [line.split(" does not answer: ")[1] for line in found.silent] == ["timed out"] * 2
    questions = asking.Questions()
    for _ in range(3):
        questions.ask([Agent("a", 1)])
    waiting.set()
    told = [*questions.answers(DEADLINE)]
    assert [answer.silence for answer in told] == [
        "the agent with the process id 1 does not answer: it answers with status 500"
    ]


def test_a_watch_goes_on_beside_agents_that_do_not_answer(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(watch, "PERIOD", 0.01)
    found = beside(monkeypatch, [REFUSED, board(container("web")), *SILENT[1:]])
    looks = iter([found, found, found, [found[0]]])
    monkeypatch.setattr(watch, "running", lambda: next(looks))
    with pytest.raises(SystemExit) as ended:
        command(["watch"], prog_name="registrator")
    shown = capsys.readouterr()
    assert ended.value.code == 0
    assert shown.out.count("CONTAINER") == 1
    assert shown.out.endswith("the agent has ended\n")
    assert sorted(line.split()[7] for line in shown.err.splitlines()) == ["1", "3", "4"]
    monkeypatch.setattr(watch, "running", lambda: found[:1])
    with pytest.raises(SystemExit) as ended:
        command(["watch"], prog_name="registrator")
    assert ended.value.code == 3


def test_a_watch_tells_which_of_several_agents_has_ended(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(watch, "PERIOD", 0.01)
    found = beside(monkeypatch, [board(container("web")), board()])
    one, another = found

    def told(*looks: list[Agent]) -> list[str]:
        """The lines on stderr, while these agents run at each look."""
        given = iter(looks)
        monkeypatch.setattr(watch, "running", lambda: next(given))
        with pytest.raises(SystemExit) as ended:
            command(["watch"], prog_name="registrator")
        assert ended.value.code == 0
        shown = capsys.readouterr()
        assert shown.out.splitlines()[-1] == "the agent has ended"
        return shown.err.splitlines()

    assert told([one, another], [one, another], [one], [one], []) == [
        "registrator: the agent web01[2] has ended"
    ]
    assert told([one], [one], [another], [another], []) == [
        "registrator: the agent web01[1] has ended"
    ], "it was started anew"
    assert told([one], [one], []) == []


@pytest.mark.parametrize("name", [name for name, each in COMMANDS.items() if each.asks])
def test_wrong_calls(run: Run, name: str) -> None:
    given = ["web"] * bool(COMMANDS[name].operand)
    for words in ([*given, "consul:/h:8500"], [*given, "-ttl", "30"], [*given, "-json=x"]):
        code, lines = run([board()], name, *words)
        assert code == 2
        assert lines[-1] == f"Try 'registrator {name} --help' for the options."
    if given:
        assert run([board()], name)[0] == 2


def test_a_watch_tells_each_change() -> None:
    def keyed(*rows: tuple[str, ...]) -> watch.Rows:
        return {(row[0], row[1], 0): row for row in rows}

    web, db = ("web", "80/tcp", "pending", "web", "192.0.2.1:1", ""), ("db", "-", "", "-", "-", "x")
    left_out = ("x", "80/tcp", "not attached", "-", "-", "SERVICE_NETWORK names the network 'no'")
    now = (*web[:2], "registered", *web[3:])
    attached = ("x", "80/tcp", "registered", "x", "192.0.2.1:3", "")
    api = ("api", "80/tcp", "registered", "api", "192.0.2.1:2", "")
    changes = [*watch.changes(keyed(web, db, left_out), keyed(now, attached, api))]
    assert changes == [
        ("-", "db", "-", "gone", "-", "-", ""), ("~", *now), ("~", *attached), ("+", *api),
    ]  # fmt: skip
    assert [*watch.changes(keyed(web, db), keyed(web, db))] == []


def test_the_lines_of_a_watch_stand_below_each_other_and_name_their_agent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(watch, "PERIOD", 0.01)
    aliases = {"SERVICE_NAME": "a", "SERVICE_ALIASES": "b"}
    web, long = container("web", 32769, env=aliases), container("a-very-long-name", 32770)

    def watched(*agents: Sequence[Board]) -> list[str]:
        """The output of a watch of these agents, each with its boards in turn."""
        looks = zip(*agents, strict=True)

        def running() -> list[Agent]:
            boards = next(looks, ())
            return beside(monkeypatch, boards)

        monkeypatch.setattr(watch, "running", running)
        with pytest.raises(SystemExit):
            command(["watch"], prog_name="registrator")
        return capsys.readouterr().out.splitlines()

    verdict, *lines, end = watched([board(web), board(web, long), board(long), board(web, long)])
    assert verdict == "web01: All 2 services stand in both registries"
    assert end == "the agent has ended"
    assert [line[:7].split() for line in lines] == [
        ["CONT"], ["web"], ["web"], ["+", "a-ve"], ["-", "web"], ["-", "web"], ["+", "web"],
        ["+", "web"],
    ]  # fmt: skip
    assert {line.index("  80/tcp") for line in lines[1:3]} == {lines[0].index("  PORT")} == {12}
    assert {line.index("  80/tcp") for line in lines[3:]} == {19}
    assert [line.split()[3:5] for line in lines[4:6]] == [["gone", "a"], ["gone", "b"]]

    lines = watched([board(), board(web)], [board(), board(long)])
    assert sorted(line for line in lines if "No container" in line) == [
        "web01[1]: No container offers a service", "web01[2]: No container offers a service",
    ]  # fmt: skip
    assert sorted(line.split()[:3] for line in lines if line.startswith("+")) == [
        ["+", "web01[1]", "web"], ["+", "web01[1]", "web"], ["+", "web01[2]", "a-very-long-name"],
    ]  # fmt: skip
