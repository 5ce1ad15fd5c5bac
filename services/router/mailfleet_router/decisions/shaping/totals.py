"""Answers summed over the sites of a source, or of a tenant, without looking at all sites each time."""

from __future__ import annotations

import math
from typing import NamedTuple

from mailfleet_router.decisions.shaping import reputation
from mailfleet_router.decisions.shaping.reputation import DELIVERED, HALF_LIFE, OTHER, QUARANTINE, Reading


class Part(NamedTuple):
    """What one key has in a sum, as it was judged."""

    weights: tuple[float, ...] = (0.0,) * 6
    seen: tuple[int, ...] = (0,) * 6
    state: int = -1
    """-1: it was not judged yet."""
    at: float = 0.0


NO_PART = Part()


def part(reading: Reading, state: int, reports: bool, now: float) -> Part:
    """A judgement as a part of a sum. Where complaints are not reported (not `reports`), what was delivered is no
    denominator of complaints."""
    if reports:
        return Part(reading.weights, reading.seen, state, now)
    weights, seen = list(reading.weights), list(reading.seen)
    weights[OTHER] += weights[DELIVERED]
    seen[OTHER] += seen[DELIVERED]
    weights[DELIVERED], seen[DELIVERED] = 0.0, 0
    return Part(tuple(weights), tuple(seen), state, now)


class Total:
    """A sum. Between two judgements it decays as each of its parts does."""

    __slots__ = ("_at", "_states", "_weights", "seen")

    def __init__(self) -> None:
        self.seen = [0] * 6
        self._weights = [0.0] * 6
        self._at = 0.0
        self._states = [0] * (QUARANTINE + 1)
        """How many keys are in each state."""

    @property
    def worst(self) -> int:
        """The worst state of any of the keys."""
        for state in range(QUARANTINE, reputation.GOOD, -1):
            if self._states[state]:
                return state
        return reputation.GOOD

    def at(self, now: float) -> tuple[float, ...]:
        """The weights at `now`."""
        factor = _left(self._at, now)
        # What was taken away again may leave a rounding error.
        return tuple([weight * factor if weight > 0.0 else 0.0 for weight in self._weights])

    def change(self, before: Part, after: Part) -> None:
        """A key was judged anew."""
        mine, gone = _left(self._at, after.at), _left(before.at, after.at)
        for kind in range(6):
            more = after.weights[kind] - before.weights[kind] * gone
            self._weights[kind] = self._weights[kind] * mine + more
            self.seen[kind] += after.seen[kind] - before.seen[kind]
        self._at = after.at
        if before.state >= 0:
            self._states[before.state] -= 1
        self._states[after.state] += 1


def _left(at: float, now: float) -> float:
    """What is left at `now` of a weight at `at`; a clock that was put back makes nothing heavier."""
    return math.exp2(-max(0.0, now - at) / HALF_LIFE)
