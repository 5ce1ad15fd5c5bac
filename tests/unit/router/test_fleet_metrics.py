"""Metrics of the whole fleet: sums of what all routers tell, by one of them, and gone with it."""

from __future__ import annotations

import asyncio

from prometheus_client import Gauge

from mailfleet_core import metrics
from mailfleet_core.bus import topics
from mailfleet_core.bus.memory import MemoryBus, MemoryLog
from mailfleet_core.clock import SystemClock
from mailfleet_core.model import stats
from mailfleet_core.model.fleet import Fleet
from mailfleet_core.model.stats import PoolStats, SourceStats, Stats, TenantStats, Trouble
from mailfleet_router.shell.fleet_metrics import TROUBLES, FleetMetrics, series

NOW = 1000.0
BLOCKED = (0.0, 0.0, 0.0, 1000.0, 80.0, 0.0)
SEEN = (0, 0, 0, 1000, 80, 0)


def said(partition: int, **what: object) -> Stats:
    return Stats(partition, "router-a", NOW, partitions=2, **what)  # type: ignore[arg-type]


def fleet(*parts: Stats) -> Fleet:
    made = Fleet()
    for part in parts:
        made.read(part)
    return made


def test_pools_are_summed_over_partitions_and_the_oldest_counts() -> None:
    found = series(
        fleet(
            said(0, pools=(PoolStats("bulk", 10, 4, NOW - 60, 1.5),)),
            said(1, pools=(PoolStats("bulk", 5, 1, NOW - 90, 0.5), PoolStats("calm", 3, 0, 0.0, 0.0))),
        ),
        NOW,
    )
    assert found[metrics.POOL_UNITS] == {
        ("bulk", "waiting"): 15, ("bulk", "ready"): 5, ("calm", "waiting"): 3, ("calm", "ready"): 0,
    }  # fmt: skip
    assert found[metrics.POOL_OLDEST_READY] == {("bulk",): 90, ("calm",): 0}
    assert found[metrics.POOL_PER_SECOND] == {("bulk",): 2.0, ("calm",): 0.0}


def test_a_source_has_the_score_of_all_its_answers_and_the_worst_of_its_states() -> None:
    part = SourceStats("ip-1", 2, 1.0, 7, 50, BLOCKED, SEEN, 3)
    found = series(fleet(said(0, sources=(part,)), said(1, sources=(SourceStats("ip-1", 1, 1.0, 9),))), NOW)
    assert 0 < found[metrics.SOURCE_SCORE]["ip-1",] < 40
    assert found[metrics.SOURCE_STATE] == {("ip-1",): 3}
    assert found[metrics.SOURCE_IN_FLIGHT] == {("ip-1",): 3}
    assert found[metrics.SOURCE_DAY_CAP] == {("ip-1",): 50}
    assert found[metrics.SOURCE_SENT_TODAY] == {("ip-1",): 7}


def test_a_source_that_does_not_warm_up_has_no_cap() -> None:
    found = series(fleet(said(0, sources=(SourceStats("ip-1", 0, 0.0, 9),))), NOW)
    assert found[metrics.SOURCE_DAY_CAP] == found[metrics.SOURCE_SENT_TODAY] == {}


def test_complaints_of_a_tenant_are_a_ratio() -> None:
    part = TenantStats("acme", (9000.0, 0.0, 0.0, 0.0, 0.0, 60.0), (9000, 0, 0, 0, 0, 60), 3)
    found = series(fleet(said(0, tenants=(part,))), NOW)
    assert 0.004 < found[metrics.TENANT_COMPLAINTS]["acme",] < 60 / 9000


def test_the_worst_troubles_have_series_and_the_rest_have_none() -> None:
    many = [Trouble(f"ip-{number}", "mx", stats.SLOWED, 0.0, "r", "", 0.0) for number in range(TROUBLES + 20)]
    worst = Trouble("ip-x", "mx", stats.QUARANTINE, 0.0, "reputation", "", 0.0)
    found = series(fleet(said(0, troubles=(*many, worst))), NOW)[metrics.TROUBLES]
    assert len(found) == TROUBLES
    assert found["ip-x", "mx", "quarantine"] == 1


def shown(gauge: Gauge) -> dict[tuple[str, ...], float]:
    (family,) = gauge.collect()
    return {tuple(sample.labels.values()): sample.value for sample in family.samples}


async def test_they_are_told_from_the_log_and_taken_away_with_the_partition() -> None:
    bus, clock = MemoryBus(MemoryLog(4, 4), "test"), SystemClock()
    await bus.start()
    told = FleetMetrics(bus, clock, every_seconds=0.01)
    record = Stats(2, "router-a", clock.now(), pools=(PoolStats("bulk", 10, 4, clock.now(), 1.5),), partitions=4)
    await bus.append(topics.STATS, 0, stats.key(2), b"not stats")
    await bus.append(topics.STATS, 0, stats.key(2), stats.encode(record))
    async with asyncio.timeout(5):
        while not shown(metrics.POOL_UNITS):
            await asyncio.sleep(0.01)
    assert shown(metrics.POOL_UNITS) == {("bulk", "waiting"): 10, ("bulk", "ready"): 4}
    assert metrics.FLEET_PARTITIONS._value.get() == 1
    await told.stop()
    assert shown(metrics.POOL_UNITS) == {}
    assert metrics.FLEET_PARTITIONS._value.get() == 0
