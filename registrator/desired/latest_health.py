"""Does not believe an engine that goes back to a health of the past.

A restarted engine with live-restore tells the health that it last wrote to its disk, or starts the
checks anew. In both cases the last probe is one that ended before the agent's last look.
"""

import time
from dataclasses import replace

from registrator.model import Container


def with_latest_health(now: Container, before: Container) -> Container:
    """The container as it is `now`, with the health of `before` if no probe ended since.

    A probe that is still to come by this host's clock shows that a clock was put back. Then its
    time tells nothing.
    """
    same_run = now.started_at == before.started_at
    if same_run and now.probed_at <= before.probed_at <= time.time_ns() and before.probed_at:
        return replace(now, health=before.health, probed_at=before.probed_at)
    return now
