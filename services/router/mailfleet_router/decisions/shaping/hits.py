"""Thresholds: so many hits of a rule within a window before it has an effect."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

MAX_KEYS = 10_000
"""Windows kept at once, some megabytes. What was quiet longest is forgotten first and then counts anew."""


class Threshold(NamedTuple):
    """`hits` within `window_seconds`."""

    hits: int = 1
    window_seconds: float = 3600.0


class Hits(NamedTuple):
    """The newest hits of one rule for one scope key: (instant, event) in order, at most as many as the threshold asks."""

    newest: tuple[tuple[float, int], ...] = ()


def observe(state: Hits, threshold: Threshold, now: float, event: int) -> tuple[Hits, bool]:
    """The hits with one more at `now` (seconds), and whether the threshold is reached.

    `event` tells hits apart that happen at the same instant (a hash of unit id and attempt). The same hit seen again
    changes nothing; hits may come out of order. The threshold is reached when the window that ends with the newest hit
    holds `hits` of them, and stays reached for as long as that is so.
    """
    hits = sorted({*state.newest, (now, event)})
    oldest = hits[-1][0] - threshold.window_seconds
    kept = [hit for hit in hits[-max(1, threshold.hits) :] if hit[0] > oldest]
    return Hits(tuple(kept)), len(kept) >= threshold.hits


class HitTable:
    """The hits of all rules and scope keys; at most `max_keys` of them."""

    def __init__(self, max_keys: int = MAX_KEYS) -> None:
        self._max_keys = max_keys
        self._states: OrderedDict[tuple[str, str], Hits] = OrderedDict()

    def __len__(self) -> int:
        return len(self._states)

    def observe(self, rule: str, key: str, threshold: Threshold, now: float, event: int) -> bool:
        """Count a hit of `rule` for the scope key `key`; is the threshold reached?"""
        if threshold.hits <= 1:
            return True
        state, reached = observe(self._states.get((rule, key), Hits()), threshold, now, event)
        self._states[rule, key] = state
        self._states.move_to_end((rule, key))
        if len(self._states) > self._max_keys:
            self._states.popitem(last=False)
        return reached
