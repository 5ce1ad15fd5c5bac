"""A limit that spans owners, divided among them in leases that end.

One granter divides; a holder uses its newest lease until shortly before its end, and nothing after it. For each holder the
granter counts the largest share of any lease that may still be in use, and gives out only what is left, so the sum in force never
exceeds the limit, whichever of its leases a holder has read (Gray and Cheriton, 1989, https://doi.org/10.1145/74851.74870,
read 2026-11-22).

Leases and the claims of granters stand in one partition of the log. Who reads it ignores a lease that a granter wrote after a
newer granter's claim, so a zombie's leases are nobody's; and a new granter that has read up to its own claim knows every lease
that is in force. If it could not read them all, it waits until the last of them must have ended.

A holder is one owner of a shard, not the shard: a new owner is a new holder. It begins with an empty bucket and gets a lease of
its own while that of the old one runs out. What is in use when a lease of a concurrency ends cannot be called back: its holder
only takes no more, and says how many it has, which count as its share.

No instant goes from one machine to another: granter and holder count the same lease each by its own steady clock, the holder
from when it asked and the granter from when it gave, which is later. So no step of a clock makes a lease longer.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Container, Iterable, Mapping
from typing import NamedTuple

from mailfleet_core.model.wire import Struct

PERIOD_SECONDS = 5.0
"""Between two grants. Our design."""
TERM_SECONDS = 2 * PERIOD_SECONDS
"""The length of a lease. With two periods one renewal may be late, and what an idle holder had is free after the second."""
CLOCK_SECONDS = 1.0
"""A holder stops so much before the end: for clocks that do not run equally fast, and for what it does after it has looked."""
EARLY_SECONDS = 0.5
"""Between two grants when a holder that asks has nothing. Our design."""
MINIMUM_SHARE = 0.1
"""Of an equal share, for each holder, however idle it was. Our design."""
LEAST_SHARE = 1e-6
"""Of the limit: less than that is no share but what rounding leaves."""
BURST_SECONDS = 0.1
"""A holder of a rate may save so much of its share, and at least one message."""


class Limit(NamedTuple):
    """What is divided."""

    total: float
    """Messages per second; or units at once."""
    whole: bool = False
    """It is a number of units at once: shares are whole numbers."""
    burst: float = 0.0
    """Messages that may go at once, of all holders together; 0: a tenth of a second's worth."""


class Lease(Struct, frozen=True):
    """A holder's share until an instant."""

    holder: str
    share: float
    """Messages per second, or units at once."""
    until: float
    """By the clock of whoever has this value: the granter's or the holder's."""
    epoch: int
    """The granter's claim."""
    number: int
    """Which of the granter's leases it is: of two the later one counts."""


class Granter(Struct, frozen=True):
    """What a granter knows."""

    epoch: int
    leases: tuple[Lease, ...] = ()
    """In force, oldest first."""
    quiet_until: float = -math.inf
    """Before, a lease that it does not know may be in force."""
    granted_at: float = -math.inf
    number: int = 0


# --- the granter -------------------------------------------------------------------------------------------------
def adopt(epoch: int, leases: Iterable[Lease]) -> Granter:
    """The granter of a new claim that has read every lease before it (see `valid`)."""
    return Granter(epoch, tuple(leases))


def cautious(epoch: int, now: float) -> Granter:
    """The granter of a new claim that could not read what its predecessor gave."""
    return Granter(epoch, quiet_until=now + TERM_SECONDS + CLOCK_SECONDS)


def expire(granter: Granter, now: float) -> Granter:
    """Without the leases that have ended."""
    leases = tuple(lease for lease in granter.leases if lease.until > now)
    return granter if len(leases) == len(granter.leases) else _with(granter, leases)


def due_at(granter: Granter) -> float:
    """When `grant` will give leases again."""
    return max(granter.quiet_until, granter.granted_at + PERIOD_SECONDS)


