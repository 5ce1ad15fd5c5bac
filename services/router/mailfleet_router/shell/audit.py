"""Runs the audit beside the owner of queue partition 0: it reads everything, and decides nothing for the mail."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import aclosing
from functools import partial

from mailfleet_core import metrics
from mailfleet_core.bus import topics
from mailfleet_core.bus.port import Bus, BusUnavailable, Record
from mailfleet_core.clock import Clock
from mailfleet_core.model.tags import NOTE, tag
from mailfleet_router.decisions.audit import Audit
from mailfleet_router.shell.hearing import Reading
from mailfleet_router.shell.splitter import GROUP as SPLITTERS

log = logging.getLogger(__name__)

GROUP = "audit"
LOOK_SECONDS = 2.0
OVERLAP_SECONDS = 60.0
"""The next audit reads so many seconds of events again: an end may be told a while before the queue forgets the unit."""
PATIENCE_SECONDS = 5.0
TRIM_SECONDS = 30.0
NOTE_KEY = b"!read"
BODY_WAITS_SECONDS = 360.0
"""A body waits less than this for the record that refers to it: ingest writes a body anew that waited for a minute, and
body and record may each be tried for two minutes (`port.DELIVERY_SECONDS`)."""


class Auditor:
    """One audit, started and stopped with the ownership of partition 0."""

    def __init__(
        self, bus: Bus, clock: Clock, grace_seconds: float, reading: Callable[[int], Reading | None] = lambda _: None
    ) -> None:
        """`reading`: what this process reads anyway of a queue partition, if it owns it."""
        self._bus, self._clock, self._grace_seconds, self._reading = bus, clock, grace_seconds, reading
        self._heard: dict[int, Reading] = {}
        """Queue partitions that are not read a second time."""
        self._audit = Audit()
        self._ends: list[int] = []
        self._caught_up: dict[int, bool] = {}
        self._read: dict[int, int] = {}
        self._trail: deque[tuple[float, dict[int, int]]] = deque()
        self._seen: deque[tuple[float, dict[int, int], dict[tuple[str, int], int]]] = deque()
        """When, the newest bodies then, and where we wrote a note into all that refers to bodies."""
        self._positions: dict[tuple[str, int], int] = {}
        """The last record read of what refers to bodies."""
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
        self._positions = {(topics.QUEUE, number): -1 for number in self._caught_up}
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
            group.create_task(self._trim())
            while True:
                await self._say()
                await asyncio.sleep(LOOK_SECONDS)

    async def _trim(self) -> None:
        """Let the log drop bodies early: without this they stay for the life of the queue."""
        bus = self._bus
        self._seen.clear()
        while True:
            # The bodies first: what is placed later is not below them.
            newest = dict(self._audit.newest_bodies)
            notes = [(topic, n) for topic in (topics.QUEUE, topics.ACCEPT) for n in range(bus.partitions(topic))]
            written = [bus.append(topic, number, NOTE_KEY, None, tag(NOTE)) for topic, number in notes]
            ends = dict(zip(notes, await asyncio.gather(*written), strict=True))
            self._stop_hearing_the_deaf()
            self._seen.append((self._clock.monotonic(), newest, ends))
            for partition, before in self._audit.bodies_free_before(self._settled()).items():
                await bus.trim(topics.BODY, partition, before)
            await asyncio.sleep(TRIM_SECONDS)

    def _stop_hearing_the_deaf(self) -> None:
        """Read alone again where the notes of the round before were not heard: the count rests on no other reader."""
        written = self._seen[-1][2] if self._seen else {}
        for number, reading in self._heard.items():
            if self._positions[topics.QUEUE, number] < written.get((topics.QUEUE, number), -1):
                reading.end()

    def _settled(self) -> dict[int, int]:
        """The newest bodies of a time since when everything that may refer to them was written, and read here."""
        passed = [
            at for at, _, ends in self._seen if all(self._positions.get(at, -1) >= end for at, end in ends.items())
        ]
        settled: dict[int, int] = {}
        while passed and self._seen[0][0] + BODY_WAITS_SECONDS <= passed[-1]:
            settled = self._seen.popleft()[1]
        return settled

    async def _queue(self, number: int) -> None:
        """Read a partition alone until somebody in this process is seen to read it and is not ahead; then hear it there."""
        while True:
            over: asyncio.Future[None] | None = None
            try:
                start = self._positions[topics.QUEUE, number] + 1
                async with aclosing(self._bus.tail(topics.QUEUE, number, start)) as tail:  # type: ignore[type-var]
                    async for batch in tail:
                        self._take(number, batch)
                        if (over := self._listen(number)) is not None:
                            break
                        await asyncio.sleep(0)
                if over is None:
                    return
                await over
            finally:
                if number in self._heard:
                    self._heard.pop(number).end()

    def _listen(self, number: int) -> asyncio.Future[None] | None:
        reading = self._reading(number)
        if reading is None or not 0 <= reading.last <= self._positions[topics.QUEUE, number]:
            return None
        self._heard[number] = reading
        return reading.listen(partial(self._take, number))

    def _take(self, number: int, batch: list[Record]) -> None:
        last = self._positions[topics.QUEUE, number]
        if batch[0].offset <= last:
            batch = [record for record in batch if record.offset > last]
        if batch:
            self._caught_up[number] = batch[-1].offset + 1 >= self._ends[number]
            self._audit.queue(number, batch)
            self._positions[topics.QUEUE, number] = batch[-1].offset

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
            self._positions[topics.ACCEPT, number] = batch[-1].offset

    async def _say(self) -> None:
        now = self._clock.now()
        self._trail.append((now, dict(self._read)))
        while self._trail[0][0] < now - OVERLAP_SECONDS:
            await self._bus.commit(GROUP, topics.EVENTS, self._trail.popleft()[1])
        overdue = self._audit.overdue(now, self._grace_seconds)
        metrics.AUDIT_OPEN.set(self._audit.open)
        metrics.AUDIT_OVERDUE.set(overdue)
        if overdue:
            log.error(
                "accepted recipients without an end",
                extra={"count": overdue, "some": self._audit.examples(now, self._grace_seconds)},
            )
