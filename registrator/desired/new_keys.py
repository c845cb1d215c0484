"""Warns of metadata keys that version 1.0.0 took for attributes, and that are settings now.

A container may have such a key for a purpose of its own, from a time when it meant nothing. The
agent tells this at its start, when operators look at the log of a new version.
"""

import re

from registrator.desired.left_out import FAULTS
from registrator.desired.metadata import OWN_KEYS, read_metadata
from registrator.desired.untrusted import shown
from registrator.model import Container, Offer, Reason

# The own keys of version 1.0.0 and of gliderlabs/registrator.
FORMER_KEYS = frozenset({"name", "id", "tags", "ip", "ignore"})

NEW_KEYS = OWN_KEYS - FORMER_KEYS

# The keys of a further health check. They are attributes still, and settings besides.
NUMBERED_CHECK = re.compile(r"check_[1-9][0-9]?_.+", re.DOTALL)

# A line names at most so many keys.
MAX_KEYS = 20

# A container that is left out for these reasons has nothing that a key could change.
_OUT = frozenset(
    {Reason.IGNORED, Reason.NOT_NAMED, Reason.FILTERED, Reason.NO_PORTS, Reason.NO_SUCH_PORT}
)


def new_keys(container: Container) -> list[str]:
    """The keys of a container that are new, as it spells them."""
    metadata = read_metadata(container)
    return sorted(
        setting.key
        for settings in (metadata.generic, *metadata.of_port.values())
        for name, setting in settings.items()
        if name in NEW_KEYS or NUMBERED_CHECK.fullmatch(name)
    )


def warning(container: Container, offer: Offer) -> str:
    """The line about the new keys of a container, or an empty text if there is nothing to tell.

    A key that another warning names already is not told twice.
    """
    if not offer.services and all(each.reason in _OUT for each in offer.left_out):
        return ""
    told = [each.text for each in offer.left_out if each.reason in FAULTS]
    keys = [key for key in new_keys(container) if not any(shown(key) in text for text in told)]
    if not keys:
        return ""
    listed = ", ".join(map(shown, keys[:MAX_KEYS]))
    more = f" and {len(keys) - MAX_KEYS} more" if len(keys) > MAX_KEYS else ""
    who = f"container {shown(container.name)} ({shown(container.id[:12])})"
    return f"{who}: {listed}{more}: settings now, which version 1.0.0 took for attributes"
