"""One look at a pool and its sources: everything that is to be from what is, in one pure step.

The shell gathers a `View`, and carries out a `Steering` in this order: statuses (they reserve lanes), records, children. A
crash between any two leaves what the next look completes, for each step follows from the state of the world alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mailfleet_core.model import fleet, reputation, wire
from mailfleet_core.model.fleet import COMPLAINTS
from mailfleet_core.model.stats import Trouble
from mailfleet_operator.decisions import lanes, life, records, scaling, status
from mailfleet_operator.decisions.conditions import TRUE, Verdict
from mailfleet_operator.decisions.lanes import Held
from mailfleet_operator.decisions.life import Borders, Health, Life, Wish
from mailfleet_operator.decisions.membership import Belonging
from mailfleet_operator.decisions.refusal import Rates
from mailfleet_operator.decisions.resources import Address, Pool, Taken
from mailfleet_operator.decisions.scaling import Demand, Holding, Memory, Plan, Source, Spare
from mailfleet_operator.decisions.status import Figures, Look, PoolNow, Present, Senders
from mailfleet_operator.decisions.times import DAY_SECONDS, instant
from mailfleet_router.decisions.shaping.warmup import PLANS

BOUNCES = next(number for number, term in enumerate(reputation.TERMS) if term.kind == reputation.BOUNCED)
NORMAL, WARNING = "Normal", "Warning"


class Known(NamedTuple):
    """Everything about one source."""

    address: Address
    look: Look
    belonging: Belonging | None = None
    told: wire.Source | None = None
    """What the log says of it."""
    stats: fleet.Source | None = None
    """None: no fresh statistics."""
    ready_lanes: frozenset[int] = frozenset()
    """Lanes whose sender is ready."""


class Room(NamedTuple):
    """The lanes of the whole installation."""

    held: Mapping[str, Held]
    """Of all sources."""
    empty: frozenset[int]
    """Lanes in which nothing is under way."""
    total: int
    settle_seconds: float = 30.0


class View(NamedTuple):
    """A pool at one moment; or, with no pool, an address that belongs to none."""

    pool: Pool | None
    known: Sequence[Known]
    room: Room
    demand: fleet.Pool | None = None
    """None: no fresh statistics."""
    tenants: Sequence[fleet.Tenant] = ()
    troubles: Sequence[Trouble] = ()
    fit_spares: Sequence[str] = ()
    conflicts: Sequence[str] = ()


class Event(NamedTuple):
    """A decision and its inputs, for `kubectl describe`."""

    kind: str
    name: str
    severity: str
    reason: str
    message: str


class Steering(NamedTuple):
    """What is to be."""

    present: Mapping[str, Present]
    addresses: Mapping[str, dict[str, Any]]
    """Statuses of SendingIPs."""
    pool: dict[str, Any] | None
    """Status of the pool."""
    records: Mapping[str, wire.Source | None]
    """What the log is to be told; None: a source goes from it."""
    events: Sequence[Event]
    plan: Plan | None = None


def steer(view: View, now: float) -> Steering:
    """One look."""
    lives = {known.address.name: _live(view, known, now) for known in view.known}
    plan = _plan(view, lives, now)
    present = _present(view, lives, plan, now)
    told = {known.address.name: _record(view, known, present[known.address.name], now) for known in view.known}
    statuses = {
        known.address.name: _address_status(view, known, present[known.address.name], now) for known in view.known
    }
    events = [event for known in view.known for event in _changes(known, present[known.address.name])]
    if view.pool is None or plan is None:
        return Steering(present, statuses, None, _news(view, told), events)
    verdicts = _pool_verdicts(view, present, plan)
    whole = status.of_pool(view.pool, _pool_now(view, present, plan, verdicts), now)
    events += _pool_events(view.pool, plan, verdicts["ScalingLimited"])
    return Steering(present, statuses, whole, _news(view, told), events, plan)


# --- lives ----------------------------------------------------------------------------------------------------------------


def remembered(address: Address) -> Life:
    """The life that the status tells of."""
    was = address.status
    return Life(was.state, was.cause, instant(was.since), instant(was.improved_at))


def held(address: Address, told: wire.Source | None) -> Held:
    """The lanes of a source, as its status and the log have them."""
    releasing = tuple((each.lane, instant(each.since)) for each in address.status.releasing)
    return lanes.together(Held(address.status.lanes, releasing), told.lanes if told is not None else ())


def _live(view: View, known: Known, now: float) -> Life:
    address, pool = known.address, view.pool
    plan, started_at = _warmup(view, known)
    wish = Wish(
        address.spec.state,
        pool.name if pool is not None else "",
        pool.spec.paused if pool is not None else False,
        _plan_until(plan, started_at, now),
        pool.spec.preflight.require_ptr if pool is not None else True,
    )
    stats = known.stats
    health = Health(
        known.look.checks,
        stats.reading.acting if stats is not None else None,
        stats.day_cap >= 0 if stats is not None else None,
        not view.room.held.get(address.name, lanes.NOTHING).all,
    )
    return life.live(remembered(address), wish, health, _borders(pool), now)


def _borders(pool: Pool | None) -> Borders:
    if pool is None:
        return Borders()
    of = pool.spec.reputation
    return Borders(of.slow_below, of.quarantine_below, of.margin, pool.spec.scaling.cooldown_seconds)


def _warmup(view: View, known: Known) -> tuple[str, float]:
    """The plan that holds for it, and since when; 0: not yet."""
    was, spec = known.address.status, known.address.spec
    if known.belonging is not None and known.belonging.spare:
        plan, began = (view.pool.spec.warmup_plan if view.pool is not None else ""), 0.0
    else:
        plan, began = (spec.warmup.plan, instant(spec.warmup.started_at)) if spec.warmup is not None else ("", 0.0)
    if not plan:
        return "", 0.0
    return plan, instant(was.warmup_started_at) if was.warmup_plan == plan and was.warmup_started_at else began


def _plan_until(plan: str, started_at: float, now: float) -> float:
    """At the earliest; the plan of a traffic policy may have any number of days, so at least one."""
    days = len(PLANS[plan].day_caps) if plan in PLANS else 1
    return (started_at or now) + days * DAY_SECONDS if plan else 0.0


# --- scaling --------------------------------------------------------------------------------------------------------------


def _plan(view: View, lives: Mapping[str, Life], now: float) -> Plan | None:
    if view.pool is None:
        return None
    sources = [_source(view, known, lives[known.address.name]) for known in view.known]
    tenants = [Rates(each.name, each.complaint_rate, each.reading.rates[BOUNCES]) for each in view.tenants]
    demand = Demand(view.demand.waiting, view.demand.ready, view.demand.per_second) if view.demand is not None else None
    memory, holdings = memory_of(view.pool), _holdings(view, now)
    seen = scaling.View(view.pool.spec, memory, sources, demand, tenants, holdings, view.fit_spares)
    return scaling.plan(seen, now)


def memory_of(pool: Pool) -> Memory:
    """What the pool's status remembers."""
    was = pool.status
    refused = any(
        each.get("type") == "ScalingLimited" and each.get("status") == "True" and each.get("reason") == "Reputation"
        for each in was.conditions
    )
    spares = tuple(_spare(each) for each in was.spares if each.name in pool.spec.spares)
    return Memory(instant(was.shortage_since), instant(was.last_spare_time), spares, refused)


