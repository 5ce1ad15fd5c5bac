"""Hot sites as the owner of one partition sees them: where a unit belongs, and which sources it may use.

A shard's owner uses a source only while it holds the right to (source, site): a lease of one unit, which one holder has at
a time. So limits of a source at the site stay one owner's own, also while the map changes and whoever has not read it yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mailfleet_core.model.ids import MESSAGE_ID_BYTES
from mailfleet_core.model.shards import MARK, Numbered, Shard, home, shard_name, site_of, sources_of
from mailfleet_core.model.site import partition_of
from mailfleet_router.decisions.shaping.leases import Limit
from mailfleet_router.decisions.shaping.shaper import FLOW, LEASE_SECONDS, Shaper, Wait

RIGHT = Limit(1.0, whole=True)
NOTHING: frozenset[str] = frozenset()


class HotSites:
    """Those of which this partition has a shard, or a unit of one."""

    def __init__(self, maps: Mapping[str, Numbered], number: int, partitions: int, shaper: Shaper) -> None:
        self._maps, self._number, self._partitions, self._shaper = maps, number, partitions, shaper
        self._leaving: set[tuple[str, str]] = set()
        """(site, source) that belong to another shard now, and of which units are still in senders' hands."""
        self._barred: dict[frozenset[str], frozenset[str]] = {}

    def home(self, name: str, site: str, unit: bytes, pool: str) -> str:
        """Where a unit belongs that lies at `name` and goes to `site`."""
        return home(name, site, self._maps.get(site), unit[:MESSAGE_ID_BYTES], pool)

    def concern(self, name: str) -> bool:
        """Is it a shard, or a site that has become hot?"""
        return MARK in name or name in self._maps

    def barred(self, name: str, pool: Iterable[tuple[str, int]], now: float) -> frozenset[str] | Wait:
        """The sources that mail at `name` may not use; or it waits until some may be used."""
        site = site_of(name)
        mine = sources_of(name, self._maps.get(site))
        if mine is None:
            return NOTHING
        usable = frozenset([source for source in mine if self._right(site, source)])
        there = [source for source, _ in pool if self._shaper.sources.lanes.get(source)]
        if there and not usable.intersection(there):
            return Wait(
                now + LEASE_SECONDS, f"waiting for its share of the sources of {site}", f"shards of {site}", FLOW
            )
        barred = self._barred.get(usable)
        if barred is None:
            if len(self._barred) > 1000:
                self._barred.clear()
            barred = self._barred[usable] = frozenset(self._shaper.sources.lanes) - usable
        return barred

    def obey(self) -> None:
        """There are other sources."""
        self._barred.clear()

    def changed(self, site: str) -> None:
        """There is a new map of a site: what is not ours any more is given back, at once or when its units have come back."""
        mine = self._mine(site)
        leases, holder = self._shaper.leases, self._shaper.holder
        self._leaving = {(where, source) for where, source in self._leaving if where != site or source not in mine}
        for counter in leases.counters(holder) if leases is not None else ():
            kind, _, rest = counter.partition("|")
            where, _, source = rest.partition("|")
            if kind == "shard" and where == site and source not in mine:
                self._leaving.add((site, source))
        self.tick()

    def tick(self) -> None:
        """Give back what is not used any more."""
        leases, holder = self._shaper.leases, self._shaper.holder
        if leases is None:
            return
        for site, source in list(self._leaving):
            if self._in_flight(site, source):
                leases.want(_key(site, source), holder, RIGHT, 0.0, 1.0)
            else:
                leases.release(_key(site, source), holder)
                self._leaving.discard((site, source))

    def _right(self, site: str, source: str) -> bool:
        leases, holder = self._shaper.leases, self._shaper.holder
        if leases is None:
            return True
        key = _key(site, source)
        leases.want(key, holder, RIGHT, 1.0, 1.0 if self._in_flight(site, source) else 0.0)
        return leases.usable(key, holder) >= 1.0

    def _mine(self, site: str) -> set[str]:
        known = self._maps.get(site)
        if known is None:
            return set()
        count = len(known.map.sources)
        return {
            source
            for index, sources in enumerate(known.map.sources)
            if partition_of(shard_name(Shard(site, index, count, known.number)), self._partitions) == self._number
            for source in sources
        }

    def _in_flight(self, site: str, source: str) -> int:
        shape = self._shaper.sites.get(site)
        return sum(path.in_flight for path in shape.paths.values() if path.facts.source == source) if shape else 0


def _key(site: str, source: str) -> str:
    return f"shard|{site}|{source}"
