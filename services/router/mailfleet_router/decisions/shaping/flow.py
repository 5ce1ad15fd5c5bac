"""How much an owner's sources and pools have lately sent, wherever to: what is told of them, not what limits them."""

from __future__ import annotations

from collections import Counter

from mailfleet_router.decisions.shaping.pace import Pace

DAY = 86400.0


class Flow:
    """Attempts begun by one owner."""

    __slots__ = ("_day_ends", "pools", "sources", "today")

    def __init__(self) -> None:
        self.sources: dict[str, Pace] = {}
        self.pools: dict[str, Pace] = {}
        self.today: Counter[str] = Counter()
        """By source, in this UTC day."""
        self._day_ends = 0.0

    def count(self, source: str, pool: str, now: float) -> None:
        """An attempt."""
        if now >= self._day_ends:
            self.today.clear()
            self._day_ends = (now // DAY + 1) * DAY
        self.today[source] += 1
        by_source, by_pool = self.sources.get(source), self.pools.get(pool)
        if by_source is None:
            by_source = self.sources[source] = Pace()
        if by_pool is None:
            by_pool = self.pools[pool] = Pace()
        by_source.count(now)
        by_pool.count(now)

    def sent_today(self, source: str, now: float) -> int:
        """Attempts of the day of `now`."""
        return self.today[source] if now < self._day_ends else 0
