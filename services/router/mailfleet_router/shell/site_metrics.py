"""Metrics of the busiest sites: how their queues stand, and how fairly their tenants were served."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from prometheus_client import Gauge

from mailfleet_core import metrics
from mailfleet_router.decisions.census import ready_tenants
from mailfleet_router.decisions.partition import Partition
from mailfleet_router.decisions.shaping.last_minute import LastMinute, fairness
from mailfleet_router.decisions.site_queue import SiteQueue

SITES = 20
"""Sites that have series, those with most units: labels for all would be too many."""
EVERY_SECONDS = 5.0


class SiteMetrics:
    """Tells the metrics of one process from time to time; takes away the series of sites that are not busy any more."""

    def __init__(self, minute: LastMinute) -> None:
        self._minute = minute
        self._next_at = 0.0
        self._backlogs: tuple[dict[str, set[str]], dict[str, set[str]]] = ({}, {})
        """Site → tenants that had mail ready at the two last turns of the minute."""
        self._shown: dict[Gauge, set[tuple[str, ...]]] = {metrics.SITE_UNITS: set(), metrics.SITE_FAIRNESS: set()}

    def tell(self, partitions: Iterable[Partition], now: float) -> None:
        """Look, if it is time."""
        turned = self._minute.turn(now)
        if now < self._next_at and not turned:
            return
        self._next_at = now + EVERY_SECONDS
        sites = [site for partition in partitions for site in partition.scheduler.sites.values() if site.units > 0]
        busiest = heapq.nlargest(SITES, sites, key=lambda site: site.units)
        metrics.SITES.set(len(sites))
        metrics.READY_UNITS.set(sum(len(site.ready) for site in sites))
        self._show(metrics.SITE_UNITS, {labels: units for site in busiest for labels, units in _units(site).items()})
        backlog = {site.name: ready_tenants(site) for site in busiest}
        self._show(metrics.SITE_FAIRNESS, self._fairness(backlog))
        if turned:
            self._backlogs = (self._backlogs[1], {name: set(tenants) for name, tenants in backlog.items()})

    def _fairness(self, backlog: dict[str, dict[str, float]]) -> dict[tuple[str, ...], float]:
        served = self._minute.tenants()
        found: dict[tuple[str, ...], float] = {}
        for site, tenants in backlog.items():
            always = set(tenants).intersection(*(before.get(site, set()) for before in self._backlogs))
            if len(always) > 1:
                found[(site,)] = fairness(served.get(site, {}), {tenant: tenants[tenant] for tenant in always})
        return found

    def _show(self, gauge: Gauge, values: dict[tuple[str, ...], float]) -> None:
        for labels in self._shown[gauge] - values.keys():
            gauge.remove(*labels)
        for labels, value in values.items():
            gauge.labels(*labels).set(value)
        self._shown[gauge] = set(values)


def _units(site: SiteQueue) -> dict[tuple[str, ...], float]:
    ready = len(site.ready)
    waiting = max(0, site.units - site.in_flight - ready)
    return {
        (site.name, "ready"): ready,
        (site.name, "in_flight"): site.in_flight,
        (site.name, "waiting"): waiting,
    }
