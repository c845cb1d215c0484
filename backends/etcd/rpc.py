"""etcd's calls and what becomes of them: the etcd3 package's messages over gRPC.

Of the etcd3 package only channel and messages are used: its own calls wait without limit for a
server that is frozen, know one address, and let a token expire.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable
from operator import attrgetter
from typing import Any

from registrator.backend import Unavailable

# The generated code of etcd3 loads with protobuf's Python implementation only, and calls what
# protobuf has deprecated. What gRPC would log by itself comes as an exception too.
os.environ.setdefault("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import etcd3 as etcd3
    import grpc as grpc
    from etcd3 import etcdrpc as etcdrpc

Rpc = Callable[..., Any]
Code = grpc.StatusCode

# What a server says after having understood the request: any other server would say the same.
REFUSALS = frozenset(
    {
        Code.ALREADY_EXISTS,
        Code.FAILED_PRECONDITION,
        Code.INVALID_ARGUMENT,
        Code.NOT_FOUND,
        Code.OUT_OF_RANGE,
        Code.PERMISSION_DENIED,
        Code.RESOURCE_EXHAUSTED,
        Code.UNAUTHENTICATED,
        Code.UNIMPLEMENTED,
    }
)

# What gRPC says of a connection that came to nothing, and what it means.
MEANINGS = (
    (r"Failed to connect to remote host: (.+)", r"\1"),
    (
        r"Trying to connect an http1|Failed parsing HTTP/2",
        "it speaks no gRPC (is this etcd's client port?)",
    ),
    (
        r"Handshake read failed",
        "TLS: the server closed the connection (does it speak TLS at this port?)",
    ),
    (r"BAD_SIGNATURE|CERTIFICATE_VERIFY_FAILED", "TLS: its certificate is not accepted (\\g<0>)"),
    (r"Hostname Verification", "TLS: its certificate is not for this host"),
    (r"TSI_DATA_CORRUPTED", "TLS: the server refuses our certificate, or wants one"),
)


class Refused(Unavailable):
    """A server understood the request and said no; `code` is gRPC's."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code


def unary(path: str) -> Rpc:
    """The call with one request and one answer at `path`, as ``kvstub.Range``, of a client."""
    method = attrgetter(path)
    return lambda client, request, **options: method(client)(request, **options)


def keep_alive(client: Any, request: Any, **options: Any) -> Any:
    """Send a single request over a stream of lease keep-alives; an ended stream says TTL 0."""
    answers = client.leasestub.LeaseKeepAlive(iter([request]), **options)
    try:
        return next(answers, etcdrpc.LeaseKeepAliveResponse())
    finally:
        answers.cancel()


def reason(error: grpc.RpcError, timeout: float, *, connecting: bool) -> str:
    """What to tell of a call that failed; in place of what only gRPC's makers understand."""
    if error.code() is Code.DEADLINE_EXCEEDED:
        return f"no answer within {timeout:g} s"
    text = error.details() or error.code().name
    text = text.rpartition("last error: ")[2]
    for pattern, meaning in MEANINGS:
        if found := re.search(pattern, text):
            return str(found.expand(meaning))
    if "Socket closed" in text:
        doubt = " (is this etcd's client port, and without TLS?)" if connecting else ""
        return f"it closed the connection{doubt}"
    return str(text)


def refusal(error: grpc.RpcError) -> str:
    """What a server said when it refused, and what to do where it does not tell."""
    denied = error.code() is Code.PERMISSION_DENIED
    remedy = "; the user needs a role with readwrite below the URI's path" if denied else ""
    return f"{error.details()}{remedy}"


def wants_login(error: grpc.RpcError) -> bool:
    """Whether a token is missing, has expired, or is older than the last change of the users."""
    details = error.details() or ""
    return (
        error.code() is Code.UNAUTHENTICATED
        or "auth store is old" in details
        or "user name is empty" in details
    )
