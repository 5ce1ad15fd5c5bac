"""What the settings ask of the router, as values that decisions may hold."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from mailfleet_core.model.sources import Table, why_closed
from mailfleet_core.model.wire import ACTIVE, QUARANTINED, Route, Source
from mailfleet_router.decisions.shaping.rules import NO_RULES, Rules
from mailfleet_router.decisions.shaping.schema import Pool

MOST_ASKED_SECONDS = 4 * 3600.0
"""A site that asks for a longer wait is tried again earlier."""


@dataclass(frozen=True, slots=True)
class Ladder:
    """When a stream's mail is tried again, how long at all, and when its sender is told of the delay."""

    retry_seconds: tuple[float, ...] = (300.0,)
    jitter: float = 0.2
    delay_dsn_seconds: float = 0.0
    greylist: bool = True
    """Try again after the time that greylisting asks for."""

    @property
    def longest(self) -> float:
        """No wait that we impose on one unit is longer, in seconds."""
        return max(MOST_ASKED_SECONDS, *self.retry_seconds) * (1.0 + self.jitter)


@dataclass(frozen=True, slots=True)
class Rule:
    """The next hop of some recipient domains. `site` is empty for MX: there the answer of the DNS names it."""

    domains: tuple[str, ...]
    route: Route
    site: str = ""
    site_messages_per_second: float = 0.0
    site_window: int = 100

    def matches(self, domain: str) -> bool:
        """Is `domain` (lower case) meant?"""
        return any(
            pattern in ("*", domain) or (pattern.startswith("*.") and domain.endswith(pattern[1:]))
            for pattern in self.domains
        )


LAST_RESORT = Rule(("*",), Route(kind="mx", hosts=()))


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything the decisions of the router are told."""

    ladders: dict[str, Ladder] = field(default_factory=dict)
    pools: dict[str, tuple[tuple[str, int], ...]] = field(default_factory=dict)
    """Pool → (source, weight) of those that take mail."""
    lanes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Source → its lanes."""
    closed: dict[str, tuple[Source, ...]] = field(default_factory=dict)
    """Pool → those of its sources that take no mail because the log says so."""
    overflows: dict[str, str] = field(default_factory=dict)
    """Pool → its overflow pool, where the traffic policy names none."""
    warmups: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Source → its warm-up plan and since when, where the log says so."""
    from_log: bool = False
    """Sources and pools come from the log."""
    rules: tuple[Rule, ...] = (LAST_RESORT,)
    recipients_per_unit: int = 100
    in_flight_report_seconds: float = 900.0
    held_report_seconds: float = 30.0
    recent_units: int = 50_000
    shaping: Rules = NO_RULES
    """The traffic policy."""

    def ladder(self, stream: str) -> Ladder:
        """The ladder of `stream`; a stream that is in no settings any more gets the default one."""
        return self.ladders.get(stream) or _DEFAULT_LADDER

    def pool(self, name: str) -> tuple[tuple[str, int], ...]:
        """Sources of a pool; a pool that there is not any more is the default one."""
        found = self.pools.get(name)
        return self.pools.get("default", ()) if found is None else found

    def overflow(self, pool: str) -> str:
        """The pool that takes what the sources of a pool may not; empty: none."""
        return self.shaping.overflow.get(pool) or self.overflows.get(pool, "")

    def reach(self, pool: str) -> tuple[tuple[str, int], ...]:
        """The sources of a pool, or of its overflow pool while it has none."""
        own, overflow = self.pool(pool), self.overflow(pool)
        return own or (self.pool(overflow) if overflow else ())

    def guarded(self, pool: str) -> bool:
        """Has somebody put a source of it into quarantine? Then bulk mail does not flee to another pool."""
        return any(source.state == QUARANTINED for source in self.closed.get(pool, ()))

    def sourceless(self, pool: str) -> str:
        """That a pool has no source that takes mail, and why, for people."""
        if found := self.closed.get(pool):
            return f"pool {pool} has no source that takes mail: {'; '.join(map(why_closed, found))}"
        return f"pool {pool} has no source with a lane"

    def where(self, kind: str, name: str) -> str:
        """Where a source or a pool is written."""
        return f"{kind} {name} in `mailfleet sources`" if self.from_log else f"[[{kind}]] {name}"

    def rule(self, domain: str) -> Rule:
        """The first rule that matches `domain`."""
        return next((rule for rule in self.rules if rule.matches(domain)), LAST_RESORT)


_DEFAULT_LADDER = Ladder()


def of_table(table: Table, own: Iterable[Pool]) -> dict[str, Any]:
    """What a policy says of sources, from those of the log. What the own traffic policy writes of a pool goes before it, but
    a source that the log closes is closed there too."""
    pools, closed = table.pools(), table.closed()
    usable = {source for members in pools.values() for source, _ in members}
    for pool in own:
        if pool.sources:
            pools[pool.name] = tuple((each.source, each.weight) for each in pool.sources if each.source in usable)
            there = [table.sources[each.source] for each in pool.sources if each.source in table.sources]
            closed[pool.name] = tuple(source for source in there if source.state != ACTIVE)
    return {
        "pools": pools, "closed": closed, "overflows": table.overflow(), "from_log": True,
        "lanes": {name: table.lanes(name) for name in table.sources},
        "warmups": {name: (each.warmup, each.started_at) for name, each in table.sources.items() if each.warmup},
    }  # fmt: skip
