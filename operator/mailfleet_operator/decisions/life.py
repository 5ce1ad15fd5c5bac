"""The life of a SendingIP: pending → preflight → warming → active ⇄ slow ⇄ quarantined → draining → retired.

What is wrong with the address itself (its PTR, a listing, no plumbing, another address seen outside) drains it at once and
everywhere. What single sites hold against it is the routers' business and changes nothing here.

Changes for the better keep a cool-down from the last change, and come one step at a time. Changes for the worse that follow
from a score keep it from the last change for the better, so that nothing goes up and down within one cool-down.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from mailfleet_operator.decisions.conditions import FALSE, TRUE, UNKNOWN, Verdict

PENDING, PREFLIGHT, WARMING, ACTIVE = "Pending", "Preflight", "Warming", "Active"
SLOW, QUARANTINED, DRAINING, RETIRED = "Slow", "Quarantined", "Draining", "Retired"
STATES = (PENDING, PREFLIGHT, WARMING, ACTIVE, SLOW, QUARANTINED, DRAINING, RETIRED)
SENDING = frozenset({WARMING, ACTIVE, SLOW})
"""States in which mail goes by it as usual."""
IN_USE = SENDING | {QUARANTINED}

PLUMBED, PTR, NOT_LISTED, PORT25, EGRESS = "Plumbed", "PTRVerified", "NotListed", "Port25Reachable", "EgressVerified"
CHECKS = (PTR, NOT_LISTED, PLUMBED, PORT25, EGRESS)
"""In the order in which they are told of."""
READY = "Ready"

DAY_SECONDS = 86400.0
UNKNOWN_YET = Verdict(UNKNOWN, "NotChecked", "")

WISHED = frozenset({"Drained", "Retiring", "NoPool"})
"""Causes of a drain that somebody wished; what was wished is taken back without a cool-down."""


SPARE = "Spare"
AS_WISHED = frozenset({SPARE, "Drained", "Retired"})
"""Causes of not sending with which all is as its spec and the pools want it."""


class Life(NamedTuple):
    """How far an address is."""

    state: str = PENDING
    cause: str = ""
    """Why, as a reason of conditions."""
    since: float = 0.0
    improved_at: float = 0.0
    """When it last changed for the better; 0: never."""
    message: str = ""


class Wish(NamedTuple):
    """What people and pools want of it."""

    state: str = "Active"
    """Active, Drained or Retired, from the spec."""
    pool: str = ""
    """That it belongs to; empty: none."""
    paused: bool = False
    """Of the pool."""
    plan_until: float = 0.0
    """When its warm-up plan is through, at the earliest; 0: it has none."""
    requires_ptr: bool = True


class Health(NamedTuple):
    """What is known of it now."""

    checks: Mapping[str, Verdict]
    score: float | None = None
    """None: no fresh statistics."""
    warming: bool | None = None
    """Its warm-up limits it somewhere; None: not known."""
    empty: bool = True
    """It has no lanes, and nothing is under way in those that it had."""


class Borders(NamedTuple):
    """When the score changes its state."""

    slow_below: float = 60
    quarantine_below: float = 40
    margin: float = 10
    cooldown_seconds: float = 300


def fault(checks: Mapping[str, Verdict], requires_ptr: bool = True) -> Verdict | None:
    """The first check that is definitely not passed."""
    for kind in CHECKS:
        verdict = checks.get(kind, UNKNOWN_YET)
        if verdict.status == FALSE and (kind != PTR or requires_ptr):
            return verdict
    return None


def fit(checks: Mapping[str, Verdict], requires_ptr: bool = True) -> bool:
    """May it send? Its PTR must be known to be right; the rest must not be known to be wrong, for blocklists and port 25
    cannot be asked everywhere."""
    known = not requires_ptr or checks.get(PTR, UNKNOWN_YET).status == TRUE
    return known and fault(checks, requires_ptr) is None


def live(before: Life, wish: Wish, health: Health, borders: Borders, now: float) -> Life:
    """The next state; the same one when nothing changes."""
    state, cause, message = _next(before, wish, health, borders, now)
    if state == before.state:
        return before._replace(cause=cause, message=message)
    better = _rank(state) > _rank(before.state)
    return Life(state, cause, now, now if better else before.improved_at, message)


def _rank(state: str) -> int:
    return {RETIRED: 0, DRAINING: 1, PENDING: 1, PREFLIGHT: 1, QUARANTINED: 2, SLOW: 3, WARMING: 4, ACTIVE: 4}[state]


_Next = tuple[str, str, str]


def _next(before: Life, wish: Wish, health: Health, borders: Borders, now: float) -> _Next:
    if before.state == RETIRED:
        return RETIRED, "Retired", before.message
    if wish.state != "Active" or not wish.pool:
        return _unwanted(before, wish, health)
    wrong = fault(health.checks, wish.requires_ptr)
    if wrong is not None:
        return (
            DRAINING if before.state in IN_USE or before.state == DRAINING else PREFLIGHT,
            wrong.reason,
            wrong.message,
        )
    if before.state == DRAINING:
        rested = before.cause in WISHED or now - before.since >= borders.cooldown_seconds
        return (PREFLIGHT, "Checking", "") if rested else (DRAINING, before.cause, before.message)
    if before.state in (PENDING, PREFLIGHT):
        return _preflight(wish, health, now)
    return _by_score(before, wish, health, borders, now)


def _unwanted(before: Life, wish: Wish, health: Health) -> _Next:
    if wish.state == "Retired":
        return (RETIRED, "Retired", "") if health.empty else (DRAINING, "Retiring", "its last mail is on its way")
    if wish.state == "Drained":
        return DRAINING, "Drained", "its spec says Drained"
    if before.state in (PENDING, PREFLIGHT) or health.empty:
        wrong = fault(health.checks, wish.requires_ptr)
        if wrong is not None:
            return PENDING, wrong.reason, wrong.message
        if fit(health.checks, wish.requires_ptr):
            return PENDING, SPARE, "it passed preflight and may be taken by a pool"
        return PENDING, "Checking", "it belongs to no pool, and preflight is not through"
    return DRAINING, "NoPool", "it belongs to no pool any more"


def _preflight(wish: Wish, health: Health, now: float) -> _Next:
    if not fit(health.checks, wish.requires_ptr):
        return PREFLIGHT, "Checking", "preflight is not through"
    if wish.paused:
        return PREFLIGHT, "Paused", "the pool is paused"
    return _full(wish, health, now)


def _full(wish: Wish, health: Health, now: float) -> _Next:
    """What it is when nothing speaks against it."""
    if wish.plan_until and (now < wish.plan_until or health.warming is not False):
        return WARMING, "Warming", "it sends what its warm-up plan allows"
    return ACTIVE, "Active", ""


def _by_score(before: Life, wish: Wish, health: Health, borders: Borders, now: float) -> _Next:
    stay = (before.state, before.cause, before.message)
    if wish.paused or health.score is None:
        return stay
    aim = _aim(before.state, health.score, borders)
    rest = borders.cooldown_seconds
    if aim < _rank(before.state):
        return _named(aim, wish, health, now) if now - before.improved_at >= rest else stay
    if aim > _rank(before.state):
        return _named(_rank(before.state) + 1, wish, health, now) if now - before.since >= rest else stay
    # A plan that is through stays so, whatever a provider that is new to the source has it begin with.
    return stay if before.state == ACTIVE else _named(aim, wish, health, now)


def _aim(state: str, score: float, borders: Borders) -> int:
    """The rank that the score is worth: worse at a border, better only so far above it."""
    rank = 2 if score < borders.quarantine_below else 3 if score < borders.slow_below else 4
    now = _rank(state)
    if rank <= now:
        return rank
    over = score - borders.margin
    return max(now, 2 if over < borders.quarantine_below else 3 if over < borders.slow_below else 4)


def _named(rank: int, wish: Wish, health: Health, now: float) -> _Next:
    if rank == 4:
        return _full(wish, health, now)
    score = f"its score is {health.score:.0f}"
    if rank == 3:
        return SLOW, "LowScore", score
    return QUARANTINED, "LowScore", score


def ready(life: Life) -> Verdict:
    """The condition Ready: it is what it is wished to be. Who waits for resources (`helm --wait`) waits for this."""
    if life.state in SENDING or life.cause in AS_WISHED:
        return Verdict(TRUE, life.cause if life.cause in AS_WISHED else life.state, life.message)
    # A cause that a resource was given by hand may be no reason at all.
    cause = life.cause if life.cause.isalnum() else life.state
    return Verdict(FALSE, cause, life.message or life.state.lower())
