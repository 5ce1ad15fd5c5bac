"""Token buckets: how many per second, and how many at once."""

from __future__ import annotations

from typing import NamedTuple

_ROUNDING = 1e-6
"""Clocks and sums of floats are not exact; a wait that was promised must suffice."""


class Rate(NamedTuple):
    """`per_second` on average, `burst` at once; 0 per second is no limit."""

    per_second: float
    burst: float = 1.0


class Bucket(NamedTuple):
    """What is left of a rate."""

    tokens: float
    at: float


def rate_of(per_second: float, sharers: int) -> Rate:
    """One sharer's part of a limit, with a burst of a tenth of a second of it (at least one)."""
    part = per_second / max(1, sharers)
    return Rate(part, max(1.0, part / 10))


def full(rate: Rate, now: float) -> Bucket:
    """A bucket nothing was taken from."""
    return Bucket(rate.burst, now)


def take(bucket: Bucket, rate: Rate, now: float) -> tuple[Bucket, float]:
    """The bucket after taking one and 0.0, or the same bucket and the seconds after which taking one succeeds."""
    if rate.per_second <= 0:
        return bucket, 0.0
    tokens = min(rate.burst, bucket.tokens + max(0.0, now - bucket.at) * rate.per_second)
    if tokens + _ROUNDING >= 1.0:
        return Bucket(max(0.0, tokens - 1.0), max(now, bucket.at)), 0.0
    # A clock that went back may not give anything, so the wait counts from the later instant.
    return bucket, (1.0 - tokens) / rate.per_second + max(0.0, bucket.at - now)
