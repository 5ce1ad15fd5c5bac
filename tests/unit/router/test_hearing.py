"""The audit hears what an owner in its process reads, and rests on nobody's reading."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mailfleet_core.bus import topics
from mailfleet_core.bus.port import Record
from mailfleet_core.model.site import partition_of
from mailfleet_router.shell.hearing import Reading

HOME = partition_of("mx.example.org", 4)


def heard_all(fleet: Any) -> bool:
    last = fleet.memory.records(topics.QUEUE, HOME)[-1].offset
    return bool(fleet.router._auditor._positions[topics.QUEUE, HOME] == last)


async def delivered(fleet: Any) -> None:
    unit = await fleet.put()
    await fleet.until(lambda: fleet.tags(unit)[-1:] == ["D"])
    await fleet.until(lambda: heard_all(fleet))


async def test_the_audit_reads_no_partition_that_its_process_owns_a_second_time(fleet: Any) -> None:
    await delivered(fleet)
    assert HOME in fleet.router._auditor._heard
    await delivered(fleet)
    assert HOME in fleet.router._auditor._heard


async def test_when_the_owner_gives_up_the_audit_goes_on_alone_and_misses_nothing(fleet: Any) -> None:
    await delivered(fleet)
    owner = fleet.router.owners.pop(HOME)
    await owner.stop()
    await fleet.until(lambda: HOME not in fleet.router._auditor._heard)
    await fleet.put()
    await fleet.until(lambda: heard_all(fleet))


async def test_where_its_notes_are_not_heard_the_audit_reads_alone(fleet: Any) -> None:
    await delivered(fleet)
    auditor = fleet.router._auditor
    auditor._seen.append((0.0, {}, {(topics.QUEUE, HOME): 1 << 40}))
    auditor._stop_hearing_the_deaf()
    await fleet.until(lambda: HOME not in auditor._heard)


async def test_a_listener_that_fails_ends_its_listening_and_not_the_reading() -> None:
    def listener(batch: list[Record]) -> None:
        raise LookupError("of the listener")

    reading = Reading()
    over = reading.listen(listener)
    reading.read([Record(7, b"k", b"P", b"v")])
    reading.read([Record(8, b"k", b"P", b"v")])
    assert reading.last == 8
    with pytest.raises(LookupError):
        await over


async def test_a_listener_hears_everything_after_it_began_and_nothing_after_the_end() -> None:
    reading, heard = Reading(), []
    reading.read([Record(7, b"k", b"P", b"v")])
    over = reading.listen(heard.extend)
    reading.read([Record(8, b"k", b"P", b"v")])
    reading.end()
    reading.read([Record(9, b"k", b"P", b"v")])
    await asyncio.wait_for(over, 1)
    assert [record.offset for record in heard] == [8]
