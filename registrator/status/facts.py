"""The facts of services and containers, for the log lines about them.

A line gets its facts as `extra`. Only the log in JSON looks at them: see `KEYS` in
`registrator/system/log.py`. Texts are as the container gave them.
"""

from registrator.model import Container, Reason, Service
from registrator.status.outcomes import name_of

Facts = dict[str, object]

# The event of a port that is not registered is `left_out` for all other reasons.
EVENTS = {
    Reason.REJECTED: "rejected",
    Reason.REFUSED: "rejected",
    Reason.OTHERS_ENTRY: "conflict",
    Reason.SAME_KEY: "conflict",
    Reason.SAME_ID: "claimed",
}


def of_service(service: Service) -> Facts:
    """The facts of a service."""
    return {
        "service": service.name,
        "service_id": service.id,
        "container": service.container_name,
        "container_id": service.container_id,
        "address": service.address,
        "port": service.port or None,
    }


def of_container(container: Container) -> Facts:
    """The facts of a container."""
    return {"container": container.name, "container_id": container.id}


def of_reason(reason: Reason) -> Facts:
    """The facts of a port that is not registered for this reason."""
    return {"event": EVENTS.get(reason, "left_out"), "reason": name_of(reason)}
