"""Group `splitters`: messages for several sites become units."""

from __future__ import annotations

import asyncio
import logging

from mailfleet_core.bus import topics
from mailfleet_core.bus.lag import Lag
from mailfleet_core.bus.port import Bus, BusUnavailable, Membership, Record
from mailfleet_core.model import wire
from mailfleet_core.model.site import partition_of
from mailfleet_router.decisions.policy import Policy
from mailfleet_router.decisions.splitting import split

log = logging.getLogger(__name__)

GROUP = "splitters"
PATIENCE_SECONDS = 1.0


class Splitter:
    """One member of the group; a task for each partition of `mail.accept` that it holds."""

    def __init__(self, bus: Bus, policy: Policy, instance: str) -> None:
        self._bus = bus
        self._policy = policy
        self._instance = instance
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._positions: dict[int, int] = {}
        """Of the partitions held, up to where they are split."""
        self._lag: asyncio.Task[None] | None = None
        self._membership: Membership | None = None

    async def start(self) -> None:
        """Join the group."""
        self._lag = asyncio.create_task(Lag(self._bus, GROUP, topics.ACCEPT, lambda: self._positions).run())
        self._membership = await self._bus.join(
            GROUP, topics.ACCEPT, self._assigned, self._revoked, name=self._instance
        )

    async def drain(self) -> None:
        """Leave it; what was begun and not committed is done again, with the same ids, by the next owner."""
        if self._membership is not None:
            await self._membership.leave()
        if self._lag is not None:
            self._lag.cancel()
            await asyncio.gather(self._lag, return_exceptions=True)

    def _assigned(self, partitions: frozenset[int]) -> None:
        for partition in partitions:
            self._tasks[partition] = asyncio.create_task(self._work(partition))

    async def _revoked(self, partitions: frozenset[int]) -> None:
        tasks = [self._tasks.pop(partition) for partition in partitions if partition in self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for partition in partitions:
            self._positions.pop(partition, None)

    async def _work(self, partition: int) -> None:
        while True:
            try:
                position = await self._bus.committed(GROUP, topics.ACCEPT, partition)
                self._positions[partition] = position
                async for batch in self._bus.tail(topics.ACCEPT, partition, position):
                    await self._split(partition, batch)
            except BusUnavailable as error:
                log.warning("splitting waits for the log", extra={"partition": partition, "error": str(error)})
                await asyncio.sleep(PATIENCE_SECONDS)

    async def _split(self, partition: int, batch: list[Record]) -> None:
        appends = [append for record in batch for append in self._puts(record)]
        await asyncio.gather(*appends)
        await self._bus.commit(GROUP, topics.ACCEPT, {partition: batch[-1].offset + 1})
        self._positions[partition] = batch[-1].offset + 1

    def _puts(self, record: Record) -> list[asyncio.Future[int]]:
        if record.value is None:
            return []
        try:
            units = split(wire.decode(wire.Accepted, record.value), self._policy)
        except (wire.Malformed, ValueError):
            # It stays in the log; the audit counts its recipients as open if it can read them.
            log.error("a record of mail.accept is not understood", extra={"offset": record.offset})
            return []
        homes = self._bus.partitions(topics.QUEUE)
        return [
            self._bus.append(
                topics.QUEUE, partition_of(unit.site, homes), unit.unit_id, wire.encode(wire.Entry(unit)),
                topics.tag(topics.PUT),
            )
            for unit in units
        ]  # fmt: skip
