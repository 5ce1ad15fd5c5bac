"""What every adapter of the bus promises; the text of the promises is in `bus/port.py`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable
from typing import Any, TypeVar

import pytest

from mailfleet_core.bus.port import Bus, Membership, NotFound, Record
from mailfleet_core.bus.topics import BODY, CONTROL, DISPATCH, MAX_CHUNK_BYTES, QUEUE, RESULT

PATIENCE_SECONDS = 60.0

T = TypeVar("T")


async def soon(awaitable: Awaitable[T], seconds: float = PATIENCE_SECONDS) -> T:
    """What comes of `awaitable`, or a failed test."""
    return await asyncio.wait_for(awaitable, seconds)


async def first(tail: AsyncIterator[list[Record]], count: int) -> list[Record]:
    """The next `count` records of a tail (or a few more: a tail gives batches)."""

    async def collect() -> list[Record]:
        records: list[Record] = []
        while len(records) < count:
            records += await anext(tail)
        return records

    return await soon(collect())


async def append_all(bus: Bus, topic: str, partition: int, values: list[bytes]) -> list[int]:
    """Append all at once; their offsets."""
    return await soon(asyncio.gather(*[bus.append(topic, partition, b"k", value) for value in values]))


def numbered(count: int, first_number: int = 0) -> list[bytes]:
    return [b"%06d" % number for number in range(first_number, first_number + count)]


def values(records: list[Record]) -> list[bytes | None]:
    return [record.value for record in records]


@contextlib.asynccontextmanager
async def tailing(bus: Bus, topic: str, partition: int, start: int = 0) -> AsyncIterator[AsyncIterator[list[Record]]]:
    tail: Any = bus.tail(topic, partition, start)
    async with contextlib.aclosing(tail):
        yield tail


class Holder:
    """A member of a group that writes down what it was told."""

    def __init__(self, letting_go: asyncio.Event | None = None) -> None:
        self.held: set[int] = set()
        self.asked: asyncio.Event = asyncio.Event()
        self.letting_go = letting_go
        self.changed = asyncio.Event()
        self.membership: Membership

    def on_assigned(self, partitions: frozenset[int]) -> None:
        assert not self.held & partitions, "told twice of a partition"
        self.held |= partitions
        self.changed.set()

    async def on_revoked(self, partitions: frozenset[int]) -> None:
        assert partitions <= self.held, "asked for what it does not hold"
        self.asked.set()
        if self.letting_go is not None:
            await self.letting_go.wait()
        self.held -= partitions
        self.changed.set()

    async def holds(self, count: int) -> set[int]:
        while len(self.held) != count:
            self.changed.clear()
            await self.changed.wait()
        return self.held


async def join(
    bus: Bus, letting_go: asyncio.Event | None = None, group: str = "routers", only: frozenset[int] | None = None
) -> Holder:
    holder = Holder(letting_go)
    holder.membership = await soon(bus.join(group, RESULT, holder.on_assigned, holder.on_revoked, only))
    return holder


async def test_a_member_is_sure_of_what_it_holds(lab: Any) -> None:
    holder = await join(await lab.client())
    await soon(holder.holds(4))
    assert holder.membership.sure_until > asyncio.get_running_loop().time()


# --- records ---------------------------------------------------------------------------------------------------------
async def test_records_of_a_partition_keep_the_order_of_the_calls(lab: Any) -> None:
    bus = await lab.client()
    offsets = await append_all(bus, QUEUE, 1, numbered(2000))
    assert offsets == sorted(set(offsets))
    async with tailing(bus, QUEUE, 1) as tail:
        assert values(await first(tail, 2000)) == numbered(2000)


async def test_a_record_is_read_as_it_was_written(lab: Any) -> None:
    bus = await lab.client()
    written = [
        (b"key", b"value", b"tag"),
        (b"", b"", b""),
        (b"\x00\xff", b"\r\n\x00", bytes(range(11))),
        (b"gone", None, b"D"),
    ]
    offsets = await soon(asyncio.gather(*[bus.append(QUEUE, 0, key, value, tag) for key, value, tag in written]))
    expected = [Record(at, key, tag, value) for at, (key, value, tag) in zip(offsets, written, strict=True)]
    async with tailing(bus, QUEUE, 0) as tail:
        assert await first(tail, 4) == expected


async def test_partitions_and_topics_are_apart(lab: Any) -> None:
    bus = await lab.client()
    places = [(QUEUE, 0), (QUEUE, 3), (DISPATCH, 0), (CONTROL, 0)]
    for topic, partition in places:
        await soon(bus.append(topic, partition, b"k", f"{topic}{partition}".encode()))
    for topic, partition in places:
        async with tailing(bus, topic, partition) as tail:
            assert values(await first(tail, 1)) == [f"{topic}{partition}".encode()]


async def test_partition_counts_are_those_of_the_settings(lab: Any) -> None:
    bus = await lab.client()
    assert [bus.partitions(topic) for topic in (QUEUE, RESULT, DISPATCH, CONTROL)] == [4, 4, 4, 1]


async def test_what_is_acknowledged_to_one_client_is_seen_by_another(lab: Any) -> None:
    writer, reader = await lab.client("writer"), await lab.client("reader")
    async with tailing(reader, QUEUE, 0) as tail:
        for value in numbered(20):
            await soon(writer.append(QUEUE, 0, b"k", value))
            assert values(await first(tail, 1)) == [value]


async def test_a_tail_that_starts_at_or_before_an_acknowledged_record_sees_it(lab: Any) -> None:
    bus = await lab.client()
    offsets = await append_all(bus, QUEUE, 0, numbered(30))
    for start, expected in ((0, 0), (offsets[7], 7), (offsets[7] + 1, 8), (offsets[29], 29)):
        async with tailing(bus, QUEUE, 0, start) as tail:
            assert values(await first(tail, 30 - expected)) == numbered(30)[expected:]


async def test_a_tail_from_the_end_sees_only_what_comes_later(lab: Any) -> None:
    bus = await lab.client()
    offsets = await append_all(bus, QUEUE, 0, numbered(3))
    end = await soon(bus.end(QUEUE, 0))
    assert end > offsets[-1]
    async with tailing(bus, QUEUE, 0, end) as tail:
        waiting = asyncio.ensure_future(first(tail, 1))
        await soon(bus.append(QUEUE, 0, b"k", b"later"))
        assert values(await waiting) == [b"later"]


async def test_the_end_of_an_empty_partition_is_where_its_first_record_may_be_awaited(lab: Any) -> None:
    bus = await lab.client()
    end = await soon(bus.end(QUEUE, 2))
    offset = await soon(bus.append(QUEUE, 2, b"k", b"first"))
    assert offset >= end
    async with tailing(bus, QUEUE, 2, end) as tail:
        assert values(await first(tail, 1)) == [b"first"]


async def test_a_slow_tail_holds_back_nobody_else(lab: Any) -> None:
    bus = await lab.client()
    batches = [bytes([number]) * 100_000 for number in range(200)]
    async with tailing(bus, BODY, 0) as slow, tailing(bus, BODY, 0) as fast, tailing(bus, BODY, 1) as other:
        await soon(bus.append(BODY, 0, b"k", b"start"))
        await first(slow, 1)
        await append_all(bus, BODY, 0, batches)
        await append_all(bus, BODY, 1, batches)
        assert len(await first(fast, 201)) == 201
        assert len(await first(other, 200)) == 200
        assert values(await first(slow, 200)) == batches


async def test_a_tail_that_is_closed_makes_room_for_another(lab: Any) -> None:
    bus = await lab.client()
    await append_all(bus, QUEUE, 0, numbered(10))
    for _ in range(5):
        async with tailing(bus, QUEUE, 0) as tail:
            assert len(await first(tail, 10)) == 10


async def test_a_tail_whose_reader_is_cancelled_can_be_started_again(lab: Any) -> None:
    bus = await lab.client()
    async with tailing(bus, QUEUE, 0) as tail:
        reader = asyncio.ensure_future(anext(tail))
        await asyncio.wait([reader], timeout=0.2)
        reader.cancel()
        await asyncio.wait([reader])
    await append_all(bus, QUEUE, 0, numbered(5))
    async with tailing(bus, QUEUE, 0) as tail:
        assert values(await first(tail, 5)) == numbered(5)


# --- appends ---------------------------------------------------------------------------------------------------------
async def test_many_appends_at_once_are_all_written_once(lab: Any) -> None:
    buses = [await lab.client(f"writer{number}") for number in range(3)]
    sent = [(bus, partition, b"%d-%d-%d" % (writer, partition, number)) for number in range(300)
            for writer, bus in enumerate(buses) for partition in range(4)]  # fmt: skip
    await soon(asyncio.gather(*[bus.append(QUEUE, partition, b"k", value) for bus, partition, value in sent]))
    for partition in range(4):
        async with tailing(buses[0], QUEUE, partition) as tail:
            seen = values(await first(tail, 900))
        assert sorted(map(bytes, filter(None, seen))) == sorted(value for _, at, value in sent if at == partition)


async def test_cancelling_the_future_of_an_append_cancels_nothing(lab: Any) -> None:
    bus = await lab.client()
    futures = [bus.append(QUEUE, 0, b"k", value) for value in numbered(10)]
    for future in futures[::2]:
        future.cancel()
    await soon(asyncio.gather(*futures[1::2]))
    async with tailing(bus, QUEUE, 0) as tail:
        assert values(await first(tail, 10)) == numbered(10)


async def test_in_flight_bytes_count_what_is_not_acknowledged(lab: Any) -> None:
    bus = await lab.client()
    assert bus.in_flight_bytes == 0
    futures = [bus.append(BODY, number % 4, b"k", bytes(10_000)) for number in range(100)]
    assert bus.in_flight_bytes >= 1_000_000
    await soon(asyncio.gather(*futures))
    assert bus.in_flight_bytes == 0


async def test_big_batches_are_written_and_read_whole(lab: Any) -> None:
    bus = await lab.client()
    bodies = [bytes([number]) * MAX_CHUNK_BYTES for number in range(40)]
    offsets = await append_all(bus, BODY, 0, bodies)
    async with tailing(bus, BODY, 0) as tail:
        assert values(await first(tail, 40)) == bodies
    read = await soon(asyncio.gather(*[bus.read(BODY, 0, at, MAX_CHUNK_BYTES) for at in offsets]))
    assert read == bodies


async def test_closing_writes_what_was_appended(lab: Any) -> None:
    bus = await lab.client()
    futures = [bus.append(QUEUE, 0, b"k", value) for value in numbered(200)]
    await soon(bus.close())
    assert len(await soon(asyncio.gather(*futures))) == 200


# --- reads -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [1, 75, 4_000, 75_000, 300_000, MAX_CHUNK_BYTES])
async def test_a_body_is_read_at_its_offset(lab: Any, size: int) -> None:
    bus = await lab.client()
    bodies = [bytes([number]) * size for number in range(8)]
    offsets = await append_all(bus, BODY, 0, bodies)
    for at, body in reversed(list(zip(offsets, bodies, strict=True))):
        assert await soon(bus.read(BODY, 0, at, size)) == body


async def test_a_placed_body_can_be_read_as_soon_as_its_offset_is_known(lab: Any) -> None:
    writer, reader = await lab.client("writer"), await lab.client("reader")
    for number in range(20):
        body = b"%d" % number * 3000
        at = await soon(writer.place(BODY, 1, b"id", body))
        assert await soon(reader.read(BODY, 1, at, len(body))) == body
    assert writer.in_flight_bytes == 0


@pytest.mark.parametrize("size", [1, 4_000, 300_000])
async def test_what_is_read_at_once_is_what_a_read_gives(lab: Any, size: int) -> None:
    bus = await lab.client()
    bodies = [bytes([number]) * size for number in range(8)]
    offsets = await append_all(bus, BODY, 0, bodies)
    for at, body in zip(offsets, bodies, strict=True):
        assert bus.read_at_once(BODY, 0, at, size) in (body, None)
        assert await soon(bus.read(BODY, 0, at, size)) == body
        assert bus.read_at_once(BODY, 0, at, size) in (body, None)
        assert bus.read_at_once(BODY, 1, at, size) is None
        assert bus.read_at_once(BODY, 0, at + 1, size) is None
    assert bus.read_at_once(BODY, 0, offsets[-1] + 1_000_000, size) is None


async def test_many_reads_at_once_each_get_their_own_record(lab: Any) -> None:
    writer, reader = await lab.client("writer"), await lab.client("reader")
    bodies = {partition: [b"%d-%d" % (partition, number) * 2000 for number in range(50)] for partition in range(4)}
    offsets = {partition: await append_all(writer, BODY, partition, of) for partition, of in bodies.items()}
    wanted = [(partition, number) for number in range(50) for partition in range(4)]
    reads = [reader.read(BODY, at, offsets[at][number], len(bodies[at][number])) for at, number in wanted]
    assert await soon(asyncio.gather(*reads)) == [bodies[at][number] for at, number in wanted]


async def test_a_record_that_several_wait_for_at_once_is_given_to_all(lab: Any) -> None:
    bus = await lab.client()
    offset = await soon(bus.append(BODY, 0, b"", b"the one"))
    assert await soon(asyncio.gather(*[bus.read(BODY, 0, offset, 7) for _ in range(10)])) == [b"the one"] * 10


async def test_a_wrong_hint_of_the_length_does_not_change_what_is_read(lab: Any) -> None:
    bus = await lab.client()
    offset = await soon(bus.append(BODY, 0, b"k", b"x" * 50_000))
    await append_all(bus, BODY, 0, [b"y" * 50_000] * 3)
    for hint in (1, 50_000, 500_000):
        assert await soon(bus.read(BODY, 0, offset, hint)) == b"x" * 50_000


async def test_a_record_that_is_not_there_is_not_found(lab: Any) -> None:
    bus = await lab.client()
    with pytest.raises(NotFound):
        await soon(bus.read(BODY, 1, 0, 10))
    offset = await soon(bus.append(BODY, 1, b"k", b"body"))
    with pytest.raises(NotFound):
        await soon(bus.read(BODY, 1, offset + 1_000, 10))
    assert await soon(bus.read(BODY, 1, offset, 4)) == b"body"


# --- positions, compaction, trim -------------------------------------------------------------------------------------
async def test_a_position_outlives_the_client_that_committed_it(lab: Any) -> None:
    bus = await lab.client()
    assert await soon(bus.committed("routers", RESULT, 0)) == 0
    offsets = await append_all(bus, RESULT, 0, numbered(10))
    await soon(bus.commit("routers", RESULT, {0: offsets[4] + 1, 1: 17}))
    await soon(bus.commit("routers", RESULT, {0: offsets[6] + 1}))
    await soon(bus.close())
    again = await lab.client("again")
    assert await soon(again.committed("routers", RESULT, 0)) == offsets[6] + 1
    assert await soon(again.committed("routers", RESULT, 1)) == 17
    assert await soon(again.committed("senders", RESULT, 0)) == 0
    async with tailing(again, RESULT, 0, offsets[6] + 1) as tail:
        assert values(await first(tail, 3)) == numbered(10)[7:]


async def test_a_member_commits_what_it_holds(lab: Any) -> None:
    bus = await lab.client()
    holder = await join(bus)
    await soon(holder.holds(4))
    await soon(bus.commit("routers", RESULT, {partition: 100 + partition for partition in range(4)}))
    assert [await soon(bus.committed("routers", RESULT, partition)) for partition in range(4)] == [100, 101, 102, 103]


async def test_a_fold_from_the_oldest_record_ends_in_the_newest_state_of_each_key(lab: Any) -> None:
    bus = await lab.client()
    history = [(b"%d" % (number % 50), b"%d" % number if number % 7 else None) for number in range(3000)]
    history.append((b"last", b"record"))
    await soon(asyncio.gather(*[bus.append(QUEUE, 0, key, value) for key, value in history]))
    expected = {key: value for key, value in dict(history).items() if value is not None}
    if hasattr(lab, "log"):
        lab.log.compact(QUEUE, 0)
    async with tailing(bus, QUEUE, 0) as tail:
        state: dict[bytes, bytes | None] = {}
        while b"last" not in state:
            state.update({record.key: record.value for record in await soon(anext(tail))})
    assert {key: value for key, value in state.items() if value is not None} == expected


async def test_trim_drops_nothing_that_is_needed(lab: Any) -> None:
    bus = await lab.client()
    offsets = await append_all(bus, RESULT, 0, numbered(100))
    await soon(bus.trim(RESULT, 0, offsets[60]))
    async with tailing(bus, RESULT, 0) as tail:
        seen = await first(tail, 40)
        while seen[-1].offset < offsets[-1]:
            seen += await soon(anext(tail))
    assert values(seen)[-40:] == numbered(100)[60:]
    assert await soon(bus.read(RESULT, 0, offsets[60], 6)) == b"000060"


# --- groups ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("members", [1, 2, 3])
async def test_every_partition_ends_with_exactly_one_holder(lab: Any, members: int) -> None:
    holders = [await join(await lab.client(f"m{number}")) for number in range(members)]
    sizes = sorted(4 // members + (index < 4 % members) for index in range(members))

    async def settled() -> None:
        while sorted(len(holder.held) for holder in holders) != sizes:
            changes = [asyncio.ensure_future(holder.changed.wait()) for holder in holders]
            await asyncio.wait(changes, return_when=asyncio.FIRST_COMPLETED)
            for holder, change in zip(holders, changes, strict=True):
                change.cancel()
                holder.changed.clear()

    await soon(settled())
    assert sorted(partition for holder in holders for partition in holder.held) == [0, 1, 2, 3]
    for holder in holders:
        assert holder.membership.assigned == holder.held


async def test_a_planned_leave_gives_a_partition_away_only_after_on_revoked(lab: Any) -> None:
    may_let_go = asyncio.Event()
    leaver, heir = await join(await lab.client("leaver"), may_let_go), None
    await soon(leaver.holds(4))
    heir = await join(await lab.client("heir"))
    await soon(leaver.asked.wait())
    assert not heir.held
    may_let_go.set()
    assert len(await soon(heir.holds(2))) == 2
    assert not heir.held & leaver.held
    await soon(leaver.membership.leave())
    assert leaver.held == set()
    assert leaver.membership.assigned == frozenset()
    assert await soon(heir.holds(4)) == {0, 1, 2, 3}


async def test_a_slow_on_revoked_delays_the_heir_and_nothing_else(lab: Any) -> None:
    may_let_go = asyncio.Event()
    leaver = await join(await lab.client("leaver"), may_let_go)
    heir = None
    await soon(leaver.holds(4))
    heir = await join(await lab.client("heir"))
    await soon(leaver.asked.wait())
    leaving = asyncio.ensure_future(leaver.membership.leave())
    await asyncio.wait([leaving], timeout=0.5)
    assert not heir.held
    may_let_go.set()
    await soon(leaving)
    assert await soon(heir.holds(4)) == {0, 1, 2, 3}


async def test_the_partitions_of_a_killed_member_move(lab: Any) -> None:
    survivor = await join(await lab.client("survivor"))
    await soon(survivor.holds(4))
    victim = await lab.member("routers", RESULT)
    await soon(victim.holds(2))
    await soon(survivor.holds(2))
    await victim.kill()
    assert await soon(survivor.holds(4), lab.takeover_seconds) == {0, 1, 2, 3}


async def test_who_comes_back_under_its_name_does_not_wait_until_the_group_takes_it_for_dead(lab: Any) -> None:
    survivor = await join(await lab.client("survivor"))
    await soon(survivor.holds(4))
    victim = await lab.member("routers", RESULT, name="one")
    before = await soon(victim.holds(2))
    await soon(survivor.holds(2))
    await victim.kill()
    again = await lab.member("routers", RESULT, name="one")
    assert await soon(again.holds(2), 6.0) == before
    assert survivor.held == frozenset(range(4)) - before


async def test_two_members_of_one_name_share_like_others(lab: Any) -> None:
    first = await lab.member("routers", RESULT, name="one")
    await soon(first.holds(4))
    second = await lab.member("routers", RESULT, name="one")
    mine = await soon(second.holds(2), lab.takeover_seconds)
    assert await soon(first.holds(2), lab.takeover_seconds) == frozenset(range(4)) - mine


async def test_groups_do_not_see_each_other(lab: Any) -> None:
    bus = await lab.client()
    one, other = await join(bus), await join(bus, group="others")
    assert await soon(one.holds(4)) == await soon(other.holds(4))


async def test_a_member_gets_no_partition_but_those_it_takes(lab: Any) -> None:
    low = await join(await lab.client("low"), only=frozenset({0, 1}))
    high = await join(await lab.client("high"), only=frozenset({3}))
    assert await soon(low.holds(2)) == {0, 1}
    assert await soon(high.holds(1)) == {3}
    rest = await join(await lab.client("rest"))
    assert 2 in await soon(rest.holds(1))


async def test_a_member_that_takes_nothing_holds_nothing(lab: Any) -> None:
    nothing = await join(await lab.client("nothing"), only=frozenset())
    everything = await join(await lab.client("everything"))
    assert await soon(everything.holds(4)) == {0, 1, 2, 3}
    assert not nothing.held


async def test_a_partition_that_nobody_takes_waits_for_one_who_does(lab: Any) -> None:
    few = await join(await lab.client("few"), only=frozenset({0, 1}))
    await soon(few.holds(2))
    await soon(few.membership.leave())
    others = await join(await lab.client("others"), only=frozenset({2, 3}))
    assert await soon(others.holds(2)) == {2, 3}
    again = await join(await lab.client("again"), only=frozenset({0, 1}))
    assert await soon(again.holds(2)) == {0, 1}
    assert others.held == {2, 3}


async def test_a_partition_goes_from_who_takes_all_to_who_takes_it_only_after_on_revoked(lab: Any) -> None:
    may_let_go = asyncio.Event()
    generous = await join(await lab.client("generous"), may_let_go)
    await soon(generous.holds(4))
    picky = await join(await lab.client("picky"), only=frozenset({2}))
    await soon(generous.asked.wait())
    assert not picky.held
    may_let_go.set()
    assert await soon(picky.holds(1)) == {2}
    assert await soon(generous.holds(3)) == {0, 1, 3}


async def test_the_partition_of_a_killed_member_goes_to_one_that_takes_it(lab: Any) -> None:
    victim = await lab.member("routers", RESULT, frozenset({1}))
    await soon(victim.holds(1))
    other = await join(await lab.client("other"), only=frozenset({0, 2, 3}))
    await soon(other.holds(3))
    heir = await join(await lab.client("heir"), only=frozenset({1}))
    await victim.kill()
    assert await soon(heir.holds(1), lab.takeover_seconds) == {1}
    assert other.held == {0, 2, 3}


# --- the broker dies -------------------------------------------------------------------------------------------------
async def test_a_broker_that_dies_loses_and_doubles_nothing_acknowledged(lab: Any) -> None:
    bus, reader = await lab.client("writer"), await lab.client("reader")
    async with tailing(reader, QUEUE, 0) as tail:
        futures = [bus.append(QUEUE, 0, b"k", value) for value in numbered(500)]
        seen = await first(tail, 1)
        await lab.kill_broker()
        futures += [bus.append(QUEUE, 0, b"k", value) for value in numbered(500, 500)]
        await lab.start_broker()
        futures += [bus.append(QUEUE, 0, b"k", value) for value in numbered(500, 1000)]
        offsets = await soon(asyncio.gather(*futures))
        seen += await first(tail, 1500 - len(seen))
    assert values(seen) == numbered(1500)
    assert [record.offset for record in seen] == offsets
    assert bus.in_flight_bytes == 0


async def test_healthy_tells_that_the_broker_is_away(lab: Any) -> None:
    bus = await lab.client()
    await soon(bus.append(QUEUE, 0, b"k", b"before"))
    assert bus.healthy

    async def becomes(healthy: bool) -> None:
        while bus.healthy is not healthy:  # The port has no event for it: readiness is asked for, not told.
            await asyncio.sleep(0.02)

    await lab.kill_broker()
    meanwhile = bus.append(QUEUE, 0, b"k", b"meanwhile")
    await soon(becomes(False))
    await lab.start_broker()
    await soon(meanwhile)
    await soon(becomes(True))


async def test_members_keep_or_regain_their_partitions_when_the_broker_comes_back(lab: Any) -> None:
    bus = await lab.client()
    holder = await join(bus)
    await soon(holder.holds(4))
    await soon(bus.commit("routers", RESULT, {0: 5}))
    await lab.kill_broker()
    await lab.start_broker()
    await soon(bus.append(RESULT, 0, b"k", b"after"))
    assert await soon(holder.holds(4)) == {0, 1, 2, 3}
    await soon(bus.commit("routers", RESULT, {0: 6}))
    assert await soon(bus.committed("routers", RESULT, 0)) == 6


async def test_a_member_that_comes_back_later_than_another_after_the_brokers_death_keeps_its_partitions(
    lab: Any,
) -> None:
    bus = await lab.client()
    holder = await join(bus)
    await soon(holder.holds(4))
    slow = await lab.member("routers", RESULT)
    theirs = await soon(slow.holds(2))
    mine = set(await soon(holder.holds(2)))
    slow.pause()
    await lab.kill_broker()
    await lab.start_broker()
    await soon(bus.append(RESULT, 0, b"k", b"after"))
    for _ in range(10):
        await asyncio.sleep(0.1)
        assert not holder.held & theirs
    slow.go_on()
    for _ in range(40):
        await asyncio.sleep(0.1)
        assert holder.held == mine
