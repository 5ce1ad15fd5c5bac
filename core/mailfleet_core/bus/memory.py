"""The log in memory: what the simulation and the tests of services run on. It keeps the same contract as the others.

`MemoryLog` is the broker, `MemoryBus` a client of it. Nothing here looks at a clock: what takes time on a real log
(an acknowledgement, an outage, a death) happens when the test says so.
"""

from __future__ import annotations

import asyncio
import bisect
import logging
import math
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from mailfleet_core.bus import topics
from mailfleet_core.bus.port import BusUnavailable, Membership, NotFound, OnAssigned, OnRevoked, Record
from mailfleet_core.bus.sharing import shares

log = logging.getLogger(__name__)

BATCH_RECORDS = 500
FIRST_OFFSET = 8


@dataclass(slots=True)
class _Partition:
    """Records in order of offset. Offsets have gaps, so that nobody gets used to their being dense."""

    offsets: list[int] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    end: int = FIRST_OFFSET
    waiters: list[asyncio.Future[None]] = field(default_factory=list)

    def write(self, key: bytes, value: bytes | None, tag: bytes) -> int:
        offset = self.end
        self.offsets.append(offset)
        self.records.append(Record(offset, key, tag, value))
        self.end = offset + 1 + len(key) + len(value or b"")
        self.wake()
        return offset

    def wake(self) -> None:
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)
        self.waiters.clear()

    async def changed(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self.waiters.append(waiter)
        await waiter

    def after(self, start: int) -> list[Record]:
        index = bisect.bisect_left(self.offsets, start)
        return self.records[index : index + BATCH_RECORDS]

    def keep(self, records: list[Record]) -> None:
        self.records = records
        self.offsets = [record.offset for record in records]


@dataclass(slots=True)
class _Append:
    """One append on its way."""

    partition: _Partition
    key: bytes
    value: bytes | None
    tag: bytes
    answer: asyncio.Future[int]
    size: int


class MemoryLog:
    """The state of the broker: what outlives its clients."""

    def __init__(self, queue_partitions: int = 4, lanes: int = 16) -> None:
        self.topics = topics.topics(queue_partitions, lanes, 5 * topics.DAY)
        self.away = False
        self._partitions = {
            (topic.name, number): _Partition() for topic in self.topics.values() for number in range(topic.partitions)
        }
        self._positions: dict[tuple[str, str, int], int] = {}
        self._groups: dict[tuple[str, str], _Group] = {}
        self._clients: list[MemoryBus] = []

    def records(self, topic: str, partition: int) -> list[Record]:
        """All records kept, for assertions."""
        return list(self._at(topic, partition).records)

    def compact(self, topic: str, partition: int, drop_tombstones: bool = False) -> None:
        """Keep the newest record of each key, as compaction does some time on a real log."""
        at = self._at(topic, partition)
        newest = {record.key: record.offset for record in at.records}
        kept = [record for record in at.records if newest[record.key] == record.offset]
        at.keep([record for record in kept if not (drop_tombstones and record.value is None)])

    def go_away(self) -> None:
        """The broker is away: appends wait, tails wait, questions raise BusUnavailable."""
        self.away = True

    def come_back(self) -> None:
        """The broker is back, with everything that it acknowledged."""
        self.away = False
        for partition in self._partitions.values():
            partition.wake()
        for client in list(self._clients):
            client.release()

    def _at(self, topic: str, partition: int) -> _Partition:
        return self._partitions[topic, partition]

    def _group(self, group: str, topic: str) -> _Group:
        return self._groups.setdefault((group, topic), _Group(self.topics[topic].partitions))


class MemoryBus:
    """A client of a `MemoryLog`, with what a test may do to it: hold its answers, fail it, kill it."""

    def __init__(self, memory: MemoryLog, client: str) -> None:
        self.client = client
        self.failing: BusUnavailable | None = None
        """While set, appends fail with it and are not written."""
        self._log = memory
        self._held = False
        self._killed = False
        self._pending: deque[_Append] = deque()
        self._in_flight_bytes = 0
        self._pump_scheduled = False
        self._memberships: list[_Member] = []

    # --- what tests do -------------------------------------------------------------------------------------------
    def hold(self) -> None:
        """From now on appends are written and acknowledged only by `release`."""
        self._held = True

    def release(self, count: int | None = None) -> None:
        """Write and acknowledge the oldest `count` appends; without a count all of them, and hold no longer."""
        self._held = self._held and count is not None
        self._write(len(self._pending) if count is None else count)

    def drop(self, error: BusUnavailable | None = None) -> None:
        """Fail all held appends: they are not written."""
        while self._pending:
            self._answer(self._pending.popleft(), error or BusUnavailable("the memory log was told to fail"))

    def kill(self, written: int = 0) -> None:
        """This client dies: its oldest `written` unacknowledged appends are in the log, no answer comes, its
        partitions go to others without a word to it."""
        for _ in range(min(written, len(self._pending))):
            append = self._pending.popleft()
            append.partition.write(append.key, append.value, append.tag)
        self._killed = True
        self._pending.clear()
        self._in_flight_bytes = 0
        self.evict()
        if self in self._log._clients:
            self._log._clients.remove(self)

    def evict(self) -> None:
        """The group takes this client for dead and gives its partitions away; it goes on believing that it has them."""
        for member in self._memberships:
            member.group.forget(member)

    def doubt(self, doubts: bool = True) -> None:
        """The group has long not answered this client, as after a long stop of its process; or has answered again."""
        for member in self._memberships:
            member.sure_until = -math.inf if doubts else math.inf

    # --- the port ------------------------------------------------------------------------------------------------
    async def start(self) -> None:
        """See `Bus.start`."""
        self._alive()
        self._log._clients.append(self)

    async def close(self) -> None:
        """See `Bus.close`."""
        if self._killed:
            return
        await asyncio.gather(*(member.leave() for member in self._memberships))
        self.release()
        await asyncio.gather(*(append.answer for append in self._pending), return_exceptions=True)
        if self in self._log._clients:
            self._log._clients.remove(self)

    def partitions(self, topic: str) -> int:
        """See `Bus.partitions`."""
        return self._log.topics[topic].partitions

    def place(self, topic: str, partition: int, key: bytes, value: bytes) -> asyncio.Future[int]:
        """See `Bus.place`."""
        return self.append(topic, partition, key, value)

    def append(
        self, topic: str, partition: int, key: bytes, value: bytes | None, tag: bytes = b""
    ) -> asyncio.Future[int]:
        """See `Bus.append`."""
        loop = asyncio.get_running_loop()
        size = len(key) + len(value or b"") + len(tag)
        append = _Append(self._log._at(topic, partition), key, value, tag, loop.create_future(), size)
        if self._killed:
            return append.answer
        self._in_flight_bytes += size
        self._pending.append(append)
        if not self._pump_scheduled:
            self._pump_scheduled = True
            loop.call_soon(self._pump)
        return append.answer

    @property
    def in_flight_bytes(self) -> int:
        """See `Bus.in_flight_bytes`."""
        return self._in_flight_bytes

    @property
    def healthy(self) -> bool:
        """See `Bus.healthy`."""
        return not (self._log.away or self.failing or self._killed)

    async def tail(self, topic: str, partition: int, start: int) -> AsyncIterator[list[Record]]:
        """See `Bus.tail`."""
        at = self._log._at(topic, partition)
        while True:
            batch = [] if self._log.away or self._killed else at.after(start)
            if batch:
                start = batch[-1].offset + 1
                yield batch
                await asyncio.sleep(0)
            else:
                await at.changed()

    async def read(self, topic: str, partition: int, offset: int, length: int) -> bytes:
        """See `Bus.read`."""
        self._alive()
        found = self._log._at(topic, partition).after(offset)[:1]
        if not found or found[0].offset != offset or found[0].value is None:
            raise NotFound(f"{topic}[{partition}] has no record at {offset}")
        return found[0].value

    def read_at_once(self, topic: str, partition: int, offset: int, length: int) -> bytes | None:
        """See `Bus.read_at_once`. Only records at even offsets, so that every other read waits."""
        found = (
            [] if offset % 2 or self._killed or self._log.away else self._log._at(topic, partition).after(offset)[:1]
        )
        return found[0].value if found and found[0].offset == offset else None

    async def end(self, topic: str, partition: int) -> int:
        """See `Bus.end`."""
        self._alive()
        return self._log._at(topic, partition).end

    async def join(
        self,
        group: str,
        topic: str,
        on_assigned: OnAssigned,
        on_revoked: OnRevoked,
        only: frozenset[int] | None = None,
        name: str = "",
    ) -> Membership:
        """See `Bus.join`."""
        self._alive()
        member = _Member(self._log._group(group, topic), on_assigned, on_revoked, only)
        self._memberships.append(member)
        member.group.add(member)
        return member

    async def commit(self, group: str, topic: str, positions: Mapping[int, int]) -> None:
        """See `Bus.commit`."""
        self._alive()
        self._log._positions.update({(group, topic, partition): at for partition, at in positions.items()})

    async def committed(self, group: str, topic: str, partition: int) -> int:
        """See `Bus.committed`."""
        self._alive()
        return self._log._positions.get((group, topic, partition), 0)

    async def trim(self, topic: str, partition: int, before: int) -> None:
        """See `Bus.trim`."""
        self._alive()
        at = self._log._at(topic, partition)
        at.keep([record for record in at.records if record.offset >= before])

    # --- inside --------------------------------------------------------------------------------------------------
    def _alive(self) -> None:
        if self._log.away or self._killed:
            raise BusUnavailable("the memory log was told to be away")

    def _pump(self) -> None:
        self._pump_scheduled = False
        if self.failing is not None:
            self.drop(self.failing)
        elif not self._held:
            self._write(len(self._pending))

    def _write(self, count: int) -> None:
        if self._log.away:
            return
        for _ in range(min(count, len(self._pending))):
            append = self._pending.popleft()
            self._answer(append, append.partition.write(append.key, append.value, append.tag))

    def _answer(self, append: _Append, outcome: int | BusUnavailable) -> None:
        self._in_flight_bytes -= append.size
        if append.answer.done():
            return
        if isinstance(outcome, BusUnavailable):
            append.answer.set_exception(outcome)
        else:
            append.answer.set_result(outcome)


class _Member:
    """A member of a group and the partitions it was told it has."""

    def __init__(
        self, group: _Group, on_assigned: OnAssigned, on_revoked: OnRevoked, only: frozenset[int] | None
    ) -> None:
        self.group = group
        self.only = only
        self.on_assigned = on_assigned
        self.on_revoked = on_revoked
        self.held: frozenset[int] = frozenset()
        self.sure_until = math.inf
        """See `Membership.sure_until`."""

    @property
    def assigned(self) -> frozenset[int]:
        """See `Membership.assigned`."""
        return self.held

    async def leave(self) -> None:
        """See `Membership.leave`."""
        await self.group.remove(self)

    async def give_up(self, partitions: frozenset[int]) -> None:
        """Hand `partitions` back, after `on_revoked` is through with them."""
        try:
            await self.on_revoked(partitions)
        except Exception:
            log.exception("on_revoked failed; the partitions go to another member all the same")
        self.held -= partitions

    def take(self, partitions: frozenset[int]) -> None:
        """Hold `partitions` too."""
        self.held |= partitions
        self.on_assigned(partitions)


class _Group:
    """Who holds what; a partition moves only after its holder has let go of it."""

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions
        self._members: list[_Member] = []
        self._moving = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def add(self, member: _Member) -> None:
        """A new member; it gets its share when others have let go of it."""
        self._members.append(member)
        self._balance_soon()

    async def remove(self, member: _Member) -> None:
        """A member that leaves as planned."""
        if member not in self._members:
            return
        async with self._moving:
            self._members.remove(member)
            if member.held:
                await member.give_up(member.held)
        self._balance_soon()

    def forget(self, member: _Member) -> None:
        """A member that is dead, or is taken for dead."""
        if member in self._members:
            self._members.remove(member)
            self._balance_soon()

    def _balance_soon(self) -> None:
        previous = self._task

        async def balance() -> None:
            if previous is not None:
                await asyncio.wait([previous])
            async with self._moving:
                await self._balance()

        self._task = asyncio.get_running_loop().create_task(balance())

    async def _balance(self) -> None:
        surplus = {member: member.held - share for member, share in self._shares().items()}
        await asyncio.gather(*(member.give_up(partitions) for member, partitions in surplus.items() if partitions))
        agreed = self._shares()
        for member, share in agreed.items():
            others = frozenset[int]().union(*(other.held for other in agreed if other is not member))
            if missing := share - member.held - others:
                member.take(missing)

    def _shares(self) -> dict[_Member, frozenset[int]]:
        only = {member: member.only for member in self._members if member.only is not None}
        return shares({member: member.held for member in self._members}, self._partitions, only)
