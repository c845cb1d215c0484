"""The outcomes of a port, and what the operator can do about each: the one table of remedies.

An outcome is `registered`, `pending`, or the name of a `Reason` in lower case. The page, the
commands and the metrics tell the same, because all of them take it from here.
"""

from collections.abc import Mapping
from typing import TypedDict

from registrator.model import Reason

REGISTERED, PENDING = "registered", "pending"

# These are somebody's will. All other reasons need attention.
ON_PURPOSE = frozenset(
    {
        Reason.NO_PORTS, Reason.NOT_PUBLISHED, Reason.NOT_LISTED, Reason.NO_SUCH_PORT,
        Reason.IGNORED, Reason.NOT_NAMED, Reason.FILTERED, Reason.WITHDRAWN, Reason.PAUSED,
    }
)  # fmt: skip

# The remedy for each reason.
REMEDIES: Mapping[Reason, str] = {
    Reason.NO_PORTS: "expose a port in the image or with --expose, if it offers a service",
    Reason.NOT_PUBLISHED: "publish it with -p, or run the agent with -internal",
    Reason.NOT_LISTED: "add the port to SERVICE_PORTS, if it offers a service",
    Reason.NOT_REACHABLE: "publish it with -p, or take it out of SERVICE_PORTS",
    Reason.NO_SUCH_PORT: "write the number of a port that the container has, or expose this one",
    Reason.IGNORED: "remove SERVICE_IGNORE, or SERVICE_<port>_IGNORE, from the container",
    Reason.NOT_NAMED: "set SERVICE_NAME or SERVICE_<port>_NAME, or run the agent without -explicit",
    Reason.FILTERED: "change -filter, or ?filter= of the registry's URI, if it is to be registered",
    Reason.REJECTED: "correct the variable or the label that the text names, and create the "
    "container again (docker run, or docker-compose up)",
    Reason.NO_ADDRESS: "run the agent with -ip, or connect the container to the network",
    Reason.NOT_ATTACHED: "connect the container to the network that SERVICE_NETWORK names",
    Reason.SAME_ID: "give each of the two its own SERVICE_ID or SERVICE_<port>_ID",
    Reason.SAME_KEY: "give each of the two its own SERVICE_NAME or SERVICE_ID",
    Reason.OTHERS_ENTRY: "remove the other entry, or set another SERVICE_ID or -hostname",
    Reason.REFUSED: "change what the registry refuses, or the rules of the registry",
    Reason.REGISTRY_AWAY: "see that the registry runs, and that this host reaches it "
    "(the agent tries again by itself)",
    Reason.RESTART_LOOP: "read the container's log (docker logs), and mend why it ends",
    Reason.WITHDRAWN: "wait until it has ended (the agent registers it again if it runs on)",
    Reason.PAUSED: "end the pause with docker unpause",
    Reason.UNHEALTHY: "read what its health check says with docker inspect, and mend it",
    Reason.STARTING: "wait until its health check passes once",
    Reason.NOT_INSPECTED: "see whether docker inspect answers (the agent tries again by itself)",
    Reason.UNREADABLE: "see what docker inspect says of it, and report it with the agent's log",
    Reason.TOO_MANY: "publish fewer ports, or set fewer and shorter variables and labels",
}


class Outcome(TypedDict):
    """The meaning of one outcome, in words."""

    text: str
    remedy: str
    attention: bool


def name_of(reason: Reason) -> str:
    """The outcome of a port that is not registered for this reason."""
    return reason.name.lower()


def outcomes() -> dict[str, Outcome]:
    """Every outcome that exists, by its name."""
    found = {
        REGISTERED: Outcome(text="it is registered", remedy="", attention=False),
        PENDING: Outcome(text="it is about to be written", remedy="wait a moment", attention=False),
    }
    for reason in Reason:
        found[name_of(reason)] = Outcome(
            text=reason.value, remedy=REMEDIES[reason], attention=reason not in ON_PURPOSE
        )
    return found


# The names of the outcomes that need attention.
ATTENTION = frozenset(name for name, each in outcomes().items() if each["attention"])
