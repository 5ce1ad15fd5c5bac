"""The fleet as its routers tell it in `mail.stats`: what they say of their partitions, summed up.

Scores are computed anew from the sums, by the policy of whoever spoke last: the mean of scores would be another thing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import NamedTuple

from mailfleet_core.model import reputation, stats
from mailfleet_core.model.reputation import BLOCKED, BOUNCED, COMPLAINED, DEFERRED, DELIVERED, OTHER, Reading, Tuning
from mailfleet_core.model.stats import PoolStats, SourceStats, Stats, TenantStats, Trouble

FORGET_SECONDS = 120.0
"""A partition of which nothing was heard for so long is not counted: its owner speaks at least each 30 seconds."""


class Pool(NamedTuple):
    """An egress pool."""

    name: str
    waiting: int = 0
    ready: int = 0
    oldest_ready_at: float = 0.0
    """0: nothing is ready."""
    per_second: float = 0.0


class Source(NamedTuple):
    """An egress source. Counts are weights: an answer counts half after a day."""

    name: str
    reading: Reading
    """The score with all it was made of."""
    in_flight: int = 0
    per_second: float = 0.0
    sent_today: int = 0
    day_cap: int = -1
    """-1: it warms up nowhere; then `sent_today` is only what the present owners have begun."""
    state: int = reputation.GOOD
    """That its score over all sites fits (`reputation.STATES`). It has no memory: whoever acts on it needs a hysteresis."""
    worst_state: int = reputation.GOOD
    """The worst it is in at any one site; that one has a memory. `Fleet.troubles` says which site."""
    worst: str = ""
    """The rates against it, worst first, for people."""

    @property
    def score(self) -> float:
        """0 to 100; 100 when nothing is known."""
        return self.reading.score

    @property
    def delivered(self) -> float:
        """Recipients delivered, and those refused for the mail's content, which says nothing of the source."""
        return self.reading.weights[DELIVERED] + self.reading.weights[OTHER]

    @property
    def deferred(self) -> float:
        """Recipients put off."""
        return self.reading.weights[DEFERRED]

    @property
    def blocked(self) -> float:
        """Replies of a block class."""
        return self.reading.weights[BLOCKED]

    @property
    def bounced(self) -> float:
        """Recipients that do not exist."""
        return self.reading.weights[BOUNCED]

    @property
    def complained(self) -> float:
        """Complaints."""
        return self.reading.weights[COMPLAINED]


class Tenant(NamedTuple):
    """A tenant's mail by all sources. Counts are weights, as a source's."""

    name: str
    reading: Reading
    state: int = reputation.GOOD
    worst_state: int = reputation.GOOD
    """Of any one of its streams."""
    worst: str = ""

    @property
    def score(self) -> float:
        """0 to 100; 100 when nothing is known."""
        return self.reading.score

    @property
    def delivered(self) -> float:
        """As a source's."""
        return self.reading.weights[DELIVERED] + self.reading.weights[OTHER]

    @property
    def bounced(self) -> float:
        """Recipients that do not exist."""
        return self.reading.weights[BOUNCED]

    @property
    def complained(self) -> float:
        """Complaints."""
        return self.reading.weights[COMPLAINED]

    @property
    def complaint_rate(self) -> float:
        """Complaints of what was delivered to sites that report them, from 0 to 1, shrunk as in the score: a few of little
        mail are no rate."""
        return self.reading.rates[COMPLAINTS]


COMPLAINTS = next(number for number, term in enumerate(reputation.TERMS) if term.kind == COMPLAINED)


