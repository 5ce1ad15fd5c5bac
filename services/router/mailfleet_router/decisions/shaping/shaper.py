"""May this unit go now, by which source and lane, within which limits? And what follows from how it ended?

One object for each owned partition. It only answers and remembers; the partition writes what is to be durable. An instant is
that of a clock that never steps (`mailfleet_core.clock`).
"""

from __future__ import annotations

import math
from typing import NamedTuple

from mailfleet_core.model.complaint import Complaint
from mailfleet_core.model.wire import DELIVERED, Entry, Result, Route
from mailfleet_router.decisions.shaping import reputation, site_health
from mailfleet_router.decisions.shaping.gate import Gate, Scope
from mailfleet_router.decisions.shaping.learned import AtSite, Lesson
from mailfleet_router.decisions.shaping.selection import Choice, Option, Request
from mailfleet_router.decisions.shaping.selection import Wait as NoSource
from mailfleet_router.decisions.shaping.site_health import ALIVE, Site
from mailfleet_router.decisions.shaping.site_shape import Path, PoolAt, SiteShape
from mailfleet_router.decisions.shaping.values import Facts
from mailfleet_router.decisions.shaping.warming import Warm
from mailfleet_router.decisions.shaping.warmup import UNLIMITED
from mailfleet_router.decisions.shaping.ways import Go, Ways, pace_of, warm_key, warm_name

LEASE_SECONDS = 1.0
"""Between two looks at a share of a limit."""
LOOK_AGAIN_SECONDS = 5.0
"""When nobody knows when something changes."""
SITE, FLOW, UNIT = range(3)
NO_SOURCE = "sources"
"""What holds mail whose pool has no source."""


class Wait(NamedTuple):
    """A unit that may not go."""

    until: float
    """When to look again; infinite: when a unit of the site comes back."""
    reason: str
    by: str
    who: int = SITE
    """Who waits alike: SITE, all mail at this site; FLOW, that of its tenant, stream and pool; UNIT, nobody else."""


