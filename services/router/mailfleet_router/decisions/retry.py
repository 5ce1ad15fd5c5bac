"""When a unit is tried again, or that it is not."""

from __future__ import annotations

import zlib

from mailfleet_router.decisions.policy import Ladder


def spread(unit_id: bytes, attempt: int) -> float:
    """A number in [0, 1) that is the same whoever asks: jitter for `next_attempt`.

    It is not thrown but computed, so that two routers that settle the same result agree.
    """
    return zlib.crc32(attempt.to_bytes(4, "big"), zlib.crc32(unit_id)) / 2**32


def next_attempt(
    ladder: Ladder, rung: int, ended_at: float, expires_at: float, jitter: float, asked: float = 0.0
) -> float | None:
    """When to try again after the deferral number `rung` (from 1) that ended at `ended_at`; None: it would be too late.

    `asked`: seconds that the site itself named, instead of the ladder's.
    """
    waits = ladder.retry_seconds or (300.0,)
    wait = asked or waits[min(max(rung, 1), len(waits)) - 1]
    due = ended_at + max(1.0, wait * (1.0 + max(0.0, ladder.jitter) * jitter))
    return due if due < expires_at else None