def _spare(taken: Taken) -> Spare:
    return Spare(taken.name, instant(taken.taken_at), instant(taken.needed_at), taken.reason)


def _source(view: View, known: Known, now_life: Life) -> Source:
    address, stats = known.address, known.stats
    requires_ptr = view.pool is None or view.pool.spec.preflight.require_ptr
    failing = address.spec.state != "Active" or life.fault(known.look.checks, requires_ptr) is not None
    rates = None
    if stats is not None and sum(stats.reading.seen) > 0:
        rates = Rates(address.name, stats.reading.rates[COMPLAINTS], stats.reading.rates[BOUNCES])
    return Source(
        address.name,
        now_life.state,
        len(view.room.held.get(address.name, lanes.NOTHING).lanes),
        instant(address.status.lanes_changed_at),
        known.belonging is not None and known.belonging.spare,
        stats.per_second if stats is not None else 0.0,
        scaling.allowance(stats.sent_today, stats.day_cap) if stats is not None else None,
        rates,
        failing,
    )


def _holdings(view: View, now: float) -> list[Holding]:
    """Troubles that have lasted long enough, or will."""
    assert view.pool is not None
    long = view.pool.spec.scaling.spare_after_seconds
    return [
        Holding(each.source, each.site, each.since, each.until)
        for each in view.troubles
        if each.source and each.site and each.state in scaling.HOLDING
        and ((each.since and now - each.since >= long) or each.until - now >= long)
    ]  # fmt: skip


# --- lanes and what is there ----------------------------------------------------------------------------------------------


def _present(view: View, lives: Mapping[str, Life], plan: Plan | None, now: float) -> dict[str, Present]:
    """Of every source; lanes are given one source after another, so that none is given twice."""
    found, given = {}, dict(view.room.held)
    for known in view.known:
        name = known.address.name
        before = given.get(name, lanes.NOTHING)
        wanted = plan.lanes.get(name, 0) if plan is not None else 0
        still = frozenset(known.told.lanes) if known.told is not None else frozenset[int]()
        room = view.room
        allotted = lanes.allot(given, name, wanted, room.empty - still, room.total, now, room.settle_seconds)
        given[name] = allotted.held
        same = len(before.lanes) == len(allotted.held.lanes)
        changed_at = instant(known.address.status.lanes_changed_at) if same else now
        warmup = _warmup(view, known)
        if lives[name].state == life.WARMING and not warmup[1]:
            warmup = (warmup[0], now)
        found[name] = Present(lives[name], allotted.held, changed_at, warmup)
    return found


