"""What the owner of a partition tells of it in `mail.stats`: what waits, how its sources and tenants stand, what is held.

Nothing here walks over units: a partition may have a million of them, and this is told every few seconds.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator

from mailfleet_core.model.reputation import BOUNCED, COMPLAINED, GOOD
from mailfleet_core.model.stats import (
    MOST_SOURCES,
    MOST_TENANTS,
    MOST_TROUBLES,
    PAUSED,
    PROBING,
    QUARANTINE,
    SLOWED,
    PoolStats,
    SourceStats,
    Stats,
    TenantStats,
    Trouble,
    worst_first,
)
from mailfleet_router.decisions.commands import Commands
from mailfleet_router.decisions.partition import Partition
from mailfleet_router.decisions.shaping import reputation, site_health
from mailfleet_router.decisions.shaping.gate import Scope
from mailfleet_router.decisions.shaping.shaper import Shaper
from mailfleet_router.decisions.shaping.totals import Total
from mailfleet_router.decisions.shaping.warming import Warm
from mailfleet_router.decisions.site_queue import SiteQueue

NO_CONNECTION, REPUTATION = "no connection", "reputation"
TEXT = 200
"""Letters of a reply."""
UNHEARD = 0.005
"""Attempts a second that are none."""


def stats(partition: Partition, router: str, now: float) -> Stats:
    """Everything that is told of a partition."""
    shaper = partition.shaper
    return Stats(
        partition.number,
        router,
        now,
        tuple(_pools(partition, now)),
        tuple(_sources(shaper, now)),
        tuple(_tenants(shaper, now)),
        tuple(heapq.nsmallest(MOST_TROUBLES, _troubles(shaper, now), key=worst_first)),
        partition.epoch,
        partition.partitions,
        shaper.rules.tuning,
    )


def image(said: Stats) -> object:
    """What is the same for two records that say the same: without what only time has changed."""
    return (
        said.epoch,
        said.pools,
        [(each.source, each.in_flight, each.per_second, each.sent_today, each.day_cap, each.seen, each.worst)
         for each in said.sources],
        [(each.tenant, each.seen, each.worst) for each in said.tenants],
        said.troubles,
        said.tuning,
    )  # fmt: skip


# --- pools ------------------------------------------------------------------------------------------------------------
def _pools(partition: Partition, now: float) -> Iterator[PoolStats]:
    ready: Counter[str] = Counter()
    oldest: dict[str, float] = {}
    for site in partition.scheduler.sites.values():
        if len(site.ready) and not (partition.commands and partition.commands.on_site(site.base)):
            _ready(partition.commands, site, ready, oldest)
    out = Counter(pool for _, pool in partition.shaper.out())
    paces = {pool: _per_second(pace.per_second(now)) for pool, pace in partition.shaper.flow.pools.items()}
    known = {pool for pool, units in partition.pools.items() if units > 0} | {
        pool for pool, pace in paces.items() if pace
    }
    for pool in sorted(known):
        waiting = max(partition.pools[pool] - out[pool], ready[pool])
        yield PoolStats(pool, waiting, ready[pool], oldest.get(pool, 0.0), paces.get(pool, 0.0))


def _ready(commands: Commands, site: SiteQueue, ready: Counter[str], oldest: dict[str, float]) -> None:
    for _, flow in site.ready.flows():
        for queue in flow.queues.values():
            units = len(queue.items)
            if not units:
                continue
            # Some of them may have gone elsewhere; they leave when their turn comes.
            first = next((held for held in queue.items if site.wants(held)), None)
            if first is None:
                continue
            pool = commands.pool(first) if commands else first.pool
            ready[pool] += units
            oldest[pool] = min(oldest.get(pool, first.since), first.since)


# --- sources and tenants ----------------------------------------------------------------------------------------------
def _sources(shaper: Shaper, now: float) -> list[SourceStats]:
    out = Counter(source for source, _ in shaper.out())
    warming: dict[str, list[Warm]] = {}
    for key, warm in shaper.warms.items():
        _, source, provider = key.split("|", 2)
        if warm.state.stage < len(warm.plan.day_caps) and shaper.plan(source, provider) is not None:
            warming.setdefault(source, []).append(warm)
    totals, flow = shaper.learned.standings.sources, shaper.flow
    found = []
    for source in sorted(totals.keys() | flow.sources.keys() | warming.keys() | out.keys()):
        total, pace = totals.get(source), flow.sources.get(source)
        sent, cap = _warmed(warming[source], now) if source in warming else (flow.sent_today(source, now), -1)
        found.append(
            SourceStats(
                source, out[source], _per_second(pace.per_second(now)) if pace else 0.0, sent, cap, *_of(total, now)
            )
        )
    if len(found) > MOST_SOURCES:
        found = heapq.nlargest(MOST_SOURCES, found, key=lambda each: (each.per_second, sum(each.weights)))
    return found


def _warmed(warms: list[Warm], now: float) -> tuple[int, int]:
    """What was sent today and what may be, at all providers together."""
    sent = cap = 0
    for warm in warms:
        today = int(now // reputation.DAY) == warm.state.day
        left = warm.block.left if warm.block.day == warm.state.day else 0
        sent += max(0, warm.state.sent - left) if today else 0
        cap += warm.plan.cap(warm.state.stage)
    return sent, cap


def _tenants(shaper: Shaper, now: float) -> list[TenantStats]:
    found = [TenantStats(name, *_of(total, now)) for name, total in sorted(shaper.learned.standings.tenants.items())]
    if len(found) > MOST_TENANTS:
        found = heapq.nlargest(MOST_TENANTS, found, key=_notable)
    return found


def _notable(tenant: TenantStats) -> tuple[float, float]:
    return tenant.weights[COMPLAINED] + tenant.weights[BOUNCED], sum(tenant.weights)


def _of(total: Total | None, now: float) -> tuple[tuple[float, ...], tuple[int, ...], int]:
    if total is None:
        return (0.0,) * 6, (0,) * 6, GOOD
    return total.at(now), tuple(total.seen), total.worst


def _per_second(pace: float) -> float:
    return round(pace, 2) if pace >= UNHEARD else 0.0


# --- troubles ---------------------------------------------------------------------------------------------------------
def _troubles(shaper: Shaper, now: float) -> Iterator[Trouble]:
    learned = shaper.learned
    for source, scope in shaper.wide.sources.items():
        yield from _scope(scope, source, "", now)
    for name, at in learned.sites.items():
        if at.site is not None:
            yield from _scope(at.site, "", name, now)
        for source, scope in at.sources.items():
            yield from _scope(scope, source, name, now)
        if at.health.failing or at.health.dead_since:
            yield from _health(at.health, name, now)
    for (kind, source, site), stand in learned.standings.doubtful.items():
        if kind == "source|site":
            what = QUARANTINE if stand.standing.state == reputation.QUARANTINE else SLOWED
            why = stand.decision.reason[:TEXT] if stand.decision else ""
            yield Trouble(source, site, what, 0.0, REPUTATION, why, stand.since)


def _scope(scope: Scope, source: str, site: str, now: float) -> Iterator[Trouble]:
    limits, state = scope.limits(now), scope.state
    if limits.paused_until > now:
        since = state.paused_until - state.pause_seconds
        yield Trouble(source, site, PAUSED, limits.paused_until, state.rule, state.reply[:TEXT], since)
    elif limits.probing:
        yield Trouble(source, site, PROBING, 0.0, state.rule, state.reply[:TEXT], state.hit_at)
    elif limits.rate_per_second or limits.connections:
        yield Trouble(source, site, SLOWED, 0.0, state.rule, state.reply[:TEXT], state.hit_at)


def _health(health: site_health.SiteHealth, site: str, now: float) -> Iterator[Trouble]:
    if health.dead_since:
        what = PAUSED if health.probe_at > now else PROBING
        text = "none of its hosts answers"
        yield Trouble("", site, what, health.probe_at, NO_CONNECTION, text, health.dead_since)
        return
    for failing in health.failing:
        if site_health.standing(health, failing.source, now).kind == site_health.BLOCKED:
            what = PAUSED if failing.probe_at > now else PROBING
            text = f"it does not let source {failing.source} in"
            yield Trouble(failing.source, site, what, failing.probe_at, NO_CONNECTION, text, failing.since)
