"""Services of one host in a JSON file, for any reader: ``file:///path/services.json``.

The format is that of Prometheus' file-based discovery: a list of groups with ``targets`` and
``labels``, with one group per service. The backend replaces the whole file, so a reader finds the
old or the new one. The file stays when the agent ends. The backend does not touch groups of
others. Ours carry the owner and the host in labels that start with ``__``, which Prometheus drops
after relabelling.

Another tool may write the file in place. Then it is half written for a moment. The backend never
replaces a file that it cannot read as a whole.

Nothing here expires, so ``-ttl`` has no effect. File systems have no time limit either.
"""

import contextlib
import fcntl
import json
import os
import re
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from registrator.backend import (
    ConfigError,
    Context,
    Unavailable,
    require_known_options,
    require_port,
)
from registrator.model import Actual, Entry, Mark, Plan, Service
from registrator.uri import Address

from .common.values import address_in, encode

OWNER = "__meta_registrator_owner"
HOST = "__meta_registrator_host"
MODE = 0o644

# A file that is wrong or empty may be one that another tool writes now, if it changed within this
# many seconds.
FRESH = 5.0

Group = dict[str, Any]
Groups = list[Group]


class _Unreadable(Unavailable):
    """The file is no list of groups. `why` tells. `fresh` means that it changed just now."""

    def __init__(self, path: Path, why: str, fresh: bool) -> None:
        super().__init__(
            f"{path} is not a list of target groups ({why}). Another tool may have half written"
            " it. Registrator leaves it as it is and tries again; mend it, or move it away"
        )
        self.why = why
        self.fresh = fresh


