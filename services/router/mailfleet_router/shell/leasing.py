"""`mail.lease` as the router reads and writes it: what its owners ask for and hold, and the granter's part.

All instants here are of the process's steady clock (`Clock.monotonic`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import aclosing

from mailfleet_core.bus import topics
from mailfleet_core.bus.port import Bus, BusUnavailable
from mailfleet_core.clock import Clock
from mailfleet_core.model.wire import Malformed
from mailfleet_router.decisions.shaping import leasing
from mailfleet_router.decisions.shaping.granting import Granting
from mailfleet_router.decisions.shaping.leases import Limit
from mailfleet_router.decisions.shaping.leasing import BEAT_SECONDS, Holding, Record

log = logging.getLogger(__name__)

SHORT_SECONDS = 0.05
"""Records of one event are collected for so long."""
AGAIN_SECONDS = 1.0
"""Before the log is read again after it could not be read."""
TRIM_SECONDS = 60.0
"""The granter drops records that it read so long ago: by then all leases in them have ended."""


class Leases:
    """The shares that the owners of this process hold of the limits that span partitions; one object a process."""

    def __init__(
        self,
        bus: Bus,
        clock: Clock,
        instance: str,
        grew: Callable[[set[str]], None],
        trim_seconds: float = TRIM_SECONDS,
    ) -> None:
        """`grew` is told which holders may use more than before."""
        self._bus, self._clock, self._instance, self._grew = bus, clock, instance, grew
        self._trim_seconds = trim_seconds
        self.trimmed = 0
        """Records before this offset were dropped."""
        self._holding = Holding()
        self._asked = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._granter: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Read the topic, and say what is wanted, from now on."""
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._ask())]

    async def stop(self) -> None:
        """Say what was given back, then read and write no further."""
        self._write(self._holding.ask(self._clock.monotonic(), last=True))
        self.retire()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- what a gate asks: see `Holding` -----------------------------------------------------------------------------
    def want(self, counter: str, holder: str, limit: Limit, demand: float, now: float, used: float = 0.0) -> None:
        """The holder could use so much, and has so many units in use."""
        self._holding.want(counter, holder, limit, demand, now, used)
        if self._holding.urgent:
            self._asked.set()

    def demand(self, counter: str, holder: str, waiting: int, now: float) -> float:
        """Of a rate, what the holder could use, in messages per second."""
        return self._holding.demand(counter, holder, waiting, now)

    def usable(self, counter: str, holder: str, now: float) -> float:
        """The share that may be used now, in messages per second or units at once; 0: none, or none yet."""
        return self._holding.usable(counter, holder, now)

    def wait(self, counter: str, holder: str, now: float) -> float:
        """Seconds until a message may go by the holder's share of a rate; infinite without a share."""
        return self._holding.wait(counter, holder, now)

    def take(self, counter: str, holder: str, now: float) -> None:
        """A message goes. Only after `wait` gave 0."""
        self._holding.take(counter, holder, now)

    def release(self, counter: str, holder: str) -> None:
        """The holder uses nothing of this limit from now on."""
        self._holding.release(counter, holder)
        self._asked.set()

    def counters(self, holder: str) -> list[str]:
        """The limits of which it holds, or asks for, a share."""
        return self._holding.counters(holder)

    # --- owners come and go --------------------------------------------------------------------------------------------
    def left(self, holder: str) -> None:
        """An owner that owns no more."""
        self._holding.left(holder)
        self._asked.set()

    def grant_as(self, epoch: int) -> None:
        """This process is the granter, with the epoch of its claim to queue partition 0."""
        self.retire()
        self._granter = asyncio.create_task(self._grant(Granting(epoch)))

    def retire(self) -> None:
        """And now it is not."""
        if self._granter is not None:
            self._granter.cancel()
            self._granter = None

    # --- holding -------------------------------------------------------------------------------------------------------
    async def _listen(self) -> None:
        start = 0
        while True:
            try:
                async for batch in self._bus.tail(topics.LEASE, 0, start):
                    now, grew = self._clock.monotonic(), set[str]()
                    for record in batch:
                        grew |= self._holding.heard(_read(record.key, record.tag, record.value), now)
                    start = batch[-1].offset + 1
                    if self._holding.urgent:
                        self._asked.set()
                    if grew:
                        self._grew(grew)
            except BusUnavailable as error:
                log.warning("mail.lease cannot be read; shares run out", extra={"error": str(error)})
            await asyncio.sleep(AGAIN_SECONDS)

    async def _ask(self) -> None:
        while True:
            wait = min(BEAT_SECONDS, self._holding.due_at() - self._clock.monotonic())
            await _for(self._asked, max(SHORT_SECONDS, wait))
            self._asked.clear()
            self._write(self._holding.ask(self._clock.monotonic()))

    def _write(self, records: Iterable[Record]) -> None:
        for record in records:
            said = self._bus.append(topics.LEASE, 0, record.key, record.value, record.tag)
            said.add_done_callback(_unsaid)

    # --- granting --------------------------------------------------------------------------------------------------------
    async def _grant(self, granting: Granting) -> None:
        try:
            await self._claim(granting.epoch)
            async with asyncio.TaskGroup() as group:
                news = asyncio.Event()
                group.create_task(self._hear(granting, news))
                group.create_task(self._give(granting, news))
        except* Exception:
            # Leases run out, and whoever owns the partition next grants again.
            log.exception("granting of leases failed", extra={"epoch": granting.epoch})

    async def _claim(self, epoch: int) -> None:
        record = leasing.claim(epoch, self._instance)
        while True:
            try:
                await self._bus.append(topics.LEASE, 0, record.key, record.value, record.tag)
                return
            except BusUnavailable as error:
                log.warning("nothing is granted until mail.lease is written", extra={"error": str(error)})
                await asyncio.sleep(AGAIN_SECONDS)

    async def _hear(self, granting: Granting, news: asyncio.Event) -> None:
        start, read = 0, deque[tuple[float, int]]()
        while not granting.over:
            try:
                async with aclosing(self._bus.tail(topics.LEASE, 0, start)) as batches:  # type: ignore[type-var]
                    async for batch in batches:
                        now = self._clock.monotonic()
                        for record in batch:
                            granting.heard(_read(record.key, record.tag, record.value), now)
                        news.set()
                        if granting.over:
                            return
                        start = batch[-1].offset + 1
                        read.append((now, start))
                        await self._trim(read, now)
            except BusUnavailable as error:
                log.warning("mail.lease cannot be read; nothing is granted", extra={"error": str(error)})
            await asyncio.sleep(AGAIN_SECONDS)

    async def _trim(self, read: deque[tuple[float, int]], now: float) -> None:
        if read[0][0] > now - 2 * self._trim_seconds:
            return
        before = 0
        while read[0][0] <= now - self._trim_seconds:
            before = read.popleft()[1]
        try:
            await self._bus.trim(topics.LEASE, 0, before)
            self.trimmed = before
        except BusUnavailable as error:
            log.info("mail.lease is trimmed later", extra={"error": str(error)})

    async def _give(self, granting: Granting, news: asyncio.Event) -> None:
        while not granting.over:
            wait = min(BEAT_SECONDS, granting.due_at() - self._clock.monotonic())
            await _for(news, max(SHORT_SECONDS, wait))
            news.clear()
            given = granting.grant(self._clock.monotonic())
            self._write(leasing.grants(granting.epoch, given))


