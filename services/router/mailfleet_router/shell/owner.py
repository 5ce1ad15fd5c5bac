"""Owns one queue partition: claims it, feeds its decisions, does what they want."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from mailfleet_core import metrics
from mailfleet_core.bus import topics
from mailfleet_core.bus.port import Bus, BusUnavailable
from mailfleet_core.clock import Clock
from mailfleet_core.model import wire
from mailfleet_core.model.tags import EPOCH_KEY
from mailfleet_router.decisions.outbox import Report
from mailfleet_router.decisions.partition import Partition
from mailfleet_router.decisions.policy import Policy
from mailfleet_router.decisions.routing import Routing
from mailfleet_router.decisions.shaping.control import Controls
from mailfleet_router.decisions.shaping.last_minute import LastMinute
from mailfleet_router.decisions.shaping.learned import Wide
from mailfleet_router.decisions.shaping.leasing import holder_name
from mailfleet_router.decisions.spill.space import Spill, SpillLost
from mailfleet_router.decisions.sweep import Sweep
from mailfleet_router.shell import counting
from mailfleet_router.shell.control import Control
from mailfleet_router.shell.hearing import Reading
from mailfleet_router.shell.leasing import Leases, Shares
from mailfleet_router.shell.reports import Reports
from mailfleet_router.shell.resolving import Resolving

log = logging.getLogger(__name__)

GROUP = "routers"
PATIENCE_SECONDS = 1.0
ZOMBIE_SECONDS = 15.0
"""After somebody else claimed it: the group tells us by then whether it is still meant to be ours."""
QUIET_SECONDS = 5.0
"""At a planned leave: time for what is under way to become durable."""
CATCH_UP_SECONDS = 0.3
"""Without a new result for so long, all that lay there were read."""


class Disowned(Exception):
    """The partition is not ours any more, or we cannot know what we wrote to it."""


@dataclass(slots=True)
class Tools:
    """What all owners of a process share."""

    bus: Bus
    clock: Clock
    policy: Policy
    routing: Routing
    controls: Controls
    control: Control
    reports: Reports
    leases: Leases
    resolving: Resolving
    instance: str
    max_in_flight_bytes: int
    minute: LastMinute
    wide: Wide
    spill: Callable[[], Spill]
    """Makes the local store of a partition."""


class Owner:
    """One partition, from assignment to revocation. Every claim starts with a fresh fold."""

    def __init__(self, number: int, tools: Tools) -> None:
        self.number = number
        self.tools = tools
        self.partition: Partition | None = None
        self.reading = Reading()
        """Of the present fold."""
        self.draining = False
        self._sweep: Sweep | None = None
        self._failed: asyncio.Future[None] | None = None
        self._progressed = asyncio.Event()
        self._results_read = self._states_read = -1
        self._woken = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._committed = -1
        self._event_turn = number
        self._writing: set[asyncio.Task[None]] = set()
        self._unanswered: tuple[deque[asyncio.Future[int]], ...] = (deque(), deque())
        """Appends to our own partition, and to lanes. They are looked at before anything is acted on that lies behind them
        in the log: a callback for each would cost more than the append."""
        self._task = asyncio.create_task(self._run())

    @property
    def live(self) -> bool:
        """Does it route mail now?"""
        return self.partition is not None and self.partition.live and not self.partition.stopped

    async def stop(self) -> None:
        """Give it up, if there is time with nothing left half done."""
        self.draining = True
        with suppress(TimeoutError):
            async with asyncio.timeout(QUIET_SECONDS):
                # Once in the life of a process; an event for it would be set ten thousand times a second.
                while self.live and self.partition is not None and not self.partition.quiet:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        if self.live:
            with suppress(BusUnavailable):
                await self.commit()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    # --- one claim after the other ---------------------------------------------------------------------------------
    async def _run(self) -> None:
        while True:
            wait = PATIENCE_SECONDS
            try:
                await self._own()
            except* (BusUnavailable, Disowned, SpillLost) as errors:
                reason = "; ".join(str(error) for error in errors.exceptions)
                log.warning("partition given up; claiming again", extra={"partition": self.number, "reason": reason})
                wait = ZOMBIE_SECONDS if self.partition and self.partition.stopped else PATIENCE_SECONDS
            except* Exception:
                log.exception("partition failed; claiming again", extra={"partition": self.number})
            finally:
                self._let_go()
            await asyncio.sleep(wait)

    async def _claim(self) -> tuple[Partition, int, int]:
        """A partition that is ours by the log, from where its results are read, and our mark in `mail.site`."""
        bus, tools = self.tools.bus, self.tools
        claim = bus.append(topics.QUEUE, self.number, EPOCH_KEY, self.tools.instance.encode(), topics.tag(topics.CLAIM))
        epoch = await claim
        key = b"epoch|%d" % self.number
        # Before the first dispatch, so that a sender that starts later knows whom not to believe.
        await bus.append(topics.CONTROL, 0, key, epoch.to_bytes(8, "big"), topics.tag(topics.PUT))
        # Whoever has read this has read all that others had learned.
        mark = await bus.append(topics.SITE, self.number, EPOCH_KEY, b"", topics.tag(topics.CLAIM, epoch))
        position = await bus.committed(GROUP, topics.RESULT, self.number)
        partition = Partition(
            self.number, bus.partitions(topics.QUEUE), tools.policy, tools.routing, tools.controls, tools.wide,
            Shares(tools.leases, tools.clock), tools.spill(),
        )  # fmt: skip
        partition.claimed(epoch, position)
        if self.number == 0:
            tools.leases.grant_as(epoch)
        return partition, position, mark

    async def _own(self) -> None:
        bus, tools = self.tools.bus, self.tools
        began = tools.clock.monotonic()
        self._failed = asyncio.get_running_loop().create_future()
        self._states_read = -1
        partition, position, mark = await self._claim()
        self.partition, self._sweep, self._committed = partition, Sweep(partition), position
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read(self._queue(partition)))
            group.create_task(self._read(self._states(partition)))
            while not partition.folded or self._states_read < mark:
                await self._next()
            partition.restore(tools.clock.now())
            end = await bus.end(topics.RESULT, self.number)
            group.create_task(self._read(self._results(partition, position)))
            with suppress(TimeoutError):
                while self._results_read + 1 < end and position < end:
                    async with asyncio.timeout(CATCH_UP_SECONDS):
                        await self._next()
            partition.resume(tools.clock.now())
            self._wake()
            seconds = tools.clock.monotonic() - began
            metrics.TAKEOVER_SECONDS.observe(seconds)
            log.info("partition live", extra={"partition": self.number, "units": len(partition.ledger),
                                              "seconds": round(seconds, 3)})  # fmt: skip
            await self._failed
            raise Disowned("failed")

    async def _next(self) -> None:
        self._progressed.clear()
        await self._progressed.wait()

    async def _read(self, batches: AsyncIterator[None]) -> None:
        async for _ in batches:
            self._progressed.set()

    async def _queue(self, partition: Partition) -> AsyncIterator[None]:
        async for batch in self.tools.bus.tail(topics.QUEUE, self.number, 0):
            self._look_at_answers()
            self.reading.read(batch)
            partition.fold(batch, self.tools.clock.now())
            if partition.stopped:
                raise Disowned("somebody claimed it after us")
            self._wake()
            yield

    async def _results(self, partition: Partition, position: int) -> AsyncIterator[None]:
        async for batch in self.tools.bus.tail(topics.RESULT, self.number, position):
            partition.results(batch, self.tools.clock.now())
            self._results_read = batch[-1].offset
            self._wake()
            yield

    async def _states(self, partition: Partition) -> AsyncIterator[None]:
        async for batch in self.tools.bus.tail(topics.SITE, self.number, 0):
            partition.learned(batch)
            self._states_read = batch[-1].offset
            yield

    def _let_go(self) -> None:
        self.reading.end()
        self.reading = Reading()
        for task in self._writing:
            task.cancel()
        for futures in self._unanswered:
            for future in futures:
                future.add_done_callback(_unheard)
            futures.clear()
        if self._timer is not None:
            self._timer.cancel()
        if self.number == 0:
            self.tools.leases.retire()
        if self.partition is not None:
            self.partition.stopped = True
            self.partition.ledger.store.close()
            self.tools.leases.left(holder_name(self.number, self.partition.epoch))

    # --- doing what is wanted --------------------------------------------------------------------------------------
    def wake(self) -> None:
        """Something outside changed: time, the DNS, a command."""
        self._wake()

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._woken = False
        partition, tools = self.partition, self.tools
        if partition is None or not partition.live or partition.stopped:
            return
        try:
            self._look_at_answers()
        except BusUnavailable as error:
            self._fail(error)
            return
        now = tools.clock.now()
        room = tools.bus.healthy and tools.bus.in_flight_bytes < tools.max_in_flight_bytes
        try:
            partition.tick(now, room and not self.draining)
        except SpillLost as error:
            self._fail(error)
            return
        self._carry_out(partition)
        if (room and not partition.idle and not self.draining) or partition.taking_up:
            self._wake()
        self._set_timer(partition.scheduler.next_at(), now)

    def _carry_out(self, partition: Partition) -> None:
        out, bus = partition.take(), self.tools.bus
        own, lanes = self._unanswered
        for put in out.own:
            own.append(bus.append(topics.QUEUE, put.partition, put.key, put.value, put.tag))
        for put in out.dispatches:
            lanes.append(bus.append(topics.DISPATCH, put.partition, put.key, put.value, put.tag))
        for token, put in out.moves:
            future = bus.append(topics.QUEUE, put.partition, put.key, put.value, put.tag)
            future.add_done_callback(partial(self._moved, partition, token))
        if out.events:
            self.tools.minute.note(out.events)
            self._event_turn = (self._event_turn + 1) % bus.partitions(topics.EVENTS)
            future = bus.append(topics.EVENTS, self._event_turn, b"", wire.tell(out.events), topics.tag(topics.PUT))
            future.add_done_callback(partial(self._told, partition, out.batch))
        for report in out.reports:
            task = asyncio.create_task(self._report(partition, report))
            self._writing.add(task)
            task.add_done_callback(self._writing.discard)
        for token, put in out.states:
            future = bus.append(topics.SITE, put.partition, put.key, put.value, put.tag)
            future.add_done_callback(partial(self._kept, partition, token))
        for source, value in out.wide:
            self.tools.control.teach_of(source, value)
        for name in out.asks:
            self.tools.resolving.ask(name)
        for domain, site in out.lessons:
            self.tools.control.teach(domain, site)
        counting.count(out.counts)

    def _look_at_answers(self) -> None:
        """Raises BusUnavailable when something of ours could not be written."""
        for futures in self._unanswered:
            while futures and futures[0].done():
                futures.popleft().result()

    def _written(self, future: asyncio.Future[int]) -> bool:
        if future.cancelled():
            return False
        error = future.exception()
        if error is not None:
            self._fail(error)
        return error is None

    def _fail(self, error: BaseException) -> None:
        """What cannot be written may have been written: only a new fold knows."""
        if self._failed is not None and not self._failed.done():
            self._failed.set_exception(error)

    def _moved(self, partition: Partition, token: int, future: asyncio.Future[int]) -> None:
        if self._written(future):
            partition.carried_out(token)
            self._wake()

    def _told(self, partition: Partition, batch: int, future: asyncio.Future[int]) -> None:
        if self._written(future):
            partition.durable(batch)
            self._wake()

    def _kept(self, partition: Partition, token: int, future: asyncio.Future[int]) -> None:
        if self._written(future):
            partition.kept(token)

    async def _report(self, partition: Partition, report: Report) -> None:
        await self.tools.reports.write(report)
        partition.carried_out(report.token)
        self._wake()

    def _set_timer(self, at: float, now: float) -> None:
        if self._timer is not None:
            if at == self._timer_at:
                return
            self._timer.cancel()
            self._timer = None
        if at - now < 3600:
            self._timer_at = at
            self._timer = asyncio.get_running_loop().call_later(max(0.001, at - now), self._time_came)

    def _time_came(self) -> None:
        self._timer = None
        self._wake()

    # --- now and then ----------------------------------------------------------------------------------------------
    def sweep(self) -> None:
        """Look for what has no timer."""
        if self._sweep is not None and self.live:
            try:
                self._sweep.step(self.tools.clock.now())
            except SpillLost as error:
                self._fail(error)
            self._wake()

    async def commit(self) -> None:
        """Remember how far results are dealt with."""
        if self.live and self.partition is not None and self.partition.progress.position > self._committed:
            position = self.partition.progress.position
            await self.tools.bus.commit(GROUP, topics.RESULT, {self.number: position})
            self._committed = position


def _unheard(future: asyncio.Future[int]) -> None:
    # The fold that follows shows what became of it.
    if not future.cancelled():
        future.exception()
