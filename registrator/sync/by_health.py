"""Leaves out services by the health of their containers (``-health``).

This is for registries that cannot show the health of a service. They have no unhealthy service. A
new service waits until its container is healthy for the first time. An entry that stands while its
container is starting stays: a restarted engine may start its checks anew while the container runs
on.
"""

from collections.abc import Container, Mapping, Set

from registrator.model import ContainerHealth, Entry, Problem, Reason

WHY = {
    ContainerHealth.UNHEALTHY: Problem(Reason.UNHEALTHY, Reason.UNHEALTHY.value),
    ContainerHealth.STARTING: Problem(Reason.STARTING, Reason.STARTING.value),
}


class ByHealth:
    """Chooses the entries that one registry should have. If it `shows_health`, that is all.

    `withheld` are those that it should not have, by key.
    """

    def __init__(self, shows_health: bool) -> None:
        self.withheld: Mapping[str, Entry] = {}
        self._shows_health = shows_health
        # The keys with a health that were desired last. They count as standing even if the
        # registry lost them since.
        self._upheld: Set[str] = frozenset()

    def choose(self, desired: Mapping[str, Entry], stands: Container[str]) -> Mapping[str, Entry]:
        """The entries to have, by key. `stands` says which keys are in the registry."""
        if self._shows_health:
            return desired
        checked = {
            key: entry.service.health
            for key, entry in desired.items()
            if entry.service.health is not ContainerHealth.NONE
        }
        withheld = {
            key
            for key, each in checked.items()
            if each is ContainerHealth.UNHEALTHY
            or (each is ContainerHealth.STARTING and key not in stands and key not in self._upheld)
        }
        self._upheld = checked.keys() - withheld
        self.withheld = {key: desired[key] for key in withheld}
        if not withheld:
            return desired
        return {key: entry for key, entry in desired.items() if key not in withheld}

    def problems(self) -> dict[str, Problem]:
        """Why each of the withheld services is not registered, by its id."""
        services = (entry.service for entry in self.withheld.values())
        return {service.id: WHY[service.health] for service in services}
