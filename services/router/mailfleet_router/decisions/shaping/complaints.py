"""Complaints that lie in a partition of `mail.site`: each counts once, however often it is told, whoever owns the partition."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from mailfleet_core.model import complaint
from mailfleet_core.model.complaint import Complaint
from mailfleet_router.decisions.shaping.reputation import DAY, DAYS_KEPT

KEPT_SECONDS = DAYS_KEPT * DAY
"""Then it counts nowhere any more, and is dropped from the log."""
LOOK_SECONDS = 600.0


class Complaints:
    """Which complaints were heard, and which sites report them."""

    def __init__(self) -> None:
        self.first: dict[str, float] = {}
        """Site → when its first complaint was made. From then on it is known to report them."""
        self.providers: frozenset[str] = frozenset()
        """Those of which the policy says that they report them."""
        self._provider_of: dict[str, str] = {}
        self.read_to = -1
        """Offset of the newest record that was read."""
        self._heard: dict[str, tuple[float, int]] = {}
        """When each was made, and where it lies."""
        self._again: dict[str, bytes] = {}
        self._looked_at = 0.0

    def know(self, site: str, provider: str) -> None:
        """The site is of this provider."""
        if provider != site and len(self._provider_of) < 100_000:
            self._provider_of[site] = provider

    def declared(self, site: str) -> bool:
        """Does the policy say that it reports complaints?"""
        return bool(self.providers) and self._provider_of.get(site, site) in self.providers

    def reports(self, site: str) -> bool:
        """Are complaints to be expected from this site: is what it took the denominator of them?"""
        return site in self.first or self.declared(site)

    def hear(self, key: str, offset: int, said: Complaint) -> int:
        """One more record. The offset of the first that told the same; -1: it was heard already."""
        self.read_to = max(self.read_to, offset)
        known = self._heard.get(key)
        if known is None:
            first = offset if said.first < 0 else said.first
            self._heard[key] = said.at, first
            self.first.setdefault(said.site, said.at)
            return first
        if said.first < 0:
            # Compaction keeps this one, and who reads it alone would take it for another.
            self._again[key] = complaint.encode(msgspec.structs.replace(said, first=known[1]))
        return -1

    def changed(self, now: float) -> Iterator[tuple[str, bytes | None]]:
        """Records to be written anew, or (None) to be dropped."""
        again, self._again = self._again, {}
        yield from again.items()
        if 0 <= now - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = now
        for key in [key for key, (at, _) in self._heard.items() if now - at > KEPT_SECONDS]:
            del self._heard[key]
            yield key, None
