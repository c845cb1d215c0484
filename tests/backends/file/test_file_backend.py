"""The file registry: readable at any moment, written only for a change, and nobody else's."""

import fcntl
import json
import logging
import os
import stat
import subprocess
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.require import require

from registrator.backend import Backend, ConfigError, Context, Unavailable, load
from registrator.backends.file import OWNER, FileBackend, attribute_labels
from registrator.model import Identity, Mark, Plan, Service
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


def backend(path: Path, owner: str = "me") -> Backend:
    uri = parse(f"file://{path}")
    return load(uri.scheme)(Context(uri, Identity(owner, "host")))


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
                OWNER: "me",
            },
        },
        {
            "targets": ["192.0.2.1:8080"],
            "labels": {
                "id": "host:web1:80", "service": "web", "container": "web1", "tags": ",a,b,",
                "attr_region": "eu", OWNER: "me",
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


# Faults


@pytest.mark.parametrize(
    "text", ["root:x:0:0", "[section]", "{}", "[1]", '[{"targets": [1]}]', '[{"targets": ["a"], '
             '"labels": {"a": 1}}]', '[{"labels": {}}]', '[{"targets": [], "labels": []}]', "\xff"],
)  # fmt: skip
def test_a_file_of_somebody_elses_is_not_touched(path: Path, text: str) -> None:
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match="move it away"):
        backend(path)
    assert path.read_bytes() == text.encode("latin-1")


def test_a_registry_that_is_spoilt_later_is_mended(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = backend(path)
    files.apply(register(files, SERVICE))
    path.write_text("[{]")
    with caplog.at_level(logging.WARNING):
        assert files.list() == {}
        files.apply(register(files, SERVICE))
    (line,) = caplog.messages
    assert "writing it again" in line
    assert len(read(path)) == 1
    path.write_text("")
    assert backend(path).list() == {}
    path.unlink()
    assert files.list() == {}
    files.apply(register(files, SERVICE))
    assert len(read(path)) == 1


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