def grant(
    granter: Granter,
    limit: Limit,
    demands: Mapping[str, float],
    now: float,
    used: Mapping[str, float] | None = None,
    early: bool = False,
) -> tuple[Granter, tuple[Lease, ...]]:
    """The leases of a new period, one for each holder that gets something; none before the period is over, unless `early`.

    `demands`: what each holder that is alive could use, in the unit of the limit; 0 is idle. A holder that is not named gets
    no new lease, and its old one ends. `used`: what a holder has in use of a number of units, whatever its lease says.
    """
    granter = expire(granter, now)
    if now < (granter.quiet_until if early else due_at(granter)):
        return granter, ()
    held = in_force(granter)
    for holder, units in (used or {}).items():
        held[holder] = max(held.get(holder, 0.0), units)
    free = limit.total - sum(held.values())
    shares = _fitted(divide(limit, demands, granter.number), held, free, limit.whole)
    number = granter.number
    until = now + TERM_SECONDS
    given = []
    for holder in sorted(shares):
        if shares[holder] > LEAST_SHARE * limit.total:
            number += 1
            given.append(Lease(holder, shares[holder], until, granter.epoch, number))
    leases = _without_smaller(granter.leases, given) + tuple(given)
    return Granter(granter.epoch, leases, granter.quiet_until, now, number), tuple(given)


def follows(granter: Granter, holder: str, epoch: int, number: int, landed: Container[int]) -> Granter:
    """A holder says that it has read all leases up to this one: those before the newest of its own are not in use.

    `landed`: numbers of this granter's leases that are certainly in the log; what did not get there was read by nobody.
    """
    read = [
        (lease.epoch, lease.number)
        for lease in granter.leases
        if lease.holder == holder and (lease.epoch != granter.epoch or lease.number in landed)
    ]
    newest = max((order for order in read if order <= (epoch, number)), default=(-1, -1))
    kept = tuple(lease for lease in granter.leases if lease.holder != holder or (lease.epoch, lease.number) >= newest)
    return granter if len(kept) == len(granter.leases) else _with(granter, kept)


def forget(granter: Granter, holder: str) -> Granter:
    """A holder says that it will use nothing any more."""
    return _with(granter, tuple(lease for lease in granter.leases if lease.holder != holder))


def in_force(granter: Granter) -> dict[str, float]:
    """What each holder may be using: the largest of its leases, since nobody knows which of them it has read."""
    held: dict[str, float] = {}
    for lease in granter.leases:
        held[lease.holder] = max(held.get(lease.holder, 0.0), lease.share)
    return held


def divide(limit: Limit, demands: Mapping[str, float], turn: int = 0) -> dict[str, float]:
    """What each holder ought to have: a minimum for all, then what they ask for in equal parts, then the rest likewise.

    Where there are fewer units than holders, `turn` says who goes without for now.
    """
    if not demands:
        return {}
    if limit.whole:
        return _divide_whole(int(limit.total), demands, turn)
    count = len(demands)
    minimum = MINIMUM_SHARE * limit.total / count
    wants = {holder: max(0.0, demand - minimum) for holder, demand in demands.items()}
    shares = _fill(limit.total - minimum * count, wants)
    rest = max(0.0, limit.total - minimum * count - sum(shares.values())) / count
    return {holder: minimum + share + rest for holder, share in shares.items()}


# --- the holder, and whoever reads -------------------------------------------------------------------------------
class Held(NamedTuple):
    """What a holder has read."""

    epoch: int = -1
    """The newest claim."""
    lease: Lease | None = None


def heard(held: Held, what: int | Lease, holder: str) -> Held:
    """After the next record of the log: a claim (its epoch) or a lease."""
    if isinstance(what, int):
        return held._replace(epoch=max(held.epoch, what))
    if what.holder != holder or what.epoch < held.epoch:
        return held
    old = held.lease
    if old is not None and (what.epoch, what.number) <= (old.epoch, old.number):
        return held
    return held._replace(lease=what)


def usable(lease: Lease | None, now: float) -> float:
    """The share that may be used at `now`; 0: none. A lease of an older granter runs on to its end."""
    return lease.share if lease is not None and now < lease.until - CLOCK_SECONDS else 0.0


