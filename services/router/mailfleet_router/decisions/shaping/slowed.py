"""When mail goes that waits for a scope which is slowed or paused, if nothing but clean time changes it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import msgspec

from mailfleet_router.decisions.shaping.backoff import STEP, STEP_SECONDS, WHOLE, BackOff, Configured, limits_now

AT_ONCE = 1e9
"""Messages per second where nothing limits them."""


class Slowed:
    """Mail that waits for one scope, as the instant at which all of it has gone. A probe is taken to be accepted."""

    __slots__ = ("_configured", "_state", "gone_at")

    def __init__(self) -> None:
        self.gone_at = 0.0
        self._state, self._configured = BackOff(), Configured()

    def wait(self, state: BackOff, configured: Configured, now: float) -> float:
        """One more message; the seconds until it goes."""
        if state is not self._state or configured != self._configured:
            before = _messages(self._state, self._configured, now, self.gone_at)
            self.gone_at = _after(state, configured, now, before)
            self._state, self._configured = state, configured
        start = max(self.gone_at, now)
        self.gone_at = _after(state, configured, start, 1.0)
        return start - now


def limits_anything(state: BackOff, now: float) -> bool:
    """Is the scope slower than its limits at `now`, or still paused?"""
    return now < max(state.paused_until, state.cap_until) or state.probing or _whole_at(state) > now


def slow_until(state: BackOff) -> float:
    """The end of all that `state` does if no hit comes; infinite while it waits for a probe."""
    if state.probing:
        return math.inf
    return max(state.paused_until, state.cap_until, _whole_at(state))


def _whole_at(state: BackOff) -> float:
    return state.since + math.ceil((WHOLE - state.factor) / STEP) * STEP_SECONDS if state.factor < WHOLE else 0.0


def _messages(state: BackOff, configured: Configured, begin: float, end: float) -> float:
    # How many go from `begin` to `end`.
    count = 0.0
    for start, until, rate in _stretches(state, configured, begin):
        if start >= end:
            break
        count += (min(until, end) - start) * rate
    return count


def _after(state: BackOff, configured: Configured, begin: float, messages: float) -> float:
    # When so many messages have gone, beginning at `begin`.
    at = begin
    for start, until, rate in _stretches(state, configured, begin):
        if rate:
            at = start + messages / rate
            if at <= until:
                break
        messages -= (until - start) * rate
    return at


def _stretches(state: BackOff, configured: Configured, begin: float) -> Iterator[tuple[float, float, float]]:
    # Beginning, end and rate, on and on from `begin`; the last one has no end.
    if state.probing:
        state = msgspec.structs.replace(state, probing=False, since=max(state.since, state.probe_from))
    steps = [state.since + STEP_SECONDS * number for number in range(1, WHOLE // STEP + 2)]
    changes = sorted(at for at in {*steps, state.paused_until, state.cap_until} if at > begin)
    for until in (*changes, math.inf):
        limits = limits_now(state, configured, begin)
        yield begin, until, 0.0 if limits.paused_until else limits.rate_per_second or AT_ONCE
        begin = until
