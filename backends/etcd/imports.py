"""Imports gRPC and protobuf without the parts that the agent never uses."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


@contextmanager
def without(*names: str) -> Iterator[None]:
    """Let a package be imported without these modules. They load when somebody uses them."""
    parts = [_later(name) for name in names if name not in sys.modules]
    sys.modules.update({part.__name__: part for part in parts})
    try:
        yield
    finally:
        for part in parts:
            _remove(part)


def _later(name: str) -> ModuleType:
    """A module that stands in for another one, and gets each attribute from it."""
    part = ModuleType(name)

    def attribute(key: str) -> Any:
        _remove(part)
        return getattr(importlib.import_module(name), key)

    vars(part)["__getattr__"] = attribute
    return part


def _remove(part: ModuleType) -> None:
    if sys.modules.get(part.__name__) is part:
        del sys.modules[part.__name__]
