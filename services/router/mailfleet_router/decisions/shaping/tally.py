"""Counts in fixed memory: waits as a histogram, the commonest texts, pairs of instants by sample. No chance is involved."""

from __future__ import annotations

import math
import zlib
from collections import Counter

PER_DOUBLING = 4
"""Buckets of a histogram for each doubling: a percentile is at most 19 % too high."""
LEAST_SECONDS, MOST_SECONDS = 0.01, 86_400.0 * 365
"""What is shorter counts as no wait; what is longer as a year."""


class Waits:
    """A histogram of waits in seconds; about 130 buckets at most."""

    def __init__(self) -> None:
        self.count = 0
        self._buckets: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        """One more wait."""
        self.count += 1
        self._buckets[_bucket(seconds)] += 1

    def percentile(self, share: float) -> float:
        """So many seconds or less had `share` (0 to 1) of all waits, rounded up to a bucket's end; 0 if there are none."""
        needed, seen = share * self.count, 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= needed:
                return 0.0 if bucket == 0 else LEAST_SECONDS * 2.0 ** (bucket / PER_DOUBLING)
        return 0.0


def _bucket(seconds: float) -> int:
    if not seconds > LEAST_SECONDS:
        return 0
    return math.ceil(math.log2(min(seconds, MOST_SECONDS) / LEAST_SECONDS) * PER_DOUBLING - 1e-9)


class Texts:
    """The commonest of many texts. When there are more than twice `keep`, the rarer half is forgotten and then counts
    anew, so the counts of what is common are exact, or a little low."""

    def __init__(self, keep: int = 1000) -> None:
        self._keep = keep
        self._counts: Counter[str] = Counter()
        self.forgotten = 0
        """What was counted under forgotten texts."""

    def add(self, text: str, count: int) -> bool:
        """Count `text`; was it new?"""
        new = text not in self._counts
        self._counts[text] += count
        if len(self._counts) > 2 * self._keep:
            kept = dict(self.commonest()[: self._keep])
            self.forgotten += self._counts.total() - sum(kept.values())
            self._counts = Counter(kept)
        return new

    def __contains__(self, text: str) -> bool:
        return text in self._counts

    def commonest(self) -> list[tuple[str, int]]:
        """Texts and counts, the commonest first; of equal ones in the order of the alphabet."""
        return sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))


class Pairs:
    """From a beginning to an end, for a sample of all names: those whose checksum ends in zeros, ever fewer of them as
    the table fills, so that it never holds more than `most`."""

    def __init__(self, most: int = 8192) -> None:
        self._most, self._mask = most, 0
        self._begun: dict[bytes, float] = {}

    def __len__(self) -> int:
        return len(self._begun)

    def begin(self, name: bytes, at: float) -> None:
        """`name` begins now, unless it has begun already."""
        if zlib.crc32(name) & self._mask:
            return
        self._begun.setdefault(name, at)
        while len(self._begun) > self._most:
            if self._mask >= 0xFFFF_FFFF:
                self._begun.clear()
                return
            self._mask = self._mask * 2 + 1
            self._begun = {name: at for name, at in self._begun.items() if not zlib.crc32(name) & self._mask}

    def end(self, name: bytes, at: float) -> float | None:
        """Seconds since `name` began; None: it is not in the sample, or has ended already."""
        begun = self._begun.pop(name, None)
        return None if begun is None else max(0.0, at - begun)
