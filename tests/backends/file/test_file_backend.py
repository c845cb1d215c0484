"""The file registry: readable at any moment, written only for a change, and nobody else's."""

import dataclasses
import fcntl
import json
import os
import stat
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.require import require

from registrator.backend import Backend, ConfigError, Context, Unavailable, load
from registrator.backends.file import HOST, OWNER, FileBackend, attribute_labels
from registrator.model import Identity, Mark, Plan, Service
from registrator.sync.plan import Here, diff
from registrator.uri import parse

SERVICE = Service(
    id="host:web1:80",
    name="web",
    address="192.0.2.1",
    port=8080,
    private_port=80,
    tags=("a", "b"),
    attrs={"region": "eu"},
    container_name="web1",
)
OTHER = Service("host:dns:53:udp", "dns", "2001:db8::1", 53, 53, "udp", ("udp",))
THEIRS = {"targets": ["192.0.2.50:9100"], "labels": {"job": "node"}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "services.json"


def backend(path: Path, owner: str = "me", *former: str, host: str = "host") -> Backend:
    uri = parse(f"file://{path}")
    return load(uri.scheme)(Context(uri, Identity(owner, host, former)))


def register(target: Backend, *services: Service) -> Plan:
    return Plan(register=tuple(target.entry(service) for service in services))


def read(path: Path) -> list[dict[str, object]]:
    groups: list[dict[str, object]] = json.loads(path.read_text())
    return groups


def names(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()]


def test_the_format(path: Path) -> None:
    files = backend(path)
    umask = os.umask(0o077)
    try:
        assert files.apply(register(files, SERVICE, OTHER)) == {}
    finally:
        os.umask(umask)
    assert read(path) == [
        {
            "targets": ["[2001:db8::1]:53"],
            "labels": {
                "id": "host:dns:53:udp", "service": "dns", "container": "", "tags": ",udp,",
                OWNER: "me", HOST: "host",
            },
        },
        {
            "targets": ["192.0.2.1:8080"],
            "labels": {
                "id": "host:web1:80", "service": "web", "container": "web1", "tags": ",a,b,",
                "attr_region": "eu", OWNER: "me", HOST: "host",
            },
        },
    ]  # fmt: skip
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert names(path.parent) == [path.name]


def test_what_was_registered_is_listed_with_its_content(path: Path) -> None:
    files = backend(path)
    assert files.list() == {}
    files.apply(register(files, SERVICE, OTHER))
    for service in (SERVICE, OTHER):
        found = backend(path).list()[service.id]
        assert found.content == files.entry(service).content
        assert (found.mark, found.held) == (Mark.OURS, True)
        assert (found.id, found.address) == (service.id, service.address)


def test_a_change_and_a_removal(path: Path) -> None:
    files = backend(path)
    files.apply(register(files, SERVICE, OTHER))
    moved = Service(SERVICE.id, "web", "192.0.2.2", 8081, 80)
    files.apply(Plan((files.entry(moved),), (OTHER.id, "never there")))
    [group] = read(path)
    assert group["targets"] == ["192.0.2.2:8081"]
    files.apply(Plan(deregister=(SERVICE.id,)))
    assert read(path) == []


def test_nothing_is_written_where_nothing_changes(path: Path) -> None:
    files = backend(path)
    files.apply(register(files, SERVICE))
    before = path.stat()
    files.apply(register(files, SERVICE))
    files.apply(Plan(deregister=("never there",)))
    after = path.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    files.apply(register(files, OTHER))
    assert path.stat().st_ino != before.st_ino


def test_groups_of_others_are_left_as_they_are(path: Path) -> None:
    path.write_text(json.dumps([THEIRS]))
    mine, yours = backend(path, "me"), backend(path, "you")
    mine.apply(register(mine, SERVICE))
    yours.apply(register(yours, OTHER))
    assert {key: found.mark for key, found in mine.list().items()} == {
        SERVICE.id: Mark.OURS,
        OTHER.id: Mark.OTHERS,
    }
    mine.apply(Plan(deregister=(SERVICE.id, OTHER.id)))
    assert THEIRS in read(path)
    assert list(yours.list()) == [OTHER.id]


def test_an_unmarked_group_with_an_id_is_listed_as_such(path: Path) -> None:
    group = {"targets": ["192.0.2.1:8080"], "labels": {"id": SERVICE.id}}
    path.write_text(json.dumps([group, {"targets": []}]))
    files = backend(path)
    found = files.list()[SERVICE.id]
    assert (found.mark, found.address) == (Mark.NONE, "192.0.2.1")
    files.apply(Plan(deregister=(SERVICE.id,)))
    assert files.list() == {}


def test_readers_find_a_whole_file_at_any_moment(path: Path) -> None:
    files = backend(path)
    many = [Service(f"host:c{n}:80", "web", "192.0.2.1", n + 1, 80) for n in range(200)]
    files.apply(register(files, *many))
    done = threading.Event()
    seen: list[int] = []
    failures: list[Exception] = []

    def reader() -> None:
        try:
            while not done.is_set() or len(seen) < 20:
                seen.append(len(read(path)))
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=reader)
    thread.start()
    for n in range(30):
        files.apply(Plan(register(files, *many[:100]).register, tuple(s.id for s in many[100:])))
        files.apply(register(files, *many[: 101 + n]))
    done.set()
    thread.join(60)
    assert not failures
    assert set(seen) <= {200, 100, *range(101, 131)}


