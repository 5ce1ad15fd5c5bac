"""Rates over every window: what a limit allows, what was sent, by how much it was too much. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

TOLERANCE_SECONDS = 0.05
"""Between the sender's look at its clock and the arrival of its bytes: the rest of a turn of its loop, and the scheduler.

The sink's instants are the kernel's, so its own lateness is not in it.
"""
_ROUNDING = 1e-6


@dataclass
class Gate:
    """A receiver's own count: no window of w seconds has more than per_second × (w + tolerance) + burst."""

    per_second: float
    burst: int
    tolerance: float = TOLERANCE_SECONDS
    _due_at: float = float("-inf")
    """When what was let through would have come, had it come evenly."""

    def take(self, at: float) -> bool:
        """Is one at `at` within the limit? One that is not does not count: it was refused."""
        due_at = max(self._due_at, at)
        if due_at - at > (self.burst - 1) / self.per_second + self.tolerance + _ROUNDING:
            return False
        self._due_at = due_at + 1 / self.per_second
        return True


def most_above(instants: Sequence[float], per_second: float, burst: float) -> float:
    """By how many more than per_second × w + burst the worst of all windows has; negative: it never had as many.

    Of all pairs i < j of sorted instants the largest (j - i + 1) - per_second × (t_j - t_i), in one pass: what j adds is
    compared with the smallest that any i before it has taken away. Without a pair it is -burst.
    """
    worst, least = 0.0, float("inf")
    for number, at in enumerate(sorted(instants)):
        value = number - per_second * at
        worst = max(worst, value - least + 1)
        least = min(least, value)
    return worst - burst


def is_above(instants: Sequence[float], per_second: float, burst: float, tolerance: float = TOLERANCE_SECONDS) -> bool:
    """Has any window more than per_second × (w + tolerance) + burst?"""
    return most_above(instants, per_second, burst) > per_second * tolerance + _ROUNDING


def most_at_once(spans: Sequence[tuple[float, float]], tolerance: float = TOLERANCE_SECONDS) -> int:
    """How many of the spans (begin, end) hold at once; the last `tolerance` seconds of each do not count."""
    edges = [(begin, 1) for begin, end in spans if end - tolerance > begin]
    edges += [(end - tolerance, -1) for begin, end in spans if end - tolerance > begin]
    most = now = 0
    for _, change in sorted(edges):
        now += change
        most = max(most, now)
    return most
