"""Thresholds: so many hits of a rule within a window, and such a share of the mail, before it has an effect."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

MAX_KEYS = 10_000
"""Windows kept at once, some megabytes. What was quiet longest is forgotten first and then counts anew."""


SHARED_HITS = 100
"""Hits by which a share is known: to a tenth of itself."""


class Threshold(NamedTuple):
    """`hits` within `window_seconds`, and not less than `share` of what the scope sent meanwhile."""

    hits: int = 1
    window_seconds: float = 3600.0
    share: float = 0.0

    @property
    def kept(self) -> int:
        """Hits that must be remembered."""
        return max(self.hits, SHARED_HITS) if self.share else max(1, self.hits)


class Hits(NamedTuple):
    """The newest hits of one rule for one scope key, in order: (instant, event, attempts of the scope until then)."""

    newest: tuple[tuple[float, int, int], ...] = ()


def observe(state: Hits, threshold: Threshold, now: float, event: int, attempts: int = 0) -> tuple[Hits, bool]:
    """The hits with one more at `now` (seconds), and whether the threshold is reached.

    `event` tells hits apart that happen at the same instant (a hash of unit id and attempt). The same hit seen again
    changes nothing; hits may come out of order. `attempts` is a count of the scope's attempts that only grows. The
    threshold is reached when the window that ends with the newest hit holds `hits` of them and they are `share` of the
    attempts since the first one that is kept; and stays reached for as long as that is so.
    """
    if any(hit[0] == now and hit[1] == event for hit in state.newest):
        return state, _reached(state.newest, threshold)
    hits = sorted((*state.newest, (now, event, attempts)))
    oldest = hits[-1][0] - threshold.window_seconds
    kept = tuple([hit for hit in hits[-threshold.kept :] if hit[0] > oldest])
    return Hits(kept), _reached(kept, threshold)


def _reached(hits: tuple[tuple[float, int, int], ...], threshold: Threshold) -> bool:
    if len(hits) < threshold.hits:
        return False
    counts = [attempts for _, _, attempts in hits]
    return len(hits) >= threshold.share * (max(counts) - min(counts))


class HitTable:
    """The hits of all rules and scope keys; at most `max_keys` of them."""

    def __init__(self, max_keys: int = MAX_KEYS) -> None:
        self._max_keys = max_keys
        self._states: OrderedDict[tuple[str, str], Hits] = OrderedDict()

    def __len__(self) -> int:
        return len(self._states)

    def observe(self, rule: str, key: str, threshold: Threshold, now: float, event: int, attempts: int = 0) -> bool:
        """Count a hit of `rule` for the scope key `key`, which has sent `attempts`; is the threshold reached?"""
        if threshold.hits <= 1:
            return True
        state, reached = observe(self._states.get((rule, key), Hits()), threshold, now, event, attempts)
        self._states[rule, key] = state
        self._states.move_to_end((rule, key))
        if len(self._states) > self._max_keys:
            self._states.popitem(last=False)
        return reached
