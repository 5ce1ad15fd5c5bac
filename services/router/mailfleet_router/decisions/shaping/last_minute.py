"""What happened at sites in about the last minute, from the events that a router tells: for people and for metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from mailfleet_core.model.wire import BOUNCED, DEFERRED, DELIVERED, Event
from mailfleet_router.decisions.shaping.fairness import jain

HALF_SECONDS = 30.0
"""Two halves are kept: the one that is filled and the one before. So what is seen is of 30 to 60 seconds."""
MAX_KEYS = 20_000
"""Counted in one half. What is too much is not counted; a router with so many keys has no busy site among the rest."""
MAX_SITES = 10_000
"""Of which the last replies are remembered; those that were heard of first are forgotten first."""
OUTCOMES = frozenset({DELIVERED, DEFERRED, BOUNCED, "expired"})


class Said(msgspec.Struct, frozen=True, gc=False):
    """The last reply of one class that a site gave."""

    at: float
    code: int
    enhanced: str
    text: str
    phase: str
    source: str
    mx: str


class SiteMinute(msgspec.Struct, frozen=True):
    """One site in the last minute."""

    seconds: float
    """That were looked at."""
    attempts: dict[str, int]
    """By source."""
    tenants: dict[str, int]
    """Attempts by tenant."""
    outcomes: dict[str, int]
    """Recipients by verdict."""
    replies: dict[str, Said]
    """The last of each class: `2xx`, `4xx`, `5xx`, `none`; however long ago."""

    @property
    def per_second(self) -> float:
        """Attempts begun."""
        return sum(self.attempts.values()) / self.seconds if self.seconds > 0 else 0.0


class LastMinute:
    """Counts of one router process."""

    def __init__(self, now: float) -> None:
        self._began_at = self._half_at = now
        self._tried: tuple[Counter[tuple[str, str, str]], Counter[tuple[str, str, str]]] = (Counter(), Counter())
        """(site, source, tenant) → attempts begun: now, before."""
        self._ended: tuple[Counter[tuple[str, str, str]], Counter[tuple[str, str, str]]] = (Counter(), Counter())
        """(site, source, verdict) → recipients."""
        self._fresh: Counter[tuple[str, str, str]] = Counter()
        """As `_ended`, since somebody took it."""
        self._replies: dict[str, dict[str, Said]] = {}

    def note(self, events: Iterable[Event]) -> None:
        """Count what was told."""
        tried, ended, fresh = self._tried[0], self._ended[0], self._fresh
        for event in events:
            kind = event.kind
            if kind == "attempted":
                _count(tried, (event.site, event.source, event.tenant), 1)
            elif kind in OUTCOMES and event.source:
                key = (event.site, event.source, kind)
                _count(ended, key, len(event.recipients))
                _count(fresh, key, len(event.recipients))
                self._remember(event)

    def take(self) -> Counter[tuple[str, str, str]]:
        """(site, source, verdict) → recipients since the last call."""
        fresh, self._fresh = self._fresh, Counter()
        return fresh

    def turn(self, now: float) -> bool:
        """Begin a new half when it is time; did one begin?"""
        if now - self._half_at < HALF_SECONDS:
            return False
        late = now - self._half_at >= 2 * HALF_SECONDS
        self._began_at = now - HALF_SECONDS if late else self._half_at
        self._half_at = now
        self._tried = (Counter(), Counter() if late else self._tried[0])
        self._ended = (Counter(), Counter() if late else self._ended[0])
        return True

    def seconds(self, now: float) -> float:
        """How long a time is looked at."""
        return max(0.001, now - self._began_at)

    def site(self, site: str, now: float) -> SiteMinute:
        """What is known of one site."""
        sources: Counter[str] = Counter()
        tenants: Counter[str] = Counter()
        outcomes: Counter[str] = Counter()
        for half in self._tried:
            for (name, source, tenant), count in half.items():
                if name == site:
                    sources[source] += count
                    tenants[tenant] += count
        for half in self._ended:
            for (name, _, verdict), count in half.items():
                if name == site:
                    outcomes[verdict] += count
        return SiteMinute(
            self.seconds(now), dict(sources), dict(tenants), dict(outcomes), dict(self._replies.get(site, {}))
        )

    def sources(self) -> dict[str, dict[str, int]]:
        """Of each source: attempts begun, and recipients by verdict."""
        found: dict[str, Counter[str]] = {}
        for tried in self._tried:
            for (_, source, _), count in tried.items():
                found.setdefault(source, Counter())["attempts"] += count
        for ended in self._ended:
            for (_, source, verdict), count in ended.items():
                found.setdefault(source, Counter())[verdict] += count
        return {source: dict(counts) for source, counts in sorted(found.items())}

    def tenants(self) -> dict[str, dict[str, int]]:
        """Site → tenant → attempts begun."""
        found: dict[str, dict[str, int]] = {}
        for half in self._tried:
            for (site, _, tenant), count in half.items():
                tenants = found.setdefault(site, {})
                tenants[tenant] = tenants.get(tenant, 0) + count
        return found

    def _remember(self, event: Event) -> None:
        replies = self._replies.get(event.site)
        if replies is None:
            if len(self._replies) >= MAX_SITES:
                del self._replies[next(iter(self._replies))]
            replies = self._replies[event.site] = {}
        group = f"{event.code // 100}xx" if event.code else "none"
        replies[group] = Said(
            event.at, event.code, event.enhanced, event.text[:200], event.phase, event.source, event.mx or event.address
        )


def fairness(served: dict[str, int], weights: dict[str, float]) -> float:
    """How evenly a site's turns were shared among the tenants of `weights`, all of whom had mail ready all the time.

    Jain's index over what each was served by its weight: 1 when all got their share, 1/n when one of n got everything.
    """
    return jain(served.get(tenant, 0) / weight for tenant, weight in weights.items())


def _count(counter: Counter[tuple[str, str, str]], key: tuple[str, str, str], number: int) -> None:
    if key in counter or len(counter) < MAX_KEYS:
        counter[key] += number
