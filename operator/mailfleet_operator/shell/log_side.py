"""What the operator reads from the log and writes into it: sources and pools, statistics, and which lanes are empty."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from typing import cast

from mailfleet_core.bus import topics
from mailfleet_core.bus.port import Bus, BusUnavailable, Record
from mailfleet_core.clock import Clock
from mailfleet_core.model import stats, wire
from mailfleet_core.model.fleet import Fleet
from mailfleet_core.model.sources import POOL_KEY, SOURCE_KEY, Table
from mailfleet_operator.shell.cluster import NotLeading

log = logging.getLogger(__name__)

SENDERS = "senders"
"""The group in which senders commit how far they have answered a lane."""
SENDERS_MARK = b"!lane"
"""The key of what senders tell each other in a lane; everything else is a dispatch."""
READ_AGAIN_SECONDS = 2.0


class LogSide:
    """Follows `mail.control` and `mail.stats`."""

    def __init__(
        self,
        bus: Bus,
        clock: Clock,
        may_write: Callable[[], bool],
        *,
        quiet_seconds: float = 3.0,
        sum_seconds: float = 0.0,
    ) -> None:
        """A lane from which nothing comes for `quiet_seconds`, although its end lies further on, has nothing there.
        Statistics are summed up at most each `sum_seconds`."""
        self._bus, self._clock, self._may_write = bus, clock, may_write
        self._quiet_seconds, self._sum_seconds = quiet_seconds, sum_seconds
        self.lanes = bus.partitions(topics.DISPATCH)
        self.table = Table(self.lanes)
        self.fleet = Fleet()
        """As it is now; `fresh` is what to go by."""
        self._summed, self._summed_at, self._summed_news = Fleet(), 0.0, 0
        self.version = 0
        """Grows with every change of the table."""
        self.news = 0
        """Grows with every record of statistics."""
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, instance: str) -> None:
        """Read all there is of sources, then go on reading. Raises BusUnavailable."""
        known = asyncio.get_running_loop().create_future()
        own = await self._bus.append(topics.CONTROL, 0, f"read|operator|{instance}".encode(), None)
        self._tasks = [
            asyncio.create_task(self._follow(topics.CONTROL, self._control, own, known)),
            asyncio.create_task(self._follow(topics.STATS, self._stats, 0, asyncio.get_running_loop().create_future())),
        ]
        await known

    async def stop(self) -> None:
        """Read no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _follow(
        self, topic: str, take: Callable[[bytes, bytes | None], None], own: int, known: asyncio.Future[None]
    ) -> None:
        """`known` is done when the record at `own`, and so everything before it, was read."""
        start = 0
        while True:
            try:
                async for records in self._bus.tail(topic, 0, start):
                    for record in records:
                        start = record.offset + 1
                        self._take(take, record.key, record.value)
                    if records and records[-1].offset >= own and not known.done():
                        known.set_result(None)
            except BusUnavailable as error:
                log.warning("the log cannot be read", extra={"topic": topic, "error": str(error)})
            await asyncio.sleep(READ_AGAIN_SECONDS)

    def _take(self, take: Callable[[bytes, bytes | None], None], key: bytes, value: bytes | None) -> None:
        try:
            take(key, value)
        except wire.Malformed as error:
            log.warning("a record cannot be read", extra={"key": key, "error": str(error)})

    def _control(self, key: bytes, value: bytes | None) -> None:
        if self.table.read(key, value):
            self.version += 1

    def _stats(self, _: bytes, value: bytes | None) -> None:
        if value is not None:
            self.fleet.read(stats.decode(value))
            self.news += 1

    def fresh(self) -> Fleet | None:
        """What every router has said lately; None: one of them has not.

        All who ask within `sum_seconds` get the same, for to sum up a thousand sources of 64 partitions anew with each of the
        records that come all the time would be most of the work there is.
        """
        now = self._clock.monotonic()
        if self._summed_news != self.news and (not self._summed.complete or now - self._summed_at >= self._sum_seconds):
            self._summed, self._summed_at, self._summed_news = self.fleet.copy(), now, self.news
        self._summed.forget(self._clock.now())
        return self._summed if self._summed.complete else None

    async def tell(self, records: Mapping[str, wire.Source | None]) -> None:
        """Write sources, and wait until they are durable."""
        await self._write((SOURCE_KEY + name.encode(), record) for name, record in records.items())

    async def tell_pool(self, name: str, pool: wire.Pool | None) -> None:
        """Write one pool."""
        await self._write([(POOL_KEY + name.encode(), pool)])

    async def _write(self, records: Iterable[tuple[bytes, wire.Source | wire.Pool | None]]) -> None:
        if not self._may_write():
            raise NotLeading
        appended = []
        for key, record in records:
            value = None if record is None else wire.encode(record)
            appended.append(self._bus.append(topics.CONTROL, 0, key, value, topics.tag(topics.PUT)))
            self._control(key, value)
        await asyncio.gather(*appended)

    async def empty(self, lanes: Iterable[int]) -> frozenset[int]:
        """Those of the lanes in which every dispatch has been answered. Raises BusUnavailable."""
        numbers = tuple(lanes)
        answered = await asyncio.gather(*(self._answered(lane) for lane in numbers))
        return frozenset(lane for lane, done in zip(numbers, answered, strict=True) if done)

    async def _answered(self, lane: int) -> bool:
        """Is there no dispatch beyond what its sender has committed?

        Were one found too late, it would still be answered: by whoever has the lane next, as one of a source that has it no
        more.
        """
        done = await self._bus.committed(SENDERS, topics.DISPATCH, lane)
        end = await self._bus.end(topics.DISPATCH, lane)
        if done >= end:
            return True
        # Between the two may be marks of senders only, or nothing but a gap in the offsets.
        tail = cast(AsyncGenerator[list[Record], None], self._bus.tail(topics.DISPATCH, lane, done))
        try:
            async with asyncio.timeout(self._quiet_seconds):
                async for records in tail:
                    if any(record.key != SENDERS_MARK for record in records):
                        return False
        except TimeoutError:
            pass
        finally:
            await tail.aclose()
        return True
