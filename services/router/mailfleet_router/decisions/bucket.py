"""The rate of messages to a site, from all sources together."""

from __future__ import annotations

from typing import NamedTuple


class Bucket(NamedTuple):
    """Tokens and when they were counted. A new one is empty: after a move nobody knows what the old owner just sent."""

    tokens: float
    at: float


def fill(bucket: Bucket, rate: float, now: float) -> Bucket:
    """The bucket at `now`; it holds a fifth of a second's worth, at least one. A clock that went back adds nothing."""
    gained = max(0.0, now - bucket.at) * rate
    return Bucket(min(bucket.tokens + gained, max(1.0, rate * 0.2)), now)


def wait(bucket: Bucket, rate: float) -> float:
    """Seconds until there is a whole token."""
    return max(0.0, (1.0 - bucket.tokens) / rate)
