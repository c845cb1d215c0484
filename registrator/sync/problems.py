"""Says why a service is not in a registry, by what came of a plan."""

from collections.abc import Iterable, Iterator, Mapping

from registrator.model import Entry, Problem, Reason


def problems(
    desired: Mapping[str, Entry],
    clashes: Iterable[tuple[Entry, Entry]],
    conflicts: Mapping[str, str],
    refused: Mapping[str, tuple[str, str]],
) -> Iterator[tuple[str, Problem]]:
    """The services that are not registered, with the reasons.

    `clashes` are pairs of a loser and a winner, `conflicts` the keys that somebody else holds, and
    `refused` the keys with a content that the registry refuses.
    """
    for loser, winner in clashes:
        text = f"{winner.service.id} has the same place, {winner.key}"
        yield loser.service.id, Problem(Reason.SAME_KEY, text)
    for key, why in conflicts.items():
        yield desired[key].service.id, _at(desired[key], Reason.OTHERS_ENTRY, why)
    for key, (_, why) in refused.items():
        if key in desired:
            yield desired[key].service.id, _at(desired[key], Reason.REFUSED, why)


def _at(entry: Entry, reason: Reason, why: str) -> Problem:
    """A problem at the entry's place in the registry, which the text names unless it is the id."""
    return Problem(reason, why if entry.key == entry.service.id else f"{why} ({entry.key})")
