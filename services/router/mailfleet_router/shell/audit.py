"""Runs the audit beside the owner of queue partition 0: it reads everything, and decides nothing for the mail."""

from __future__ import annotations

import asyncio
import logging
from collections import deque

from mailfleet_core import metrics
from mailfleet_core.bus import topics
from mailfleet_core.bus.port import Bus, BusUnavailable
from mailfleet_core.clock import Clock
from mailfleet_router.decisions.audit import Audit
from mailfleet_router.shell.splitter import GROUP as SPLITTERS

log = logging.getLogger(__name__)

GROUP = "audit"
LOOK_SECONDS = 2.0
OVERLAP_SECONDS = 60.0
"""The next audit reads so many seconds of events again: an end may be told a while before the queue forgets the unit."""
PATIENCE_SECONDS = 5.0


class Auditor:
    """One audit, started and stopped with the ownership of partition 0."""

    def __init__(self, bus: Bus, clock: Clock, grace_seconds: float) -> None:
        self._bus, self._clock, self._grace_seconds = bus, clock, grace_seconds
        self._audit = Audit()
        self._ends: list[int] = []
        self._caught_up: dict[int, bool] = {}
        self._read: dict[int, int] = {}
        self._trail: deque[tuple[float, dict[int, int]]] = deque()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Count no more."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        metrics.AUDIT_OPEN.set(0)
        metrics.AUDIT_OVERDUE.set(0)

    async def _run(self) -> None:
        while True:
            self._audit = Audit()
            try:
                await self._count()
            except* BusUnavailable:
                log.info("the audit begins again when the log is back")
            except* Exception:
                log.exception("the audit failed; it begins again")
            await asyncio.sleep(PATIENCE_SECONDS)

    async def _count(self) -> None:
        bus = self._bus
        self._read, self._caught_up = {}, dict.fromkeys(range(bus.partitions(topics.QUEUE)), False)
        self._ends = [await bus.end(topics.QUEUE, number) for number in self._caught_up]
        async with asyncio.TaskGroup() as group:
            for number in self._caught_up:
                group.create_task(self._queue(number))
            while not all(self._caught_up.values()):
                # A partition where nothing comes is caught up too; its tail will say otherwise.
                self._caught_up = dict.fromkeys(self._caught_up, True)
                await asyncio.sleep(LOOK_SECONDS)
            self._audit.begin()
            for number in range(bus.partitions(topics.EVENTS)):
                start = await bus.committed(GROUP, topics.EVENTS, number)
                group.create_task(self._events(number, start))
            for number in range(bus.partitions(topics.ACCEPT)):
                start = await bus.committed(SPLITTERS, topics.ACCEPT, number)
                group.create_task(self._accepted(number, start))
            while True:
                await self._say()
                await asyncio.sleep(LOOK_SECONDS)

    async def _queue(self, number: int) -> None:
        async for batch in self._bus.tail(topics.QUEUE, number, 0):
            self._caught_up[number] = batch[-1].offset + 1 >= self._ends[number]
            for record in batch:
                self._audit.queue(record.key, record.tag, record.value)
            await asyncio.sleep(0)

    async def _events(self, number: int, start: int) -> None:
        async for batch in self._bus.tail(topics.EVENTS, number, start):
            for record in batch:
                if record.value is not None:
                    self._audit.events(record.value)
            self._read[number] = batch[-1].offset + 1
            await asyncio.sleep(0)

    async def _accepted(self, number: int, start: int) -> None:
        async for batch in self._bus.tail(topics.ACCEPT, number, start):
            for record in batch:
                if record.value is not None:
                    self._audit.accepted(record.value)

    async def _say(self) -> None:
        now = self._clock.now()
        self._trail.append((now, dict(self._read)))
        while self._trail[0][0] < now - OVERLAP_SECONDS:
            await self._bus.commit(GROUP, topics.EVENTS, self._trail.popleft()[1])
        overdue = self._audit.overdue(now, self._grace_seconds)
        metrics.AUDIT_OPEN.set(self._audit.open)
        metrics.AUDIT_OVERDUE.set(overdue)
        if overdue:
            log.error("accepted recipients without an end", extra={"count": overdue, "some": self._audit.examples()})