def test_a_link_stays_and_what_it_leads_to_is_replaced(path: Path, tmp_path: Path) -> None:
    real = tmp_path / "real.json"
    path.symlink_to(real)
    files = backend(path)
    files.apply(register(files, SERVICE))
    assert path.is_symlink()
    assert len(read(real)) == 1


def test_what_a_killed_agent_left_behind_is_no_hindrance(path: Path) -> None:
    path.with_name(f".{path.name}.tmp").write_text("half a fi")
    files = backend(path)
    files.apply(register(files, SERVICE))
    assert names(path.parent) == [path.name]


# Whose a group is


def plan_for(files: Backend, *services: Service) -> Plan:
    """The core's plan for the groups that it finds."""
    here = Here("host", frozenset({"192.0.2.1"}), frozenset({"192.0.2.1"}))
    desired = {each.id: files.entry(each) for each in services}
    return diff(desired, files.list(), here, dangling=lambda _: True)


def test_a_clone_of_the_host_is_told_apart(path: Path) -> None:
    """Two hosts have one engine id and share a file: neither touches a group of the other."""
    there = dataclasses.replace(SERVICE, address="192.0.2.9")
    clone = backend(path, host="clone")
    clone.apply(register(clone, there))
    files = backend(path)
    found = files.list()[SERVICE.id]
    assert (found.mark, found.host) == (Mark.TWIN, "clone")
    before = path.read_bytes()
    assert not plan_for(files)
    plan = plan_for(files, SERVICE)
    assert "host clone" in plan.conflicts[SERVICE.id]
    assert not plan
    assert path.read_bytes() == before
    # At this host's own address it is the host itself, under the name that it had.
    clone.apply(register(clone, SERVICE))
    files.apply(plan_for(files, SERVICE))
    assert files.list()[SERVICE.id].mark is Mark.OURS
    assert len(read(path)) == 1


def test_what_came_since_the_listing_is_not_touched(path: Path) -> None:
    files, clone = backend(path), backend(path, host="clone")
    both = Plan(register(files, SERVICE).register, (OTHER.id,))
    assert files.list() == {}
    clone.apply(register(clone, SERVICE, OTHER))
    before = path.read_bytes()
    assert "host clone" in files.apply(both)[SERVICE.id]
    static = [{"targets": ["192.0.2.50:1"], "labels": {"id": each}} for each in both_ids(both)]
    assert path.read_bytes() == before
    path.write_text(json.dumps(static))
    assert "192.0.2.50" in files.apply(both)[SERVICE.id]
    assert read(path) == static


def test_a_group_that_changed_hands_since_the_listing(path: Path) -> None:
    """Ours became a clone's, or a stranger changed his own."""
    files, clone = backend(path), backend(path, host="clone")
    files.apply(register(files, SERVICE))
    path.write_text("[]")
    clone.apply(register(clone, SERVICE))
    assert "host clone" in files.apply(register(files, SERVICE))[SERVICE.id]
    for port in (1, 2):
        static = [{"targets": [f"192.0.2.50:{port}"], "labels": {"id": SERVICE.id}}]
        path.write_text(json.dumps(static))
        if port == 1:
            files.list()
    assert files.apply(Plan(deregister=(SERVICE.id,))) == {}
    assert read(path) == static


def both_ids(plan: Plan) -> list[str]:
    return [plan.register[0].key, *plan.deregister]


