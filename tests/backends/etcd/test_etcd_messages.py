"""The messages come from etcd3's description, at the cost of a part of its package."""

from __future__ import annotations

import subprocess
import sys

import pytest

from registrator.backends.etcd import messages
from registrator.backends.etcd.rpc import etcdrpc


def run(code: str) -> str:
    """The output of code in an interpreter of its own."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_messages_and_methods() -> None:
    request = etcdrpc.RangeRequest(key=b"a", limit=3)
    assert request.SerializeToString() == b"\x0a\x01a\x18\x03"
    path, request_class, answer_class = messages.method("KV", "Range")
    assert path == "/etcdserverpb.KV/Range"
    assert request_class is etcdrpc.RangeRequest
    assert answer_class is etcdrpc.RangeResponse
    assert etcdrpc.Compare.MOD == 2


def test_there_is_no_such_message() -> None:
    with pytest.raises(AttributeError, match="Nothing"):
        _ = etcdrpc.Nothing


def test_what_is_not_imported() -> None:
    """Each of these takes a MiB or more."""
    python = "google.protobuf.internal.python_message"
    heavy = ["etcd3", "asyncio", "grpc.aio", "google.protobuf.descriptor_pb2", python]
    code = "import sys, registrator.backends.etcd.backend as b;"
    code += f"print(*set({heavy!r}) & set(sys.modules))"
    assert run(code) == "\n"


def test_another_package_gets_what_was_left_out() -> None:
    code = "import registrator.backends.etcd.rpc, grpc.aio; print(grpc.aio.insecure_channel)"
    assert "function" in run(code)
    code = "import grpc.aio, registrator.backends.etcd.rpc; print(grpc.aio.insecure_channel)"
    assert "function" in run(code)


def test_what_was_left_out_works_later() -> None:
    code = """
import registrator.backends.etcd.rpc, asyncio, grpc, grpc.aio

async def state():
    async with grpc.aio.insecure_channel("ipv4:127.0.0.1:1") as channel:
        try:
            await channel.unary_unary("/x")(b"", timeout=60)
        except grpc.aio.AioRpcError as error:
            return error.code()

print(asyncio.run(state()))
"""
    assert run(code) == "StatusCode.UNAVAILABLE\n"
    code = "import registrator.backends.etcd.messages; from google.protobuf import descriptor_pool;"
    code += "print(descriptor_pool.python_message.GeneratedProtocolMessageType.__name__)"
    assert run(code) == "GeneratedProtocolMessageType\n"


def test_protobuf_without_its_implementation_in_c(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")
    code = "from registrator.backends.etcd import messages;"
    code += "print(messages.RangeRequest(key=b'a').SerializeToString())"
    assert run(code) == "b'\\n\\x01a'\n"


def test_an_etcd3_without_a_description(monkeypatch: pytest.MonkeyPatch) -> None:
    messages._pool.cache_clear()
    try:
        monkeypatch.setattr(messages, "_FILES", ("__init__.py",))
        with pytest.raises(ImportError, match=r"__init__\.py has no description of messages"):
            messages.method("KV", "Range")
        monkeypatch.setattr(messages, "find_spec", lambda _: None)
        with pytest.raises(ImportError, match="etcd3 is not installed"):
            messages.method("KV", "Range")
    finally:
        messages._pool.cache_clear()
