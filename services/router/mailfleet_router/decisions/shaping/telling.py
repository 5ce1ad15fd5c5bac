"""What a partition's shaping knows, for people: what holds mail of some facts, the story of a site, what is paused."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from mailfleet_core.model.sources import why_closed
from mailfleet_core.model.wire import RecipientOutcome
from mailfleet_router.decisions.shaping import reputation, site_health
from mailfleet_router.decisions.shaping.backoff import WHOLE
from mailfleet_router.decisions.shaping.explain import explain
from mailfleet_router.decisions.shaping.gate import Gate, Ramp, Scope
from mailfleet_router.decisions.shaping.learned import AtSite
from mailfleet_router.decisions.shaping.limits import least
from mailfleet_router.decisions.shaping.responses import ReplyClass
from mailfleet_router.decisions.shaping.shaper import Shaper
from mailfleet_router.decisions.shaping.site_health import ALIVE
from mailfleet_router.decisions.shaping.site_shape import Path, SiteShape
from mailfleet_router.decisions.shaping.values import Facts
from mailfleet_router.decisions.shaping.why import Reason, Speed
from mailfleet_router.decisions.shaping.wording import scope_text

MOST_SOURCES = 64
"""Of a pool, that are told of."""
MOST_PAUSED = 50
ROUTE = "[[route]]|"
"""How the counters of the settings' own limits begin."""
OF_ROUTES = {
    "message_rate": "messages_per_second", "connection_rate": "connections_per_second", "concurrency": "max_connections",
    "messages_per_connection": "messages_per_connection",
}  # fmt: skip
"""What the policy limits, and what the settings call it."""
SHIPPED = "mailfleet_router/"
"""How the names of shipped files begin."""


def why(
    shaper: Shaper, site: SiteShape, facts: Facts, now: float, without: Mapping[str, Reason] = MappingProxyType({})
) -> list[Reason]:
    """What holds a unit of `facts` (without a source) at a site now; `without`: sources that it may not use, and why. What
    one source would have to wait for is told only if no source of the pool may send."""
    at = shaper.learned.at(site.name)
    found = list(_whatever_source(shaper, at, facts, now))
    sources = shaper.sources
    members = sources.pool(facts.pool) or _fled_to(shaper, facts)
    if not members:
        text, where = sources.sourceless(facts.pool), sources.where("pool", facts.pool)
        return [*found, Reason("source", text, where, 0.0, "router")]
    members = members[:MOST_SOURCES]
    each = [
        [without[source]] if source in without else list(_of_source(shaper, site, at, facts, source, now))
        for source, _ in members
    ]
    if all(each):
        found += [reason for reasons in each for reason in reasons]
        found += [
            Reason("closed", why_closed(source), sources.where("source", source.name), 0.0, "postmaster")
            for source in sources.closed.get(facts.pool, ())[:MOST_SOURCES]
        ]
    return list({(reason.by, reason.text): reason for reason in found}.values())


def _fled_to(shaper: Shaper, facts: Facts) -> tuple[tuple[str, int], ...]:
    """The sources of the overflow pool, where mail may go by those."""
    overflow = shaper.sources.overflow(facts.pool)
    stays = not overflow or (shaper.rules.bulk(facts.stream) and shaper.sources.guarded(facts.pool))
    return () if stays else shaper.sources.pool(overflow)


def next_try(shaper: Shaper, facts: Facts, last: RecipientOutcome) -> str:
    """Who set when a unit is tried again whose last answer was `last`: a rule that heeds what the site asks, or the ladder."""
    traffic, place = shaper.rules.policy.traffic, shaper.rules.policy.place
    ladder = f"retry_seconds of stream {facts.stream}"
    for number, each in enumerate(traffic.ladders):
        where = place("ladders", number)
        # Of the shipped policy's ladders those of the settings go before them.
        if each.stream == facts.stream and not where.origin.startswith(SHIPPED):
            ladder = f"the ladder of stream {facts.stream}, {where}"
    reading = shaper.rules.responses.classify(facts, last)
    if reading.wait_seconds or reading.reply_class is ReplyClass.GREYLISTED:
        return f"what the reply asks for, by rule {reading.rule}, {_line(shaper, reading.rule)}; else {ladder}"
    return ladder