def test_a_group_without_a_host_is_of_version_1_0_0(path: Path) -> None:
    files = backend(path)
    files.apply(register(files, SERVICE))
    (group,) = read(path)
    del group["labels"][HOST]  # type: ignore[attr-defined]
    path.write_text(json.dumps([group]))
    assert files.list()[SERVICE.id].mark is Mark.UNTOLD
    files.apply(plan_for(files, SERVICE))
    assert files.list()[SERVICE.id].mark is Mark.OURS
    assert not plan_for(files, SERVICE)


def test_groups_of_the_engine_that_this_host_had_before(path: Path) -> None:
    former = backend(path, "before")
    former.apply(register(former, SERVICE, OTHER))
    files = backend(path, "me", "before")
    plan = plan_for(files, SERVICE)
    assert (len(plan.register), plan.deregister) == (1, (OTHER.id,))
    files.apply(plan)
    assert {key: found.mark for key, found in backend(path).list().items()} == {
        SERVICE.id: Mark.OURS
    }


def test_a_group_that_lost_our_labels_is_put_right(path: Path) -> None:
    """Somebody wrote it anew with another address, before or after the listing."""
    files = backend(path)
    files.apply(register(files, SERVICE))
    edited = [{"targets": ["192.0.2.50:1"], "labels": {"id": SERVICE.id}}]
    for listed in (False, True):
        path.write_text(json.dumps(edited))
        if listed:
            assert files.list()[SERVICE.id].mark is Mark.NONE
        assert files.apply(register(files, SERVICE)) == {}
        assert files.list()[SERVICE.id].mark is Mark.OURS


def test_a_static_group_with_the_id_of_a_container_is_not_taken(path: Path) -> None:
    """The original writes no files, so it cannot have written a group with an id of choice."""
    static = {"targets": ["192.0.2.1:5432"], "labels": {"id": "postgres", "service": "postgres"}}
    path.write_text(json.dumps([static]))
    files = backend(path)
    custom = Service("postgres", "postgres", "192.0.2.1", 5432, 5432)
    plan = plan_for(files, custom)
    assert "somebody else" in plan.conflicts["postgres"]
    assert not plan
    assert not plan_for(files)


def test_two_groups_with_one_id(path: Path) -> None:
    """Ours is kept in order, and the other one stays."""
    files = backend(path)
    files.apply(register(files, SERVICE))
    static = {"targets": ["192.0.2.50:1"], "labels": {"id": SERVICE.id}}
    for groups in ([static, *read(path)], [*read(path), static]):
        path.write_text(json.dumps(groups))
        assert files.list()[SERVICE.id].mark is Mark.OURS
        assert files.apply(Plan(deregister=(SERVICE.id,))) == {}
        assert read(path) == [static]


def test_the_least_rights(path: Path) -> None:
    """A user other than root needs to write in the folder and nothing else."""
    require("root", os.geteuid() == 0, "changing the user needs it")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        files = backend(folder / "services.json")
        files.apply(register(files, SERVICE))
        os.seteuid(65534)
        try:
            with pytest.raises(Unavailable, match="Permission denied"):
                files.apply(register(files, OTHER))
            os.seteuid(0)
            os.chown(folder, 65534, -1)
            os.seteuid(65534)
            files.apply(register(files, OTHER))
        finally:
            os.seteuid(0)
        assert len(files.list()) == 2


# Faults


@pytest.mark.parametrize(
    "text", ["root:x:0:0", "[section]", "{}", "[1]", '[{"targets": [1]}]', '[{"targets": ["a"], '
             '"labels": {"a": 1}}]', '[{"labels": {}}]', '[{"targets": [], "labels": []}]', "\xff"],
)  # fmt: skip
def test_a_file_of_somebody_elses_is_not_touched(path: Path, text: str) -> None:
    path.write_bytes(text.encode("latin-1"))
    age(path)
    with pytest.raises(ConfigError, match="move it away"):
        backend(path)
    assert path.read_bytes() == text.encode("latin-1")


@pytest.mark.parametrize(
    "text", ["", " ", "[{]", '[{"targets": ["192.0.2.50:9100"]', "{}", "[" * 99999]
)
def test_a_half_written_file_is_never_replaced(path: Path, text: str) -> None:
    """Another tool writes in place: it cuts the file and writes into it bit by bit."""
    files = backend(path)
    files.apply(register(files, SERVICE))
    path.write_text(text)
    before = path.stat().st_ino
    with pytest.raises(Unavailable, match="half written"):
        files.list()
    for plan in (register(files, SERVICE, OTHER), Plan(deregister=(SERVICE.id,))):
        with pytest.raises(Unavailable, match="half written"):
            files.apply(plan)
    assert (path.read_text(), path.stat().st_ino) == (text, before)
    path.write_text(json.dumps([THEIRS]))
    assert files.list() == {}
    files.apply(register(files, SERVICE))
    assert THEIRS in read(path)
    assert list(files.list()) == [SERVICE.id]


