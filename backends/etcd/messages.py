"""The messages and methods of etcd's API, by name, from their description in the etcd3 package.

etcd3's own classes work with protobuf's Python implementation only. That takes 5 MiB more, and is
ten times as slow. So this module reads the serialized description out of etcd3's generated files,
without an import, and lets protobuf make the classes of it.
"""

import functools
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .imports import without

# protobuf's implementation in Python takes 1.2 MiB. The one in C does the work.
with without("google.protobuf.internal.python_message"):
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message_factory import GetMessageClass

# Each one needs the ones before it.
_FILES = ("kv_pb2.py", "auth_pb2.py", "rpc_pb2.py")
_DESCRIPTION = re.compile(r"serialized_pb=_b\('((?:[^'\\]|\\.)*)'\)")


def __getattr__(name: str) -> Any:
    """The class of a message, such as `TxnRequest`."""
    if name.startswith("_"):
        raise AttributeError(name)
    try:
        return _class(f"etcdserverpb.{name}")
    except KeyError:
        raise AttributeError(name) from None


def method(service: str, name: str) -> tuple[str, Any, Any]:
    """The path of a method, and the classes of its request and answer."""
    found = _pool().FindServiceByName(f"etcdserverpb.{service}").FindMethodByName(name)
    path = f"/etcdserverpb.{service}/{name}"
    return path, _class(found.input_type.full_name), _class(found.output_type.full_name)


@functools.cache
def _class(name: str) -> Any:
    return GetMessageClass(_pool().FindMessageTypeByName(name))


@functools.cache
def _pool() -> DescriptorPool:
    pool = DescriptorPool()
    package = find_spec("etcd3")
    if package is None or package.origin is None:
        raise ImportError("the package etcd3 is not installed")
    for file in _FILES:
        source = (Path(package.origin).parent / "etcdrpc" / file).read_text("utf-8")
        description = _DESCRIPTION.search(source)
        if description is None:
            raise ImportError(f"etcd3's file {file} has no description of messages")
        escaped = description[1].encode()
        pool.AddSerializedFile(escaped.decode("unicode_escape").encode("latin-1"))
    return pool