def speed(shaper: Shaper, site: SiteShape, facts: Facts, observed: Speed, now: float) -> Speed:
    """How fast mail of `facts` goes: what was observed, unless limits and back-off allow less now."""
    rates: dict[str, float] = {}
    shared = math.inf
    at = shaper.learned.at(site.name)
    paths = [shaper.path(site, facts, source) for source, _ in shaper.sources.pool(facts.pool)[:MOST_SOURCES]]
    for path in paths:
        counters: tuple[Gate | Scope, ...] = (*path.gates, *_scopes(shaper, at, path.facts.source, facts))
        for counter in counters:
            rate = counter.rate if isinstance(counter, Gate) else counter.limits(now).rate_per_second
            if rate and sum(counter in other.gates for other in paths) == len(paths) > 1:
                shared = min(shared, rate)
            elif rate:
                source = path.facts.source
                rates[source] = min(rates.get(source, math.inf), rate)
    together = min(shared, sum(rates.get(path.facts.source, math.inf) for path in paths))
    if 0 < together < (observed.per_second or math.inf):
        return Speed(together, "which is what limits and back-off allow now")
    return observed


def site_story(shaper: Shaper, site: SiteShape, now: float) -> dict[str, Any]:
    """Everything that shaping knows of a site, JSON-ready."""
    at = shaper.learned.at(site.name)
    replies = shaper.learned.standings.replies.get(site.name, {})
    sources = dict.fromkeys(source for name, _ in site.pools for source, _ in shaper.sources.pool(name))
    sources |= dict.fromkeys(path.facts.source for path in site.paths.values())
    return {
        "provider": site.provider,
        "hosts": sorted(site.hosts),
        "policy_applies": site.ruled,
        "per_second": site.pace.per_second(now),
        "sources": {source: _source(shaper, site, at, source, now) for source in list(sources)[:MOST_SOURCES]},
        "tenants": {tenant: pace.per_second(now) for tenant, pace in site.tenants.items()},
        "scopes": [_scope(scope, now) for scope in _all_scopes(at)],
        "health": _health(at, now),
        "replies": {class_: reply._asdict() for class_, reply in replies.items()},
    }


def paused(shaper: Shaper, now: float) -> list[dict[str, Any]]:
    """What replies have paused, or have probed, in this partition: `scope`, `until`, `why`. Dead sites besides."""
    scopes = [scope for scope in shaper.learned.scopes() if scope.limits(now).probing]
    scopes += [scope for scope in shaper.wide.sources.values() if scope.limits(now).probing]
    found = [
        {"scope": scope_text(scope.key), "until": scope.limits(now).paused_until, "why": _because(scope)}
        for scope in scopes
    ]
    for name, at in shaper.learned.sites.items():
        if at.health.dead_since:
            found.append({"scope": f"site {name}", "until": at.health.probe_at, "why": "it does not answer"})
    return found[:MOST_PAUSED]


def standings(shaper: Shaper) -> dict[str, str]:
    """Source → how it stands where it does not stand well."""
    sites: dict[str, dict[int, list[str]]] = {}
    for (kind, source, site), stand in shaper.learned.standings.stands.items():
        if kind == "source|site" and stand.standing.state:
            sites.setdefault(source, {}).setdefault(stand.standing.state, []).append(site)
    return {
        source: ", ".join(
            f"{reputation.STATES[state]} at {names[0] if len(names) == 1 else f'{len(names)} sites'}"
            for state, names in sorted(states.items(), reverse=True)
        )
        for source, states in sites.items()
    }


# --- what holds -------------------------------------------------------------------------------------------------------
def _whatever_source(shaper: Shaper, at: AtSite | None, facts: Facts, now: float) -> Iterator[Reason]:
    if at is None:
        return
    for scope in (at.site, at.tenants.get(facts.tenant), at.domains.get(facts.domain)):
        if scope is not None:
            yield from _of_scope(shaper, scope, now)
    if at.health.dead_since:
        text = "the site does not answer; one attempt at a time tries whether it does again"
        yield Reason("dead", text, "failed connections", max(0.0, at.health.probe_at), "router")