def burst(share: float, limit: Limit | None = None) -> float:
    """What the bucket of a holder of a rate holds, in messages; without a lease its share is 0.

    All holders together save the burst of the limit, and one message each.
    """
    if limit is None or limit.burst <= 0 or limit.total <= 0:
        return max(1.0, share * BURST_SECONDS)
    return max(1.0, limit.burst * share / limit.total)


def valid(records: Iterable[int | Lease]) -> list[Lease]:
    """The leases in a partition of the log that are somebody's: those that stand before any newer claim than their own."""
    epoch, found = -1, []
    for record in records:
        if isinstance(record, int):
            epoch = max(epoch, record)
        elif record.epoch >= epoch:
            found.append(record)
    return found


# --- arithmetic --------------------------------------------------------------------------------------------------
def _with(granter: Granter, leases: tuple[Lease, ...]) -> Granter:
    return Granter(granter.epoch, leases, granter.quiet_until, granter.granted_at, granter.number)


def _without_smaller(leases: tuple[Lease, ...], given: Iterable[Lease]) -> tuple[Lease, ...]:
    """A new lease that ends later and is not smaller makes the old ones of its holder needless."""
    new = {lease.holder: (lease.share, lease.until) for lease in given}
    return tuple(
        lease
        for lease in leases
        if lease.holder not in new or lease.share > new[lease.holder][0] or lease.until > new[lease.holder][1]
    )


def _fill(amount: float, wants: Mapping[str, float]) -> dict[str, float]:
    """Equal parts up to what each wants (max-min fair)."""
    shares: dict[str, float] = {}
    for index, (want, holder) in enumerate(sorted((want, holder) for holder, want in wants.items())):
        shares[holder] = min(want, max(0.0, amount) / (len(wants) - index))
        amount -= shares[holder]
    return shares


def _divide_whole(total: int, demands: Mapping[str, float], turn: int) -> dict[str, float]:
    """One for each, the busy before the idle; then what they ask for; then the rest for those who ask most."""
    order = sorted(demands, key=lambda holder: (demands[holder] <= 0, zlib.crc32(f"{turn} {holder}".encode())))
    shares = {holder: 1.0 if place < total else 0.0 for place, holder in enumerate(order)}
    left = total - int(sum(shares.values()))
    wants = {holder: max(0.0, math.ceil(min(demands[holder], total)) - 1.0) for holder in order}
    added = _whole(left, wants)
    left -= sum(added.values())
    each, odd = divmod(left, len(order))
    busiest = set(sorted(order, key=lambda holder: (-demands[holder], holder))[:odd])
    return {holder: shares[holder] + added[holder] + each + (holder in busiest) for holder in order}


def _whole(amount: int, wants: Mapping[str, float]) -> dict[str, int]:
    """`_fill` in whole numbers; what rounding leaves goes to those who lack most."""
    parts = {holder: math.floor(part + 1e-9) for holder, part in _fill(amount, wants).items()}
    left = amount - sum(parts.values())
    for holder in sorted(wants, key=lambda holder: (parts[holder] - wants[holder], holder)):
        if left > 0 and wants[holder] >= parts[holder] + 1:
            parts[holder] += 1
            left -= 1
    return parts


def _fitted(wanted: Mapping[str, float], held: Mapping[str, float], free: float, whole: bool) -> dict[str, float]:
    """The shares that fit: what is less than a holder has needs nothing; what is more divides what is free."""
    missing = {holder: max(0.0, share - held.get(holder, 0.0)) for holder, share in wanted.items()}
    more: Mapping[str, float]
    if whole:
        more = _whole(max(0, math.floor(free)), missing)
    else:
        need = sum(missing.values())
        # The last bit is kept back: a sum of rounded numbers must not exceed the limit.
        part = max(0.0, min(1.0, free / need)) * (1 - 1e-12) if need > 0 else 0.0
        more = {holder: lack * part for holder, lack in missing.items()}
    return {holder: min(share, held.get(holder, 0.0)) + more[holder] for holder, share in wanted.items()}