def _read(key: bytes, tag: bytes, value: bytes | None) -> leasing.Claimed | leasing.Granted | leasing.Wanted | None:
    try:
        return leasing.read(key, tag, value)
    except Malformed as error:
        log.warning("a record of mail.lease is not understood", extra={"error": str(error)})
        return None


async def _for(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass


def _unsaid(future: asyncio.Future[int]) -> None:
    if not future.cancelled() and isinstance(error := future.exception(), BusUnavailable):
        # What is wanted is said again in a moment, and what was given counts as in use until it ends.
        log.warning("mail.lease could not be written", extra={"error": str(error)})


class Shares:
    """The shares as a partition's decisions ask for them, which know no other clock than their own."""

    def __init__(self, leases: Leases, clock: Clock) -> None:
        self._leases, self._now = leases, clock.monotonic

    def want(self, counter: str, holder: str, limit: Limit, demand: float, used: float) -> None:
        """See `Leases.want`."""
        self._leases.want(counter, holder, limit, demand, self._now(), used)

    def demand(self, counter: str, holder: str, waiting: int) -> float:
        """See `Leases.demand`."""
        return self._leases.demand(counter, holder, waiting, self._now())

    def usable(self, counter: str, holder: str) -> float:
        """See `Leases.usable`."""
        return self._leases.usable(counter, holder, self._now())

    def wait(self, counter: str, holder: str) -> float:
        """See `Leases.wait`."""
        return self._leases.wait(counter, holder, self._now())

    def take(self, counter: str, holder: str) -> None:
        """See `Leases.take`."""
        self._leases.take(counter, holder, self._now())

    def release(self, counter: str, holder: str) -> None:
        """See `Leases.release`."""
        self._leases.release(counter, holder)

    def counters(self, holder: str) -> list[str]:
        """See `Leases.counters`."""
        return self._leases.counters(holder)
