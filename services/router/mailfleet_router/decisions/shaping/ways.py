"""The ways from a partition's sources to its sites, the counters on them, and what is on its way."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from mailfleet_core.model.wire import Route, Source
from mailfleet_router.decisions.shaping import site_health
from mailfleet_router.decisions.shaping.flow import Flow
from mailfleet_router.decisions.shaping.gate import Gate, Ramp, Scope
from mailfleet_router.decisions.shaping.gcra import default_burst
from mailfleet_router.decisions.shaping.learned import AtSite, Learned, Wide
from mailfleet_router.decisions.shaping.leases import Limit
from mailfleet_router.decisions.shaping.limits import Effective, least
from mailfleet_router.decisions.shaping.pace import NO_PACE, Pace
from mailfleet_router.decisions.shaping.responses import Scope as Kind
from mailfleet_router.decisions.shaping.rules import Rules
from mailfleet_router.decisions.shaping.selection import Selector
from mailfleet_router.decisions.shaping.site_shape import Path, PoolAt, SiteShape, with_route
from mailfleet_router.decisions.shaping.values import FIELDS, Facts
from mailfleet_router.decisions.shaping.warming import Warm, begun
from mailfleet_router.decisions.shaping.warmup import Plan

COMMON = frozenset({"pool", "source", "site", "provider"})
"""A limit kept by these only holds for all mail of a pool at a site alike."""
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

    def release(self, counter: str, holder: str) -> None:
        """The holder uses nothing of it any more."""

    def counters(self, holder: str) -> list[str]:
        """Of what it has, or asks for, a share."""


class Go(NamedTuple):
    """A unit that goes."""

    path: Path
    lane: int
    route: Route
    counters: tuple[Gate | Scope, ...]
    """What it was taken from."""


class Sources(Protocol):
    """What the settings, or the log, say of sources (see `Policy`)."""

    @property
    def lanes(self) -> dict[str, tuple[int, ...]]:
        """Source → its lanes."""

    @property
    def closed(self) -> dict[str, tuple[Source, ...]]:
        """Pool → those of its sources that take no mail because somebody said so."""

    @property
    def warmups(self) -> dict[str, tuple[str, float]]:
        """Source → its warm-up plan and since when."""

    def pool(self, name: str) -> tuple[tuple[str, int], ...]:
        """(source, weight) of a pool."""

    def overflow(self, pool: str) -> str:
        """The pool that takes what a pool's own sources may not; empty: none."""

    def guarded(self, pool: str) -> bool:
        """Does bulk mail wait rather than flee from this pool?"""

    def sourceless(self, pool: str) -> str:
        """That a pool has no source, and why, for people."""

    def where(self, kind: str, name: str) -> str:
        """Where a source or a pool is written, for people."""


