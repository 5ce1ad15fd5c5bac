"""What lets units through while a router runs: counters of limits, and scopes that replies have slowed."""

from __future__ import annotations

import math

from mailfleet_router.decisions.shaping import backoff, gcra
from mailfleet_router.decisions.shaping.backoff import BackOff, Configured, Limits
from mailfleet_router.decisions.shaping.leases import Limit
from mailfleet_router.decisions.shaping.pace import Pace

REFRESH_SECONDS = 1.0
"""What back-off allows changes by itself; it is computed anew so often."""
CLOSED_SECONDS = 60.0
"""What the policy closes is looked at so often: only another policy opens it, and that wakes everybody."""
RAMP = 2.0
"""Times the last minute's pace."""
RAMP_BURST_SECONDS = 5.0
"""Of a ramp's rate so much may go at once: a few mails at a time are no campaign."""
ONE_BY_ONE = 1
"""Units in senders' hands while a scope is probed."""


class Gate:
    """One counter of one limit: a rate, a window, or both."""

    __slots__ = (
        "burst", "case", "in_flight", "key", "limit", "looked_at", "narrow", "paid_at", "rate", "shared", "spans", "suspend",
        "total", "waiting", "window",
    )  # fmt: skip

    def __init__(self, key: str, since: float) -> None:
        """`since`: before, somebody else may have used the limit; its bucket is empty then."""
        self.key = key
        self.rate, self.burst, self.window = 0.0, 1.0, math.inf
        self.suspend = False
        self.limit, self.case = 0, 0
        """Where in the policy its values stand."""
        self.narrow = False
        """It does not hold for all mail of a pool at a site alike."""
        self.shared = False
        """It is not one site's alone."""
        self.spans = False
        """Other partitions' owners use it, too: its values are this owner's share."""
        self.total = Limit(0.0)
        """Of all owners."""
        self.looked_at = -math.inf
        """When it was last said what we could use."""
        self.waiting = 0
        """Units that did not go since then."""
        self.in_flight = 0
        self.paid_at = since

    def obey(self, rate: float, burst: float, window: float, now: float) -> None:
        """Other values: the debt stays, nothing is refilled."""
        if rate and not self.rate:
            self.paid_at = gcra.empty(rate, burst, self.paid_at)
        elif rate != self.rate:
            self.paid_at = gcra.changed(self.paid_at, self.rate, rate, now) if rate else now
        self.rate, self.burst, self.window = rate, burst, window

    def free_at(self, now: float) -> float:
        """When a unit may go: at most `now`: now; infinite: when one comes back."""
        if self.suspend or self.window < 1:
            return now + CLOSED_SECONDS
        if self.in_flight >= self.window:
            # Of a limit that others use, too, nobody tells us when it has room.
            return now + REFRESH_SECONDS if self.shared else math.inf
        if not self.rate:
            return 0.0
        wait = gcra.peek(self.paid_at, self.rate, self.burst, now)
        return now + wait if wait else 0.0

    def take(self, now: float) -> None:
        """A unit goes."""
        self.in_flight += 1
        if self.rate:
            self.paid_at, _ = gcra.reserve(self.paid_at, self.rate, self.burst, now)


class Ramp(Gate):
    """Begins slowly where nobody says what a receiver bears: at most twice the last minute's pace."""

    __slots__ = ("_followed_at", "_pace", "start")

    def __init__(self, key: str, since: float, start: float) -> None:
        """`start`: messages per second that are allowed at any time."""
        super().__init__(key, since)
        self.start = start
        self._pace = Pace()
        self._followed_at = -math.inf

    def free_at(self, now: float) -> float:
        """See `Gate.free_at`."""
        self._follow(now)
        return super().free_at(now)

    def take(self, now: float) -> None:
        """See `Gate.take`."""
        self._follow(now)
        super().take(now)
        self._pace.count(now)

    def _follow(self, now: float) -> None:
        if not 0 <= now - self._followed_at < REFRESH_SECONDS:
            self._followed_at = now
            rate = max(self.start, RAMP * self._pace.per_second(now))
            self.obey(rate, max(1.0, rate * RAMP_BURST_SECONDS), math.inf, now)


class Scope:
    """One scope that replies have slowed or paused, and its own bucket."""

    __slots__ = ("_fresh_until", "_limits", "_rate", "configured", "in_flight", "key", "paid_at", "state", "written")

    def __init__(self, key: str, state: BackOff, now: float) -> None:
        self.key = key
        self.state = state
        self.configured = Configured()
        self.in_flight = 0
        self.paid_at = now
        self.written = b""
        """Its state as it is in the log."""
        self._limits = Limits(0.0, 0, 0.0, False)
        self._rate = 0.0
        self._fresh_until = -math.inf

    def become(self, state: BackOff) -> None:
        """A reply, or time, changed it."""
        self.state, self._fresh_until = state, -math.inf

    def limits(self, now: float) -> Limits:
        """What it allows at `now`."""
        if not self._fresh_until - REFRESH_SECONDS <= now < self._fresh_until:
            self._limits = backoff.limits_now(self.state, self.configured, now)
            self._fresh_until = now + REFRESH_SECONDS
            rate = self._limits.rate_per_second
            if rate and rate != self._rate:
                # Nobody knows what was sent before: what has just been slowed, or taken over, has nothing saved.
                empty = gcra.empty(rate, gcra.default_burst(rate), self.paid_at)
                self.paid_at = gcra.changed(self.paid_at, self._rate, rate, now) if self._rate else empty
            self._rate = rate
        return self._limits

    def free_at(self, now: float) -> float:
        """When a unit may go (as `Gate.free_at`)."""
        limits = self.limits(now)
        if limits.paused_until > now:
            return limits.paused_until
        if limits.probing and self.in_flight >= ONE_BY_ONE:
            # Of a source's state for all sites the unit that comes back may be another site's.
            return now + REFRESH_SECONDS if self.key.startswith("source|") else math.inf
        if not limits.rate_per_second:
            return 0.0
        wait = gcra.peek(self.paid_at, limits.rate_per_second, gcra.default_burst(limits.rate_per_second), now)
        return now + wait if wait else 0.0

    def take(self, now: float) -> None:
        """A unit goes."""
        self.in_flight += 1
        if rate := self.limits(now).rate_per_second:
            self.paid_at, _ = gcra.reserve(self.paid_at, rate, 1.0, now)
