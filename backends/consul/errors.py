"""What can go wrong at a Consul, and which of it an HTTP answer tells.

All errors here are kinds of `Unavailable`, so that one that nobody handles says the right thing::

    Unavailable
     +-- NoAnswer   this server is dead or frozen: the next one may do
     |    +-- Leaderless   it answers, but cannot reach its cluster
     |    +-- Cut          it closed the connection instead of answering
     +-- Denied     the token lacks a right (403); the same at every server
     +-- Refused    any other answer that is no success
"""

from __future__ import annotations

import re

from registrator.backend import Unavailable

# A 500 with one of these is an agent that cannot reach its servers, not a wrong request.
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
    """A server closed the connection instead of answering, or answered in no known form."""


class Denied(Unavailable):
    """403; `unknown` where the token itself is refused rather than one of its rights."""

    def __init__(self, text: str, unknown: bool) -> None:
        super().__init__(text)
        self.unknown = unknown

    def remedy(self, rules: str) -> str:
        """What to do: where the token is known, it needs these rules."""
        return "give a token that this Consul knows" if self.unknown else rules


class Refused(Unavailable):
    """An HTTP answer that is no success, with its `status` and Consul's own `reason`."""

    def __init__(self, address: str, status: int, reason: str) -> None:
        super().__init__(f"{address} answered {status}: {reason[:300]}")
        self.status = status
        self.reason = reason


def failure(server: str, status: int, reason: str, token_problem: str) -> Unavailable:
    """The error that an answer of 300 and up is; `token_problem` is what is known of its token."""
    if status == 403:
        problem = f" ({token_problem})" if token_problem else ""
        return Denied(f"{server}: {reason[:300]}{problem}", "ACL not found" in reason)
    if status in (429, 502, 503, 504) or (status == 500 and _LEADERLESS.search(reason)):
        return Leaderless(f"{server} answered {status}: {reason[:300]}")
    return Refused(server, status, reason)
