"""A rate as the receiver sees it: how many per second, and how many at once.

The state is the instant at which all that was taken is paid for at the rate. No window of w seconds has more than
per_second × w + burst, where each counts at the instant it left (`left_at`), not at the one it was allowed.
"""

from __future__ import annotations

import math
from typing import NamedTuple

_SLACK_SECONDS = 1e-6
"""Clocks and sums of floats are not exact; a wait that was promised must suffice."""


class Rate(NamedTuple):
    """`per_second` on average, `burst` at once; 0 per second is no limit."""

    per_second: float
    burst: float = 1.0


NO_LIMIT = Rate(0.0)


def rate_of(per_second: float, sharers: int) -> Rate:
    """One sharer's part of a limit, with a burst of a tenth of a second of it (at least one)."""
    part = per_second / max(1, sharers)
    return Rate(part, max(1.0, part / 10))


def empty(rate: Rate, since: float) -> float:
    """The state when nobody knows what was sent before `since`: the whole burst, just then."""
    return since + rate.burst / rate.per_second if rate.per_second > 0 else since


def wait(paid_at: float, rate: Rate, now: float) -> float:
    """Seconds until one may be taken; 0.0: now."""
    if rate.per_second <= 0:
        return 0.0
    seconds = paid_at - (rate.burst - 1.0) / rate.per_second - now
    return seconds if seconds > _SLACK_SECONDS else 0.0


def take(paid_at: float, rate: Rate, now: float) -> tuple[float, float]:
    """The state after taking one and 0.0, or the same state and the seconds after which taking one succeeds."""
    if seconds := wait(paid_at, rate, now):
        return paid_at, seconds
    if rate.per_second <= 0:
        return now, 0.0
    begin, period = max(paid_at, now), 1.0 / rate.per_second
    paid = begin + period
    # Rounded down a little each time, ten thousand messages in a row would be one too many.
    return (paid if paid - begin >= period else math.nextafter(paid, math.inf)), 0.0


def left_at(paid_at: float, rate: Rate, count: int, at: float) -> float:
    """The state once it is known that the last `count` that were taken left no later than `at`."""
    return max(paid_at, at + count / rate.per_second) if rate.per_second > 0 else paid_at


def changed(paid_at: float, old: Rate, new: Rate, now: float) -> float:
    """The state after a change of the rate: what is not paid for stays so, in messages, and nothing is refilled."""
    if old.per_second <= 0:
        return empty(new, now)
    owed = max(0.0, paid_at - now) * old.per_second
    return now + owed / new.per_second if new.per_second > 0 else now
