"""Services of one host in a JSON file, for any reader: ``file:///path/services.json``.

The format is that of Prometheus' file-based discovery: a list of groups with ``targets`` and
``labels``, with one group per service. The backend replaces the whole file, so a reader finds the
old or the new one. The file stays when the agent ends. The backend does not touch groups of
others. Ours carry the owner in a label that starts with ``__``, which Prometheus drops after
relabelling.

Nothing here expires, so ``-ttl`` has no effect. File systems have no time limit either.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from registrator.backend import (
    ConfigError,
    Context,
    Unavailable,
    require_known_options,
)
from registrator.model import Actual, Entry, Mark, Plan, Service
from registrator.uri import Address

from .common.values import encode

log = logging.getLogger(__name__)

OWNER = "__meta_registrator_owner"
MODE = 0o644

Group = dict[str, Any]
Groups = list[Group]


class FileBackend:
    """Services in a JSON file, behind the `Backend` protocol."""

    keepalive_interval: float | None = None

    def __init__(self, context: Context) -> None:
        self._owner = context.identity.owner
        self._path = _path(context)
        # At start, the file might be anybody's, so we do not touch an unknown format. Later we know
        # that it is ours, and repair it.
        try:
            self._read()
        except ValueError as error:
            raise ConfigError(
                f"{self._path} exists and is not a list of target groups ({error});"
                " move it away, or name another file"
            ) from error
        except Unavailable as error:
            raise ConfigError(str(error)) from error

    def entry(self, service: Service) -> Entry:
        """The service's group, by its id. Raises `Rejected` if it is not valid Unicode."""
        labels = {
            "id": service.id,
            "service": service.name,
            "container": service.container_name,
            **({"tags": f",{','.join(service.tags)},"} if service.tags else {}),
            **attribute_labels(service.attrs),
            OWNER: self._owner,
        }
        target = str(Address(service.address, service.port))
        content = _canonical({"targets": [target], "labels": labels})
        encode(content)
        return Entry(service.id, content, service)

    def list(self) -> Mapping[str, Actual]:
        """Every group that has an id."""
        return {
            group["labels"]["id"]: Actual(
                _canonical(group),
                self._mark(group),
                id=group["labels"]["id"],
                address=_address(group),
            )
            for group in self._groups()
            if "id" in group["labels"]
        }

    def apply(self, plan: Plan) -> Mapping[str, str]:
        """Write the file once, or not at all if nothing changes.

        Rejects an id that another owner took since the listing.
        """
        wanted = {entry.key: json.loads(entry.content) for entry in plan.register}
        with self._locked() as folder_fd:
            before = self._groups(repairing=True)
            theirs = [group for group in before if self._mark(group) is Mark.OTHERS]
            taken = wanted.keys() & {group["labels"].get("id") for group in theirs}
            gone = {*plan.deregister, *wanted}
            after = [
                group for group in before
                if group["labels"].get("id") not in gone or group in theirs
            ]  # fmt: skip
            after += [group for key, group in wanted.items() if key not in taken]
            after.sort(key=lambda group: group["labels"].get("id", ""))
            if after != before:
                self._write(after, folder_fd)
        return dict.fromkeys(taken, "another owner holds it")

    def keepalive(self) -> None:
        """Do nothing, because entries do not expire."""

    def close(self) -> None:
        """Do nothing, because the file is not kept open."""

    def _mark(self, group: Group) -> Mark:
        owner = group["labels"].get(OWNER)
        if owner is None:
            return Mark.NONE
        return Mark.OURS if owner == self._owner else Mark.OTHERS

    def _groups(self, *, repairing: bool = False) -> Groups:
        try:
            return self._read()
        except ValueError as error:
            if repairing:
                log.warning("%s is damaged (%s); writing it again", self._path, error)
            return []

    def _read(self) -> Groups:
        """The file's groups. Raises `ValueError` if it has another form."""
        try:
            text = self._path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise Unavailable(f"cannot read {self._path}: {error.strerror}") from error
        return _parse(text)

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
        lines = ",\n".join(_canonical(group) for group in groups)
        scratch = self._path.with_name(f".{self._path.name}.tmp")
        scratch.unlink(missing_ok=True)
        try:
            with scratch.open("xb") as file:
                os.fchmod(file.fileno(), MODE)
                file.write(f"[\n{lines}\n]\n".encode())
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


def _address(group: Group) -> str:
    host = group["targets"][0].rpartition(":")[0] if group["targets"] else ""
    return str(host).removeprefix("[").removesuffix("]")
