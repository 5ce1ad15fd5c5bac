"""What owners tell of their partitions, and how often."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from mailfleet_core.bus import topics
from mailfleet_core.clock import SystemClock
from mailfleet_core.dns.port import MxAnswer
from mailfleet_core.model import complaint, ids, wire
from mailfleet_core.model import stats as record
from mailfleet_core.model.complaint import Complaint
from mailfleet_core.model.fleet import Fleet
from mailfleet_core.model.site import partition_of
from mailfleet_router.decisions import stats
from mailfleet_router.decisions.shaping.warming import begun
from mailfleet_router.decisions.shaping.warmup import CONSERVATIVE
from mailfleet_router.shell import stats as shell
from support.fleet import delivered

ORG, YAHOO = partition_of("mx.example.org", 4), partition_of("yahoo", 4)
BUSY = "[TSS04] Messages from 203.0.113.7 temporarily deferred due to unexpected volume or user complaints - 4.16.55.1"


def owned(fleet: Any, number: int) -> Any:
    return fleet.router.owners[number].partition


def told(fleet: Any, later: float = 0.0) -> Fleet:
    """What all partitions tell, once they have judged what was answered."""
    found, now = Fleet(), SystemClock.now() + later
    for number in range(4):
        owned(fleet, number).shaper.learned.tick(now)
        found.read(record.decode(record.encode(stats.stats(owned(fleet, number), "r0", now))))
    return found


@dataclass
class Clock:
    """Stands still until it is told."""

    at: float = 1000.0

    def now(self) -> float:
        return SystemClock.now() + self.at

    def monotonic(self) -> float:
        return self.at


async def ended(fleet: Any, unit: bytes, kind: str) -> None:
    await fleet.until(lambda: kind in fleet.kinds(unit))


async def test_deliveries_and_refusals_are_told_as_counts_of_their_source_and_tenant(fleet: Any) -> None:
    for _ in range(5):
        await ended(fleet, await fleet.put(), "delivered")
    fleet.answer = lambda work: delivered(work, wire.BOUNCED, 550, "no such user")
    await ended(fleet, await fleet.put("b@example.com", reverse_path=""), "bounced")
    of = told(fleet, 100.0)
    assert of.complete
    (name,) = of.sources
    source, acme = of.source(name), of.tenant("acme")
    assert source.delivered == pytest.approx(5, rel=0.01)
    assert source.bounced == pytest.approx(1, rel=0.01)
    assert source.reading.seen == acme.reading.seen
    assert "hard bounces" in source.worst
    assert (source.sent_today, source.day_cap, source.in_flight) == (6, -1, 0)
    assert of.pool("default").per_second > 0
    await fleet.until(lambda: told(fleet, 100.0).pool("default").waiting == 0)


async def test_a_back_off_is_told_with_its_source_site_rule_and_reply(fleet: Any) -> None:
    fleet.dns.answers["yahoo.test"] = MxAnswer("mx", ((10, "mta5.am0.yahoodns.net"),))
    fleet.answer = lambda work: delivered(work, wire.DEFERRED, 421, BUSY)
    unit = await fleet.put("c@yahoo.test", "yahoo")
    await ended(fleet, unit, "deferred")
    of = told(fleet)
    (trouble,) = of.troubles
    assert (trouble.site, trouble.state, trouble.rule) == ("yahoo", record.SLOWED, "yahoo-deferred")
    assert "TSS04" in trouble.reply
    assert trouble.source in of.sources
    assert of.pool("default") == ("default", 1, 0, 0.0, of.pool("default").per_second)


async def test_what_is_ready_and_may_not_go_is_told_with_its_age_unless_it_is_suspended(fleet: Any) -> None:
    partition = owned(fleet, ORG)
    site = await waiting(fleet)
    of = told(fleet).pool("default")
    assert (of.waiting, of.ready) == (3, 3)
    assert 0 < of.oldest_ready_at <= SystemClock.now()
    said = wire.Suspension("they asked", "ann", SystemClock.now())
    await fleet.bus.append(
        topics.CONTROL, 0, f"suspend|site|{site}".encode(), wire.encode(said), topics.tag(topics.PUT)
    )
    await fleet.until(lambda: bool(partition.commands))
    assert told(fleet).pool("default")[1:3] == (3, 0)


async def waiting(fleet: Any) -> str:
    """Three units at a site that is full."""
    await ended(fleet, await fleet.put(), "delivered")
    (site,) = owned(fleet, ORG).scheduler.sites.values()
    site.in_flight = 10_000
    for _ in range(3):
        await fleet.put()
    await fleet.until(lambda: len(site.ready) == 3)
    return str(site.name)


async def test_a_warm_up_is_told_as_what_was_sent_of_what_may_be(fleet: Any) -> None:
    await ended(fleet, await fleet.put(), "delivered")
    shaper, now = owned(fleet, ORG).shaper, SystemClock.now()
    (source,) = shaper.flow.sources
    warm = shaper.warms[f"warmup|{source}|x"] = begun("k", CONSERVATIVE, None, now)
    shaper.plan = lambda *_: CONSERVATIVE
    warm.reserve(now)
    warm.durable()
    before = told(fleet).source(source)
    warm.take(now)
    after = told(fleet).source(source)
    assert (before.sent_today, after.sent_today) == (0, 1)
    assert after.day_cap == CONSERVATIVE.day_caps[0]


async def test_a_complaint_in_the_log_is_counted_once_by_its_owner_and_by_the_next(fleet: Any) -> None:
    fleet.dns.answers["yahoo.test"] = MxAnswer("mx", ((10, "mta5.am0.yahoodns.net"),))
    unit = await fleet.put("c@yahoo.test", "yahoo")
    await ended(fleet, unit, "delivered")
    source = fleet.dispatches[-1].source
    now = SystemClock.now()
    said = Complaint(now, now, "acme", "transactional", source, "yahoo", "yahoo.test", "mta5.am0.yahoodns.net", "abuse")
    key = complaint.key(unit[: ids.MESSAGE_ID_BYTES], 0)
    for _ in range(2):
        last = await fleet.bus.append(topics.SITE, YAHOO, key, complaint.encode(said), topics.tag(topics.PUT))
    complaints = owned(fleet, YAHOO).shaper.learned.standings.complaints
    await fleet.until(lambda: complaints.read_to >= last)
    assert told(fleet, 5.0).source(source).reading.seen == (1, 0, 0, 0, 0, 1)
    owned(fleet, YAHOO)._look_at = 0.0
    await fleet.until(lambda: complaints.read_to > last)
    fleet.memory.compact(topics.SITE, YAHOO)
    fleet.router.owners[YAHOO]._fail(RuntimeError("somebody pulled the plug"))
    first = owned(fleet, YAHOO)
    await fleet.until(lambda: owned(fleet, YAHOO) is not first and fleet.router.owners[YAHOO].live)
    assert told(fleet, 10.0).source(source).reading.seen == (1, 0, 0, 0, 0, 1)
    assert told(fleet, 10.0).tenant("acme").complained == pytest.approx(1.0, rel=0.01)


# --- how often --------------------------------------------------------------------------------------------------------
class Written:
    """A log that only remembers."""

    def __init__(self) -> None:
        self.said: list[record.Stats] = []

    def append(self, topic: str, partition: int, key: bytes, value: bytes, tag: bytes) -> asyncio.Future[int]:
        said = record.decode(value)
        assert (topic, partition, key) == (topics.STATS, 0, record.key(said.partition))
        self.said.append(said)
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        future.set_result(0)
        return future


async def test_a_router_tells_of_each_of_its_partitions_with_their_epochs(fleet: Any) -> None:
    def said() -> dict[int, int]:
        found = [record.decode(each.value) for each in fleet.memory.records(topics.STATS, 0)]
        return {each.partition: each.epoch for each in found if each.router == "r0"}

    await fleet.until(lambda: said() == {number: owned(fleet, number).epoch for number in range(4)})


async def test_a_partition_is_told_soon_when_it_changed_and_now_and_then_when_it_did_not(fleet: Any) -> None:
    clock, log = Clock(), Written()
    telling = shell.Telling(log, clock, fleet.router.owners, "r1")  # type: ignore[arg-type]

    async def after(seconds: float) -> list[int]:
        clock.at += seconds
        log.said.clear()
        await telling.tell()
        return sorted(said.partition for said in log.said)

    assert await after(0) == [0, 1, 2, 3]
    assert await after(1) == []
    assert await after(shell.LOOK_SECONDS) == []
    await ended(fleet, await fleet.put(), "delivered")
    assert await after(shell.LOOK_SECONDS) == [ORG]
    assert set(await after(shell.LEAST_SECONDS)) == {0, 1, 2, 3}
    del fleet.router.owners[ORG]
    assert ORG not in await after(shell.LEAST_SECONDS)


async def test_telling_takes_no_more_than_its_share_of_the_time(fleet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, log, looks = Clock(), Written(), 0

    def slow(partition: Any, *_: object) -> record.Stats:
        nonlocal looks
        looks += 1
        clock.at += 0.05
        return record.Stats(partition.number, "r1", clock.at)

    monkeypatch.setattr(shell.stats, "stats", slow)
    telling = shell.Telling(log, clock, fleet.router.owners, "r1")  # type: ignore[arg-type]
    began = clock.at
    while clock.at - began < 1000.0:
        await telling.tell()
        clock.at += 0.2
    assert 0 < looks * 0.05 / (clock.at - began) <= shell.MOST_SHARE * 1.1