class Ways:
    """All ways of one partition. A site's are forgotten with its queue, counters only when nothing is owed on them."""

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
        self.flow = Flow()
        self.warms: dict[str, Warm] = {}
        self.wanting: dict[str, Warm] = {}
        """Those that need more allowance."""
        self.warm_states: dict[str, bytes] = {}
        """As the last owner left them."""
        self._out: dict[bytes, tuple[Go, SiteShape, Facts]] = {}
        """Units in senders' hands."""

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
        """Another policy, or other sources. Counters keep what was taken, by their keys; nothing is refilled."""
        if rules is not self.rules:
            # Its counters are others: what was sent before is not known of them.
            self.since = now
        self.rules, self.sources = rules, sources
        self.learned.obey(rules)
        for warm in self.warms.values():
            warm.begin(self._began(warm.key))
        out: dict[str, list[bytes]] = {}
        for unit, (_, site, _) in self._out.items():
            out.setdefault(site.name, []).append(unit)
        for site in self.sites.values():
            site.stands.clear()
            site.provider = rules.provider(site.name, tuple(sorted(site.hosts)), "")
            self._reshape(site, out.get(site.name, ()))

    def know_hosts(self, site: SiteShape, hosts: tuple[str, ...]) -> None:
        """The DNS names these hosts for a domain of the site; another domain's may be others."""
        known = bool(site.hosts)
        if len(site.hosts) < site_health.MAX_HOSTS:
            site.hosts |= frozenset(hosts)
        if not known and (provider := self.rules.provider(site.name, hosts, "")) != site.provider:
            site.provider = provider
            self._reshape(site, tuple(self._out))

    def divide(self, site: SiteShape) -> None:
        """The site is hot: what is not a source's own limit there is shared with other partitions."""
        if not site.divided:
            site.divided = True
            self._reshape(site, tuple(self._out))

    def _reshape(self, site: SiteShape, units: Iterable[bytes]) -> None:
        """Other limits or sources hold for the site: what of `units` is in senders' hands is counted by them."""
        out = [(unit, *self._out[unit]) for unit in units if self._out[unit][1] is site]
        for unit, _, _, _ in out:
            self.freed(unit)
        site.paths.clear()
        site.selectors |= {key: pool.selector for key, pool in site.pools.items()}
        site.pools.clear()
        for unit, go, _, facts in out:
            self.took(unit, site, facts, go.path.facts.source)

    def facts(self, site: SiteShape, tenant: str, stream: str, pool: str, domain: str, campaign: str = "") -> Facts:
        """What a unit is to the policy."""
        provider = site.provider
        if self.rules.by_domain:
            provider = self.rules.provider(site.name, tuple(sorted(site.hosts)), domain)
        return Facts(tenant, stream, pool, "", site.name, provider, domain, campaign)

    def took(self, unit: bytes, site: SiteShape, facts: Facts, source: str) -> None:
        """A unit that an earlier owner, or an earlier policy, let go is in a sender's hands."""
        path = self.path(site, facts, source)
        at = self.learned.sites.get(site.name)
        go = Go(path, -1, _NOWHERE, self._counters(path, at, facts))
        path.in_flight += 1
        for counter in go.counters:
            counter.in_flight += 1
        self._out[unit] = (go, site, facts)

    def out(self) -> Iterator[tuple[str, str]]:
        """Source and pool of each unit in senders' hands."""
        return ((go.path.facts.source, facts.pool) for go, _, facts in self._out.values())

    def freed(self, unit: bytes) -> tuple[Go, SiteShape, Facts] | None:
        """It came back."""
        known = self._out.pop(unit, None)
        if known is not None:
            go = known[0]
            go.path.in_flight -= 1
            for counter in go.counters:
                counter.in_flight -= 1
        return known

    def route_of(self, unit: bytes, base: Route) -> Route:
        """The limits of a unit that is in a sender's hands."""
        known = self._out.get(unit)
        return known[0].path.route(base) if known is not None else base

    def path(self, site: SiteShape, facts: Facts, source: str) -> Path:
        """The way to `site` by `source` for mail of `facts`."""
        key = (source, *[facts[index] for index in self.rules.limits.others]) if site.ruled else (source,)
        found = site.paths.get(key)
        if found is None:
            if len(site.paths) >= MOST_PATHS:
                site.paths = {key: path for key, path in site.paths.items() if path.in_flight}
            found = site.paths[key] = self._make(site, facts._replace(source=source))
        return found

    def _make(self, site: SiteShape, facts: Facts) -> Path:
        facts = facts._replace(site=site.name)
        effective = self.rules.limits.effective(facts) if site.ruled else ()
        gates = tuple([gate for limit in effective for gate in self._gates(limit, site.divided)])
        lanes = self.sources.lanes.get(facts.source, ())
        # The sender does not tell tenants apart: it keeps what holds for a source at a site, whosever mail it is.
        common = [limit for limit in effective if self._common(limit)]
        if site.base.messages_per_second:
            gates = (*gates, self._route_gate(facts, site.base.messages_per_second))
        return Path(facts, with_route(least(common), site.base), gates, lanes, self._warm(facts.source, site))

    def _common(self, limit: Effective) -> bool:
        return COMMON.issuperset(self._per(limit))

    def _per(self, limit: Effective) -> tuple[str, ...]:
        return self.rules.policy.traffic.limits[limit.limit_number].per

    def _route_gate(self, facts: Facts, rate: float) -> Gate:
        """The rate that the settings give to each source at a site of a route."""
        key = f"[[route]]|{facts.source}|{facts.site}"
        gate = self.gates.setdefault(key, Gate(key, self.since))
        gate.obey(rate, default_burst(rate), math.inf, self.since)
        return gate

    def _gates(self, limit: Effective, divided: bool) -> Iterator[Gate]:
        """The counters of a limit that the router keeps: one, or two where owners have shares of a rate and of a window."""
        values = limit.values
        if values.ramp:
            yield self._ramp(limit, values.ramp)
        spans = limit.spans_partitions or (divided and "source" not in self._per(limit))
        in_hands = [values.window, None if self._common(limit) else values.concurrency]
        window = min([number for number in in_hands if number is not None], default=None)
        rate, burst = values.message_rate, values.burst
        if rate is None and window is None and not values.suspend:
            return
        gate = self._gate(limit.key, limit, spans)
        gate.suspend = values.suspend
        if not gate.spans:
            gate.obey(rate or 0.0, burst, math.inf if window is None else window, self.since)
            yield gate
            return
        gate.total = Limit(rate, burst=burst) if rate is not None else Limit(float(window or 0), True)
        yield gate
        if rate is not None and window is not None:
            beside = self._gate(f"{limit.key}|window", limit, spans)
            beside.total = Limit(float(window), True)
            yield beside

    def _ramp(self, limit: Effective, start: float) -> Ramp:
        """Each owner climbs by itself."""
        key = f"{limit.key}|ramp"
        gate = self.gates.get(key)
        if not isinstance(gate, Ramp):
            gate = self.gates[key] = Ramp(key, self.since, start)
        gate.start = start
        gate.limit, gate.case, gate.narrow = limit.limit_number, limit.case_number, not self._common(limit)
        return gate

    def _gate(self, key: str, limit: Effective, spans: bool) -> Gate:
        gate = self.gates.get(key)
        if gate is None:
            if len(self.gates) >= MOST_GATES:
                self.gates = {key: gate for key, gate in self.gates.items() if gate.in_flight or gate.rate < 1.0}
            gate = self.gates[key] = Gate(key, self.since)
        gate.limit, gate.case, gate.narrow = limit.limit_number, limit.case_number, not self._common(limit)
        gate.shared, gate.spans = spans, spans and self.leases is not None
        if gate.spans:
            gate.obey(0.0, 1.0, math.inf, self.since)
        return gate

    def plan(self, source: str, provider: str) -> Plan | None:
        """The warm-up plan of a source at a provider: what the log says of the source goes before the policy."""
        given, _ = self.sources.warmups.get(source, ("", 0.0))
        return self.rules.plan_named(given, provider) if given else self.rules.plan(source, provider)

    def _warm(self, source: str, site: SiteShape) -> Warm | None:
        plan = self.plan(source, site.provider)
        if plan is None or not site.ruled:
            return None
        key = warm_key(source, site)
        found = self.warms.get(key)
        if found is None:
            written = self.warm_states.pop(key, None)
            found = self.warms[key] = begun(key, plan, written, self.since, self._began(key))
        found.plan = plan
        return found

    def _began(self, key: str) -> float:
        """Since when the source of a warm-up's key goes through it, if the log says so."""
        return self.sources.warmups.get(key.split("|", 2)[1], ("", 0.0))[1]

    def _pool_at(self, site: SiteShape, name: str, without: frozenset[str]) -> PoolAt:
        usable = tuple([member for member in self._members(name) if member[0] not in without])
        overflow = self.sources.overflow(name)
        surplus = tuple([member for member in self._members(overflow) if member[0] not in without]) if overflow else ()
        selector = site.selectors.pop((name, without), None) or Selector(site.name)
        found = site.pools[name, without] = PoolAt(selector, usable, surplus)
        return found

    def _members(self, pool: str) -> tuple[tuple[str, int], ...]:
        lanes = self.sources.lanes
        return tuple([(name, weight) for name, weight in self.sources.pool(pool) if weight > 0 and lanes.get(name)])

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

    def _pace(self, kind: str, facts: Facts) -> Pace:
        site = self.sites.get(facts.site)
        if site is None or kind in (Kind.SOURCE, Kind.DOMAIN):
            return NO_PACE
        if kind == Kind.SITE:
            return site.pace
        table, name = (site.paces, facts.source) if kind == Kind.SOURCE_SITE else (site.tenants, facts.tenant)
        return table.get(name, NO_PACE)


SOURCE = FIELDS.index("source")
_NOWHERE = Route("mx", ())


def pace_of(table: dict[str, Pace], name: str) -> Pace:
    found = table.get(name)
    if found is None:
        if len(table) >= 1000:
            table.clear()
        found = table[name] = Pace()
    return found


def warm_key(source: str, site: SiteShape) -> str:
    return warm_name(source, site.provider or site.name)


def warm_name(source: str, provider: str) -> str:
    return f"warmup|{source}|{provider}"
