"""May this unit go now, by which source and lane, within which limits? And what follows from how it ended?

One object for each owned partition. It only answers and remembers; the partition writes what is to be durable. An instant is
that of a clock that never steps (`mailfleet_core.clock`).
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

from mailfleet_core.model.wire import DELIVERED, Entry, Result, Route
from mailfleet_router.decisions.shaping import reputation, site_health
from mailfleet_router.decisions.shaping.gate import Gate, Scope
from mailfleet_router.decisions.shaping.gcra import default_burst
from mailfleet_router.decisions.shaping.learned import AtSite, Learned, Lesson, Wide
from mailfleet_router.decisions.shaping.leases import Limit
from mailfleet_router.decisions.shaping.limits import Effective, least
from mailfleet_router.decisions.shaping.pace import Pace
from mailfleet_router.decisions.shaping.responses import Scope as Kind
from mailfleet_router.decisions.shaping.rules import Rules
from mailfleet_router.decisions.shaping.selection import Choice, Option, Request
from mailfleet_router.decisions.shaping.selection import Wait as NoSource
from mailfleet_router.decisions.shaping.site_health import ALIVE, Site
from mailfleet_router.decisions.shaping.site_shape import Path, PoolAt, SiteShape, with_route
from mailfleet_router.decisions.shaping.values import FIELDS, Facts
from mailfleet_router.decisions.shaping.warming import Warm, begun
from mailfleet_router.decisions.shaping.warmup import UNLIMITED

COMMON = frozenset({"pool", "source", "site", "provider"})
"""A limit kept by these only holds for all mail of a pool at a site alike."""
LEASE_SECONDS = 1.0
"""Between two looks at a share of a limit."""
LOOK_AGAIN_SECONDS = 5.0
"""When nobody knows when something changes."""
MOST_PATHS = 20_000
"""Of one site, that are remembered."""
MOST_GATES = 100_000


class Leases(Protocol):
    """Shares of limits that several owners use (see `leasing.Holding`, whose clock it knows)."""

    def want(self, counter: str, holder: str, limit: Limit, demand: float, used: float) -> None:
        """The holder could use so much, and has so many units in use."""

    def demand(self, counter: str, holder: str, waiting: int) -> float:
        """Of a rate, what the holder could use, in messages per second."""

    def usable(self, counter: str, holder: str) -> float:
        """The share that may be used; 0: none yet."""

    def wait(self, counter: str, holder: str) -> float:
        """Seconds until a message may go by a share of a rate; infinite without a share."""

    def take(self, counter: str, holder: str) -> None:
        """A message goes by a share of a rate."""


SITE, FLOW, UNIT = range(3)


class Wait(NamedTuple):
    """A unit that may not go."""

    until: float
    """When to look again; infinite: when a unit of the site comes back."""
    reason: str
    by: str
    who: int = SITE
    """Who waits alike: SITE, all mail at this site; FLOW, that of its tenant, stream and pool; UNIT, nobody else."""


class Go(NamedTuple):
    """A unit that goes."""

    path: Path
    lane: int
    route: Route
    counters: tuple[Gate | Scope, ...]
    """What it was taken from."""


class Sources(Protocol):
    """What the settings say of sources."""

    @property
    def lanes(self) -> dict[str, tuple[int, ...]]:
        """Source → its lanes."""

    def pool(self, name: str) -> tuple[tuple[str, int], ...]:
        """(source, weight) of a pool."""


class Shaper:
    """All decisions of one partition about when, from where and how fast."""

    def __init__(
        self, rules: Rules, sources: Sources, wide: Wide | None = None, leases: Leases | None = None, holder: str = ""
    ) -> None:
        self.rules = rules
        self.sources = sources
        self.wide = wide or Wide()
        self.learned = Learned(rules, self.wide, self._pace)
        self.leases = leases
        self.holder = holder
        self.since = 0.0
        """From when on we are the owner."""
        self.sites: dict[str, SiteShape] = {}
        self.gates: dict[str, Gate] = {}
        self.warms: dict[str, Warm] = {}
        self.wanting: dict[str, Warm] = {}
        """Those that need more allowance."""
        self.warm_states: dict[str, bytes] = {}
        """As the last owner left them."""
        self._out: dict[bytes, tuple[Go, SiteShape, Facts]] = {}
        """Units in senders' hands."""

    # --- sites ---------------------------------------------------------------------------------------------------
    def site(self, name: str, hosts: tuple[str, ...], domain: str, base: Route) -> SiteShape:
        """What is known of a site."""
        found = self.sites.get(name)
        if found is None:
            provider = self.rules.provider(name, hosts, domain)
            found = self.sites[name] = SiteShape(name, provider, frozenset(hosts), base)
        return found

    def forget(self, name: str) -> None:
        """The site has no units."""
        self.sites.pop(name, None)

    def obey(self, rules: Rules, sources: Sources, now: float) -> None:
        """Another policy. Counters keep what was taken, by their keys; nothing is refilled."""
        self.rules, self.sources, self.learned.rules = rules, sources, rules
        self.since = now
        for site in self.sites.values():
            site.provider = rules.provider(site.name, tuple(sorted(site.hosts)), "")
            self._reshape(site)

    def know_hosts(self, site: SiteShape, hosts: tuple[str, ...]) -> None:
        """The DNS names these hosts for a domain of the site; another domain's may be others."""
        known = bool(site.hosts)
        if len(site.hosts) < site_health.MAX_HOSTS:
            site.hosts |= frozenset(hosts)
        if not known and (provider := self.rules.provider(site.name, hosts, "")) != site.provider:
            site.provider = provider
            self._reshape(site)

    def _reshape(self, site: SiteShape) -> None:
        """Other limits hold for the site: what is in senders' hands is counted by them."""
        out = [(unit, facts, go) for unit, (go, where, facts) in self._out.items() if where is site]
        for unit, _, _ in out:
            self.freed(unit)
        site.paths.clear()
        site.pools.clear()
        for unit, facts, go in out:
            self.took(unit, site, facts, go.path.facts.source)

    def facts(self, site: SiteShape, tenant: str, stream: str, pool: str, domain: str, campaign: str = "") -> Facts:
        """What a unit is to the policy."""
        provider = site.provider
        if self.rules.by_domain:
            provider = self.rules.provider(site.name, tuple(sorted(site.hosts)), domain)
        return Facts(tenant, stream, pool, "", site.name, provider, domain, campaign)

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
        if not pool.members:
            return Wait(now + 30.0, f"pool {facts.pool} has no source with a lane", "settings", FLOW)
        if self._plain(pool, site, now):
            source = pool.members[0][0] if len(pool.members) == 1 else pool.selector.kept(facts.tenant, now)
            if (not asked or asked == source) and source:
                path = self.path(site, facts, source)
                if self._free(path, at, facts, now) <= now:
                    return self._go(path, at, facts, route, now)
        if at is not None and (probe := self._probe(pool, site, facts, at, now)) is not None:
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
        site.pace.count(now)
        _pace_of(site.paces, path.facts.source).count(now)
        _pace_of(site.tenants, facts.tenant).count(now)

    def took(self, unit: bytes, site: SiteShape, facts: Facts, source: str) -> None:
        """A unit that an earlier owner, or an earlier policy, let go is in a sender's hands."""
        path = self.path(site, facts, source)
        at = self.learned.sites.get(site.name)
        go = Go(path, -1, _NOWHERE, self._counters(path, at, facts))
        path.in_flight += 1
        for counter in go.counters:
            counter.in_flight += 1
        self._out[unit] = (go, site, facts)

    def freed(self, unit: bytes) -> tuple[Go, SiteShape, Facts] | None:
        """It came back."""
        known = self._out.pop(unit, None)
        if known is not None:
            go = known[0]
            go.path.in_flight -= 1
            for counter in go.counters:
                counter.in_flight -= 1
        return known

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
        self.learned.standings.add(stands, reputation.OTHER)
        if go.path.warm is not None:
            go.path.warm.answered(DELIVERED, False)
        return True

    def route_of(self, unit: bytes, base: Route) -> Route:
        """The limits of a unit that is in a sender's hands."""
        known = self._out.get(unit)
        return known[0].path.route(base) if known is not None else base

    # --- what came of it -----------------------------------------------------------------------------------------
    def answered(
        self, entry: Entry, result: Result, site: SiteShape, domain: str, tried: tuple[str, ...], now: float
    ) -> Lesson:
        """An attempt at the hosts `tried` has come to an end."""
        site.stands.clear()  # a bad answer is counted where good ones were not
        envelope = entry.unit.envelope
        facts = Facts(
            envelope.tenant, envelope.stream, envelope.pool, entry.source, site.name, site.provider, domain
        )  # fmt: skip
        pool = self.sources.pool(envelope.pool)
        lesson = self.learned.answered(entry, result, facts, Site(site.name, site.hosts, max(1, len(pool))), tried, now)
        if self.warms and (warm := self.warms.get(_warm_key(entry.source, site))) is not None:
            for outcome in result.outcomes:
                warm.answered(outcome.verdict, lesson.blocked)
        return lesson

    def asked(self, entry: Entry, site: SiteShape, domain: str) -> str:
        """The source that a greylisting site expects again with this unit; empty: any."""
        if entry.last is None or not entry.source:
            return ""
        facts = Facts(source=entry.source, site=site.name, provider=site.provider, domain=domain)
        reading = self.rules.responses.classify(facts, entry.last)
        return entry.source if reading.reply_class == "greylisted" else ""

    # --- pieces --------------------------------------------------------------------------------------------------
    def path(self, site: SiteShape, facts: Facts, source: str) -> Path:
        """The way to `site` by `source` for mail of `facts`."""
        limits = self.rules.limits
        key = (source, *[facts[index] for index in limits.used if index != SOURCE]) if site.ruled else (source,)
        found = site.paths.get(key)
        if found is None:
            if len(site.paths) >= MOST_PATHS:
                site.paths = {key: path for key, path in site.paths.items() if path.in_flight}
            found = site.paths[key] = self._make(site, facts._replace(source=source))
        return found

    def _make(self, site: SiteShape, facts: Facts) -> Path:
        facts = facts._replace(site=site.name, provider=site.provider)
        effective = self.rules.limits.effective(facts) if site.ruled else ()
        gates = tuple([gate for gate in map(self._gate, effective) if gate is not None])
        lanes = self.sources.lanes.get(facts.source, ())
        # The sender does not tell tenants apart: it keeps what holds for a source at a site, whosever mail it is.
        common = [limit for limit in effective if self._common(limit)]
        if site.base.messages_per_second:
            gates = (*gates, self._route_gate(facts, site.base.messages_per_second))
        return Path(facts, with_route(least(common), site.base), gates, lanes, self._warm(facts.source, site))

    def _route_gate(self, facts: Facts, rate: float) -> Gate:
        """The rate that the settings give to each source at a site of a route."""
        key = f"[[route]]|{facts.source}|{facts.site}"
        gate = self.gates.setdefault(key, Gate(key, self.since))
        gate.obey(rate, default_burst(rate), math.inf, self.since)
        return gate

    def _common(self, limit: Effective) -> bool:
        return COMMON.issuperset(self.rules.policy.traffic.limits[limit.limit_number].per)

    def _gate(self, limit: Effective) -> Gate | None:
        values = limit.values
        common = self._common(limit)
        in_hands = [number for number in (values.window, None if common else values.concurrency) if number is not None]
        if values.message_rate is None and not in_hands and not values.suspend:
            return None
        gate = self.gates.get(limit.key)
        if gate is None:
            if len(self.gates) >= MOST_GATES:
                self.gates = {key: gate for key, gate in self.gates.items() if gate.in_flight or gate.rate < 1.0}
            gate = self.gates[limit.key] = Gate(limit.key, self.since)
        gate.limit, gate.case = limit.limit_number, limit.case_number
        gate.shared = limit.spans_partitions
        gate.suspend, gate.spans = values.suspend, limit.spans_partitions and self.leases is not None
        gate.narrow = not common
        gate.total = Limit(values.message_rate or float(min(in_hands, default=0)), values.message_rate is None)
        if gate.spans:
            gate.obey(0.0, 1.0, math.inf, self.since)
        else:
            gate.obey(values.message_rate or 0.0, values.burst, min(in_hands, default=math.inf), self.since)
        return gate

    def _warm(self, source: str, site: SiteShape) -> Warm | None:
        plan = self.rules.plan(source, site.provider)
        if plan is None or not site.ruled:
            return None
        key = _warm_key(source, site)
        found = self.warms.get(key)
        if found is None:
            found = self.warms[key] = begun(key, plan, self.warm_states.pop(key, None), self.since)
        found.plan = plan
        return found

    def _pool_at(self, site: SiteShape, name: str, without: frozenset[str]) -> PoolAt:
        usable = tuple([member for member in self._members(name) if member[0] not in without])
        overflow = self.rules.overflow.get(name, "")
        surplus = tuple([member for member in self._members(overflow) if member[0] not in without]) if overflow else ()
        found = site.pools[name, without] = PoolAt(site.name, usable, surplus)
        return found

    def _members(self, pool: str) -> tuple[tuple[str, int], ...]:
        lanes = self.sources.lanes
        return tuple([(name, weight) for name, weight in self.sources.pool(pool) if weight > 0 and lanes.get(name)])

    def _want(self, warm: Warm, now: float) -> None:
        if warm.wants(now):
            self.wanting[warm.key] = warm

    def _plain(self, pool: PoolAt, site: SiteShape, now: float) -> bool:
        """Are all sources of the pool in order here? It is looked at now and then."""
        if not 0 <= now - pool.looked_at < LEASE_SECONDS:
            pool.looked_at = now
            state, plan = self.learned.standings.state, self.rules.plan
            at = self.learned.sites.get(site.name)
            pool.plain = at is None and not any(
                state("source|site", source, site.name) == reputation.QUARANTINE or plan(source, site.provider)
                for source, _ in pool.members
            )
        return pool.plain

    def _probe(self, pool: PoolAt, site: SiteShape, facts: Facts, at: AtSite, now: float) -> Path | None:
        """A way whose pause is over: one unit tries it, or it would never be found out that it is open again."""
        for source, _ in pool.members:
            scope = at.sources.get(source)
            blocked = site_health.standing(at.health, source, now).kind == site_health.BLOCKED
            if (scope is not None and scope.state.probing) or blocked:
                path = self.path(site, facts, source)
                if not path.in_flight and path.warm is None and self._free(path, at, facts, now) <= now:
                    return path
        return None

    def _standing(self, path: Path) -> int:
        return self.learned.standings.state("source|site", path.facts.source, path.facts.site)

    def _counters(self, path: Path, at: AtSite | None, facts: Facts) -> tuple[Gate | Scope, ...]:
        found: tuple[Gate | Scope, ...] = path.gates
        if at is not None:
            scopes = (
                at.site, at.sources.get(path.facts.source), at.tenants.get(facts.tenant), at.domains.get(facts.domain),
            )  # fmt: skip
            found = (*found, *[scope for scope in scopes if scope is not None])
        if self.wide.sources and (scope := self.wide.sources.get(path.facts.source)) is not None:
            found = (*found, scope)
        return found

    def _free(self, path: Path, at: AtSite | None, facts: Facts, now: float) -> float:
        """When this way is open: at most `now`: now; infinite: when a unit comes back."""
        if path.in_flight >= path.window or not path.lanes:
            return math.inf
        free = 0.0
        for counter in path.gates if at is None and not self.wide.sources else self._counters(path, at, facts):
            shared = isinstance(counter, Gate) and counter.spans
            free = max(free, self._shared(counter, now) if shared else counter.free_at(now))  # type: ignore[arg-type]
        if at is not None and at.health is not _HEALTHY:
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
        free = self._free(path, at, facts, now)
        state = self._standing(path)
        allowance, more_at = UNLIMITED, 0.0
        if path.warm is not None:
            path.warm.turn(now, state >= reputation.SLOW)
            self._want(path.warm, now)
            allowance, more_at = path.warm.allowance(now), path.warm.more_at(now)
        return Option(
            source, weight, allowance, more_at, self.learned.standings.score("source|site", source, site.name),
            state == reputation.QUARANTINE, free if free > now else 0.0, "waits for its limits" if free > now else "",
        )  # fmt: skip

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
            until = min(option.excluded_until for option in options)
        if wait.by == "greylisting":
            return Wait(until, wait.reason, wait.by, UNIT)
        alike = wait.by in ("excluded", "warm-up", "pool") and not overflow and not self.rules.narrow
        alike = alike and not any(option.quarantined for option in options)
        alike = alike and not any(self.path(site, facts, option.source).narrow for option in options)
        return Wait(until, wait.reason, wait.by, SITE if alike and len(site.pools) == 1 else FLOW)

    def _pace(self, kind: str, facts: Facts, now: float) -> float:
        site = self.sites.get(facts.site)
        if site is None or kind in (Kind.SOURCE, Kind.DOMAIN):
            return 0.0
        if kind == Kind.SITE:
            return site.pace.per_second(now)
        table, name = (site.paces, facts.source) if kind == Kind.SOURCE_SITE else (site.tenants, facts.tenant)
        return table[name].per_second(now) if name in table else 0.0


SOURCE = FIELDS.index("source")
_HEALTHY = site_health.SiteHealth()
_NOWHERE = Route("mx", ())


def _pace_of(table: dict[str, Pace], name: str) -> Pace:
    found = table.get(name)
    if found is None:
        if len(table) >= 1000:
            table.clear()
        found = table[name] = Pace()
    return found


def _warm_key(source: str, site: SiteShape) -> str:
    return f"warmup|{source}|{site.provider or site.name}"
