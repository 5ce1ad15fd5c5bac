"""What was recorded, read in order of time from several partitions."""

from __future__ import annotations

import asyncio
import random

import pytest

from mailfleet_cli import reading, recording
from mailfleet_core.bus import topics
from mailfleet_core.bus.memory import MemoryBus, MemoryLog
from mailfleet_core.model import wire
from mailfleet_core.model.wire import Event


@pytest.fixture(autouse=True)
def short_holes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offsets of the memory log have holes after each record, so that its end is known by silence only."""
    monkeypatch.setattr(reading, "LONGEST_HOLE_SECONDS", 0.05)


async def read(told: list[list[tuple[float, ...]]], since: float = 0.0) -> tuple[list[float], list[tuple[int, int]]]:
    """Instants of the events read, where `told` has the records of each partition; and what was told of progress."""
    memory = MemoryLog(len(told), 1)
    bus = MemoryBus(memory, "test")
    await bus.start()
    for number, records in enumerate(told):
        for instants in records:
            value = wire.tell([Event(b"u" * 18, "queued", at) for at in instants])
            await bus.append(topics.EVENTS, number, b"", value, topics.tag(topics.PUT))
    seen: list[tuple[int, int]] = []
    async with asyncio.timeout(10):
        found = [
            event.at async for each in recording.in_order(bus, since, lambda *so: seen.append(so)) for event in each
        ]
    await bus.close()
    return found, seen


async def test_partitions_are_merged_by_time() -> None:
    dice = random.Random(3)
    instants = sorted(dice.uniform(0, 1000) for _ in range(200))
    told: list[list[tuple[float, ...]]] = [[] for _ in range(4)]
    for at in instants:
        told[dice.randrange(3)].append((at,))
    found, seen = await read(told)
    assert found == instants
    assert seen[-1][0] > 0.9 * seen[-1][1] > 0
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


async def test_an_older_event_beside_a_newer_one_holds_nobody_up() -> None:
    found, _ = await read([[(10.0, 1.0), (12.0,)], [(11.0,)]])
    assert found == [10.0, 1.0, 11.0, 12.0]


async def test_what_is_older_than_asked_for_is_left_out() -> None:
    assert (await read([[(10.0,), (20.0,)], [(15.0,)]], since=15.0))[0] == [15.0, 20.0]


async def test_a_long_log_is_not_read_from_its_beginning_for_its_last_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "NEAR", 1000)
    found, seen = await read([[(float(at),) for at in range(0, 10_000, 10)]], since=9_900.0)
    assert found == [float(at) for at in range(9_900, 10_000, 10)]
    assert seen[0][1] < 4000  # bytes


async def test_an_empty_log_has_nothing() -> None:
    assert await read([[], []]) == ([], [])
