"""The errors of a Consul server, and which of them an HTTP answer means.

All errors here are kinds of `Unavailable`. So an error that nobody handles says the right thing::

    Unavailable
     +-- NoAnswer   this server is dead or frozen, but the next one may serve
     |    +-- Leaderless   it answers, but cannot reach its cluster
     |    +-- Cut          it closed the connection instead of answering
     +-- Denied     the token lacks a right (403), which every server says
     +-- Refused    any other answer that is not a success
"""

import contextlib
import re
from collections.abc import Iterator

from registrator.backend import Unavailable

# An agent that cannot reach its servers answers 500 with one of these texts.
_LEADERLESS = re.compile(
    r"no cluster leader|no known consul servers|rpc error|leadership lost|raft|eof|"
    r"connection re|timed? ?out|deadline",
    re.IGNORECASE,
)


class NoAnswer(Unavailable):
    """A server did not answer, or not in time."""


class Leaderless(NoAnswer):
    """A server answered that it, or its cluster, cannot serve now."""


class Cut(NoAnswer):
    """A server closed the connection instead of answering, or its answer has an unknown form."""


class Denied(Unavailable):
    """Answer 403. `unknown` is true if Consul does not know the token at all."""

    def __init__(self, text: str, unknown: bool) -> None:
        super().__init__(text)
        self.unknown = unknown

    def remedy(self, rules: str) -> str:
        """The remedy for the operator. `rules` are the ACL rules that the request needs."""
        return "give a token that this Consul knows" if self.unknown else rules


class Refused(Unavailable):
    """Another answer that is not a success, with its `status` and Consul's own `reason`."""

    def __init__(self, address: str, status: int, reason: str) -> None:
        super().__init__(f"{address} answered {status}: {reason[:300]}")
        self.status = status
        self.reason = reason


def failure(server: str, status: int, reason: str, token_problem: str) -> Unavailable:
    """The error for an answer of 300 and above. `token_problem` is a known fault of the token."""
    if status == 403:
        problem = f" ({token_problem})" if token_problem else ""
        return Denied(f"{server}: {reason[:300]}{problem}", "ACL not found" in reason)
    if status in (429, 502, 503, 504) or (status == 500 and _LEADERLESS.search(reason)):
        return Leaderless(f"{server} answered {status}: {reason[:300]}")
    return Refused(server, status, reason)


@contextlib.contextmanager
def explain_denial(rules: str) -> Iterator[None]:
    """Turn `Denied` into an `Unavailable` that tells the operator which ACL rules are missing."""
    try:
        yield
    except Denied as error:
        remedy = error.remedy(rules)
        raise Unavailable(f"permission denied by Consul at {error}; {remedy}") from error
