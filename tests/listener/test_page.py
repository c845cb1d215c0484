"""The page in a real Chromium: what it shows, how it follows, and what it never runs."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

import pytest
from support.boards import HOSTILE, fill, put
from support.browser import Open, Tab, browsing
from support.fakes import container
from support.listener import Serving, serving
from support.wait import until

from registrator.listener.page import FILE, policy
from registrator.model import Port, Problem, Reason
from registrator.status.report import RegistryReport

WEB = container("web", 32768, env={"SERVICE_TAGS": "v2,public"})
CACHE = container("cache", 32769, image="redis:7")
DB = container("db", image="postgres:16", ports=(Port(5432, "tcp"),))
CONFLICT = {"web01:cache:80": Problem(Reason.OTHERS_ENTRY, "another owner holds web01:cache:80")}

SHOWN = "[...document.querySelectorAll('tbody:not([hidden]) th a')].map((each) => each.textContent)"
FOCUS = "(document.activeElement.id || document.activeElement.textContent)"


@pytest.fixture(scope="module")
def open_tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Open]:
    with browsing(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture
def served() -> Iterator[Serving]:
    with serving() as made:
        made.board.registries.append(RegistryReport("etcd://a,b/s"))
        fill(made.board)
        put(made.board, WEB, CACHE, DB)
        yield made


@pytest.fixture
def opened(served: Serving, open_tab: Open) -> Iterator[Tab]:
    tab = open_tab(address(served))
    try:
        drawn(tab, 3)
        yield tab
        assert tab.errors() == []
    finally:
        tab.close()


def address(served: Serving, fragment: str = "") -> str:
    return f"http://{served.host}:{served.port}/{fragment}"


def drawn(tab: Tab, groups: int) -> None:
    tab.until(f"document.querySelectorAll('tbody').length === {groups}")


def test_it_shows_each_port_and_why(opened: Tab, served: Serving) -> None:
    assert opened.text("#verdict") == "All 2 services stand in both registries"
    assert opened.text("#c-" + WEB.id).split("\n")[0] == "web"
    assert "192.0.2.10:32768" in opened.text("#c-" + WEB.id)
    db = opened.text("#c-" + DB.id)
    assert "it is not published" in db
    assert "Publish it with -p, or run the agent with -internal." in db
    assert "3 registered" not in opened.text("#cards")
    assert opened.text("#cards").count("2 registered") == 2
    assert opened.run("document.title") == "web01"


def test_a_row_that_is_left_out_has_room_for_its_reason(opened: Tab) -> None:
    box = f"document.querySelector('#c-{DB.id} td.out div').getBoundingClientRect()"
    opened.screen(width=1280)
    assert opened.run(f"{box}.width") > 700
    assert opened.run(f"{box}.height") < 70, "two lines"
    assert opened.run(f"document.querySelector('#c-{DB.id} td.out').ariaColSpan") == "6"
    assert opened.text(f"#c-{DB.id} td.out").split("\n") == [
        "left out: it is not published", "Publish it with -p, or run the agent with -internal.",
    ]  # fmt: skip


def test_the_name_of_a_registry_breaks_between_its_parts(open_tab: Open, served: Serving) -> None:
    for name in (
        "file:///tmp/registrator-demo-1a2b3c/services.json",
        "etcd-tls://[2001:db8::1]:2379,b:2379/",
    ):
        served.board.registries.append(RegistryReport(name))
    tab = open_tab(address(served))
    drawn(tab, 3)
    script = "[...document.querySelectorAll('th.standing span')].map((each) => each.innerHTML)"
    assert [each.split("<wbr>") for each in tab.run(script)] == [
        ["consul://", "h:", "8500"], ["etcd://", "a,", "b/", "s"],
        ["file:///", "…/", "services.json"],
        ["etcd-tls://", "[2001:db8::", "1]:", "2379,", "b:", "2379/"],
    ]  # fmt: skip
    assert tab.run("document.querySelectorAll('th.standing')[2].title").endswith("/services.json")
    assert tab.run(WITHIN_LINES), "no part goes on in another line"
    assert tab.errors() == []
    tab.close()


WITHIN_LINES = """[...document.querySelectorAll('th.standing span')].every((name) =>
  [...name.childNodes].every((part) => {
    const range = document.createRange();
    range.selectNodeContents(part);
    return range.getClientRects().length <= 1;
  }))"""


def test_a_change_is_seen_without_a_reload_and_rebuilds_only_what_changed(
    opened: Tab, served: Serving
) -> None:
    opened.run(f"window.kept = document.getElementById('c-{WEB.id}'); kept.mark = 1")
    put(served.board, WEB, CACHE, container("a", 32770), problems=CONFLICT)
    opened.until("document.getElementById('verdict').textContent === '1 needs attention'")
    # What needs attention stands first.
    assert opened.run(SHOWN) == ["cache", "a", "web"]
    assert opened.run(f"document.getElementById('c-{WEB.id}').mark") == 1
    assert "another owner holds web01:cache:80" in opened.text("#c-" + CACHE.id)
    assert opened.run("document.title") == "(1) web01"


def test_while_nothing_changes_the_answer_is_304(opened: Tab) -> None:
    opened.until("asked.length >= 3")
    assert opened.run("asked.slice(0, 3)") == [200, 304, 304]


def test_a_hidden_page_does_not_ask(opened: Tab, served: Serving) -> None:
    opened.until("!asking")
    opened.run("clearTimeout(timer)")
    before = opened.run("asked.length")
    opened.run("window.away = true")
    put(served.board, WEB)
    opened.run("look()")
    assert opened.run("asked.length") == before
    opened.run("window.away = false; document.dispatchEvent(new Event('visibilitychange'))")
    drawn(opened, 1)


def test_a_hostile_text_is_shown_and_nothing_else(opened: Tab, served: Serving) -> None:
    tag = HOSTILE.replace(",", "")
    evil = container("evil", 32771, image=HOSTILE, env={"SERVICE_NAME": tag, "SERVICE_TAGS": tag})
    evil = dataclasses.replace(evil, name=HOSTILE)
    served.board.registries[0].failed(HOSTILE)
    put(served.board, evil, problems={f"web01:{HOSTILE}:80": Problem(Reason.REFUSED, HOSTILE)})
    served.board.registries[1].failed(HOSTILE)
    drawn(opened, 1)
    assert opened.text("tbody").count("onerror=") >= 6
    assert "onerror=" in opened.text("#cards")
    assert opened.run("document.images.length + document.scripts.length") == 1
    assert "owned" not in opened.run("document.title")


def test_the_policy_stops_what_a_flaw_would_let_in(open_tab: Open, served: Serving) -> None:
    tab = open_tab(address(served))
    drawn(tab, 3)
    tab.run("try { document.body.innerHTML = '<img src=x>' } catch {}")
    tab.run("document.body.append(Object.assign(document.createElement('img'), {src: '/x.png'}))")
    tab.run("fetch('http://127.255.0.1:9/').catch(() => 0)")
    tab.until("violations.length >= 3")
    kinds = {violation.split()[0] for violation in tab.errors()}
    assert kinds == {"require-trusted-types-for", "img-src", "connect-src"}
    drawn(tab, 3)
    tab.close()


def test_the_filter_stands_in_the_fragment(opened: Tab, served: Serving, open_tab: Open) -> None:
    put(served.board, WEB, CACHE, DB, problems=CONFLICT)
    opened.until("document.title.startsWith('(')")
    opened.run("document.getElementById('search').focus()")
    opened.type("POSTGRES")
    assert opened.run(SHOWN) == ["db"]
    assert opened.run("location.hash") == "#q=POSTGRES"
    assert opened.text("#shown") == "1 of 3 containers"
    opened.press("Escape")
    assert opened.run("location.hash") == ""
    for button, names, fragment in (
        ("#left", ["db"], "#show=left"),
        ("#attention", ["cache"], "#show=attention"),
        ("#all", ["cache", "db", "web"], ""),
        (".card:nth-child(2) button:nth-child(4)", ["cache"], "#registry=1&state=conflicts"),
    ):
        opened.run(f"document.querySelector({button!r}).click()")
        assert opened.run(SHOWN) == names
        assert opened.run("location.hash") == fragment
        assert opened.run(f"document.querySelector({button!r}).ariaPressed") == "true"
    other = open_tab(address(served, "#registry=1&state=conflicts"))
    drawn(other, 3)
    assert other.run(SHOWN) == ["cache"]
    other.run("location.hash = '#q=web%20public'")
    other.until("document.getElementById('search').value === 'web public'")
    assert other.run(SHOWN) == ["web"]
    assert other.errors() == []
    other.close()


@pytest.mark.parametrize(
    "fragment", ["#registry=9&state=conflicts", "#state=constructor", "#%E0%A4%A"]
)
def test_a_fragment_of_others_does_no_harm(fragment: str, served: Serving, open_tab: Open) -> None:
    tab = open_tab(address(served, fragment))
    drawn(tab, 3)
    assert tab.errors() == []
    tab.close()


def test_the_keyboard_reaches_everything(opened: Tab, served: Serving) -> None:
    tags = {"SERVICE_TAGS": ",".join("abcdefgh")}
    put(served.board, container("many", 32772, env=tags), WEB)
    drawn(opened, 2)
    reached: list[str] = []
    while not reached or reached[-1] != "web":
        opened.press("Tab")
        reached.append(opened.run(FOCUS))
        assert len(reached) < 40, reached
    counts = [f"{n} {what}" for n, what in ((2, "registered"), (0, "pending"), (0, "refused"))]
    card = [*counts, "0 conflicts"]
    assert reached == [
        "skip", *card, *card, "search", "attention", "left", "all", "many", "2 more", "web",
    ]  # fmt: skip
    opened.press("Enter")
    opened.until(f"{SHOWN}.length === 1")
    assert opened.run(SHOWN) == ["web"]
    assert opened.run("location.hash") == f"#q={WEB.id[:12]}"
    opened.press("/")
    assert opened.run(FOCUS) == "search"
    opened.press("Escape")
    assert opened.run(SHOWN) == ["many", "web"]
    opened.press("Tab")
    opened.press(" ")
    assert opened.run("location.hash") == "#show=attention"


def test_focus_and_scroll_survive_a_change(opened: Tab, served: Serving) -> None:
    many = [container(f"c{number:02}", 20000 + number) for number in range(60)]
    put(served.board, *many)
    drawn(opened, 60)
    opened.run(f"document.querySelector('#c-{many[30].id} a').focus()")
    opened.run(
        f"window.spot = () => document.getElementById('c-{many[30].id}').offsetTop - scrollY"
    )
    opened.run("window.before = spot()")
    changed = dataclasses.replace(many[30], image="other:2")
    put(served.board, container("b", 19999), *many[:30], changed, *many[31:])
    drawn(opened, 61)
    assert "other:2" in opened.text("#c-" + many[30].id)
    assert opened.run(FOCUS) == "c30"
    opened.until("Math.abs(spot() - before) < 2")


def test_it_tells_that_the_agent_is_silent_and_that_it_is_back(open_tab: Open) -> None:
    with serving() as first:
        fill(first.board)
        put(first.board, WEB)
        tab = open_tab(address(first))
        drawn(tab, 1)
        assert tab.run("document.getElementById('banner').hidden")
    tab.until("!document.getElementById('banner').hidden")
    assert tab.text("#banner").startswith("The agent does not answer. You see what it said at ")
    assert tab.text("#verdict") == "The agent does not answer."
    assert tab.run(SHOWN) == ["web"]
    with serving(first.host, first.port) as second:
        fill(second.board)
        put(second.board, WEB, CACHE)
        drawn(tab, 2)
        until(lambda: tab.run("document.getElementById('banner').hidden"), "the banner's end")
        assert tab.text("#verdict") == "All 2 services stand in the registry"
    assert tab.errors() == []
    tab.close()


def test_below_700_pixels_there_are_cards(opened: Tab) -> None:
    style = f"getComputedStyle(document.getElementById('c-{WEB.id}')).display"
    wide = "document.documentElement.scrollWidth > innerWidth"
    assert opened.run(style) == "grid"
    opened.screen(width=390)
    assert opened.run(style) == "block"
    assert not opened.run(wide)
    tree = opened.call("Accessibility.getFullAXTree")["nodes"]
    roles = [node["role"]["value"] for node in tree if not node.get("ignored")]
    assert roles.count("table") == 1
    assert roles.count("row") == 4
    assert roles.count("rowheader") == 3
    for width in (700, 1024, 1280):
        opened.screen(width=width)
        assert not opened.run(wide), width


def test_only_the_verdict_is_live() -> None:
    page = FILE.read_text()
    assert page.count("aria-live") == 1
    assert re.search(r'id="verdict" aria-live="polite"', page)
    assert "innerHTML" not in page
    assert "http" not in page.replace("http_", "")


def test_each_colour_can_be_read() -> None:
    """The contrast of each text is 4.5:1 or better, in light and in dark."""
    for scheme in re.findall(r":root \{(.*?)\}", FILE.read_text(), re.DOTALL):
        colors = dict(re.findall(r"--(\w+): #(\w{6})", scheme))
        pairs = [(ink, on) for ink in ("ink", "muted", "link", "good", "bad", "wait")
                 for on in ("page", "panel")]  # fmt: skip
        for ink, on in [*pairs, ("ink", "mark"), ("bad", "alarm"), ("panel", "link")]:
            assert contrast(colors[ink], colors[on]) >= 4.5, (ink, on)


def contrast(one: str, other: str) -> float:
    """The contrast of two colours, as WCAG computes it."""

    def light(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        red, green, blue = (
            x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    darker, lighter = sorted((light(one), light(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_the_page_is_answered_with_its_policy(served: Serving) -> None:
    code, head, body = served.get("/")
    assert code == 200
    assert body == FILE.read_bytes()
    assert f"Content-Security-Policy: {policy(body.decode())}\r\n".encode() in head
    assert b"Content-Type: text/html; charset=utf-8" in head
    tag = re.search(rb"ETag: (\S+)", head)
    assert tag
    assert served.get("/", f"If-None-Match: {tag[1].decode()}")[::2] == (304, b"")
    packed = served.get("/", "Accept-Encoding: gzip")
    assert b"Content-Encoding: gzip" in packed[1]
    assert len(packed[2]) < 10_000
    assert served.get("/", "Sec-Fetch-Site: cross-site")[0] == 403


def test_the_policy_names_what_the_page_has_and_forbids_the_rest() -> None:
    made = policy("<style>a</style><script>b</script>")
    assert made.startswith(
        "default-src 'none'; script-src 'sha256-PiPoFgA5WUoziU9lZOGxNIu9egCI1CxKy3PurtWcAJ0='; "
    )
    assert "style-src 'sha256-ypeBEsobvcr6wjGzmiPcTaeG7/gUfE5yuYB3ha/uSLs='; " in made
    assert "unsafe" not in made
