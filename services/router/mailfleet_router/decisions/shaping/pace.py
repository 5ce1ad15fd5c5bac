"""How fast a scope has lately sent, from its attempts."""

from __future__ import annotations

import math

OVER_SECONDS = 60.0
"""An attempt so long ago counts for 1/e of one that is made now."""


class Pace:
    """A decaying count of attempts."""

    __slots__ = ("_at", "_count")

    def __init__(self) -> None:
        self._at, self._count = 0.0, 0.0

    def count(self, at: float) -> None:
        """An attempt at `at`, in seconds; one that comes late counts as if it came now."""
        self._count = self._left(at) + 1.0
        self._at = max(self._at, at)

    def per_second(self, now: float) -> float:
        """Attempts a second."""
        return self._left(now) / OVER_SECONDS

    def _left(self, now: float) -> float:
        return self._count * math.exp(-max(0.0, now - self._at) / OVER_SECONDS)
