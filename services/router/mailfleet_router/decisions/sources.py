"""Which egress source and which of its lanes an attempt gets."""

from __future__ import annotations

import zlib
from collections.abc import Container

import msgspec


class Choice(msgspec.Struct, frozen=True, gc=False):
    """A source and a lane of it."""

    source: str
    lane: int


class Wheel:
    """Smooth weighted round robin over the sources of one pool for one site, and a plain one over a source's lanes.

    Over any stretch of turns every source gets its share ± 1, without bursts to one of them.
    """

    __slots__ = ("_lanes", "_names", "_total", "_turn", "_values", "_weights")

    def __init__(self, members: tuple[tuple[str, int], ...], lanes: dict[str, tuple[int, ...]], site: str) -> None:
        usable = [(name, weight) for name, weight in members if weight > 0 and lanes.get(name)]
        self._names = [name for name, _ in usable]
        self._weights = [weight for _, weight in usable]
        self._values = [0] * len(usable)
        self._total = sum(self._weights)
        self._lanes = [lanes[name] for name in self._names]
        # Quiet sites start at different places, or all of them would use the first source and lane.
        start = zlib.crc32(site.encode("utf-8", "surrogateescape"))
        self._turn = [start] * len(usable)
        for _ in range(start % max(1, min(self._total, 64)) if len(usable) > 1 else 0):
            self._heaviest()

    def next(self, without: Container[str] = ()) -> Choice | None:
        """The next turn; None when no source of the pool has a lane, or each is in `without`."""
        if not self._names or (without and all(name in without for name in self._names)):
            return None
        index = self._heaviest() if len(self._names) > 1 else 0
        while self._names[index] in without:
            index = self._heaviest()
        self._turn[index] += 1
        lanes = self._lanes[index]
        return Choice(self._names[index], lanes[self._turn[index] % len(lanes)])

    def _heaviest(self) -> int:
        values = self._values
        for index, weight in enumerate(self._weights):
            values[index] += weight
        best = values.index(max(values))
        values[best] -= self._total
        return best