class Fleet:
    """All partitions. Knows no clock: `forget` is to be called before it is looked at."""

    def __init__(self) -> None:
        self._said: dict[int, Stats] = {}
        self._parts: _Parts | None = None

    def read(self, said: Stats) -> None:
        """A record of `mail.stats`. What an owner says that is not the newest any more changes nothing."""
        known = self._said.get(said.partition)
        if known is None or (said.epoch, said.at) >= (known.epoch, known.at):
            self._said[said.partition], self._parts = said, None

    def copy(self) -> Fleet:
        """The same now, which later records do not change."""
        made = Fleet()
        made._said, made._parts = dict(self._said), self._parts
        return made

    def forget(self, now: float) -> None:
        """Drop what nobody has confirmed for FORGET_SECONDS."""
        old = [number for number, said in self._said.items() if now - said.at > FORGET_SECONDS]
        for number in old:
            del self._said[number]
            self._parts = None

    # --- how much of it is known -----------------------------------------------------------------------------------
    @property
    def partitions(self) -> frozenset[int]:
        """Those that were heard of."""
        return frozenset(self._said)

    @property
    def complete(self) -> bool:
        """Every queue partition was heard of: what is not there is not there, and is not just unknown."""
        return bool(self._said) and len(self._said) >= max(said.partitions for said in self._said.values())

    @property
    def oldest_at(self) -> float:
        """When the oldest of the records was written; 0: there are none."""
        return min((said.at for said in self._said.values()), default=0.0)

    @property
    def tuning(self) -> Tuning:
        """How the routers' policy judges."""
        newest = max(self._said.values(), key=lambda said: said.at, default=None)
        return newest.tuning if newest is not None else reputation.USUAL

    # --- sums ------------------------------------------------------------------------------------------------------
    @property
    def pools(self) -> frozenset[str]:
        """Names of those that have or had mail lately."""
        return frozenset(self._indexed.pools)

    @property
    def sources(self) -> frozenset[str]:
        """Names of those that send or have a history."""
        return frozenset(self._indexed.sources)

    @property
    def tenants(self) -> frozenset[str]:
        """Names of those that have a history."""
        return frozenset(self._indexed.tenants)

    def pool(self, name: str) -> Pool:
        """A pool; empty when nothing is known of it."""
        return _pool(name, self._indexed.pools.get(name, []))

    def source(self, name: str) -> Source:
        """A source; with a score of 100 when nothing is known of it."""
        return self._indexed.source(name, self.tuning)

    def tenant(self, name: str) -> Tenant:
        """A tenant; with a score of 100 when nothing is known of it."""
        return self._indexed.tenant(name, self.tuning)

    @property
    def _indexed(self) -> _Parts:
        if self._parts is None:
            self._parts = _Parts(self._said.values())
        return self._parts

    @property
    def troubles(self) -> tuple[Trouble, ...]:
        """What is held now, worst first; of each source at each site the worst."""
        return self._indexed.troubles

    def troubles_of(self, source: str) -> tuple[Trouble, ...]:
        """Those of one source, worst first; of the empty name: those of every source."""
        return self._indexed.troubles_by_source.get(source, ())


class _Parts:
    """What was said, by name: a fleet has a thousand sources, and each is asked for, most more than once. Sums are kept, for
    what was said does not change."""

    def __init__(self, said: Iterable[Stats]) -> None:
        self._said = tuple(said)
        self._sources: dict[str, Source] = {}
        self._tenants: dict[str, Tenant] = {}
        self.pools: dict[str, list[PoolStats]] = {}
        self.sources: dict[str, list[SourceStats]] = {}
        self.tenants: dict[str, list[TenantStats]] = {}
        for each in self._said:
            for pool in each.pools:
                self.pools.setdefault(pool.pool, []).append(pool)
            for source in each.sources:
                self.sources.setdefault(source.source, []).append(source)
            for tenant in each.tenants:
                self.tenants.setdefault(tenant.tenant, []).append(tenant)

    def source(self, name: str, tuning: Tuning) -> Source:
        if name not in self._sources:
            self._sources[name] = _source(name, self.sources.get(name, []), tuning)
        return self._sources[name]

    def tenant(self, name: str, tuning: Tuning) -> Tenant:
        if name not in self._tenants:
            parts = self.tenants.get(name, [])
            reading, state, worst = _judged(parts, tuning)
            self._tenants[name] = Tenant(name, reading, state, _worst(parts), worst)
        return self._tenants[name]

    @cached_property
    def troubles(self) -> tuple[Trouble, ...]:
        """Of each source at each site the worst, in order."""
        found: dict[tuple[str, str], Trouble] = {}
        everything = (trouble for said in self._said for trouble in said.troubles)
        for trouble in sorted(everything, key=stats.worst_first):
            found.setdefault((trouble.source, trouble.site), trouble)
        return tuple(found.values())

    @cached_property
    def troubles_by_source(self) -> dict[str, tuple[Trouble, ...]]:
        found: dict[str, list[Trouble]] = {}
        for trouble in self.troubles:
            found.setdefault(trouble.source, []).append(trouble)
        return {source: tuple(troubles) for source, troubles in found.items()}


def _pool(name: str, parts: list[PoolStats]) -> Pool:
    return Pool(
        name,
        sum(part.waiting for part in parts),
        sum(part.ready for part in parts),
        min((part.oldest_ready_at for part in parts if part.oldest_ready_at), default=0.0),
        sum(part.per_second for part in parts),
    )


def _source(name: str, parts: list[SourceStats], tuning: Tuning) -> Source:
    reading, state, worst = _judged(parts, tuning)
    capped = [part for part in parts if part.day_cap >= 0]
    return Source(
        name,
        reading,
        sum(part.in_flight for part in parts),
        sum(part.per_second for part in parts),
        sum(part.sent_today for part in capped or parts),
        sum(part.day_cap for part in capped) if capped else -1,
        state,
        _worst(parts),
        worst,
    )


def _judged(parts: Sequence[SourceStats | TenantStats], tuning: Tuning) -> tuple[Reading, int, str]:
    """The score of the sum, the state that it fits, and why."""
    weights = [sum(column) for column in zip(stats.NONE, *(part.weights for part in parts), strict=True)]
    seen = [sum(column) for column in zip(stats.NEVER, *(part.seen for part in parts), strict=True)]
    reading = reputation.read(weights, seen, tuning)
    return reading, reputation.state_of(reading.acting, tuning), reputation.worst_of(reading, tuning)


def _worst(parts: Iterable[SourceStats | TenantStats]) -> int:
    return max((part.worst for part in parts), default=reputation.GOOD)
