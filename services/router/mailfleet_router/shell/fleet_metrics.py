"""What all routers tell in `mail.stats`, summed up and told as metrics by one of them: the owner of queue partition 0."""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Mapping

from prometheus_client import Gauge

from mailfleet_core import metrics
from mailfleet_core.bus import topics
from mailfleet_core.bus.port import Bus, BusUnavailable
from mailfleet_core.clock import Clock
from mailfleet_core.model import stats
from mailfleet_core.model.fleet import Fleet
from mailfleet_core.model.wire import Malformed

log = logging.getLogger(__name__)

EVERY_SECONDS = 5.0
SOURCES, TENANTS, TROUBLES = 2_000, 500, 200
"""That have series: those that stand worst."""

_Series = dict[tuple[str, ...], float]


class FleetMetrics:
    """Tells them from its making until `stop`."""

    def __init__(self, bus: Bus, clock: Clock, every_seconds: float = EVERY_SECONDS) -> None:
        self._bus = bus
        self._clock = clock
        self._every_seconds = every_seconds
        self._fleet = Fleet()
        self._shown: dict[Gauge, set[tuple[str, ...]]] = {}
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._tell())]

    async def stop(self) -> None:
        """Take all series away: somebody else tells them now."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._show({gauge: {} for gauge in self._shown})
        metrics.FLEET_PARTITIONS.set(0)

    async def _read(self) -> None:
        while True:
            try:
                async for batch in self._bus.tail(topics.STATS, 0, 0):
                    for record in batch:
                        self._heard(record.value)
            except BusUnavailable as error:
                log.info("mail.stats cannot be read now", extra={"error": str(error)})
            await asyncio.sleep(self._every_seconds)

    def _heard(self, value: bytes | None) -> None:
        try:
            if value is not None:
                self._fleet.read(stats.decode(value))
        except Malformed as error:
            log.warning("a record of mail.stats is not understood", extra={"error": str(error)})

    async def _tell(self) -> None:
        while True:
            self._look(self._clock.now())
            await asyncio.sleep(self._every_seconds)

    def _look(self, now: float) -> None:
        self._fleet.forget(now)
        metrics.FLEET_PARTITIONS.set(len(self._fleet.partitions))
        self._show(series(self._fleet, now))

    def _show(self, wanted: Mapping[Gauge, _Series]) -> None:
        for gauge, values in wanted.items():
            for labels in self._shown.get(gauge, set()) - values.keys():
                gauge.remove(*labels)
            for labels, value in values.items():
                gauge.labels(*labels).set(value)
            self._shown[gauge] = set(values)


def series(fleet: Fleet, now: float) -> dict[Gauge, _Series]:
    """All series of a fleet by metric; a metric without any is there too."""
    pools = [fleet.pool(name) for name in fleet.pools]
    sources = heapq.nsmallest(SOURCES, map(fleet.source, fleet.sources), key=lambda source: source.score)
    tenants = heapq.nsmallest(TENANTS, map(fleet.tenant, fleet.tenants), key=lambda tenant: tenant.score)
    warming = [source for source in sources if source.day_cap >= 0]
    units: _Series = {
        (pool.name, state): count
        for pool in pools
        for state, count in (("waiting", pool.waiting), ("ready", pool.ready))
    }
    return {
        metrics.POOL_UNITS: units,
        metrics.POOL_OLDEST_READY: {
            (pool.name,): max(0.0, now - pool.oldest_ready_at) if pool.oldest_ready_at else 0.0 for pool in pools
        },
        metrics.POOL_PER_SECOND: {(pool.name,): pool.per_second for pool in pools},
        metrics.SOURCE_SCORE: {(source.name,): source.score for source in sources},
        metrics.SOURCE_STATE: {(source.name,): source.worst_state for source in sources},
        metrics.SOURCE_IN_FLIGHT: {(source.name,): source.in_flight for source in sources},
        metrics.SOURCE_SENT_TODAY: {(source.name,): source.sent_today for source in warming},
        metrics.SOURCE_DAY_CAP: {(source.name,): source.day_cap for source in warming},
        metrics.TENANT_SCORE: {(tenant.name,): tenant.score for tenant in tenants},
        metrics.TENANT_COMPLAINTS: {(tenant.name,): tenant.complaint_rate for tenant in tenants},
        metrics.TROUBLES: {(each.source, each.site, each.state): 1 for each in fleet.troubles[:TROUBLES]},
    }
