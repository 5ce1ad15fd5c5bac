"""What the operator reads from the log and writes into it."""

from __future__ import annotations

import asyncio

import pytest

from mailfleet_core.bus import topics
from mailfleet_core.bus.memory import MemoryBus, MemoryLog
from mailfleet_core.clock import SystemClock
from mailfleet_core.model import stats, wire
from mailfleet_core.model.stats import PoolStats, Stats
from mailfleet_operator.shell.cluster import NotLeading
from mailfleet_operator.shell.log_side import LogSide
from mailfleet_sender.decisions.lane import MARKER_KEY
from mailfleet_sender.shell.lane import GROUP

SOURCE = wire.Source("ip-1", "tx", lanes=(3,), by="operator", at=1.0)


class HandClock(SystemClock):
    """Goes when the test says."""

    seconds = 1000.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> float:
        return self.seconds


async def started(log: MemoryLog, leads: bool = True) -> LogSide:
    bus = MemoryBus(log, "operator")
    await bus.start()
    side = LogSide(bus, SystemClock(), lambda: leads, quiet_seconds=0.05)
    await side.start("a")
    return side


async def test_what_it_writes_is_there_for_whoever_reads_after_it() -> None:
    log = MemoryLog()
    first = await started(log)
    await first.tell({"ip-1": SOURCE})
    await first.tell_pool("tx", wire.Pool("tx", "spare", 1.0))
    assert first.table.sources["ip-1"] == SOURCE
    second = await started(log)
    assert second.table.sources["ip-1"] == SOURCE
    assert second.table.overflow() == {"tx": "spare"}
    await first.tell({"ip-1": None})
    assert (await started(log)).table.sources == {}


async def test_who_does_not_lead_writes_nothing() -> None:
    log = MemoryLog()
    side = await started(log, leads=False)
    with pytest.raises(NotLeading):
        await side.tell({"ip-1": SOURCE})
    assert [record for record in log.records(topics.CONTROL, 0) if record.key.startswith(b"source|")] == []


async def test_statistics_count_when_every_partition_was_heard_of() -> None:
    log = MemoryLog()
    side = await started(log)
    bus = MemoryBus(log, "router")
    await bus.start()
    now = SystemClock().now()
    for partition in (0, 1):
        assert not side.fresh()
        said = Stats(partition, "r", now, (PoolStats("tx", 5, 2, 0.0, 1.0),), partitions=2)
        await bus.append(topics.STATS, 0, stats.key(partition), stats.encode(said))
        while len(side.fleet.partitions) <= partition:
            await asyncio.sleep(0)
    assert side.fresh()
    assert side.fleet.pool("tx").waiting == 10


async def test_what_looks_go_by_changes_at_most_so_often_once_all_have_spoken() -> None:
    clock = HandClock()
    bus = MemoryBus(MemoryLog(), "operator")
    await bus.start()
    side = LogSide(bus, clock, lambda: True, sum_seconds=5.0)
    await side.start("a")

    async def say(partition: int, waiting: int) -> None:
        said = Stats(partition, "r", clock.now(), (PoolStats("tx", waiting, 0, 0.0, 0.0),), partitions=2)
        heard = side.news
        await bus.append(topics.STATS, 0, stats.key(partition), stats.encode(said))
        while side.news == heard:
            await asyncio.sleep(0)

    def waiting() -> int | None:
        fleet = side.fresh()
        return None if fleet is None else fleet.pool("tx").waiting

    await say(0, 1)
    assert waiting() is None
    await say(1, 1)
    assert waiting() == 2
    await say(1, 100)
    assert waiting() == 2
    clock.seconds += 5.0
    assert waiting() == 101
    clock.seconds += 1000.0
    assert waiting() is None


async def test_a_lane_is_empty_when_no_dispatch_lies_beyond_what_its_sender_has_answered() -> None:
    log = MemoryLog()
    side = await started(log)
    bus = MemoryBus(log, "sender")
    await bus.start()
    for lane in (1, 2, 3):
        at = await bus.append(topics.DISPATCH, lane, b"unit", b"dispatch")
        if lane > 1:
            await bus.commit(GROUP, topics.DISPATCH, {lane: at + 1})
    await bus.append(topics.DISPATCH, 2, MARKER_KEY, b"", b"x")
    await bus.append(topics.DISPATCH, 3, b"unit", b"dispatch")
    assert await side.empty(range(4)) == {0, 2}