class Shaper(Ways):
    """All decisions of one partition about when, from where and how fast."""

    # --- may it go? ----------------------------------------------------------------------------------------------
    def admit(
        self, site: SiteShape, facts: Facts, route: Route, now: float, asked: str = "",
        without: frozenset[str] = frozenset(),
    ) -> Go | Wait:  # fmt: skip
        """The way of a unit of `facts` (without a source) that is due, by no source in `without`, or until when it waits.
        `take` is to follow."""
        at = self.learned.sites.get(site.name)
        if at is not None and (waits := self._whole(site, at, facts, now)) is not None:
            return waits
        pool = site.pools.get((facts.pool, without)) or self._pool_at(site, facts.pool, without)
        if not pool.members and (not pool.overflow or self._stays(facts)):
            return Wait(now + 30.0, self.sources.sourceless(facts.pool), NO_SOURCE, FLOW)
        if self._plain(pool, site, now):
            source = pool.members[0][0] if len(pool.members) == 1 else pool.selector.kept(facts.tenant, now)
            if (not asked or asked == source) and source in pool.names:
                path = self.path(site, facts, source)
                if self._free(path, at, facts, now) <= now:
                    return self._go(path, at, facts, route, now)
        if (at or self.wide.sources) and (probe := self._probe(pool, site, facts, at, now)) is not None:
            return self._go(probe, at, facts, route, now)
        options = [self._option(site, facts, at, member, now) for member in pool.members]
        surplus = [self._option(site, facts, at, member, now) for member in pool.overflow]
        request = Request(facts.tenant, self.rules.bulk(facts.stream), asked)
        choice = pool.selector.choose(request, options, surplus, now)
        if isinstance(choice, Choice):
            return self._go(self.path(site, facts, choice.source), at, facts, route, now)
        return self._wait(site, facts, choice, options, bool(surplus), now)

    def take(self, unit: bytes, go: Go, facts: Facts, site: SiteShape, now: float) -> None:
        """The unit goes."""
        path = go.path
        path.in_flight += 1
        for counter in go.counters:
            counter.take(now)
            if self.leases is not None and isinstance(counter, Gate) and counter.spans and not counter.total.whole:
                self.leases.take(counter.key, self.holder)
        if path.warm is not None:
            path.warm.take(now)
            self._want(path.warm, now)
        self._out[unit] = (go, site, facts)
        self.flow.count(path.facts.source, facts.pool, now)
        site.pace.count(now)
        pace_of(site.paces, path.facts.source).count(now)
        pace_of(site.tenants, facts.tenant).count(now)

    def delivered(self, known: tuple[Go, SiteShape, Facts] | None) -> bool:
        """A unit that came back was delivered: is that all there is to learn of it?"""
        if known is None:
            return False
        go, site, facts = known
        source = go.path.facts.source
        if site.name in self.learned.sites or source in self.wide.sources:
            return False
        key = (source, facts.tenant, facts.stream)
        stands = site.stands.get(key)
        if stands is None:
            stands = site.stands[key] = self.learned.standings.of(facts._replace(source=source), True)
        self.learned.standings.add(stands, reputation.DELIVERED)
        if go.path.warm is not None:
            go.path.warm.answered(DELIVERED, False)
        return True

    # --- what came of it -----------------------------------------------------------------------------------------
    def answered(
        self, entry: Entry, result: Result, site: SiteShape, domain: str, tried: tuple[str, ...], now: float
    ) -> Lesson:
        """An attempt at the hosts `tried` has come to an end."""
        site.stands.clear()  # a bad answer is counted where good ones were not
        facts = _facts_of(entry, site, domain)
        pool = self.sources.pool(facts.pool)
        lesson = self.learned.answered(entry, result, facts, Site(site.name, site.hosts, max(1, len(pool))), tried, now)
        if self.warms and (warm := self.warms.get(warm_key(entry.source, site))) is not None:
            for outcome in result.outcomes:
                warm.answered(outcome.verdict, lesson.blocked)
        return lesson

    def not_out(self, entry: Entry, result: Result, site: SiteShape, domain: str, now: float) -> None:
        """An attempt did not get out, by a fault of our own."""
        self.learned.not_out(result.outcomes[0], result, _facts_of(entry, site, domain), now)

    def complained(self, key: str, offset: int, said: Complaint, fresh: bool) -> None:
        """A record of a complaint. `fresh`: it came while we were the owner, so nobody has counted it for a warm-up."""
        provider = self.rules.provider(said.site, (said.mx,) if said.mx else (), said.domain)
        if not self.learned.standings.complained(key, offset, said, provider):
            return
        if (site := self.sites.get(said.site)) is not None:
            site.stands.clear()
        warm = self.warms.get(warm_name(said.source, provider or said.site))
        if fresh and warm is not None:
            warm.complained()

    def asked(self, entry: Entry, site: SiteShape, domain: str) -> str:
        """The source that a greylisting site expects again with this unit; empty: any."""
        if entry.last is None or not entry.source:
            return ""
        facts = Facts(source=entry.source, site=site.name, provider=site.provider, domain=domain)
        reading = self.rules.responses.classify(facts, entry.last)
        return entry.source if reading.reply_class == "greylisted" else ""

    def _stays(self, facts: Facts) -> bool:
        """Does mail wait for the sources of its pool, of which it may use none, rather than go by the overflow pool?"""
        return bool(self._members(facts.pool)) or (self.rules.bulk(facts.stream) and self.sources.guarded(facts.pool))

    # --- pieces --------------------------------------------------------------------------------------------------
    def _want(self, warm: Warm, now: float) -> None:
        if warm.wants(now):
            self.wanting[warm.key] = warm

    def _plain(self, pool: PoolAt, site: SiteShape, now: float) -> bool:
        """Are all sources of the pool in order here? It is looked at now and then."""
        if not 0 <= now - pool.looked_at < LEASE_SECONDS:
            pool.looked_at = now
            state, plan = self.learned.standings.state, self.plan
            at = self.learned.sites.get(site.name)
            pool.plain = at is None and not any(
                state("source|site", source, site.name) == reputation.QUARANTINE
                or plan(source, site.provider)
                or source in self.wide.sources
                for source, _ in pool.members
            )
        return pool.plain

    def _probe(self, pool: PoolAt, site: SiteShape, facts: Facts, at: AtSite | None, now: float) -> Path | None:
        """A way whose pause is over: one unit tries it, or it would never be found out that it is open again."""
        for source, _ in pool.members:
            scopes = (at.sources.get(source) if at else None, self.wide.sources.get(source))
            blocked = (
                at is not None
                and at.health.failing
                and site_health.standing(at.health, source, now).kind == site_health.BLOCKED
            )
            if blocked or any(scope is not None and scope.state.probing for scope in scopes):
                path = self.path(site, facts, source)
                if not path.in_flight and path.warm is None and self._free(path, at, facts, now) <= now:
                    return path
        return None

    def _standing(self, path: Path) -> int:
        stand = path.stand
        if stand is None:
            stand = path.stand = self.learned.standings.stands.get(("source|site", path.facts.source, path.facts.site))
        return stand.standing.state if stand is not None else reputation.GOOD

    def _free(self, path: Path, at: AtSite | None, facts: Facts, now: float) -> float:
        """When this way is open: at most `now`: now; infinite: when a unit comes back."""
        if path.in_flight >= path.window or not path.lanes:
            return math.inf
        free = 0.0
        for counter in path.gates if at is None and not self.wide.sources else self._counters(path, at, facts):
            shared = isinstance(counter, Gate) and counter.spans
            free = max(free, self._shared(counter, now) if shared else counter.free_at(now))  # type: ignore[arg-type]
        if at is not None and at.health.failing:
            standing = site_health.standing(at.health, path.facts.source, now)
            if standing.kind != ALIVE:
                free = max(free, standing.wait_until or (math.inf if path.in_flight else 0.0))
        return free

    def _shared(self, gate: Gate, now: float) -> float:
        """When our share of a limit lets a unit go."""
        leases, key, holder = self.leases, gate.key, self.holder
        if leases is None or gate.suspend:
            return gate.free_at(now)
        whole = gate.total.whole
        if not 0 <= now - gate.looked_at < LEASE_SECONDS:
            gate.looked_at = now
            waiting, gate.waiting = gate.waiting, 0
            demand = gate.in_flight + waiting + 1 if whole else leases.demand(key, holder, waiting + 1)
            leases.want(key, holder, gate.total, demand, gate.in_flight)
        wait = 0.0 if whole and gate.in_flight < leases.usable(key, holder) else math.inf
        if not whole:
            wait = leases.wait(key, holder)
        gate.waiting += wait > 0
        return now + min(wait, LEASE_SECONDS) if wait else 0.0

    def _go(self, path: Path, at: AtSite | None, facts: Facts, route: Route, now: float) -> Go:
        counters = self._counters(path, at, facts)
        connections = 0
        if len(counters) > len(path.gates):
            allowed = [scope.limits(now).connections for scope in counters if isinstance(scope, Scope)]
            connections = min([number for number in allowed if number], default=0)
        if self._standing(path) >= reputation.SLOW:
            most = connections or path.values.concurrency or 1
            connections = max(1, int(most * reputation.rate_factor(reputation.SLOW)))
        return Go(path, path.lane(), path.route(route, connections), counters)

    def _option(self, site: SiteShape, facts: Facts, at: AtSite | None, member: tuple[str, int], now: float) -> Option:
        source, weight = member
        path = self.path(site, facts, source)
        if path.closed is not None and path.closed_until - LEASE_SECONDS <= now < path.closed_until:
            return path.closed
        free = self._free(path, at, facts, now)
        state = self._standing(path)
        allowance, more_at = UNLIMITED, 0.0
        if path.warm is not None:
            path.warm.turn(now, state >= reputation.SLOW)
            self._want(path.warm, now)
            allowance, more_at = path.warm.allowance(now), path.warm.more_at(now)
        option = Option(
            source, weight, allowance, more_at, path.stand.score if path.stand is not None else 100.0,
            state == reputation.QUARANTINE, free if free > now else 0.0, "waits for its limits" if free > now else "",
        )  # fmt: skip
        if now < free < math.inf and path.warm is None and path.paced and self._unlearned(path, at, facts):
            path.closed, path.closed_until = option, min(free, now + LEASE_SECONDS)
        return option

    def _unlearned(self, path: Path, at: AtSite | None, facts: Facts) -> bool:
        """Has no reply anything to say about this way?"""
        reached = at is None or not at.health.failing
        return reached and len(self._counters(path, at, facts)) == len(path.gates)

    def _whole(self, site: SiteShape, at: AtSite, facts: Facts, now: float) -> Wait | None:
        """What holds a unit whatever its source: its tenant or its domain is paused here."""
        for table, name, what in ((at.tenants, facts.tenant, "tenant"), (at.domains, facts.domain, "domain")):
            scope = table.get(name)
            if scope is not None and (free := scope.free_at(now)) > now:
                who = UNIT if what == "domain" else FLOW
                until = free if free < math.inf else now + LOOK_AGAIN_SECONDS
                return Wait(until, f"{what} {name}: {scope.state.rule}: {scope.state.reply}", "back-off", who)
        return None

    def _wait(
        self, site: SiteShape, facts: Facts, wait: NoSource, options: list[Option], overflow: bool, now: float
    ) -> Wait:
        until = wait.until
        if wait.by == "excluded":
            # Somebody knows better than `Selector` when a limit lets the next one go.
            opens = [_opens_at(option, now) for option in options]
            until = min(opens)
            if until > now + LEASE_SECONDS and max(opens) == math.inf:
                # Whoever is told a time is not asked when a unit comes back, and that is sooner.
                until = math.inf
        if wait.by == "greylisting":
            return Wait(until, wait.reason, wait.by, UNIT)
        alike = wait.by in ("excluded", "warm-up", "pool") and not overflow and not self.rules.narrow
        alike = alike and not any(option.quarantined for option in options)
        alike = alike and not any(self.path(site, facts, option.source).narrow for option in options)
        return Wait(until, wait.reason, wait.by, SITE if alike and len(site.pools) == 1 else FLOW)


def _opens_at(option: Option, now: float) -> float:
    """When a source may go again, by all that holds it; infinite: when a unit comes back."""
    at = max(option.excluded_until, option.more_at if option.allowance <= 0 else 0.0)
    return at if at > now else now + LOOK_AGAIN_SECONDS


def _facts_of(entry: Entry, site: SiteShape, domain: str) -> Facts:
    envelope = entry.unit.envelope
    return Facts(envelope.tenant, envelope.stream, envelope.pool, entry.source, site.name, site.provider, domain)
