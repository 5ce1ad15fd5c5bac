"""Why a unit waits: everything that holds it, its place in the queue, and when it would go, with what that rests on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

WITHOUT_END = frozenset({"suspension", "limit", "source"})
"""What lasts until somebody changes it, where no end is known. The rest goes by itself: an answer, a token, a turn."""


class Reason(msgspec.Struct, frozen=True, gc=False):
    """One thing that holds a unit."""

    by: str
    """Its kind, a word: suspension, pause, rate, ramp, window, warm-up, deferral, dns, source, sender, router …"""
    text: str
    """What it is, a sentence without its end."""
    where: str = ""
    """Who set it and where: `policy.yaml:12`, `[[route]] all`, `alice by mailfleet suspend`, the reply that caused it."""
    until: float = 0.0
    """Seconds since 1970; 0: no end is known."""
    owner: str = ""
    """Who keeps it: `router`, `sender`, `postmaster`, `receiver`, `dns`."""


class Line(NamedTuple):
    """Units that wait in one line of a site's queue: those of a tenant in a priority."""

    priority: int
    tenant: str
    weight: float
    length: int
    floor: float = 0.0
    """The share of turns that its priority has while higher ones wait."""


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where a unit is in its site's queue."""

    ahead: int
    """Units that go before it if nothing else comes."""
    of: int
    """Units that are ready at the site, itself among them."""


class Speed(NamedTuple):
    """How fast a site's queue moves; 0: not known."""

    per_second: float = 0.0
    basis: str = ""
    """Where the number comes from, to end "at … per second, "."""


class Estimate(msgspec.Struct, frozen=True, gc=False):
    """When a unit would be tried."""

    at: float
    """Seconds since 1970; 0: that cannot be said."""
    text: str
    assumptions: tuple[str, ...] = ()


class Unit(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a queued unit. Instants are seconds since 1970, 0 where there is none."""

    unit_id: str
    state: str
    site: str
    domain: str
    partition: int
    router: str
    """The instance that owns the partition."""
    tenant: str
    stream: str
    pool: str
    campaign: str = ""
    recipients: tuple[str, ...] = ()
    attempts: int = 0
    since: float = 0.0
    """In this state."""
    due_at: float = 0.0
    accepted_at: float = 0.0
    expires_at: float = 0.0
    last: str = ""
    """The last answer."""


class Answer(msgspec.Struct, frozen=True):
    """Why it waits. `msgspec.to_builtins` makes it JSON."""

    unit: Unit
    summary: str
    reasons: tuple[Reason, ...]
    """The one that holds it longest first."""
    place: Place | None
    """None: it is not in the queue of what is ready."""
    estimate: Estimate


def place(lines: Iterable[Line], priority: int, tenant: str, index: int) -> Place:
    """The place of the unit that is at `index` (from 0) in its tenant's line, as turns go in `Fair`.

    Exact to a round of turns: who has the next one is not looked at.
    """
    everyone = list(lines)
    mine = next((line for line in everyone if (line.priority, line.tenant) == (priority, tenant)), None)
    if mine is None:
        return Place(0, max(1, sum(line.length for line in everyone)))
    rounds = index / mine.weight
    beside = sum(
        min(line.length, int(line.weight * rounds + line.weight / 2))
        for line in everyone
        if line.priority == priority and line is not mine
    )
    ahead = index + beside
    higher = sum(line.length for line in everyone if line.priority < priority)
    if higher:
        # While higher priorities wait, this one has its floor of all turns.
        by_floor = int((ahead + 1) / mine.floor) if mine.floor else ahead + higher
        ahead = min(ahead + higher, max(ahead, by_floor))
    return Place(ahead, sum(line.length for line in everyone))


def estimate(
    now: float, reasons: Iterable[Reason], ahead: int, speed: Speed, due_at: float, expires_at: float
) -> Estimate:
    """When a unit would be tried that is held by `reasons` and has `ahead` units before it."""
    several = list(reasons)
    for reason in several:
        if not reason.until and reason.by in WITHOUT_END:
            return Estimate(0.0, f"not before that changes: {reason.text}")
    begins = max([now, due_at, *(reason.until for reason in several)])
    said = ["the estimate is of the next try; what the receiver answers is not known"]
    if begins > now:
        said.append("nothing holds it after that")
    if ahead and not speed.per_second:
        return Estimate(0.0, f"after {ahead} others; how fast the site takes mail is not known yet", tuple(said))
    at = begins + (ahead / speed.per_second if ahead else 0.0)
    if ahead:
        said.append(f"{ahead} others go before it, at {speed.per_second:.3g} per second, {speed.basis}")
        said.append("nothing of a higher priority or a heavier tenant comes after it")
    if expires_at and at >= expires_at:
        return Estimate(0.0, "not before it expires, as things are", tuple(said))
    return Estimate(at, "as soon as its turn comes" if at - now < 1.0 else "", tuple(said))


def compose(unit: Unit, reasons: Sequence[Reason], where: Place | None, speed: Speed, now: float) -> Answer:
    """The whole answer for a unit that is still queued."""
    ordered = longest(reasons)
    summary = ordered[0].text if ordered else "nothing holds it; its turn has not come"
    if unit.state in ("in flight", "being settled"):
        when = Estimate(0.0, "it is being tried now" if unit.state == "in flight" else "its last attempt has ended")
    else:
        when = estimate(now, ordered, where.ahead if where else 0, speed, unit.due_at, unit.expires_at)
    return Answer(unit, summary, ordered, where, when)


def longest(reasons: Iterable[Reason]) -> tuple[Reason, ...]:
    """The one that holds longest first."""
    return tuple(sorted(reasons, key=_length, reverse=True))


def _length(reason: Reason) -> float:
    if reason.until:
        return reason.until
    return float("inf") if reason.by in WITHOUT_END else 0.0
