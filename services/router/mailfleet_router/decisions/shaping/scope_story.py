"""What would have happened to one scope, and what happened meanwhile."""

from __future__ import annotations

import msgspec

from mailfleet_router.decisions.shaping import backoff
from mailfleet_router.decisions.shaping.backoff import BackOff, Change, Hit
from mailfleet_router.decisions.shaping.slowed import slow_until

MAX_MOMENTS = 20
"""Changes that are kept to show; all are counted."""


class Moment(msgspec.Struct, frozen=True):
    """A change, and until when it holds if nothing else comes (seconds since 1970; 0: not known)."""

    at: float
    what: str
    why: str
    until: float


class ScopeStory:
    """A scope from the first thing that would have happened to it."""

    def __init__(self) -> None:
        self.state = BackOff()
        self.slowed, self.paused, self.disabled, self.dead = 0, 0, 0, 0
        """How often."""
        self.slowed_seconds, self.paused_seconds, self.dead_seconds = 0.0, 0.0, 0.0
        self.moments: list[Moment] = []
        self.held = 0
        """Recorded events that a unit was held."""
        self.attempts_meanwhile = 0
        """Recorded attempts, begun while the scope would have been paused."""
        self.longest_gap_seconds = 0.0
        """Between recorded attempts."""
        self._counted_to, self._attempted_at, self._dead_since = 0.0, 0.0, 0.0

    def hit(self, hit: Hit, what: str) -> Change | None:
        """A reply whose rule is for this scope has come."""
        self.advance(hit.at)
        self.state, change = backoff.hit(self.state, hit)
        if change:
            self.slowed += not hit.pause
            self.paused += what == "paused"
            self.disabled += hit.pause and what != "paused"
            self._remember(Moment(hit.at, change.what, change.why, change.until))
        return change

    def clean(self, started_at: float, at: float) -> None:
        """An attempt was accepted."""
        self.advance(at)
        self.state, change = backoff.clean(self.state, started_at, at)
        if change:
            self._remember(Moment(at, change.what, change.why, change.until))

    def health(self, change: Change, at: float, dead_before: float, dead_now: float) -> None:
        """The site died, came back, or changed its mind about a source."""
        self.advance(at)
        self.dead += bool(dead_now) and not dead_before
        self.dead_seconds += max(0.0, at - dead_before) if dead_before and not dead_now else 0.0
        self._dead_since = dead_now
        self._remember(Moment(at, change.what, change.why, change.until))

    def attempted(self, at: float) -> None:
        """An attempt was made, whatever came of it."""
        if self._attempted_at:
            self.longest_gap_seconds = max(self.longest_gap_seconds, at - self._attempted_at)
        self._attempted_at = max(self._attempted_at, at)
        self.attempts_meanwhile += self.state.paused_until - self.state.pause_seconds < at < self.state.paused_until

    def advance(self, now: float) -> None:
        """Count the time until `now`; it never goes back."""
        if now <= self._counted_to:
            return
        begin, state = self._counted_to, self.state
        limited = max(0.0, min(now, slow_until(state)) - begin)
        paused = max(0.0, min(now, state.paused_until) - max(begin, state.paused_until - state.pause_seconds))
        self.paused_seconds += paused
        self.slowed_seconds += max(0.0, limited - paused)
        self._counted_to = now

    def finish(self, now: float) -> None:
        """The record ends."""
        self.advance(now)
        if self._dead_since:
            self.dead_seconds += max(0.0, now - self._dead_since)
            self._dead_since = 0.0

    def _remember(self, moment: Moment) -> None:
        if len(self.moments) < MAX_MOMENTS:
            self.moments.append(moment)
