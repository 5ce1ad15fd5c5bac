"""How long mail would wait, and when a site's queue would be empty, if nothing but limits and pauses held it up.

Each arrival takes its turn in a bucket of every limit that applies, whether or not it could have gone earlier by another:
its wait is the longest of them. So a stricter limit never shortens a wait. Arrivals are dealt to the sources of the site
in turn. A pause stops what waits for the source and moves it back; waits that were predicted before are not corrected.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TypeVar

from mailfleet_router.decisions.shaping.backoff import BackOff, Configured
from mailfleet_router.decisions.shaping.gcra import changed, reserve
from mailfleet_router.decisions.shaping.limits import Effective, Values
from mailfleet_router.decisions.shaping.schema import Traffic
from mailfleet_router.decisions.shaping.slowed import Slowed
from mailfleet_router.decisions.shaping.tally import Waits
from mailfleet_router.decisions.shaping.values import Facts

MAX_KEYS = 10_000
"""Of buckets, lanes and sites each. What was there first is forgotten first, and counts anew."""
MESSAGES_PER_CONNECTION = 100
"""Where the policy says nothing: the default of a route."""
LANE_FIELDS = frozenset({"source", "site", "provider"})
"""A limit kept by no other fields than these holds for everything that a source sends to a site."""

Slow = tuple[tuple[str, BackOff], ...]
"""Scope keys and what holds for them."""
K = TypeVar("K")
V = TypeVar("V")


class _Bucket:
    """A token bucket whose rate may change."""

    __slots__ = ("rate", "state")

    def __init__(self) -> None:
        self.state, self.rate = 0.0, 0.0

    def wait(self, rate: float, burst: float, now: float) -> float:
        """Take a message; the seconds until it may go."""
        if self.rate and self.rate != rate:
            self.state = changed(self.state, self.rate, rate, now)
        self.rate = rate
        self.state, wait = reserve(self.state, rate, burst, now)
        return wait


class _Lane:
    """What one source has yet to send to one site."""

    __slots__ = ("buckets", "last_at", "not_before")

    def __init__(self) -> None:
        self.buckets: dict[tuple[str, str], _Bucket] = {}
        self.not_before = 0.0
        self.last_at = 0.0
        """When the last one that is known goes."""

    def stop(self, now: float, until: float) -> None:
        """Nothing goes before `until`."""
        begin = max(now, self.not_before)
        if until <= begin:
            return
        for bucket in self.buckets.values():
            bucket.state = max(bucket.state, begin) + until - begin
        if self.last_at > begin:
            self.last_at += until - begin
        self.not_before = until


class SiteQueue:
    """What is known of one site's queue."""

    def __init__(self) -> None:
        self.waits = Waits()
        self.arrivals = 0
        self.never = 0
        """Arrivals that the limits never let go: suspended, or none at a time."""
        self.last_arrival_at = 0.0
        self.attempts = 0
        self.busy_seconds = 0.0

    @property
    def mean_seconds(self) -> float:
        """How long an attempt took on average; 0: not known."""
        return self.busy_seconds / self.attempts if self.attempts else 0.0


class Drain:
    """The queues of all sites under one policy. Instants are seconds and come in order."""

    def __init__(self, traffic: Traffic) -> None:
        self.sites: dict[str, SiteQueue] = {}
        self._lane_wide = tuple(LANE_FIELDS.issuperset(limit.per) for limit in traffic.limits)
        self._shared: dict[tuple[str, str], _Bucket] = {}
        self._slowed: dict[str, Slowed] = {}
        self._lanes: dict[str, dict[str, _Lane]] = {}
        """By site, then by source."""

    def took(self, site: str, seconds: float) -> None:
        """An attempt at `site` took so long: connections at once then mean a rate."""
        queue = self._site(site)
        queue.attempts += 1
        queue.busy_seconds += seconds

    def turn(self, site: str) -> int:
        """The number of the next arrival, to deal it to a source."""
        return self.sites[site].arrivals if site in self.sites else 0

    def arrive(
        self, facts: Facts, now: float, effective: tuple[Effective, ...], slow: Slow, not_before: float
    ) -> float:
        """The wait in seconds of a unit that arrives now; infinite: for ever. `slow` are the back-offs it is subject to."""
        queue = self._site(facts.site)
        lane = self._lanes[facts.site].setdefault(facts.source, _Lane())
        queue.arrivals += 1
        queue.last_arrival_at = max(queue.last_arrival_at, now)
        if any(_never(limit.values) for limit in effective):
            queue.never += 1
            return math.inf
        wait = max(not_before, lane.not_before, now) - now
        for limit in effective:
            wait = max(wait, self._limit_wait(lane, limit, queue.mean_seconds, now))
        wait = max(wait, self._slow_wait(effective, slow, now))
        queue.waits.add(wait)
        lane.last_at = max(lane.last_at, now + wait)
        return wait

    def stop(self, now: float, until: float, site: str = "", source: str = "") -> None:
        """A pause until `until`, of a site, a source, or a source at a site. Empty: of all."""
        for lanes in [self._lanes[site]] if site in self._lanes else [] if site else list(self._lanes.values()):
            for name, lane in lanes.items():
                if not source or source == name:
                    lane.stop(now, until)

    def drained_at(self, site: str) -> float:
        """When the last one of what arrived would go."""
        return max((lane.last_at for lane in self._lanes.get(site, {}).values()), default=0.0)

    def _limit_wait(self, lane: _Lane, limit: Effective, mean_seconds: float, now: float) -> float:
        wait, lane_wide = 0.0, self._lane_wide[limit.limit_number]
        for quantity, rate, burst in _services(limit.values, mean_seconds):
            key = (limit.key, quantity)
            wait = max(wait, bounded(self._shared, key, _Bucket).wait(rate, burst, now))
            if lane_wide:
                wait = max(wait, bounded(lane.buckets, key, _Bucket).wait(rate, burst, now))
        return wait

    def _slow_wait(self, effective: tuple[Effective, ...], slow: Slow, now: float) -> float:
        rate = min((each.values.message_rate or 0.0 for each in effective if each.values.message_rate), default=0.0)
        wait = 0.0
        for key, state in slow:
            wait = max(wait, bounded(self._slowed, key, Slowed).wait(state, Configured(rate), now))
        return wait

    def _site(self, name: str) -> SiteQueue:
        if name not in self.sites:
            if len(self.sites) >= MAX_KEYS:
                first = next(iter(self.sites))
                del self.sites[first], self._lanes[first]
            self.sites[name], self._lanes[name] = SiteQueue(), {}
        return self.sites[name]


def bounded(table: dict[K, V], key: K, new: Callable[[], V]) -> V:
    """The value of `key`, made anew if there is none; the oldest one goes if there are `MAX_KEYS`."""
    found = table.get(key)
    if found is None:
        if len(table) >= MAX_KEYS:
            del table[next(iter(table))]
        found = table[key] = new()
    return found


def _never(values: Values) -> bool:
    return values.suspend or 0 in (values.message_rate, values.connection_rate, values.concurrency, values.window)


def _services(values: Values, mean_seconds: float) -> Iterator[tuple[str, float, float]]:
    # Quantity, messages per second, burst.
    if values.message_rate:
        yield "message_rate", values.message_rate, values.burst
    if values.connection_rate:
        each = values.messages_per_connection or MESSAGES_PER_CONNECTION
        yield "connection_rate", values.connection_rate * each, float(each)
    for quantity, at_once in (("concurrency", values.concurrency), ("window", values.window)):
        if at_once and mean_seconds > 0:
            yield quantity, at_once / mean_seconds, float(at_once)
