"""The reconciler: faults, retries and ownership. The tests drive `step` and set the clock."""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Collection, Mapping
from dataclasses import replace

import pytest
from support.fakes import FakeBackend, FakeRegistry, lost, unavailable
from support.wait import until

from registrator.backend import SessionLost, Unavailable
from registrator.config import Config
from registrator.model import (
    Actual,
    Entry,
    Identity,
    Mark,
    Plan,
    Problem,
    Reason,
    Service,
    Snapshot,
)
from registrator.status.report import RegistryReport, Written
from registrator.sync.reconciler import GaveUp, Reconciler
from registrator.system.retry import FIRST_BACKOFF

HOST = Identity("engine-1", "h")
ADDRESS = "127.0.0.7"


def service(name: str, port: int = 1000, address: str = ADDRESS) -> Service:
    return Service(f"h:{name}:80", name, address, port, 80, container_name=name)


def snapshot(*services: Service, complete: bool = True, settled: bool = True) -> Snapshot:
    return Snapshot({s.id: s for s in services}, frozenset({ADDRESS}), complete, settled)


class Bench:
    """A reconciler over a registry in memory."""

    def __init__(self, registry: FakeRegistry | None = None, **options: object) -> None:
        self.registry = registry or FakeRegistry()
        self.now = 0.0
        self.interval: float | None = None
        self.report = RegistryReport("fake://", lambda: self.now)
        self.reconciler = Reconciler(
            self.report, self._make, HOST, clock=lambda: self.now, **options  # type: ignore[arg-type]
        )  # fmt: skip

    def _make(self, *_: object) -> FakeBackend:
        self.backend = FakeBackend(self.registry, HOST)
        return self.backend

    def step(self, *services: Service, complete: bool = True, settled: bool = True) -> Written:
        self.reconciler.publish(snapshot(*services, complete=complete, settled=settled))
        return self.reconciler.step()

    @property
    def keys(self) -> set[str]:
        return set(self.registry.entries)


def test_writes_differences_only() -> None:
    bench = Bench()
    assert bench.step(service("a"), service("b")) == Written(2, 0)
    assert bench.step(service("a"), service("b", 2000)) == Written(1, 0)
    assert bench.step(service("b", 2000)) == Written(0, 1)
    assert bench.keys == {"h:b:80"}
    assert bench.registry.lists == 1


def test_a_listing_asks_for_what_is_wanted() -> None:
    bench = Bench()
    bench.step(service("a"), service("b"))
    assert [set(keys) for keys in bench.registry.asked] == [{"h:a:80", "h:b:80"}]


def test_a_listing_asks_for_what_was_wanted_until_it_is_known_to_be_gone() -> None:
    """A removal that failed may still be carried out, or not."""
    bench = Bench(resync=60)
    bench.step(service("a"), service("b"))
    bench.registry.faults = [unavailable()]
    with pytest.raises(Unavailable):
        bench.step(service("a"))
    bench.registry.asked.clear()
    bench.step(service("a"))
    bench.now += 70
    bench.reconciler.step()
    both, one = {"h:a:80", "h:b:80"}, {"h:a:80"}
    assert [set(keys) for keys in bench.registry.asked] == [both, one]