class FileBackend:
    """Services in a JSON file, behind the `Backend` protocol."""

    any_thread = True

    keepalive_interval: float | None = None

    def __init__(self, context: Context) -> None:
        self._identity = context.identity
        self._path = _path(context)
        self._seen: dict[str, Actual] = {}
        try:
            self._read()
        except _Unreadable as error:
            # A path that names some other file is a mistake. A file that changed just now may be
            # half written, and then another end with 2 would be for good.
            if error.fresh:
                return
            raise ConfigError(
                f"{self._path} exists and is not a list of target groups ({error.why});"
                " move it away, or name another file"
            ) from error
        except Unavailable as error:
            raise ConfigError(str(error)) from error

    def entry(self, service: Service) -> Entry:
        """The service's group, by its id. Raises `Rejected` without a port or valid Unicode."""
        require_port(service)
        labels = {
            "id": service.id,
            "service": service.name,
            "container": service.container_name,
            **({"tags": f",{','.join(service.tags)},"} if service.tags else {}),
            **attribute_labels(service.attrs),
            OWNER: self._identity.owner,
            HOST: self._identity.hostname,
        }
        target = str(Address(service.address, service.port))
        content = _canonical({"targets": [target], "labels": labels})
        encode(content)
        return Entry(service.id, content, service)

    def list(self, keys: Collection[str] = (), /) -> Mapping[str, Actual]:
        """Every group that has an id. If several have one id, ours counts."""
        found: dict[str, Actual] = {}
        for group in self._read():
            key = group["labels"].get("id")
            if key is not None and (key not in found or found[key].mark is not Mark.OURS):
                found[key] = self._actual(key, group)
        self._seen = found
        return dict(found)

    def _actual(self, key: str, group: Group) -> Actual:
        labels = group["labels"]
        return Actual(
            _canonical(group),
            self._identity.mark(labels.get(OWNER), labels.get(HOST)),
            id=key,
            address=address_in(next(iter(group["targets"]), "")),
            host=labels.get(HOST, ""),
        )

    def apply(self, plan: Plan) -> Mapping[str, str]:
        """Write the file once, or not at all if nothing changes.

        Rejects an id that somebody else took since the listing.
        """
        wanted = {entry.key: entry for entry in plan.register}
        planned = {*plan.deregister, *wanted}
        with self._locked() as folder_fd:
            before = self._read()
            theirs = self._theirs([g for g in before if g["labels"].get("id") in planned])
            held = [self._actual(g["labels"]["id"], g) for g in theirs]
            refused = {actual.id: actual.holder for actual in held}
            after = [g for g in before if g["labels"].get("id") not in planned or g in theirs]
            after += [json.loads(wanted[key].content) for key in wanted if key not in refused]
            if _sorted(after) != _sorted(before):
                self._write(_sorted(after), folder_fd)
        for key in planned - refused.keys():
            self._seen.pop(key, None)
            if key in wanted:
                self._seen[key] = Actual(wanted[key].content)
        return {key: why for key, why in refused.items() if key in wanted}

    def _theirs(self, groups: Groups) -> Groups:
        """The groups that must stay: another owner's, and those that the plan does not know.

        A group that was ours at the last look, and has lost our labels, is ours.
        """
        found = [(group, self._actual(group["labels"]["id"], group)) for group in groups]
        held = {now.id for _, now in found if now.mark is Mark.OURS}

        def stays(now: Actual) -> bool:
            if now.mark in (Mark.OURS, Mark.OTHERS):
                return now.mark is Mark.OTHERS
            seen = self._seen.get(now.id)
            if seen is None or seen.content == now.content:
                return seen is None
            return now.mark is not Mark.NONE or seen.mark is not Mark.OURS or now.id in held

        return [group for group, now in found if stays(now)]

    def keepalive(self) -> None:
        """Do nothing, because entries do not expire."""

    def close(self) -> None:
        """Do nothing, because the file is not kept open."""

    def _read(self) -> Groups:
        """The file's groups. Raises `Unavailable` if it has another form."""
        try:
            text = self._path.read_bytes()
            age = time.time() - self._path.stat().st_mtime
        except FileNotFoundError:
            return []
        except OSError as error:
            raise Unavailable(f"cannot read {self._path}: {error.strerror}") from error
        fresh = 0 <= age < FRESH
        if fresh and not text.strip():
            raise _Unreadable(self._path, "it is empty", fresh)
        try:
            return _parse(text)
        except (ValueError, RecursionError) as error:
            raise _Unreadable(self._path, str(error), fresh) from error

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """Keep other agents from writing while we read and write. Yields the folder descriptor."""
        try:
            folder_fd = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(folder_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield folder_fd
            finally:
                os.close(folder_fd)
        except BlockingIOError as error:
            raise Unavailable(f"another agent is writing in {self._path.parent} now") from error
        except OSError as error:
            raise Unavailable(f"cannot write {self._path}: {error.strerror}") from error

    def _write(self, groups: Groups, folder_fd: int) -> None:
        """Replace the file. The new file is complete and on disk before it replaces the old one."""
        lines = b",\n".join(_line(group) for group in groups)
        scratch = self._path.with_name(f".{self._path.name}.tmp")
        scratch.unlink(missing_ok=True)
        try:
            with scratch.open("xb") as file:
                os.fchmod(file.fileno(), MODE)
                file.write(b"[\n" + lines + b"\n]\n")
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(self._path)
            os.fsync(folder_fd)
        except OSError:
            scratch.unlink(missing_ok=True)
            raise


def attribute_labels(attrs: Mapping[str, str]) -> dict[str, str]:
    """Attributes as ``attr_<name>``, with ``_`` for each character that a label may not have.

    If several attributes get the same label, an attribute with a legal name keeps it. The others
    get a number, in order.
    """
    labels: dict[str, str] = {}
    for name in sorted(attrs, key=lambda name: (_legal(name) != name, name)):
        label = free = f"attr_{_legal(name)}"
        number = 2
        while free in labels:
            free = f"{label}_{number}"
            number += 1
        labels[free] = attrs[name]
    return labels


def _legal(name: str) -> str:
    return re.sub("[^a-zA-Z0-9_]", "_", name)


def _path(context: Context) -> Path:
    uri = context.uri
    if uri.addresses or uri.user or uri.password:
        raise ConfigError("a file has no host and no user; write file:///path with three slashes")
    require_known_options(uri)
    if not uri.path.strip("/") or uri.path.endswith("/") or "\0" in uri.path:
        raise ConfigError("give the path of a file, such as file:///run/services.json")
    # For a link, this is the target, so that we replace the target and not the link.
    path = Path(os.path.realpath(uri.path))
    try:
        if path.exists() and not path.is_file():
            raise ConfigError(f"{path} is not a regular file")
        if not path.parent.is_dir():
            raise ConfigError(f"the folder {path.parent} does not exist; create it first")
    except OSError as error:
        raise ConfigError(f"cannot use {path}: {error.strerror}") from error
    return path


def _parse(text: bytes) -> Groups:
    """The groups in a file's text. An empty file has no groups."""
    groups = json.loads(text) if text.strip() else []
    if not isinstance(groups, list):
        raise ValueError("not a list")
    for group in groups:
        if not (
            isinstance(group, dict)
            and isinstance(targets := group.get("targets"), list)
            and isinstance(labels := group.setdefault("labels", {}), dict)
            and all(isinstance(text, str) for text in (*targets, *labels.values()))
        ):
            raise ValueError("not every item has targets and labels")
    return groups


def _canonical(group: Group) -> str:
    return json.dumps(group, ensure_ascii=False, sort_keys=True)


def _sorted(groups: Groups) -> Groups:
    return sorted(groups, key=lambda group: str(group["labels"].get("id", "")))


def _line(group: Group) -> bytes:
    """The group as it stands in the file. A group of others may hold what UTF-8 cannot."""
    try:
        return _canonical(group).encode()
    except UnicodeEncodeError:
        return json.dumps(group, sort_keys=True).encode()
