"""How fast a scope has lately sent, from its attempts."""

from __future__ import annotations

import math

OVER_SECONDS = 60.0
"""An attempt so long ago counts for 1/e of one that is made now."""


LOOK_SECONDS = 1.0
"""Attempts of so long are counted together."""


class Pace:
    """A decaying count of attempts."""

    __slots__ = ("_at", "_count", "_new", "attempts")

    def __init__(self) -> None:
        self._at, self._count, self._new = 0.0, 0.0, 0
        self.attempts = 0
        """All of them."""

    def count(self, at: float) -> None:
        """An attempt at `at`, in seconds; one that comes late counts as if it came now."""
        self._new += 1
        self.attempts += 1
        if at - self._at > LOOK_SECONDS:
            self._count = self._left(at)
            self._at, self._new = at, 0

    def per_second(self, now: float) -> float:
        """Attempts a second."""
        return self._left(now) / OVER_SECONDS

    def _left(self, now: float) -> float:
        return (self._count + self._new) * math.exp(-max(0.0, now - self._at) / OVER_SECONDS)


NO_PACE = Pace()
"""Of a scope that has sent nothing, or is not counted."""