def test_the_log_names_the_container_of_a_removal_after_an_outage(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    bench = Bench()
    bench.step(service("a"))
    bench.registry.faults = [unavailable(), unavailable()]
    for _ in range(2):
        with pytest.raises(Unavailable):
            bench.step()
    bench.step()
    (removed,) = (vars(each) for each in caplog.records if vars(each).get("event") == "removed")
    assert (removed["container"], removed["service_id"]) == ("a", "h:a:80")


def test_another_owners_entry_at_a_wanted_key_is_a_conflict() -> None:
    """The fake shows it only because the reconciler asked for its key."""
    theirs = {"h:a:80": ("x", "engine-2", service("a")), "h:z:80": ("z", "engine-2", service("z"))}
    bench = Bench(FakeRegistry(dict(theirs)))
    assert bench.step(service("a"), service("b")) == Written(1, 0)
    assert bench.report.row.problems.keys() == {"h:a:80"}
    assert {key: bench.registry.entries[key] for key in theirs} == theirs


def test_a_backend_whose_listing_takes_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plug-in that lists everything: its listing shows all that there is."""
    read = FakeBackend.list
    monkeypatch.setattr(FakeBackend, "list", lambda backend: read(backend, ["h:a:80"]))
    bench = Bench(FakeRegistry({"h:a:80": ("x", "engine-2", service("a"))}))
    assert bench.step(service("a"), service("b")) == Written(1, 0)
    assert bench.report.row.problems.keys() == {"h:a:80"}


def test_without_options_it_works_as_the_command_does_without_options() -> None:
    """So the tests of a reconciler without options show what most operators run."""
    command = Config(uris=())
    own = inspect.signature(Reconciler).parameters
    assert own["cleanup"].default == command.cleanup
    assert own["resync"].default == command.resync
    assert own["attempts"].default == command.retry_attempts
    assert own["first_wait"].default == command.retry_interval


def test_its_view_is_what_is_desired(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    bench = Bench(view="name=a")
    a, b = service("a"), service("b")
    whole = snapshot(a, b)
    view = replace(snapshot(a), excluded={b.id: b})
    for _ in range(2):
        bench.reconciler.publish(replace(whole, views={"name=a": view}))
        bench.reconciler.step()
    assert (bench.keys, bench.registry.writes) == ({"h:a:80"}, 1)
    assert (bench.report.row.registered, bench.report.row.problems) == (1, {})
    assert bench.report.row.realised is view
    told = "fake://: h:b:80 (container b) is not registered: the filter excludes it"
    assert caplog.messages.count(told) == 1
    # What stood there before is dangling.
    empty = replace(snapshot(), excluded={a.id: a, b.id: b})
    bench.reconciler.publish(replace(whole, views={"name=a": empty}))
    assert bench.reconciler.step() == Written(0, 1)


def test_without_a_filter_the_views_are_others() -> None:
    bench = Bench()
    whole = replace(snapshot(service("a")), views={"name=b": snapshot()})
    bench.reconciler.publish(whole)
    bench.reconciler.step()
    assert bench.keys == {"h:a:80"}
    assert bench.report.row.realised is whole


def test_waits_for_the_first_snapshot() -> None:
    bench = Bench()
    assert bench.reconciler.step() == Written()
    assert bench.registry.lists == 0


def test_a_resync_lists_and_writes_nothing_where_nothing_changed() -> None:
    bench = Bench(resync=60)
    bench.step(service("a"))
    bench.now = 67
    assert bench.reconciler.step() == Written(0, 0)
    assert (bench.registry.lists, bench.registry.writes) == (2, 1)


def test_no_resync_by_itself_at_0_but_when_woken() -> None:
    bench = Bench(resync=0)
    bench.step(service("a"))
    bench.now = 1e9
    bench.reconciler.step()
    assert bench.registry.lists == 1
    bench.reconciler.wake()
    bench.reconciler.step()
    assert bench.registry.lists == 2


def test_after_a_connection_ended_each_agent_lists_in_a_moment_of_its_own() -> None:
    moments = []
    for _ in range(100):
        bench = Bench(resync=0)
        bench.step(service("a"))
        bench.reconciler.wake_soon()
        moments.append(bench.reconciler._pause() or 0)
        bench.now = moments[-1] / 2
        bench.reconciler.wake_soon()  # The next connection ended, too. The moment stays.
        for now, lists in ((0.99 * moments[-1], 1), (moments[-1], 2), (1e9, 2)):
            bench.now = now
            assert bench.reconciler.step() == Written()
            assert bench.registry.lists == lists
        assert bench.reconciler._pause() is None
    assert all(1 <= moment <= 4 for moment in moments)
    assert len(set(moments)) > 90


def test_after_a_connection_ended_it_lists_at_once_where_something_is_to_be_written() -> None:
    bench = Bench(resync=0)
    bench.step(service("a"))
    bench.registry.entries.clear()
    bench.reconciler.wake_soon()
    assert bench.step(service("a"), service("b")) == Written(2, 0)
    assert bench.registry.lists == 2
    bench.now = 4
    assert bench.reconciler.step() == Written()
    assert bench.registry.lists == 2, "one listing is enough"


def test_after_a_connection_ended_an_operator_need_not_wait() -> None:
    bench = Bench(resync=0)
    bench.step(service("a"))
    for wake in (bench.reconciler.wake, bench.reconciler.retry_now):
        bench.registry.entries.clear()
        bench.reconciler.wake_soon()
        wake()
        assert bench.reconciler.step() == Written(1, 0)
        assert bench.reconciler._pause() is None


def test_a_connection_that_ends_during_a_listing_causes_another_one() -> None:
    bench = Bench(resync=0)
    listed = bench.backend.list

    def ends(keys: Collection[str] = ()) -> Mapping[str, Actual]:
        bench.backend.list = listed  # type: ignore[method-assign]
        found = listed(keys)
        bench.reconciler.wake_soon()
        return found

    bench.backend.list = ends  # type: ignore[method-assign]
    bench.step(service("a"))
    bench.now = 4
    bench.reconciler.step()
    assert bench.registry.lists == 2


def test_a_resync_puts_right_what_was_deleted_or_altered() -> None:
    bench = Bench()
    bench.step(service("a"), service("b"))
    del bench.registry.entries["h:a:80"]
    bench.registry.entries["h:b:80"] = ("altered", HOST.owner, service("b"))
    bench.reconciler.wake()
    assert bench.reconciler.step() == Written(2, 0)


def test_dangling_entries_go_only_after_a_complete_listing_and_with_cleanup() -> None:
    stale = {"h:x:80": ("x", HOST.owner, service("x"))}
    bench = Bench(FakeRegistry(dict(stale)), cleanup=False)
    bench.step(service("a"))
    assert "h:x:80" in bench.keys
    bench = Bench(FakeRegistry(dict(stale)))
    bench.step(service("a"), complete=False)
    assert "h:x:80" in bench.keys
    assert bench.step(service("a")) == Written(0, 1)


def test_what_stands_is_left_until_all_is_settled() -> None:
    bench = Bench()
    bench.step(service("a"), service("gone"))
    claimed = service("a", 2000)
    assert bench.step(claimed, service("new"), settled=False) == Written(1, 0)
    assert not bench.report.row.in_sync
    assert bench.keys == {"h:a:80", "h:gone:80", "h:new:80"}
    assert bench.step(service("a"), service("new")) == Written(0, 1)
    assert bench.report.row.in_sync


def test_what_this_process_registered_goes_without_cleanup_and_over_a_failure() -> None:
    bench = Bench(cleanup=False)
    bench.step(service("a"), service("b"))
    bench.registry.faults = [unavailable()]
    with pytest.raises(Unavailable):
        bench.step(service("b"))
    assert bench.reconciler.step() == Written(0, 1)
    assert bench.keys == {"h:b:80"}


def test_what_was_written_late_goes_without_cleanup() -> None:
    bench = Bench(cleanup=False)
    bench.step(service("b"))
    bench.registry.faults = [unavailable()]
    with pytest.raises(Unavailable):
        bench.step(service("a"), service("b"))
    bench.step(service("b"))
    bench.registry.entries["h:a:80"] = ("a", HOST.owner, service("a"))
    bench.now += 100
    assert bench.reconciler.step() == Written(0, 1)
    assert bench.keys == {"h:b:80"}


@pytest.mark.parametrize("outage", [30, 90])
def test_what_was_written_late_goes_however_long_the_outage_was(outage: float) -> None:
    """The listing that ends an outage longer than a resync is due by time as well."""
    bench = Bench(cleanup=False, resync=60)
    bench.step()
    bench.registry.faults = [unavailable(0)]
    with pytest.raises(Unavailable):
        bench.step(service("a"))
    bench.now += outage
    bench.step()
    bench.registry.entries["h:a:80"] = ("late", HOST.owner, service("a"))
    bench.now += 70
    bench.reconciler.step()
    assert not bench.keys


def test_an_entry_that_lost_our_mark_by_another_value_is_put_right() -> None:
    """As after `etcdctl put` and `consul kv put`, which take away the lease or the flags."""
    bench = Bench()
    bench.step(service("a"))
    ours = bench.registry.entries["h:a:80"]
    bench.registry.entries["h:a:80"] = ("x", "", service("a", address="127.0.0.99"))
    bench.reconciler.wake()
    assert bench.reconciler.step() == Written(1, 0)
    assert bench.registry.entries["h:a:80"] == ours
    bench.registry.entries["h:a:80"] = ("x", "", service("a", address="127.0.0.99"))
    bench.reconciler.wake()
    assert bench.step() == Written(0, 1)


CONTAINERS = "172.17.0.2"


@pytest.mark.parametrize("mark", [Mark.UNTOLD, Mark.TWIN])
def test_what_this_process_wrote_is_its_own_where_the_registry_cannot_name_the_host(
    mark: Mark, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plain value in Consul's key-value store, with an id and an address that tell no host."""
    bench = Bench()
    custom = Service("twin:a:80", "a", CONTAINERS, 80, 80)
    read = FakeBackend.list

    def untold(backend: FakeBackend, keys: Collection[str]) -> dict[str, Actual]:
        found = read(backend, keys)
        return {key: replace(each, mark=mark, host="twin") for key, each in found.items()}

    monkeypatch.setattr(FakeBackend, "list", untold)
    bench.step(custom)
    bench.reconciler.wake()
    assert bench.reconciler.step() == Written(0, 0)
    assert not bench.report.row.problems
    # Somebody else's, as soon as it changed.
    ours = bench.registry.entries[custom.id]
    bench.registry.entries[custom.id] = ("x", HOST.owner, replace(custom, address="172.17.0.3"))
    bench.reconciler.wake()
    assert bench.reconciler.step() == Written(0, 0)
    assert bench.report.row.problems.keys() == {custom.id}
    bench.registry.entries[custom.id] = ours
    bench.reconciler.wake()
    bench.reconciler.step()
    if mark is Mark.UNTOLD:
        # And ours again, as after a restart, since it is at the address of our service.
        assert not bench.report.row.problems
        bench.reconciler.wake()
        assert bench.step() == Written(0, 1)


def test_two_hosts_with_one_engine_id_are_told_once_and_leave_each_other_alone(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = Actual("x", Mark.TWIN, id="twin:b:80", address="127.0.0.8", host="twin")
    found = {"twin:b:80": theirs, "shop": replace(theirs, id="shop")}
    monkeypatch.setattr(FakeBackend, "list", lambda _: dict(found))
    bench = Bench()
    assert bench.step(service("a")) == Written(1, 0)
    bench.reconciler.wake()
    bench.reconciler.step()
    assert caplog.text.count("host 'twin' has the same Docker engine id as this host") == 1


def test_what_is_known_to_be_gone_is_forgotten() -> None:
    """Cleanup alone decides on an entry that appears under such a key later."""
    bench = Bench(cleanup=False)
    bench.step(service("removed"), service("lost"), service("b"))
    bench.step(service("lost"), service("b"))
    bench.registry.entries["h:removed:80"] = ("later", HOST.owner, service("removed"))
    bench.reconciler.wake()
    assert bench.reconciler.step() == Written(0, 0)
    bench.registry.entries.pop("h:lost:80")
    bench.registry.faults = [unavailable()]
    with pytest.raises(Unavailable):
        bench.step(service("b"))
    bench.reconciler.step()
    bench.now += 100
    bench.reconciler.step()
    bench.registry.entries["h:lost:80"] = ("later", HOST.owner, service("lost"))
    bench.now += 100
    assert bench.reconciler.step() == Written(0, 0)


def test_others_entries_are_not_touched(caplog: pytest.LogCaptureFixture) -> None:
    theirs = ("content", "engine-2", service("a", address="127.0.0.8"))
    registry = FakeRegistry({"h:a:80": theirs, "h:gone:80": theirs})
    bench = Bench(registry)
    assert bench.step(service("a"), service("b")) == Written(1, 0)
    assert registry.entries["h:a:80"] == registry.entries["h:gone:80"] == theirs
    assert "fake://: h:a:80 (container a) is not registered: another owner holds it" in caplog.text
    caplog.clear()
    bench.reconciler.wake()
    bench.reconciler.step()
    assert caplog.text == ""


def test_an_entry_that_lost_only_our_mark_is_written_again() -> None:
    """Somebody wrote the same value. It hangs on no lease any more, and would outlive us."""
    bench = Bench()
    bench.step(service("a"))
    ours = bench.registry.entries["h:a:80"]
    bench.registry.entries["h:a:80"] = (ours[0], "", ours[2])
    bench.reconciler.wake()
    assert bench.reconciler.step() == Written(1, 0)
    assert bench.registry.entries["h:a:80"] == ours


def test_what_is_removed_is_removed_once(caplog: pytest.LogCaptureFixture) -> None:
    """Somebody may write there later, and the log tells no removal that did not happen."""
    caplog.set_level(logging.INFO)
    bench = Bench()
    bench.step(service("a"), service("b"))
    caplog.clear()
    assert bench.step(service("b")) == Written(0, 1)
    assert caplog.messages == ["fake://: removed h:a:80"]
    bench.registry.entries["h:a:80"] = ("later", HOST.owner, service("a"))
    assert bench.step(service("b"), service("c")) == Written(1, 0)
    assert bench.keys == {"h:a:80", "h:b:80", "h:c:80"}


def test_the_originals_entries_are_adopted_or_removed() -> None:
    registry = FakeRegistry(
        {
            "h:a:80": ("original", "", service("a")),
            "h:gone:80": ("original", "", service("gone")),
            "h:twin:80": ("original", "", service("twin", address="127.0.0.8")),
        }
    )
    assert Bench(registry).step(service("a")) == Written(1, 1)
    assert registry.entries["h:a:80"][1] == HOST.owner
    assert set(registry.entries) == {"h:a:80", "h:twin:80"}


@pytest.mark.parametrize("done", [0, 1, 2, 3])
def test_a_plan_that_failed_half_way_is_finished(done: int) -> None:
    bench = Bench()
    bench.step(service("a"))
    bench.registry.faults = [unavailable(done)]
    with pytest.raises(Unavailable):
        bench.step(service("b"), service("c"))
    bench.reconciler.step()
    assert bench.keys == {"h:b:80", "h:c:80"}
    assert bench.registry.writes == 4


def test_rejected_services_hold_up_nobody(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.registry.refuse = {"h:b:80"}
    assert bench.step(service("forbidden"), service("b"), service("c")) == Written(1, 0)
    assert "fake://: h:b:80 (container b) is not registered: refused" in caplog.text
    assert "fake://: h:forbidden:80 (container forbidden) is not registered: its" in caplog.text
    caplog.clear()
    assert bench.step(service("forbidden"), service("b"), service("c"), service("d")) == (1, 0)
    assert caplog.text == ""
    bench.registry.refuse = set()
    bench.reconciler.wake()
    assert bench.reconciler.step() == Written(1, 0)


def test_what_has_the_place_of_another_is_told_with_its_container(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line names the id, and the place as well if they differ."""
    monkeypatch.setattr(
        FakeBackend,
        "entry",
        lambda _, service: Entry(
            "place", service.id, service, "reserve" if service.name == "yields" else None
        ),
    )
    bench = Bench()
    bench.registry.refuse = {"reserve"}
    bench.step(service("a"), service("b"), service("yields"))
    assert bench.keys == {"place"}
    assert "h:a:80 (container a) is not registered: h:b:80 has the same place" in caplog.text
    assert "h:yields:80 (container yields) is not registered: refused (reserve)" in caplog.text
    caplog.clear()
    bench.step(service("b"))
    bench.reconciler.wake()
    bench.reconciler.step()
    assert caplog.text == ""


def test_a_rejected_change_leaves_nothing_stale() -> None:
    bench = Bench()
    bench.step(service("a", 1000))
    bench.registry.refuse = {"h:a:80"}
    bench.step(service("a", 2000))
    assert bench.keys == set()


def test_a_rejected_adoption_leaves_the_originals_entry() -> None:
    bench = Bench(FakeRegistry({"h:a:80": ("original", "", service("a"))}))
    bench.registry.refuse = {"h:a:80"}
    assert bench.step(service("a")) == Written(0, 0)
    assert bench.keys == {"h:a:80"}


def test_what_is_taken_after_a_rejection_stays() -> None:
    bench = Bench()
    bench.registry.refuse = {"h:a:80"}
    bench.step(service("a", 1000))
    bench.registry.refuse = set()
    assert bench.step(service("a", 2000)) == Written(1, 0)
    assert bench.keys == {"h:a:80"}
    bench.step(service("a", 2000), service("b"))
    assert bench.keys == {"h:a:80", "h:b:80"}
    assert bench.step(service("a", 1000), service("b")) == Written(1, 0), "it may be taken now"


def test_what_is_refused_waits_for_the_next_listing() -> None:
    bench = Bench()
    bench.registry.refuse = {"h:a:80"}
    for _ in range(3):
        bench.step(service("a"))
    assert bench.report.counters[("rejections",)] == 1
    bench.reconciler.wake()
    bench.reconciler.step()
    assert bench.report.counters[("rejections",)] == 2


def test_each_problem_has_its_reason_for_as_long_as_it_lasts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = FakeBackend.entry

    def shared(backend: FakeBackend, made: Service) -> Entry:
        key = "place" if made.name in ("c", "d") else made.id
        return Entry(key, entry(backend, made).content, made)

    monkeypatch.setattr(FakeBackend, "entry", shared)
    bench = Bench(FakeRegistry({"h:a:80": ("content", "engine-2", service("a"))}))
    bench.registry.refuse = {"h:b:80", "place"}
    bench.step(*map(service, ("a", "b", "c", "d", "e", "forbidden")))
    assert bench.report.row.problems == {
        "h:a:80": Problem(Reason.OTHERS_ENTRY, "another owner holds it"),
        "h:b:80": Problem(Reason.REFUSED, "refused"),
        "h:c:80": Problem(Reason.SAME_KEY, "h:d:80 has the same place, place"),
        "h:d:80": Problem(Reason.REFUSED, "refused (place)"),
        "h:forbidden:80": Problem(Reason.REFUSED, "its name is forbidden here"),
    }
    assert (bench.report.row.registered, bench.report.row.in_sync) == (1, True)
    bench.step(service("e"))
    assert bench.report.row.problems == {}
    assert bench.report.row.registered == 1


def test_counts_what_it_wrote_by_what_caused_it() -> None:
    bench = Bench()
    bench.step(service("a"), service("b"))
    del bench.registry.entries["h:a:80"]
    bench.registry.entries["h:x:80"] = ("x", HOST.owner, service("x"))
    bench.reconciler.wake()
    bench.reconciler.step()
    bench.step(service("a"))
    writes = {key[1:]: n for key, n in bench.report.counters.items() if key[0] == "writes"}
    assert writes == {
        ("register", "change"): 2,
        ("remove", "change"): 1,
        ("register", "drift"): 1,
        ("remove", "drift"): 1,
    }
    assert bench.report.operations.histograms["list"].read()[0][-1] == 2
    assert bench.report.row.last_listing > 0


def test_counts_how_long_the_registry_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    bench.now = 1000
    read, write = FakeBackend.list, FakeBackend.apply

    def slow_list(backend: FakeBackend) -> object:
        bench.now += 3
        return read(backend)

    def slow_apply(backend: FakeBackend, plan: Plan) -> object:
        bench.now += 5
        return write(backend, plan)

    monkeypatch.setattr(FakeBackend, "list", slow_list)
    monkeypatch.setattr(FakeBackend, "apply", slow_apply)
    bench.step(service("a"))
    histograms = bench.report.operations.histograms
    assert {name: each.read()[1] for name, each in histograms.items()} == {
        "list": 3,
        "apply": 5,
        "keepalive": 0,
    }


def test_keepalive_is_called_when_due_and_its_loss_lists_again() -> None:
    bench = Bench()
    bench.backend.keepalive_interval = 10
    bench.step(service("a"))
    bench.now = 9
    bench.reconciler.step()
    assert bench.registry.keepalives == 0
    bench.now = 10
    bench.reconciler.step()
    assert bench.registry.keepalives == 1
    bench.now = 19
    bench.reconciler.step()
    assert bench.registry.keepalives == 1
    bench.registry.entries.clear()
    bench.registry.faults = [lost()]
    bench.now = 20
    bench.reconciler.wake()
    with pytest.raises(Exception, match="expired"):
        bench.reconciler.step()
    assert bench.reconciler.step() == Written(1, 0)


def test_a_loss_that_a_keepalive_finds_until_the_next_listing_is_mended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A backend may know what stands from its last listing alone."""
    bench = Bench()
    bench.backend.keepalive_interval = 10
    bench.step(service("a"))
    bench.registry.entries.clear()
    listed = bench.registry.lists

    def keepalive(backend: FakeBackend) -> None:
        if backend.registry.lists == listed:
            raise lost()

    monkeypatch.setattr(FakeBackend, "keepalive", keepalive)
    bench.now = 10
    with pytest.raises(SessionLost):
        bench.reconciler.step()
    assert bench.reconciler.step() == Written(1, 0)


def test_a_loss_is_mended_however_long_no_listing_succeeds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As at a Consul agent with ``-ttl`` that denies everything for a while."""
    bench = Bench()
    bench.backend.keepalive_interval = 1
    bench.step(service("a"))
    listed = bench.registry.lists

    def keepalive(backend: FakeBackend) -> None:
        if bench.registry.lists == listed:
            raise lost()

    monkeypatch.setattr(FakeBackend, "keepalive", keepalive)
    bench.now += 2
    with pytest.raises(SessionLost):
        bench.reconciler.step()
    for _ in range(3):
        bench.registry.faults = [unavailable()]
        bench.now += 2
        with pytest.raises(Unavailable):
            bench.reconciler.step()
    bench.now += 2
    bench.reconciler.step()
    assert bench.registry.lists == listed + 1
    assert bench.report.row.in_sync


def test_a_failed_keepalive_is_tried_again_before_anything_else() -> None:
    bench = Bench()
    bench.backend.keepalive_interval = 10
    bench.step(service("a"))
    bench.registry.faults = [Unavailable("down"), None]
    bench.now = 10
    with pytest.raises(Unavailable):
        bench.reconciler.step()
    bench.reconciler.step()
    assert bench.registry.keepalives == 1


def test_a_keepalive_looks_at_no_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes every few seconds, and a host may have thousands of services."""
    bench = Bench()
    bench.backend.keepalive_interval = 10
    bench.step(service("a"), service("forbidden"))
    looked: list[Service] = []
    monkeypatch.setattr(FakeBackend, "entry", lambda _, service: looked.append(service))
    bench.now = 10
    assert bench.reconciler.step() == Written(0, 0)
    assert (bench.registry.keepalives, looked) == (1, [])


class Runner:
    """Runs a reconciler in a thread, at most until the end of the test."""

    def __init__(self, bench: Bench) -> None:
        self.stop = threading.Event()
        self.error: BaseException | None = None
        self.bench = bench
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self.bench.reconciler.run(self.stop)
        except BaseException as error:
            self.error = error

    def __enter__(self) -> Runner:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.bench.reconciler.retry_now()
        self.thread.join(60)
        assert not self.thread.is_alive()


def test_run_goes_on_over_faults_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    bench = Bench(first_wait=0.001)
    bench.registry.faults = [unavailable()] * 11 + [lost()]
    bench.reconciler.publish(snapshot(service("a")))
    registered = threading.Event()
    entries = bench.registry.entries

    class Told(dict[str, tuple[str, str, Service | None]]):
        def __setitem__(self, key: str, value: tuple[str, str, Service | None]) -> None:
            super().__setitem__(key, value)
            registered.set()

    bench.registry.entries = Told(entries)
    with Runner(bench):
        assert registered.wait(60)
    lines = [record.message for record in caplog.records]
    assert lines[0] == "fake://: no address answers; retrying"
    assert sum("still failing" in line for line in lines) == 1
    assert "recovered after 0.0 s: 1 registered, 0 removed" in lines[-1]
    assert bench.backend.closed


@pytest.mark.parametrize("attempts", [0, 2])
def test_gives_up_at_start_when_attempts_are_spent(attempts: int) -> None:
    bench = Bench(attempts=attempts, first_wait=0.001)
    bench.registry.faults = [unavailable()] * (attempts + 1)
    bench.reconciler.publish(snapshot(service("a")))
    with Runner(bench) as runner:
        runner.thread.join(60)
    assert isinstance(runner.error, GaveUp)
    assert runner.error.args == ("fake://", "no address answers")
    assert bench.keys == set()
    assert bench.registry.faults == [], "every attempt was made"


def test_attempts_hold_at_start_only() -> None:
    bench = Bench(attempts=0)
    bench.step(service("a"))
    bench.registry.faults = [unavailable()] * 3
    bench.reconciler.wake()
    with Runner(bench) as runner:
        deadline = threading.Event()
        while bench.registry.faults:
            assert runner.thread.is_alive()
            deadline.wait(0.01)
    assert runner.error is None


def test_retry_now_ends_the_wait_for_the_next_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registrator.sync.reconciler.backoff", lambda *_: 1000)
    bench = Bench()
    bench.registry.faults = [unavailable()]
    bench.reconciler.publish(snapshot(service("a")))
    with Runner(bench) as runner:
        until(lambda: not bench.registry.faults, "the first attempt")
        until(lambda: bench.report.row.next_attempt, "the wait")
        row = bench.report.row
        assert 900 < row.next_attempt - row.since < 1100
        runner.bench.reconciler.retry_now()
        until(lambda: bench.keys == {"h:a:80"}, "the second attempt")
        until(lambda: not bench.report.row.next_attempt, "no further attempt is announced")


def test_a_change_of_what_is_desired_or_stands_is_written_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It sleeps without an end meanwhile, since nothing is due by itself."""
    bench = Bench(resync=0)
    with Runner(bench):
        bench.reconciler.publish(snapshot(service("a")))
        until(lambda: bench.keys == {"h:a:80"}, "the first snapshot")
        bench.reconciler.publish(snapshot(service("b")))
        until(lambda: bench.keys == {"h:b:80"}, "the second snapshot")
        monkeypatch.setattr("registrator.sync.reconciler.SPREAD", (0, 0))
        reconciler = bench.reconciler
        for wake in (reconciler.wake, reconciler.wake_soon, reconciler.retry_now):
            bench.registry.entries.clear()
            wake()
            until(lambda: bench.keys == {"h:b:80"}, "the entry that somebody deleted")


class Waits(threading.Event):
    """Notes each wait instead of waiting, and sets `stop` with the last of so many."""

    def __init__(self, stop: threading.Event, number: int) -> None:
        super().__init__()
        self.noted: list[float | None] = []
        self._end = stop
        self._number = number

    def wait(self, timeout: float | None = None) -> bool:
        self.noted.append(timeout)
        if len(self.noted) == self._number:
            self._end.set()
        return True


def run_once(bench: Bench) -> None:
    """Run until the first success."""
    stop = threading.Event()
    bench.reconciler._wakeup = Waits(stop, 1)
    bench.reconciler.run(stop)


def test_waits_between_attempts_and_not_after_the_loss_of_a_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("registrator.sync.reconciler.backoff", lambda n, first: n * first)
    bench = Bench(first_wait=2.0)
    bench.reconciler._retry_now = waits = Waits(threading.Event(), 0)
    bench.reconciler.publish(snapshot(service("a")))

    def noted(*faults: Exception | tuple[Exception, int]) -> list[float | None]:
        waits.noted = []
        bench.registry.faults = list(faults)
        bench.reconciler.wake()
        run_once(bench)
        return waits.noted

    assert noted(unavailable(), unavailable()) == [2.0, 4.0], "-retry-interval, until it succeeded"
    assert noted(unavailable(), lost()) == [FIRST_BACKOFF, 2 * FIRST_BACKOFF]
    bench.reconciler.retry_now()
    assert noted(unavailable(), unavailable()) == [FIRST_BACKOFF, 2 * FIRST_BACKOFF]
    assert not waits.is_set(), "it ends one wait only"
    assert noted(lost(), lost(), lost()) == [0, 2 * FIRST_BACKOFF, pytest.approx(0.3)]


@pytest.mark.parametrize(
    ("interval", "resync", "published", "pause"),
    [
        (10, 60, False, None),
        (None, 0, True, None),
        (10, 0, True, 10),
        (100, 60, True, pytest.approx(60, rel=0.1)),
        (None, 60, True, pytest.approx(60, rel=0.1)),
    ],
)
def test_sleeps_until_the_next_thing_is_due(
    interval: float | None, resync: float, published: bool, pause: float | None
) -> None:
    bench, stop = Bench(resync=resync), threading.Event()
    bench.backend.keepalive_interval = interval
    bench.reconciler._wakeup = waits = Waits(stop, 1)
    if published:
        bench.reconciler.publish(snapshot(service("a")))
    else:
        bench.now = 100  # overdue, but nothing is to be kept alive before the first snapshot
    bench.reconciler.run(stop)
    assert waits.noted == [pause]
    assert not waits.is_set()


def test_what_is_overdue_is_done_at_once() -> None:
    bench, stop = Bench(), threading.Event()
    bench.step(service("a"))
    bench.now += 1000
    assert bench.reconciler._pause() == 0
    bench.reconciler._wakeup = waits = Waits(stop, 1)
    bench.reconciler.run(stop)
    assert bench.registry.lists == 2
    assert waits.noted[0], "and then it sleeps again"


def here(bench: Bench, *services: Service) -> None:
    """Do as a thread that read an event."""
    bench.reconciler.publish(snapshot(*services), wake=False)
    bench.reconciler.step_here()


def is_woken(bench: Bench) -> bool:
    """Whether something is left to do for the reconciler's own thread."""
    return bench.reconciler._wakeup.is_set()


def test_a_backend_that_says_nothing_of_threads_is_left_to_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench()
    bench.step()
    monkeypatch.delattr(FakeBackend, "any_thread")
    plain = Bench()
    plain.step()
    for each, expected in ((bench, {"h:a:80"}), (plain, set())):
        here(each, service("a"))
        assert each.keys == expected
    assert is_woken(plain)


def asleep(**options: object) -> Bench:
    """A bench with one service, whose own thread sleeps."""
    bench = Bench(**options)  # type: ignore[arg-type]
    bench.step(service("a"))
    bench.reconciler._wakeup.clear()
    bench.reconciler._pause()
    return bench


def test_the_thread_that_read_an_event_writes() -> None:
    bench = asleep()
    here(bench, service("a"), service("b"))
    assert bench.keys == {"h:a:80", "h:b:80"}
    here(bench, service("b"))
    assert bench.keys == {"h:b:80"}
    assert not is_woken(bench)


def test_what_another_thread_could_not_write_is_the_own_threads_to_report() -> None:
    bench = asleep()
    bench.registry.faults = [lost()]
    here(bench, service("a"), service("b"))
    assert not bench.report.row.failures
    assert is_woken(bench)
    with Runner(bench):
        until(lambda: "h:b:80" in bench.registry.entries, "the next attempt")
    assert bench.report.counters[("failures", "session_lost")] == 1


def test_during_an_outage_only_the_own_thread_tries() -> None:
    bench = asleep()
    bench.registry.faults = [unavailable()]
    with pytest.raises(Unavailable):
        bench.step(service("b"))
    bench.reconciler._wakeup.clear()
    here(bench, service("a"), service("b"))
    assert bench.keys == {"h:a:80"}
    assert is_woken(bench)


def test_one_step_of_a_reconciler_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reconciler's own thread does what is published during a step."""
    bench, apply = asleep(), FakeBackend.apply

    def during(backend: FakeBackend, plan: Plan) -> Mapping[str, str]:
        monkeypatch.setattr(FakeBackend, "apply", apply)
        here(bench, service("c"))
        return apply(backend, plan)

    monkeypatch.setattr(FakeBackend, "apply", during)
    here(bench, service("a"), service("b"))
    assert bench.keys == {"h:a:80", "h:b:80"}
    assert is_woken(bench)
    bench.reconciler.step()
    assert bench.keys == {"h:c:80"}


def test_the_own_thread_wakes_for_what_is_due_earlier_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """A write may make a look at other servers due at once."""
    bench, apply = asleep(), FakeBackend.apply

    def applied(backend: FakeBackend, plan: Plan) -> Mapping[str, str]:
        backend.keepalive_interval = 0.0
        return apply(backend, plan)

    monkeypatch.setattr(FakeBackend, "apply", applied)
    here(bench, service("a"), service("b"))
    assert is_woken(bench)


def test_hosts_do_not_list_in_step() -> None:
    """A resync comes a tenth earlier or later, drawn anew each time."""
    pauses = []
    for _ in range(200):
        bench = Bench(resync=60)
        bench.step(service("a"))
        pauses.append(bench.reconciler._pause() or 0)
    assert 54 <= min(pauses) < 57
    assert 63 < max(pauses) <= 66


def test_looks_a_second_time_two_seconds_after_a_recovery() -> None:
    """A server that thaws may carry out late what it had not answered."""
    bench = Bench(resync=0, first_wait=0.001)
    bench.registry.faults = [unavailable()]
    bench.reconciler.publish(snapshot(service("a")))
    run_once(bench)
    bench.now = 1.9
    bench.reconciler.step()
    assert bench.registry.lists == 1
    bench.now = 2
    bench.reconciler.step()
    assert bench.registry.lists == 2


def test_close_leaves_entries_standing() -> None:
    bench = Bench()
    bench.step(service("a"))
    with Runner(bench):
        pass
    assert bench.keys == {"h:a:80"}
    assert bench.backend.closed
