"""Calls to an etcd server over gRPC, and plain words for their errors.

We use only the messages of the etcd3 package. Its own calls wait without limit for a frozen
server, know one address only, and do not renew a token.
"""

import os
import re
from collections.abc import Callable
from typing import Any

from registrator.backend import Unavailable

from . import messages
from .imports import without

# gRPC logs nothing here, because each of its faults comes as an exception too.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
# Its part for asyncio takes 1 MiB, and asyncio itself 1.3 MiB.
with without("grpc.aio", "asyncio"):
    import grpc as grpc

etcdrpc = messages

Rpc = Callable[..., Any]
Code = grpc.StatusCode

# The answers of a server that understood the request. Any other server would answer the same,
# except for a learner.
_REFUSALS = frozenset(
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

_NO_SPACE = "database space exceeded"
_TOO_LARGE = ("too many operations", "request is too large")

# gRPC's texts for a connection that failed, and plain words for them.
MEANINGS = (
    (r"Failed to connect to remote host: (.+)", r"\1"),
    (
        r"Trying to connect an http1|Failed parsing HTTP/2",
        "it does not speak gRPC (is this etcd's client port?)",
    ),
    (
        r"Handshake read failed",
        "TLS: the server closed the connection (does it speak TLS at this port?)",
    ),
    (
        r"BAD_SIGNATURE|CERTIFICATE_VERIFY_FAILED",
        "TLS: the server's certificate is not accepted (\\g<0>)",
    ),
    (r"Hostname Verification", "TLS: the server's certificate is not for this host"),
    (r"TSI_DATA_CORRUPTED", "TLS: the server refuses our certificate, or requires one"),
)


class Refused(Unavailable):
    """A server understood the request and refused it. `code` is gRPC's."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code


def refuses(call: Any) -> bool:
    """Whether a server refused a call, so that any other server would refuse it, too.

    A learner refuses almost everything. Its code is UNAVAILABLE up to etcd 3.5, and
    FAILED_PRECONDITION from 3.6 on.
    """
    return call.code() in _REFUSALS and "not supported for learner" not in (call.details() or "")


def unary(service: str, name: str) -> Rpc:
    """A call on a channel, with one request and one answer."""
    path, request_class, answer_class = etcdrpc.method(service, name)
    coding = request_class.SerializeToString, answer_class.FromString
    return lambda channel, request, **options: channel.unary_unary(path, *coding)(
        request, **options
    )


def stream(service: str, name: str) -> Rpc:
    """A call on a channel, with any number of requests and answers."""
    path, request_class, answer_class = etcdrpc.method(service, name)
    coding = request_class.SerializeToString, answer_class.FromString
    return lambda channel, requests, **options: channel.stream_stream(path, *coding)(
        requests, **options
    )


_LEASE_KEEP_ALIVE = stream("Lease", "LeaseKeepAlive")


def keep_alive(channel: Any, request: Any, **options: Any) -> Any:
    """Renew a lease by one request over a stream. If the stream just ends, the TTL is 0."""
    answers = _LEASE_KEEP_ALIVE(channel, iter([request]), **options)
    try:
        return next(answers, etcdrpc.LeaseKeepAliveResponse())
    finally:
        answers.cancel()


def reason(error: grpc.RpcError, timeout: float, *, connecting: bool) -> str:
    """Why a call failed, for the operator, in place of gRPC's own terms."""
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
    """Why a server refused, and what to do about it."""
    remedy = ""
    if error.code() is Code.PERMISSION_DENIED:
        remedy = "; the user needs a role with readwrite below the URI's path"
    elif _NO_SPACE in (error.details() or ""):
        remedy = "; compact and defragment etcd, or raise its quota, and disarm its alarm"
    return f"{error.details()}{remedy}"


def no_space(error: Refused) -> bool:
    """Whether etcd takes no more puts until somebody gives it room. It still takes deletes."""
    return _NO_SPACE in str(error)


def too_large(error: Refused) -> bool:
    """Whether a transaction is beyond ``--max-txn-ops`` or ``--max-request-bytes``."""
    return any(text in str(error) for text in _TOO_LARGE)


def wants_login(error: grpc.RpcError) -> bool:
    """Whether the token is missing, expired, or older than the last change of the users."""
    details = error.details() or ""
    return (
        error.code() is Code.UNAUTHENTICATED
        or "auth store is old" in details
        or "user name is empty" in details
    )
