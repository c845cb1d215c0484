"""Registries without a server: the file, and the fake that stands in for a real one elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support.fakes import FakeBackend, FakeRegistry

from contract.registry import HOST, OWNER, Registry, service, shown
from registrator.backend import Backend
from registrator.model import Identity

NEIGHBOUR = {"targets": ["10.0.0.1:1000"], "labels": {"service": "web"}}

PLANTED = "planted by the tests"


class InFile(Registry):
    """``file``."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder / self.token
        self.folder.mkdir()
        self.path = self.folder / "services.json"

    def uri(self, *before: str) -> str:
        return f"file://{self.path}"

    def groups(self) -> list[dict[str, Any]]:
        text = self.path.read_text() if self.path.exists() else "[]"
        found: list[dict[str, Any]] = json.loads(text)
        return found

    def read(self) -> dict[str, str]:
        return {
            group["labels"]["id"]: group["targets"][0]
            for group in self.groups()
            if group != NEIGHBOUR
        }

    def plant(self) -> None:
        self.path.write_text(json.dumps([NEIGHBOUR]))
        self.path.with_name("other.json").write_text("[]")

    def outside(self) -> object:
        files = {
            str(path): path.is_file() and path.read_bytes()
            for path in self.folder.parent.rglob("*")
            if path != self.path
        }
        return files, [group for group in self.groups() if group == NEIGHBOUR]

    def index(self) -> int:
        return self.path.stat().st_mtime_ns

    def clean(self) -> None:
        """The folder goes with the test."""


class InMemory(Registry):
    """The fake."""

    def __init__(self) -> None:
        super().__init__()
        self.registry = FakeRegistry()

    def uri(self, *before: str) -> str:
        return "fake://"

    def make(self, owner: str = OWNER, /, *before: str, **context: Any) -> Backend:
        return FakeBackend(self.registry, Identity(owner, HOST))

    def read(self) -> dict[str, str]:
        entries = self.registry.entries.items()
        return {key: shown(made) for key, (_, _, made) in entries if made and key != PLANTED}

    def plant(self) -> None:
        self.registry.entries[PLANTED] = ("", "", service(address="10.9.9.9"))

    def outside(self) -> object:
        return self.registry.entries[PLANTED]

    def index(self) -> int:
        return self.registry.writes

    def clean(self) -> None:
        """It goes with the test."""