def test_an_agent_starts_while_another_tool_writes(path: Path) -> None:
    """With systemd, an end with 2 would be for good."""
    path.write_text('[{"targets": [')
    files = backend(path)
    with pytest.raises(Unavailable, match="half written"):
        files.list()


def test_an_empty_or_missing_file_has_no_groups(path: Path) -> None:
    path.write_text("")
    age(path)
    files = backend(path)
    assert files.list() == {}
    files.apply(register(files, SERVICE))
    path.unlink()
    assert files.list() == {}
    files.apply(register(files, SERVICE))
    assert len(read(path)) == 1


def age(path: Path) -> None:
    """Make the last change of a file one of a minute ago."""
    then = time.time() - 60
    os.utime(path, (then, then))


def test_text_that_only_json_can_hold_stays(path: Path) -> None:
    """Half of a surrogate pair in somebody else's group has no UTF-8."""
    path.write_text('[{"targets": ["\\ud800:1"], "labels": {"x": "\\udc00"}}]')
    files = backend(path)
    files.apply(register(files, SERVICE))
    assert {"targets": ["\ud800:1"], "labels": {"x": "\udc00"}} in read(path)


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("file://host/x.json", "three slashes"),
        ("file://u:s3cret@/x.json", "three slashes"),
        ("file:///x.json?mode=600", "unknown option mode"),
        ("file://", "path of a file"),
        ("file:///", "path of a file"),
        ("file:///tmp/", "path of a file"),
        ("file:///tmp/a%00b", "path of a file"),
        ("file:///no/such/folder/x.json", "does not exist; create it first"),
        ("file:///tmp", "not a regular file"),
        ("file:///dev/null", "not a regular file"),
        ("file:///" + "x" * 300, "name too long"),
    ],
)
def test_a_wrong_uri(uri: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        FileBackend(Context(parse(uri)))
    assert reason in str(caught.value).lower()
    assert "s3cret" not in str(caught.value)


def test_a_folder_that_went_away(path: Path) -> None:
    path.parent.joinpath("sub").mkdir()
    files = backend(path.parent / "sub" / "x.json")
    plan = register(files, SERVICE)
    path.parent.joinpath("sub").rmdir()
    with pytest.raises(Unavailable, match="No such file"):
        files.apply(plan)
    path.parent.joinpath("sub").mkdir()
    files.apply(plan)
    assert list(files.list()) == [SERVICE.id]


def test_two_agents_do_not_write_at_once(path: Path) -> None:
    files = backend(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        with pytest.raises(Unavailable, match="another agent"):
            files.apply(register(files, SERVICE))
    finally:
        os.close(folder)
    files.apply(register(files, SERVICE))
    assert list(files.list()) == [SERVICE.id]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    require("root", os.geteuid() == 0, "mounting a file system needs it")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(tmp_path)], check=True)
    try:
        files = backend(tmp_path / "services.json")
        files.apply(register(files, SERVICE))
        big = Service("big", "big", "192.0.2.1", 1, 1, attrs={"x": "x" * 200_000})
        with pytest.raises(Unavailable, match="No space left"):
            files.apply(register(files, big))
        assert list(files.list()) == [SERVICE.id]
        assert names(tmp_path) == ["services.json"]
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
        with pytest.raises(Unavailable, match="Read-only"):
            files.apply(register(files, OTHER))
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


# Labels


def test_attributes_get_legal_names() -> None:
    attrs = {"check-http": "1", "check.http": "2", "check_http": "3", "é": "4", "": "5"}
    assert attribute_labels(attrs) == {
        "attr_check_http": "3",
        "attr_": "5",
        "attr_check_http_2": "1",
        "attr_check_http_3": "2",
        "attr__": "4",
    }


@given(st.dictionaries(st.text(max_size=6), st.text(max_size=6), max_size=8))
def test_no_attribute_is_lost(attrs: dict[str, str]) -> None:
    labels = attribute_labels(attrs)
    assert sorted(labels.values()) == sorted(attrs.values())
    assert all(name.isascii() and name.isidentifier() for name in labels)
    assert labels == attribute_labels(dict(reversed(attrs.items())))