def _of_source(
    shaper: Shaper, site: SiteShape, at: AtSite | None, facts: Facts, source: str, now: float
) -> Iterator[Reason]:
    path = shaper.path(site, facts, source)
    if not path.lanes or not shaper.sources.lanes.get(source):
        yield Reason("source", f"source {source} has no lane", shaper.sources.where("source", source), 0.0, "router")
        return
    for gate in path.gates:
        yield from _of_gate(shaper, gate, now)
    if path.in_flight >= path.window:
        text = f"source {source} has {path.in_flight} units of the site in hand: what its connections can take"
        yield Reason("window", text, _place(shaper, site, path, "concurrency"), 0.0, "router")
    scopes = (at.sources.get(source) if at is not None else None, shaper.wide.sources.get(source))
    for scope in scopes:
        if scope is not None:
            yield from _of_scope(shaper, scope, now)
    if at is not None and not at.health.dead_since:
        standing = site_health.standing(at.health, source, now)
        if standing.kind != ALIVE and (standing.wait_until > now or path.in_flight):
            text = f"the site does not let source {source} in"
            yield Reason("blocked", text, "failed connections", standing.wait_until, "router")
    yield from _of_reputation(shaper, path, facts, now)


def _of_reputation(shaper: Shaper, path: Path, facts: Facts, now: float) -> Iterator[Reason]:
    source, site, warm = path.facts.source, path.facts.site, path.warm
    if warm is not None and warm.allowance(now) <= 0:
        text = f"source {source} warms up: {warm.reason(now) or 'its next messages are being reserved'}"
        yield Reason("warm-up", text, f"warm-up plan {warm.plan.name}", warm.more_at(now), "router")
    state = shaper.learned.standings.state("source|site", source, site)
    if state == reputation.QUARANTINE and shaper.rules.bulk(facts.stream):
        text = f"source {source} is in quarantine at the site: one unit a minute tries whether that has changed"
        yield Reason("reputation", text, _why_standing(shaper, source, site), 0.0, "router")


def _of_gate(shaper: Shaper, gate: Gate, now: float) -> Iterator[Reason]:
    if gate.suspend:
        yield Reason("limit", f"limit {gate.key} suspends it", _where(shaper, gate, "suspend"), 0.0, "router")
    elif gate.spans and shaper.leases is not None:
        wait = shaper.leases.wait(gate.key, shaper.holder) if not gate.total.whole else 0.0
        usable = shaper.leases.usable(gate.key, shaper.holder)
        if wait > 0 or (gate.total.whole and gate.in_flight >= usable):
            text = f"limit {gate.key}: our share of {gate.total.total:g} is {usable:g}"
            until = now + wait if math.isfinite(wait) and wait > 0 else 0.0
            yield Reason("rate", text, _where(shaper, gate, "message_rate"), until, "all partitions together")
    elif gate.in_flight >= gate.window:
        text = f"limit {gate.key}: {gate.in_flight} of {gate.window:g} units are in senders' hands"
        yield Reason("window", text, _where(shaper, gate, "window"), 0.0, "router")
    elif (free := gate.free_at(now)) > now and isinstance(gate, Ramp):
        text = f"limit {gate.key}: no more than twice the last minute's pace, {gate.rate:.3g} messages per second now"
        yield Reason("ramp", text, _where(shaper, gate, "ramp"), free, "router")
    elif free > now:
        text = f"limit {gate.key}: {gate.rate:.3g} messages per second are used up"
        yield Reason("rate", text, _where(shaper, gate, "message_rate"), free, "router")


def _of_scope(shaper: Shaper, scope: Scope, now: float) -> Iterator[Reason]:
    limits, free = scope.limits(now), scope.free_at(now)
    if free <= now:
        return
    what = scope_text(scope.key)
    if limits.paused_until > now:
        text = f"{what} is paused: {_because(scope)}"
        yield Reason("pause", text, _rule_place(shaper, scope), limits.paused_until, "router")
    elif limits.probing:
        until = free if math.isfinite(free) else 0.0
        text = f"{what} is probed, one message a minute, until one is accepted: {_because(scope)}"
        yield Reason("probe", text, _rule_place(shaper, scope), until, "router")
    else:
        text = f"{what} is slowed to {limits.rate_per_second:.3g} messages per second: {_because(scope)}"
        yield Reason("back-off", text, _rule_place(shaper, scope), free, "router")


def _because(scope: Scope) -> str:
    state = scope.state
    return f"rule {state.rule} by the reply {state.reply}" if state.rule else "as it was before this owner"


# --- where it stands --------------------------------------------------------------------------------------------------
def _where(shaper: Shaper, gate: Gate, quantity: str) -> str:
    if gate.key.startswith(ROUTE):
        return "messages_per_second of its [[route]] in the settings"
    return str(shaper.rules.policy.place("limits", gate.limit, "cases", gate.case, quantity))


def _place(shaper: Shaper, site: SiteShape, path: Path, quantity: str) -> str:
    return next((limit["where"] for limit in _limits(shaper, site, path) if limit["quantity"] == quantity), "")


