"""The only place that reads a clock or throws dice."""

from __future__ import annotations

import logging
import os
import random
import time
from typing import Protocol

log = logging.getLogger(__name__)


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


SLEW = 500e-6
"""How much of the time that passes may go into following the machine's clock: as NTP slews (RFC 5905, 500 ppm)."""
STEP_SECONDS = 2.0
"""A machine's clock that is so far away has been stepped; it is told."""


class Steady:
    """Seconds since 1970 that never step: the machine's clock as it was at the start, and the time that has passed.

    A clock that somebody sets, or that NTP steps by days, must not expire mail, empty buckets or end pauses; what is
    wrong is made up for slowly.
    """

    def __init__(self) -> None:
        self._looked = passed()
        self._offset = time.time() - self._looked
        self._told = False

    def now(self) -> float:
        """The present instant."""
        at = passed()
        if at - self._looked >= 1.0:
            self._follow(at)
        return at + self._offset

    def _follow(self, at: float) -> None:
        apart = time.time() - at - self._offset
        most = SLEW * (at - self._looked)
        self._offset += min(most, max(-most, apart))
        self._looked = at
        stepped = abs(apart) > STEP_SECONDS
        if stepped and not self._told:
            log.warning(
                "the machine's clock was set; this process goes on by the time that has passed since its start",
                extra={"seconds": round(apart, 3)},
            )
        self._told = stepped


def passed() -> float:
    """Seconds since the machine was started, with those it slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class SystemClock:
    """The machine's."""

    now = staticmethod(Steady().now)
    monotonic = staticmethod(time.monotonic)
    jitter = staticmethod(random.random)
    entropy = staticmethod(os.urandom)
