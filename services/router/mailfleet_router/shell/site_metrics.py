"""Metrics of sites and sources, bounded: queues, what attempts came to, reputation, how fairly tenants were served."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping

from prometheus_client import Gauge

from mailfleet_core import metrics
from mailfleet_router.decisions.census import ready_tenants
from mailfleet_router.decisions.partition import Partition
from mailfleet_router.decisions.shaping.last_minute import LastMinute, fairness
from mailfleet_router.decisions.site_queue import SiteQueue

SITES = 20
"""Sites that have series, those with most units: labels for all would be too many."""
COUNTED_SITES = 100
"""Sites with counters. A counter that goes and comes back tells nothing, so the first ones that are busy keep theirs."""
COUNTED_SOURCES = 2_000
OTHERS = "(others)"
REPUTATIONS = 200
"""Pairs of source and site with series: those that stand worst."""
EVERY_SECONDS = 5.0


class SiteMetrics:
    """Tells the metrics of one process from time to time; takes away the series of sites that are not busy any more."""

    def __init__(self, minute: LastMinute) -> None:
        self._minute = minute
        self._next_at = 0.0
        self._backlogs: tuple[dict[str, set[str]], dict[str, set[str]]] = ({}, {})
        """Site → tenants that had mail ready at the two last turns of the minute."""
        self._counted: tuple[set[str], set[str]] = (set(), set())
        """Sites and sources that have counters."""
        gauges = (metrics.SITE_UNITS, metrics.SITE_FAIRNESS, metrics.REPUTATION_SCORE, metrics.REPUTATION_STATE)
        self._shown: dict[Gauge, set[tuple[str, ...]]] = {gauge: set() for gauge in gauges}

    def tell(self, partitions: Iterable[Partition], now: float) -> None:
        """Look, if it is time."""
        turned = self._minute.turn(now)
        if now < self._next_at and not turned:
            return
        self._next_at = now + EVERY_SECONDS
        partitions = tuple(partitions)
        self._count(self._minute.take())
        self._reputations(partitions)
        sites = [site for partition in partitions for site in partition.scheduler.sites.values() if site.units > 0]
        busiest = heapq.nlargest(SITES, sites, key=lambda site: site.units)
        metrics.SITES.set(len(sites))
        metrics.READY_UNITS.set(sum(len(site.ready) for site in sites))
        self._show(metrics.SITE_UNITS, {labels: units for site in busiest for labels, units in _units(site).items()})
        backlog = {site.name: ready_tenants(site) for site in busiest}
        self._show(metrics.SITE_FAIRNESS, self._fairness(backlog))
        if turned:
            self._backlogs = (self._backlogs[1], {name: set(tenants) for name, tenants in backlog.items()})

    def _count(self, fresh: Counter[tuple[str, str, str]]) -> None:
        sites, sources = self._counted
        # Busiest first: after a start with very many sites, these are the ones that keep counters.
        for (site, source, verdict), number in fresh.most_common():
            place = _place(sites, site, COUNTED_SITES)
            metrics.SITE_RECIPIENTS.labels(place, verdict).inc(number)
            metrics.SOURCE_RECIPIENTS.labels(_place(sources, source, COUNTED_SOURCES), verdict).inc(number)

    def _reputations(self, partitions: Iterable[Partition]) -> None:
        # A pair is judged by each owner of a part of a hot site: the worst of them is shown.
        worst: dict[tuple[str, str], tuple[float, int]] = {}
        for partition in partitions:
            for pair, score, state in partition.shaper.learned.standings.pairs():
                before = worst.get(pair, (100.0, 0))
                worst[pair] = (min(before[0], score), max(before[1], state))
        kept = heapq.nsmallest(REPUTATIONS, worst.items(), key=lambda item: (-item[1][1], item[1][0]))
        self._show(metrics.REPUTATION_SCORE, {pair: score for pair, (score, _) in kept})
        self._show(metrics.REPUTATION_STATE, {pair: state for pair, (_, state) in kept})

    def _fairness(self, backlog: dict[str, dict[str, float]]) -> dict[tuple[str, ...], float]:
        served = self._minute.tenants()
        found: dict[tuple[str, ...], float] = {}
        for site, tenants in backlog.items():
            always = set(tenants).intersection(*(before.get(site, set()) for before in self._backlogs))
            if len(always) > 1:
                found[(site,)] = fairness(served.get(site, {}), {tenant: tenants[tenant] for tenant in always})
        return found

    def _show(self, gauge: Gauge, values: Mapping[tuple[str, ...], float]) -> None:
        for labels in self._shown[gauge] - values.keys():
            gauge.remove(*labels)
        for labels, value in values.items():
            gauge.labels(*labels).set(value)
        self._shown[gauge] = set(values)


def _place(counted: set[str], name: str, most: int) -> str:
    if name not in counted:
        if len(counted) >= most:
            return OTHERS
        counted.add(name)
    return name


def _units(site: SiteQueue) -> dict[tuple[str, ...], float]:
    ready = len(site.ready)
    waiting = max(0, site.units - site.in_flight - ready)
    return {
        (site.name, "ready"): ready,
        (site.name, "in_flight"): site.in_flight,
        (site.name, "waiting"): waiting,
    }