def _limits(shaper: Shaper, site: SiteShape, path: Path) -> list[dict[str, Any]]:
    """The limits that hold for a way: those of the policy, or of the settings where these allow less."""
    rules = shaper.rules
    told = [each for each in explain(rules.policy, rules.limits, path.facts) if each.decides and site.ruled]
    of_policy = least(rules.limits.effective(path.facts) if site.ruled else ())
    found: list[dict[str, Any]] = []
    for quantity, setting in OF_ROUTES.items():
        value = getattr(path.values, quantity)
        if value is not None and value != getattr(of_policy, quantity):
            found.append(
                {"quantity": quantity, "value": value, "limit": "[[route]]", "where": f"{setting} of its [[route]]"}
            )
    settled = {limit["quantity"] for limit in found}
    found += [
        {"quantity": each.quantity, "value": each.value, "limit": each.limit, "where": each.place}
        for each in told
        if each.quantity not in settled
    ]
    return found


def _rule_place(shaper: Shaper, scope: Scope) -> str:
    return _line(shaper, scope.state.rule) if scope.state.rule else ""


def _line(shaper: Shaper, name: str) -> str:
    for number, rule in enumerate(shaper.rules.policy.traffic.rules):
        if rule.name == name:
            return str(shaper.rules.policy.place("rules", number))
    return f"rule {name}, which is in the policy no more"


def _why_standing(shaper: Shaper, source: str, site: str) -> str:
    stand = shaper.learned.standings.stands.get(("source|site", source, site))
    return f"reputation: {stand.decision.reason}" if stand and stand.decision else "reputation"


# --- the story of a site ----------------------------------------------------------------------------------------------
def _source(shaper: Shaper, site: SiteShape, at: AtSite | None, source: str, now: float) -> dict[str, Any]:
    paths = [path for path in site.paths.values() if path.facts.source == source]
    stands = shaper.learned.standings
    told: dict[str, Any] = {
        "per_second": site.paces[source].per_second(now) if source in site.paces else 0.0,
        "in_flight": sum(path.in_flight for path in paths),
        "standing": reputation.STATES[stands.state("source|site", source, site.name)],
        "score": stands.score("source|site", source, site.name),
        "limits": [],
        "warm_up": None,
        "back_off": [_scope(scope, now) for scope in (_mine(at, source), shaper.wide.sources.get(source)) if scope],
    }
    if paths:
        # Mail that the limits treat otherwise has limits of its own; those of the first are shown.
        warm = paths[0].warm
        told["window"] = paths[0].window if math.isfinite(paths[0].window) else 0
        told["limits"] = _limits(shaper, site, paths[0])
        if warm is not None:
            told["warm_up"] = {"plan": warm.plan.name, "stage": warm.state.stage + 1, "left": warm.allowance(now),
                               "cap": warm.plan.cap(warm.state.stage), "why": warm.reason(now)}  # fmt: skip
    return told


def _mine(at: AtSite | None, source: str) -> Scope | None:
    return at.sources.get(source) if at is not None else None


def _scopes(shaper: Shaper, at: AtSite | None, source: str, facts: Facts) -> list[Scope]:
    mine = [shaper.wide.sources.get(source)]
    if at is not None:
        mine += [at.site, at.sources.get(source), at.tenants.get(facts.tenant), at.domains.get(facts.domain)]
    return [scope for scope in mine if scope is not None]


def _all_scopes(at: AtSite | None) -> list[Scope]:
    if at is None:
        return []
    return [*([at.site] if at.site else []), *at.sources.values(), *at.tenants.values(), *at.domains.values()]


def _scope(scope: Scope, now: float) -> dict[str, Any]:
    limits, state = scope.limits(now), scope.state
    what = "paused" if limits.paused_until > now else "probing" if limits.probing else "slowed"
    return {
        "scope": scope_text(scope.key),
        "what": what,
        "factor": state.factor / WHOLE,
        "per_second": limits.rate_per_second,
        "connections": limits.connections,
        "until": limits.paused_until,
        "rule": state.rule,
        "reply": state.reply,
    }


def _health(at: AtSite | None, now: float) -> dict[str, Any]:
    if at is None:
        return {"dead": False, "blocked": []}
    blocked = [
        failing.source
        for failing in at.health.failing
        if site_health.standing(at.health, failing.source, now).kind == site_health.BLOCKED
    ]
    return {"dead": bool(at.health.dead_since), "probe_at": at.health.probe_at, "blocked": blocked}
