"""What the answers of receivers have taught the owner of a partition: slowed and paused scopes, dead sites, reputation.

It is kept in `mail.site` by key, so that a new owner starts with it and never faster than the old one was. All instants are
of this router's clock: how long an attempt took is the sender's to say, when it ended is not.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from mailfleet_core.model.wire import BOUNCED, DELIVERED, Entry, Event, RecipientOutcome, Result
from mailfleet_router.decisions.shaping import backoff, site_health
from mailfleet_router.decisions.shaping.backoff import BackOff, Change, Hit
from mailfleet_router.decisions.shaping.gate import Scope
from mailfleet_router.decisions.shaping.hits import HitTable, Threshold
from mailfleet_router.decisions.shaping.pace import Pace
from mailfleet_router.decisions.shaping.responses import Blame, Effect, Reading, ReplyClass, scope_key
from mailfleet_router.decisions.shaping.responses import Scope as Kind
from mailfleet_router.decisions.shaping.rules import Rules
from mailfleet_router.decisions.shaping.site_health import Contact, Site, SiteHealth
from mailfleet_router.decisions.shaping.standings import Standings
from mailfleet_router.decisions.shaping.values import Facts

BLOCKS = frozenset({ReplyClass.REPUTATION_BLOCK, ReplyClass.POLICY_BLOCK})
"""Classes that say: not from you."""
EFFECTIVE = frozenset({Effect.SLOW, Effect.PAUSE, Effect.DISABLE_SOURCE})
OURS = frozenset({Blame.SENDER_IP, Blame.US})
"""Whose fault says nothing about the recipient or the mail."""
MOST_SECONDS = 3600.0
"""A sender that says that an attempt took longer is not believed."""
TEXT = 300
"""Letters of a reply that are shown."""
SPELL_SECONDS = 5.0
"""Failures of our own way out in so long are one: all mail of a source fails at once, also where a proxy only restarts."""


class Lesson(NamedTuple):
    """What one attempt taught about the unit itself."""

    wait_seconds: float = 0.0
    """The site asks to be tried again after so long; 0: it names no time."""
    greylisted: bool = False
    refused: RecipientOutcome | None = None
    """A temporary answer that never becomes better."""
    blocked: bool = False
    """The answer was of a block class."""
    spared: frozenset[int] = frozenset()
    """Recipients refused for good because of the address that we sent from: from another one, or later, they are not."""


class AtSite:
    """What is known of a site that gives trouble."""

    __slots__ = ("domains", "health", "site", "sources", "tenants")

    def __init__(self) -> None:
        self.site: Scope | None = None
        self.sources: dict[str, Scope] = {}
        self.tenants: dict[str, Scope] = {}
        self.domains: dict[str, Scope] = {}
        self.health = SiteHealth()

    @property
    def empty(self) -> bool:
        """There is nothing to know."""
        return not (self.site or self.sources or self.tenants or self.domains) and self.health == SiteHealth()


class Wide:
    """Scopes that hold for a source wherever it sends: one for all partitions of a process, told to all routers."""

    def __init__(self) -> None:
        self.sources: dict[str, Scope] = {}

    def read(self, source: str, value: bytes, now: float) -> None:
        """What a router told of a source; news that is older than ours changes nothing. Raises msgspec.DecodeError."""
        state = backoff.decode(value)
        known = self.sources.get(source)
        if known is None:
            key = scope_key(Kind.SOURCE, Facts(source=source))
            self.sources[source] = Scope(key, backoff.restored(state, now), now)
        elif state.hit_at > known.state.hit_at:
            known.become(state)

    def tick(self, now: float) -> None:
        """Let clean time pass for them."""
        for source, scope in list(self.sources.items()):
            state, _ = backoff.tick(scope.state, now)
            scope.become(state)
            if backoff.is_over(state, now) and not scope.in_flight:
                del self.sources[source]


class Learned:
    """All of one partition."""

    def __init__(self, rules: Rules, wide: Wide, pace: Callable[[str, Facts], Pace]) -> None:
        """`pace`: what a scope (its kind, and facts that are of it) has sent."""
        self.sites: dict[str, AtSite] = {}
        self.standings = Standings()
        self.obey(rules)
        self.events: list[Event] = []
        """Changes to be told."""
        self._wide = wide
        self._pace = pace
        self._hits = HitTable()
        self._scopes: dict[str, tuple[Scope, str]] = {}
        """By key, with the site."""
        self._dirty: dict[str, str] = {}
        """Key → site of what is to be written."""

    def obey(self, rules: Rules) -> None:
        """Another policy."""
        self.rules = rules
        self.standings.obey(rules.feedback)

    def at(self, site: str) -> AtSite | None:
        """What is known of a site; None: nothing is wrong."""
        return self.sites.get(site)

    def scopes(self) -> Iterator[Scope]:
        """All that were slowed."""
        return iter([scope for scope, _ in self._scopes.values()])

    # --- answers -------------------------------------------------------------------------------------------------
    def answered(
        self, entry: Entry, result: Result, facts: Facts, site: Site, tried: tuple[str, ...], now: float
    ) -> Lesson:
        """An attempt by `facts.source` at the hosts `tried` has come to an end. What it teaches of its unit."""
        started_at = now - min(max(0.0, result.ended_at - result.started_at), MOST_SECONDS)
        lesson = Lesson()
        event = zlib.crc32(entry.attempts.to_bytes(4, "big"), zlib.crc32(entry.unit.unit_id))
        for outcome in result.outcomes:
            if outcome.verdict == DELIVERED:
                self.standings.count(facts, outcome.verdict, "", False)
            else:
                lesson = self._refused(facts, outcome, Moment(started_at, now, event + outcome.index), lesson)
        if any(outcome.verdict == DELIVERED for outcome in result.outcomes):
            self._clean(facts, started_at, now)
        elif any(site_health.reached(outcome) is not None for outcome in result.outcomes):
            self._got_out(facts, started_at, now)
        self._contact(facts, result, site, tried, Moment(started_at, now, event))
        return lesson

    def not_out(self, outcome: RecipientOutcome, result: Result, facts: Facts, now: float) -> None:
        """Nothing was attempted, for our own way out failed: it counts against `facts.source`, and says nothing of a site,
        a tenant or a recipient."""
        reading = self.rules.responses.classify(facts, outcome)
        if reading.effect in EFFECTIVE:
            started_at = now - min(max(0.0, result.ended_at - result.started_at), MOST_SECONDS)
            spell = now // SPELL_SECONDS * SPELL_SECONDS
            self._hit(facts, reading, outcome, Moment(started_at, now, 0), spell)

    def _refused(self, facts: Facts, outcome: RecipientOutcome, when: Moment, lesson: Lesson) -> Lesson:
        reading = self.rules.responses.classify(facts, outcome)
        self.standings.count(facts, outcome.verdict, reading.blame, reading.reply_class in BLOCKS)
        self.standings.replied(facts, reading, outcome, when.at)
        if reading.reply_class in BLOCKS:
            lesson = lesson._replace(blocked=True)
        if reading.effect in EFFECTIVE:
            if outcome.verdict == BOUNCED and reading.blame in OURS:
                lesson = lesson._replace(spared=lesson.spared | {outcome.index})
            self._hit(facts, reading, outcome, when)
        if reading.effect is Effect.BOUNCE:
            return lesson._replace(refused=lesson.refused or outcome)
        if reading.effect is Effect.RESPECT_WAIT or reading.reply_class is ReplyClass.GREYLISTED:
            wait = max(lesson.wait_seconds, reading.wait_seconds)
            return lesson._replace(wait_seconds=wait, greylisted=reading.reply_class is ReplyClass.GREYLISTED)
        return lesson

    def _hit(
        self, facts: Facts, reading: Reading, outcome: RecipientOutcome, when: Moment, counted_at: float | None = None
    ) -> None:
        key = scope_key(reading.scope, facts)
        threshold = Threshold(reading.hits, reading.window_seconds, reading.share)
        at = when.at if counted_at is None else counted_at
        pace = self._pace(reading.scope, facts)
        if not self._hits.observe(reading.rule, key, threshold, at, when.event, pace.attempts):
            return
        reply = f"{outcome.code or outcome.phase} {outcome.enhanced} {outcome.text}"
        hit = Hit(
            when.at, when.started_at, reading.effect is not Effect.SLOW, reading.rule, reply,
            pace.per_second(when.at), reading.ttl_seconds, reading.rate_per_second,
            reading.concurrency, reading.reply_class is ReplyClass.EGRESS,
        )  # fmt: skip
        scope = self._scope(reading.scope, key, facts, when.at)
        state, change = backoff.hit(scope.state, hit)
        self._become(scope, state, change, facts, reading.scope, when.at, outcome)

    def _clean(self, facts: Facts, started_at: float, now: float) -> None:
        at = self.sites.get(facts.site)
        wide = self._wide.sources.get(facts.source)
        if at is None and wide is None:
            return
        for kind, scope in _of(at, wide, facts):
            if scope.state.probing:
                state, change = backoff.clean(scope.state, started_at, now)
                self._become(scope, state, change, facts, kind, now)

    def _got_out(self, facts: Facts, started_at: float, now: float) -> None:
        """Whatever a site said, or did: our way out works."""
        scope = self._wide.sources.get(facts.source)
        if scope is not None and scope.state.probing and scope.state.whole:
            state, change = backoff.clean(scope.state, started_at, now)
            self._become(scope, state, change, facts, Kind.SOURCE, now)

    def _contact(self, facts: Facts, result: Result, site: Site, tried: tuple[str, ...], when: Moment) -> None:
        at = self.sites.get(facts.site)
        showed = {site_health.reached(outcome) for outcome in result.outcomes}
        if True in showed:
            failed: tuple[str, ...] = ()
            if at is None or at.health == SiteHealth():
                return
        elif False in showed:
            # The sender tried every host of the domain before it said so.
            failed = tried
        else:
            return
        at = self._at(facts.site)
        state, change = site_health.observe(at.health, site, Contact(facts.source, when.started_at, when.at, failed))
        if state != at.health:
            at.health = state
            self._dirty[f"health|{facts.site}"] = facts.site
        if change:
            outcome = next((outcome for outcome in result.outcomes if outcome.verdict != DELIVERED), None)
            kind = Kind.SITE if at.health.dead_since or change.what.endswith("answers again") else Kind.SOURCE_SITE
            self._tell(change, facts, kind, when.at, outcome, "connections")

    # --- scopes --------------------------------------------------------------------------------------------------
    def _at(self, site: str) -> AtSite:
        found = self.sites.get(site)
        if found is None:
            found = self.sites[site] = AtSite()
        return found

    def _scope(self, kind: Kind, key: str, facts: Facts, now: float) -> Scope:
        if kind is Kind.SOURCE:
            return self._wide.sources.setdefault(facts.source, Scope(key, BackOff(), now))
        if key not in self._scopes:
            self._attach(kind, Scope(key, BackOff(), now), facts)
        return self._scopes[key][0]

    def _attach(self, kind: Kind, scope: Scope, facts: Facts) -> None:
        at = self._at(facts.site)
        self._scopes[scope.key] = (scope, facts.site)
        if kind is Kind.SITE:
            at.site = scope
        else:
            table, name = _table(at, kind, facts)
            table[name] = scope

    def _become(
        self, scope: Scope, state: BackOff, change: Change | None, facts: Facts, kind: Kind, now: float,
        outcome: RecipientOutcome | None = None,
    ) -> None:  # fmt: skip
        if state != scope.state:
            scope.become(state)
            self._dirty[scope.key] = facts.site
        if change:
            self._tell(change, facts, kind, now, outcome)

    def _tell(
        self, change: Change, facts: Facts, kind: Kind, now: float, outcome: RecipientOutcome | None = None, by: str = ""
    ) -> None:  # fmt: skip
        code, enhanced = (outcome.code, outcome.enhanced) if outcome else (0, "")
        rule, _, _ = change.why.partition(": ")
        text = "; ".join(part for part in (change.what, change.why, change.next) if part)
        self.events.append(
            Event(
                b"", "shaping", now, tenant=facts.tenant if kind is Kind.TENANT_SITE else "",
                site="" if kind is Kind.SOURCE else facts.site,
                source=facts.source if kind in (Kind.SOURCE, Kind.SOURCE_SITE) else "", code=code, enhanced=enhanced,
                text=text[:1000], until=change.until, by=by or rule[:100],
            )
        )  # fmt: skip

    # --- time ----------------------------------------------------------------------------------------------------
    def tick(self, now: float) -> None:
        """Let clean time raise what was slowed, forget what is over, judge reputations. To be called every few seconds."""
        for key, (scope, site) in list(self._scopes.items()):
            facts, kind = _facts_of(key, site)
            state, change = backoff.tick(scope.state, now)
            self._become(scope, state, change, facts, kind, now)
            if backoff.is_over(state, now) and not scope.in_flight:
                self._forget(key, kind, facts)
        for name in [name for name, at in self.sites.items() if at.empty]:
            del self.sites[name]
        for change, facts in self.standings.tick(now, self.rules.tuning):
            self._tell(change, facts, Kind.SOURCE_SITE, now)

    def _forget(self, key: str, kind: Kind, facts: Facts) -> None:
        del self._scopes[key]
        self._dirty[key] = facts.site
        at = self.sites.get(facts.site)
        if at is None:
            return
        if kind is Kind.SITE:
            at.site = None
        else:
            table, name = _table(at, kind, facts)
            table.pop(name, None)

    # --- the log -------------------------------------------------------------------------------------------------
    def changed(self) -> Iterator[tuple[str, bytes | None]]:
        """Keys of `mail.site` and their new values since the last call; None: nothing is to be remembered."""
        dirty = {key: site for key, site in self._dirty.items() if not key.startswith(f"{Kind.SOURCE}|")}
        for key, site in dirty.items():
            del self._dirty[key]
            name = key if key.startswith("health|") else f"{key}\n{site}"
            yield name, self.value(name)
        yield from self.standings.changed()

    def value(self, key: str) -> bytes | None:
        """The present value of a key of `mail.site`; None: nothing is to be remembered."""
        kind, _, name = key.partition("|")
        if kind == "health":
            at = self.sites.get(name)
            return site_health.encode(at.health) if at and at.health != SiteHealth() else None
        if kind in ("counts", "standing"):
            return self.standings.value(kind, name)
        known = self._scopes.get(key.partition("\n")[0])
        return backoff.encode(known[0].state) if known else None

    def changed_everywhere(self) -> Iterator[tuple[str, bytes]]:
        """Sources whose state for all sites an answer here has changed, as `changed`; all routers are to know it."""
        for key in [key for key in self._dirty if key.startswith(f"{Kind.SOURCE}|")]:
            del self._dirty[key]
            source = _names(key)[0]
            if (scope := self._wide.sources.get(source)) is not None:
                yield source, backoff.encode(scope.state)

    def read(self, key: str, value: bytes, now: float) -> None:
        """A record of `mail.site`, as the last owner left it. Raises msgspec.DecodeError, ValidationError."""
        kind, _, name = key.partition("|")
        if kind == "health":
            self._at(name).health = site_health.decode(value)
        elif kind in (Kind.SOURCE_SITE, Kind.TENANT_SITE, Kind.SITE, Kind.DOMAIN):
            scope_name, _, site = key.partition("\n")
            facts, scope_kind = _facts_of(scope_name, site)
            self._attach(scope_kind, Scope(scope_name, backoff.restored(backoff.decode(value), now), now), facts)
        else:
            self.standings.read(key, value)


class Moment(NamedTuple):
    """When an answer came."""

    started_at: float
    at: float
    event: int


def _of(at: AtSite | None, wide: Scope | None, facts: Facts) -> list[tuple[Kind, Scope]]:
    """The scopes in force that an attempt is of."""
    found = [(Kind.SOURCE, wide)]
    if at is not None:
        found += [
            (Kind.SITE, at.site), (Kind.SOURCE_SITE, at.sources.get(facts.source)),
            (Kind.TENANT_SITE, at.tenants.get(facts.tenant)), (Kind.DOMAIN, at.domains.get(facts.domain)),
        ]  # fmt: skip
    return [(kind, scope) for kind, scope in found if scope is not None]


def _table(at: AtSite, kind: Kind, facts: Facts) -> tuple[dict[str, Scope], str]:
    if kind is Kind.SOURCE_SITE:
        return at.sources, facts.source
    return (at.tenants, facts.tenant) if kind is Kind.TENANT_SITE else (at.domains, facts.domain)


def _names(key: str) -> list[str]:
    return [part.replace("%7C", "|").replace("%25", "%") for part in key.split("|")[1:]]


def _facts_of(key: str, site: str) -> tuple[Facts, Kind]:
    """What a scope's key says."""
    kind = Kind(key.partition("|")[0])
    first = _names(key)[0]
    named = {Kind.SOURCE_SITE: "source", Kind.SOURCE: "source", Kind.TENANT_SITE: "tenant", Kind.DOMAIN: "domain"}
    facts = Facts(site=site)
    return (facts._replace(**{named[kind]: first}) if kind in named else facts), kind
