"""A meter: lets through what a rate allows, and counts it when it left this process."""

from __future__ import annotations

import asyncio

from mailfleet_sender.decisions.throttle import NO_LIMIT, Rate, changed, empty, left_at, take, wait


class Meter:
    """One rate of a path. Whoever takes one writes it in the same turn of the loop."""

    __slots__ = ("_loop", "_paid_at", "_rate", "_since", "_taken")

    def __init__(self, since: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._since: float | None = since
        """What was sent before it is not known. None: a rate was set since."""
        self._rate = NO_LIMIT
        self._paid_at = since
        self._taken = 0
        """In this turn of the loop."""

    @property
    def limited(self) -> bool:
        """Is there a rate?"""
        return self._rate.per_second > 0

    def obey(self, rate: Rate) -> None:
        """Keep to another rate from now on; what was taken stays taken."""
        if self._since is not None:
            self._paid_at = empty(rate, self._since)
            self._since = None
        elif rate != self._rate:
            self._paid_at = changed(self._paid_at, self._rate, rate, self._loop.time())
        self._rate = rate

    def wait(self) -> float:
        """Seconds until one may be taken; 0.0: now."""
        return wait(self._paid_at, self._rate, self._loop.time())

    def take(self) -> float:
        """0.0 and one is taken, or the seconds to wait."""
        if not self._rate.per_second:
            return 0.0
        self._paid_at, seconds = take(self._paid_at, self._rate, self._loop.time())
        if not seconds:
            if not self._taken:
                self._loop.call_soon(self._left)
            self._taken += 1
        return seconds

    def owes(self) -> bool:
        """Would a new meter allow more than this one?"""
        return self._rate.per_second > 0 and self._paid_at > self._loop.time()

    def _left(self) -> None:
        # The turn in which they were taken is over, and with it the loop has written them. It may have been a long one,
        # and the receiver counts from what it sees: another one is due a whole interval after that.
        self._paid_at = left_at(self._paid_at, self._rate, self._taken, self._loop.time())
        self._taken = 0