def _record(view: View, known: Known, present: Present, now: float) -> wire.Source | None:
    state, address, told = present.life.state, known.address, known.told
    if told is None and state not in life.IN_USE:
        return None
    if told is not None and not present.held.all and state in (life.RETIRED, life.PENDING):
        # Nobody has it any more; routers hear that from one record, and a minute later it goes.
        return (
            None
            if told.state != wire.ACTIVE and now - told.at >= records.RETIRED_SECONDS
            else _away(view, known, present, now)
        )
    # Mail is dispatched to a lane only after its sender was there once.
    had = frozenset(told.lanes) if told is not None else frozenset()
    served = tuple(lane for lane in present.held.lanes if lane in had or lane in known.ready_lanes)
    was = told.pool if told is not None else ""
    return records.source(address, view.pool, was, state, present.life.cause, served, present.warmup, now)


def _away(view: View, known: Known, present: Present, now: float) -> wire.Source:
    was, now_life = (known.told.pool if known.told is not None else ""), present.life
    return records.source(known.address, view.pool, was, now_life.state, now_life.cause, (), present.warmup, now)


def _news(view: View, records_now: Mapping[str, wire.Source | None]) -> dict[str, wire.Source | None]:
    """What the log does not know yet."""
    told = {known.address.name: known.told for known in view.known}
    return {
        name: record
        for name, record in records_now.items()
        if (record is None and told[name] is not None) or (record is not None and records.news(told[name], record))
    }


# --- statuses and events --------------------------------------------------------------------------------------------------


def _address_status(view: View, known: Known, present: Present, now: float) -> dict[str, Any]:
    name, stats = known.address.name, known.stats
    figures = Figures(stats.score, stats.in_flight, stats.sent_today, stats.day_cap) if stats is not None else None
    troubles = [each for each in view.troubles if each.source == name]
    pool = view.pool.name if view.pool is not None else ""
    return status.of_address(known.address, pool, present, known.look, figures, troubles, now)


def _pool_verdicts(view: View, present: Mapping[str, Present], plan: Plan) -> dict[str, Any]:
    assert view.pool is not None
    lives = {name: each.life for name, each in present.items()}
    limited = plan.limited
    short = sum(plan.lanes.get(name, 0) - len(each.held.lanes) for name, each in present.items())
    if short > 0:
        text = f"{short} more senders are wanted, and all {view.room.total} lanes are taken; raise [bus] lanes"
        limited = Verdict(TRUE, "NoLanes", text)
    return {
        "Ready": status.pool_ready(view.pool, lives, _senders(view, present), view.conflicts),
        "ScalingLimited": limited,
        "ReputationHealthy": status.reputation(lives, _scores(view)),
    }


def _senders(view: View, present: Mapping[str, Present]) -> Senders:
    desired = sum(len(each.held.lanes) for each in present.values())
    there = sum(len(known.ready_lanes & set(present[known.address.name].held.lanes)) for known in view.known)
    return Senders(desired, there)


def _scores(view: View) -> dict[str, float]:
    return {known.address.name: known.stats.score for known in view.known if known.stats is not None}


def _pool_now(view: View, present: Mapping[str, Present], plan: Plan, verdicts: Mapping[str, Any]) -> PoolNow:
    lives = {name: each.life for name, each in present.items()}
    demand = (view.demand.waiting, view.demand.ready) if view.demand is not None else None
    return PoolNow(lives, _scores(view), _senders(view, present), plan.memory, demand, verdicts)


def _changes(known: Known, present: Present) -> list[Event]:
    address, events = known.address, []
    before, after = remembered(address), present.life
    if before.state != after.state:
        bad = after.state in (life.SLOW, life.QUARANTINED, life.DRAINING)
        text = f"{before.state} → {after.state}" + (f": {after.message}" if after.message else "")
        events.append(Event("SendingIP", address.name, WARNING if bad else NORMAL, after.cause or after.state, text))
    had, has = held(address, known.told).lanes, present.held.lanes
    if len(had) != len(has):
        text = f"lanes {_list(had)} → {_list(has)}; score {_score(known)}, {_rate(known)}"
        events.append(
            Event("SendingIP", address.name, NORMAL, "ScaledUp" if len(has) > len(had) else "ScaledDown", text)
        )
    return events


def _list(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers)) or "none"


def _score(known: Known) -> str:
    return f"{known.stats.score:.0f}" if known.stats is not None else "not known"


def _rate(known: Known) -> str:
    return f"{known.stats.per_second:.1f}/s" if known.stats is not None else "rate not known"


def _pool_events(pool: Pool, plan: Plan, limited: Verdict) -> list[Event]:
    events = []
    if plan.take:
        events.append(Event("SenderPool", pool.name, NORMAL, "SpareTaken", f"{plan.take}: {plan.why}"))
    if plan.give_back:
        events.append(Event("SenderPool", pool.name, NORMAL, "SpareGivenBack", f"{plan.give_back}: {plan.why}"))
    was = next((each for each in pool.status.conditions if each.get("type") == "ScalingLimited"), {})
    if limited.status == "True" and (was.get("status"), was.get("reason")) != (limited.status, limited.reason):
        text = f"ScalingLimited: {limited.message} [{plan.why}]" if plan.why else f"ScalingLimited: {limited.message}"
        events.append(Event("SenderPool", pool.name, WARNING, limited.reason, text))
    return events
