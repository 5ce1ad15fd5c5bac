"""Which source has which lanes: partitions of `mail.dispatch`, each held by at most one source.

A lane that a source gives up is kept from all others, and its sender goes on, until nothing is under way in it: a dispatch
that nobody answers would be in flight for ever, and another source must not answer for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Held(NamedTuple):
    """The lanes of one source."""

    lanes: tuple[int, ...] = ()
    """Its own, in order."""
    releasing: tuple[tuple[int, float], ...] = ()
    """Given up (lane, since when), and not free yet."""

    @property
    def all(self) -> frozenset[int]:
        """Both together: lanes that need a sender."""
        return frozenset((*self.lanes, *(lane for lane, _ in self.releasing)))


NOTHING = Held()


class Allotment(NamedTuple):
    """What a source has afterwards."""

    held: Held
    missing: int = 0
    """So many lanes were wanted besides, and there were none free."""


def allot(
    held: Mapping[str, Held], source: str, wanted: int, empty: frozenset[int], total: int, now: float, settle: float
) -> Allotment:
    """Give `source` as many lanes as wanted, of `total` that there are; `empty` are those in which nothing is under way.

    A lane that is given up is free `settle` seconds later, when every router has heard of it, and when it is empty.
    """
    mine = freed(held.get(source, NOTHING), empty, now, settle)
    if wanted <= len(mine.lanes):
        given = mine.lanes[wanted:]
        return Allotment(Held(mine.lanes[:wanted], (*mine.releasing, *((lane, now) for lane in given))))
    # Those it has just given up come first: their senders are still there.
    back = [lane for lane, _ in mine.releasing]
    taken = frozenset(lane for name, other in held.items() if name != source for lane in other.all)
    free = [lane for lane in range(total) if lane not in taken and lane not in mine.all]
    more = (back + free)[: wanted - len(mine.lanes)]
    lanes = tuple(sorted((*mine.lanes, *more)))
    releasing = tuple(each for each in mine.releasing if each[0] not in more)
    return Allotment(Held(lanes, releasing), wanted - len(lanes))


def freed(mine: Held, empty: frozenset[int], now: float, settle: float) -> Held:
    """Without the lanes that are free now."""
    kept = tuple((lane, since) for lane, since in mine.releasing if now - since < settle or lane not in empty)
    return mine._replace(releasing=kept)


def together(remembered: Held, told: Iterable[int]) -> Held:
    """What a status remembers and what the log says that the source has: a lane that either knows is held."""
    releasing = frozenset(lane for lane, _ in remembered.releasing)
    lanes = frozenset(remembered.lanes) | (frozenset(told) - releasing)
    return Held(tuple(sorted(lanes)), tuple(each for each in remembered.releasing if each[0] not in lanes))
