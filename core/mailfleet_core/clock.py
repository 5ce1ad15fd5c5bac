"""The only place that reads a clock or throws dice."""

from __future__ import annotations

import os
import random
import time
from typing import Protocol


class Clock(Protocol):
    """Time and chance as a service gets them."""

    def now(self) -> float:
        """Seconds since 1970, for people and for the log."""

    def monotonic(self) -> float:
        """Seconds that never step, for waits."""

    def jitter(self) -> float:
        """A number in [0, 1)."""

    def entropy(self, size: int) -> bytes:
        """`size` random bytes."""


class SystemClock:
    """The machine's."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
    jitter = staticmethod(random.random)
    entropy = staticmethod(os.urandom)
