"""Slowing down whoever guesses passwords."""

from __future__ import annotations

FORGET_SECONDS = 900.0
MAX_DELAY_SECONDS = 30.0
MAX_REMEMBERED = 20_000


class Guesses:
    """Failures per (client address, user); each doubles the wait before the next answer."""

    def __init__(self) -> None:
        self._failures: dict[tuple[str, bytes], tuple[int, float]] = {}

    def failed(self, client: str, user: bytes, now: float) -> float:
        """Note a failure; the seconds to wait before saying so."""
        key = (client, user[:64])
        count, last = self._failures.pop(key, (0, now))
        count = 1 if now - last > FORGET_SECONDS else count + 1
        self._failures[key] = (count, now)
        if len(self._failures) > MAX_REMEMBERED:
            # The oldest first: a dictionary keeps the order of insertion, and each failure inserts anew.
            del self._failures[next(iter(self._failures))]
        return min(MAX_DELAY_SECONDS, 0.25 * 2.0 ** min(count, 10))

    def succeeded(self, client: str, user: bytes) -> None:
        """The right password ends the suspicion."""
        self._failures.pop((client, user[:64]), None)
