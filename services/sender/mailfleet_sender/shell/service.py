"""The sender: takes lanes, gives dispatches to egress paths, answers every one of them."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import defaultdict
from collections.abc import Iterable, Sequence

from mailfleet_core import metrics
from mailfleet_core.bus import topics
from mailfleet_core.bus.lag import Lag
from mailfleet_core.bus.port import Bus, BusUnavailable, Membership, Record
from mailfleet_core.clock import Clock
from mailfleet_core.dns.guard import InsideGuard
from mailfleet_core.dns.port import Resolver
from mailfleet_core.model import reply as phases
from mailfleet_core.model import wire
from mailfleet_core.model.reply import Answer
from mailfleet_core.model.shards import site_of
from mailfleet_core.settings import EgressSettings
from mailfleet_sender.decisions.lane import Epochs, Memory, without_outcome
from mailfleet_sender.decisions.settle import settle
from mailfleet_sender.settings import SenderSettings
from mailfleet_sender.shell.bodies import Bodies
from mailfleet_sender.shell.connection import Connection, phase_seconds
from mailfleet_sender.shell.dial import Dialer
from mailfleet_sender.shell.jobs import Job, Link
from mailfleet_sender.shell.lane import GROUP, Lane, patiently
from mailfleet_sender.shell.paths import EgressPath
from mailfleet_sender.shell.verifying import Verifier

log = logging.getLogger(__name__)

COMMIT_SECONDS = 0.2
FLUSH_SECONDS = 5.0
WRITE_AGAIN_SECONDS = 0.5

_Writing = tuple[asyncio.Future[int], Lane, Sequence[int], wire.Dispatch, bytes]
"""The append of a result, and what it answers."""


class Sender:
    """The service."""

    def __init__(
        self, bus: Bus, clock: Clock, settings: SenderSettings, egress: EgressSettings, resolver: Resolver, instance: str
    ) -> None:  # fmt: skip
        self.bodies = Bodies(bus, settings.body_bytes)
        self.seconds = phase_seconds(settings)
        self.block_seconds = settings.block_seconds
        self.pause_seconds = settings.pause_seconds
        self.idle_seconds = settings.idle_seconds
        self.now = clock.now
        self._bus = bus
        self._clock = clock
        self._settings = settings
        self._instance = instance
        self._table = egress.table(bus.partitions(topics.DISPATCH))
        self._from_log = egress.from_log
        self._routes = {route.name: route for route in egress.routes if route.name}
        self._resolver = resolver
        self._guard = InsideGuard(settings.allowed_inside)
        self._dialers: dict[str, Dialer] = {}
        self._lanes: dict[int, Lane] = {}
        self._jobs: dict[tuple[bytes, int], Job] = {}
        self._memory = Memory()
        self._epochs = Epochs()
        self._connections = 0
        self._starved: dict[EgressPath, None] = {}
        self._most_jobs = settings.max_queued_units
        self._membership: Membership | None = None
        self._holding: Membership | None = None
        """The same, also while it is given back."""
        self._tasks: list[asyncio.Task[None]] = []
        self._attempts: defaultdict[tuple[str, str], int] = defaultdict(int)
        """Answers by source and kind since the metrics were told."""
        self._stale = metrics.STALE_RECORDS.labels(topics.DISPATCH)
        self._unwritten: list[_Writing] = []
        """Results whose append has not ended; one of them is watched, for appends end in company."""
        self._watched: asyncio.Future[int] | None = None
        _show_attempts(self._table.sources)
        shortest = min(*self.seconds.values(), self.block_seconds, self.idle_seconds * 2)
        self._sweep_seconds = min(5.0, max(0.02, shortest / 4))

    # --- Service -------------------------------------------------------------------------------------------------
    @property
    def ready(self) -> bool:
        """See `Service.ready`."""
        return self._membership is not None

    async def start(self) -> None:
        """See `Service.start`."""
        loop = asyncio.get_running_loop()
        known = loop.create_future()
        self._tasks.append(loop.create_task(self._hear_control(known)))
        await known
        lag = Lag(self._bus, GROUP, topics.DISPATCH, self._positions)
        self._tasks += [loop.create_task(run) for run in (self._sweep(), self._commit(), lag.run())]
        only = frozenset(self._settings.lanes) or None
        self._membership = await self._bus.join(GROUP, topics.DISPATCH, self._assigned, self._revoked, only)
        self._holding = self._membership
        if self._settings.egress_check:
            verifier = Verifier(self._settings.egress_check, self._settings.egress_check_seconds, self._held_dialers)
            self._tasks.append(loop.create_task(verifier.run()))

    async def drain(self) -> None:
        """See `Service.drain`."""
        if self._membership is not None:
            membership, self._membership = self._membership, None
            await membership.leave()
        self.bodies.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tell_metrics()

    # --- lanes ---------------------------------------------------------------------------------------------------
    def _assigned(self, numbers: frozenset[int]) -> None:
        for number in sorted(numbers):
            held = self._lanes.get(number)
            if held is None or held.stopping:
                self._lanes[number] = Lane(self._bus, self, number)

    async def _revoked(self, numbers: frozenset[int]) -> None:
        await asyncio.gather(*(self._release(self._lanes[number]) for number in numbers if number in self._lanes))

    async def _release(self, lane: Lane) -> None:
        """Finish what is under way, give back the rest, leave nothing unanswered."""
        lane.stopping = True
        self._give_back(lane)
        try:
            async with asyncio.timeout(self._settings.drain_seconds):
                await lane.caught_up()
                await lane.all_answered()
        except TimeoutError:
            self._cut(lane)
        try:
            async with asyncio.timeout(FLUSH_SECONDS):
                # First: a dispatch read after the good-bye would be given back here and begun by the next owner.
                await lane.close()
                await lane.all_answered()
                await lane.say_goodbye()
                await lane.commit()
        except (TimeoutError, BusUnavailable):
            log.error("a lane was left with unanswered dispatches", extra={"lane": lane.number})
        await lane.close()
        if self._lanes.get(lane.number) is lane:
            del self._lanes[lane.number]

    def _cut(self, lane: Lane) -> None:
        """End what would not end: what the site has perhaps taken is in doubt, the rest was not attempted."""
        for path in lane.paths.values():
            for hop in path.hops.values():
                for connection, job in tuple(hop.busy.items()):
                    kind = wire.LOST if connection.after_the_dot else wire.NOT_ATTEMPTED
                    self._cut_one(connection, job, kind)
                hop.busy.clear()

    def _cut_one(self, connection: Connection, job: Job, kind: str) -> None:
        connection.abort()
        self._close_job(job)
        self._answer(job.lane, job.offsets, job.dispatch, without_outcome(job.dispatch, kind, self.now()))

    def _give_back(self, lane: Lane) -> None:
        self._hand_back(lane, [job for path in lane.paths.values() for job in path.stop()])

    def _hand_back(self, lane: Lane, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._close_job(job)
            if not lane.usurped:
                result = without_outcome(job.dispatch, wire.NOT_ATTEMPTED, self.now())
                self._answer(job.lane, job.offsets, job.dispatch, result)

    def usurped(self, lane: Lane) -> None:
        """See `Reader`."""
        self._give_back(lane)

    # --- dispatches ----------------------------------------------------------------------------------------------
    def dispatched(self, lane: Lane, offset: int, dispatch: wire.Dispatch) -> None:
        """An attempt to make, once: a repetition is answered as the first one was."""
        if self._epochs.stale(dispatch.queue_partition, dispatch.epoch):
            self._ignore(lane, offset)
            return
        unit = dispatch.unit
        key = (unit.unit_id, dispatch.attempt)
        if (key in self._jobs or key in self._memory) and self._known(lane, offset, dispatch):
            return
        full = len(self._jobs) >= self._most_jobs
        if dispatch.again or lane.stopping or full or not self._table.takes(dispatch.source, lane.number):
            self._without(lane, offset, dispatch, wire.NOT_ATTEMPTED)
            return
        job = self._jobs[key] = Job(dispatch, lane, [offset], key)
        where = (dispatch.source, site_of(unit.site))
        (lane.paths.get(where) or self._path(lane, where)).add(job)

    def inherited(self, lane: Lane, offset: int, dispatch: wire.Dispatch) -> None:
        """An attempt that a former owner of the lane may have begun: in doubt, unless it was this process.

        Whatever its epoch: the router that wrote it may be gone by now, and the former owner may have delivered it.
        """
        if not self._known(lane, offset, dispatch):
            self._without(lane, offset, dispatch, wire.LOST)

    def _ignore(self, lane: Lane, offset: int) -> None:
        """A zombie's: nothing is done about it."""
        self._stale.inc()
        lane.position.answered(offset)

    def _known(self, lane: Lane, offset: int, dispatch: wire.Dispatch) -> bool:
        """Is this in hand, or answered? Then it has been dealt with here."""
        key = (dispatch.unit.unit_id, dispatch.attempt)
        if (job := self._jobs.get(key)) is not None:
            if job.lane is not lane:
                # The lane came back to this process with the job still under way: the new holding answers for it.
                job.lane, job.offsets = lane, []
            job.offsets.append(offset)
            return True
        if (answer := self._memory.recall(key)) is not None:
            self._write(lane, (offset,), dispatch, answer)
            return True
        return False

    def _without(self, lane: Lane, offset: int, dispatch: wire.Dispatch, kind: str) -> None:
        self._answer(lane, (offset,), dispatch, without_outcome(dispatch, kind, self.now()))

    def _path(self, lane: Lane, where: tuple[str, str]) -> EgressPath:
        source, site = where
        sharers = len(self._table.lanes(source))
        path = lane.paths[where] = EgressPath(self, self._dialer(source), site, source, sharers, lane.since)
        return path

    def _dialer(self, name: str) -> Dialer:
        source = self._table.sources[name]
        dialer = self._dialers.get(name)
        if dialer is None or _identity(dialer.source) != _identity(source):
            ehlo_name = source.ehlo_name or socket.gethostname()
            dialer = self._dialers[name] = Dialer(
                self._settings, source, self._resolver, self._guard, self._routes, self._clock.jitter, ehlo_name
            )
        return dialer

    def _held_dialers(self) -> list[Dialer]:
        """Of the sources whose lanes are held here."""
        held = self._lanes.keys()
        return [self._dialer(name) for name in self._table.sources if held & frozenset(self._table.lanes(name))]

    # --- sources -------------------------------------------------------------------------------------------------
    def _sources_changed(self) -> None:
        """Obey what the log says of sources now: what may not be begun any more is given back, the rest goes the new way."""
        for name in [name for name in self._dialers if name not in self._table.sources]:
            del self._dialers[name]
        for mistake in self._table.mistakes():
            log.warning("a source cannot be used as it should be", extra={"why": mistake})
        for lane in tuple(self._lanes.values()):
            for (name, _), path in lane.paths.items():
                if not self._table.takes(name, lane.number):
                    self._hand_back(lane, path.stop())
                elif not lane.stopping:
                    path.obey(self._dialer(name), len(self._table.lanes(name)))

    # --- Desk ----------------------------------------------------------------------------------------------------
    def ended(
        self, job: Job, answers: Sequence[Answer | None], link: Link, reused: bool = False, dsn_passed_on: bool = False
    ) -> None:
        """See `Desk`."""
        dispatch = job.dispatch
        unit = dispatch.unit
        now = self.now()
        # Where our own way out failed nothing was attempted; the router hears why, and counts it against the source.
        ours = bool(answers) and answers[0] is not None and answers[0].phase == phases.EGRESS
        kind = wire.NOT_ATTEMPTED if ours else wire.SETTLED
        result = wire.Result(
            unit.unit_id, unit.hop, dispatch.attempt, kind, dispatch.source, job.started_at, now,
            settle(unit.recipients, answers), link.mx, link.address, link.tls, reused, dsn_passed_on,
        )  # fmt: skip
        metrics.ATTEMPT_SECONDS.note(now - job.started_at)
        self._close_job(job)
        self._answer(job.lane, job.offsets, dispatch, result)

    def returned(self, job: Job) -> None:
        """See `Desk`."""
        self._hand_back(job.lane, (job,))

    def sure(self) -> bool:
        """See `Desk`."""
        return self._holding is None or asyncio.get_running_loop().time() < self._holding.sure_until

    def room(self, path: EgressPath) -> bool:
        """See `Desk`."""
        most = self._settings.max_connections
        if self._connections < most and path.connections < max(1, int(most * self._settings.site_share)):
            return True
        self._starved[path] = None
        if self._connections >= most:
            self._evict_one()
        return False

    def opened(self) -> None:
        """See `Desk`."""
        self._connections += 1

    def closed(self) -> None:
        """See `Desk`."""
        self._connections -= 1
        if self._starved:
            path = next(iter(self._starved))
            del self._starved[path]
            asyncio.get_running_loop().call_soon(path.wake)

    def _evict_one(self) -> None:
        for lane in self._lanes.values():
            for path in lane.paths.values():
                for hop in path.hops.values():
                    if hop.idle:
                        hop.idle.pop(0).quit()
                        return

    # --- answers -------------------------------------------------------------------------------------------------
    def _close_job(self, job: Job) -> None:
        self._jobs.pop(job.key, None)
        self.bodies.release(job)

    def _answer(self, lane: Lane, offsets: Sequence[int], dispatch: wire.Dispatch, result: wire.Result) -> None:
        encoded = wire.encode(result)
        self._memory.remember((result.unit_id, result.attempt), encoded)
        self._attempts[result.source, result.kind] += 1
        self._write(lane, offsets, dispatch, encoded)

    def _write(self, lane: Lane, offsets: Sequence[int], dispatch: wire.Dispatch, encoded: bytes) -> None:
        """Append a result until it is durable; only then are its dispatches done with."""
        future = self._bus.append(topics.RESULT, dispatch.queue_partition, dispatch.unit.unit_id, encoded)
        self._unwritten.append((future, lane, offsets, dispatch, encoded))
        if self._watched is None:
            self._watched = future
            future.add_done_callback(self._written)

    def _written(self, _: asyncio.Future[int]) -> None:
        """One append ended, and mostly all that went with it; of the others the newest is watched."""
        unwritten, self._unwritten, self._watched = self._unwritten, [], None
        for each in unwritten:
            future, lane, offsets, dispatch, encoded = each
            if not future.done():
                self._unwritten.append(each)
            elif future.cancelled():
                continue
            elif future.exception() is None:
                for offset in offsets:
                    lane.answered(offset)
            else:
                loop = asyncio.get_running_loop()
                loop.call_later(WRITE_AGAIN_SECONDS, self._write, lane, offsets, dispatch, encoded)
        if self._unwritten:
            self._watched = self._unwritten[-1][0]
            self._watched.add_done_callback(self._written)

    # --- what runs beside ----------------------------------------------------------------------------------------
    async def _hear_control(self, known: asyncio.Future[None]) -> None:
        """Follow `epoch|…` and what there is of sources in `mail.control`; `known` is done when all there was has been
        read."""
        key = f"read|sender|{self._instance}".encode()
        own = await patiently(lambda: self._bus.append(topics.CONTROL, 0, key, None))
        async for batch in self._bus.tail(topics.CONTROL, 0, 0):
            changed = False
            for record in batch:
                word, _, partition = record.key.partition(b"|")
                if word == b"epoch" and partition.isdigit() and record.value:
                    self._epochs.heard(int(partition), int.from_bytes(record.value, "big"))
                elif self._from_log:
                    changed |= self._read_source(record)
                if record.offset >= own and not known.done():
                    known.set_result(None)
            if changed:
                self._sources_changed()

    def _read_source(self, record: Record) -> bool:
        try:
            return self._table.read(record.key, record.value)
        except wire.Malformed as error:
            log.error("a source cannot be read", extra={"key": repr(record.key), "error": str(error)})
            return False

    def _positions(self) -> dict[int, int]:
        """Of the lanes held: up to where they are answered."""
        return {number: lane.position.value for number, lane in self._lanes.items()}

    def _tell_metrics(self) -> None:
        for (source, kind), count in self._attempts.items():
            # A dispatch may name a source that is not ours; it makes no series of its own.
            if source in self._table.sources:
                metrics.ATTEMPTS.labels(source, kind).inc(count)
        self._attempts.clear()
        metrics.ATTEMPT_SECONDS.tell()

    async def _commit(self) -> None:
        while True:
            await asyncio.sleep(COMMIT_SECONDS)
            self._tell_metrics()
            for lane in tuple(self._lanes.values()):
                try:
                    await lane.commit()
                except BusUnavailable as error:
                    log.warning("a position was not committed", extra={"error": str(error)})

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._sweep_seconds)
            now = loop.time()
            for lane in tuple(self._lanes.values()):
                for where, path in tuple(lane.paths.items()):
                    if not path.sweep(now):
                        del lane.paths[where]


def _identity(source: wire.Source) -> tuple[str, ...]:
    """What a receiver sees of a source: who connects, and as whom."""
    return source.address, source.address6, source.ehlo_name, source.proxy


def _show_attempts(sources: Iterable[str]) -> None:
    """Counters are there before the first attempt."""
    for name in sources:
        for kind in (wire.SETTLED, wire.LOST, wire.NOT_ATTEMPTED):
            metrics.ATTEMPTS.labels(name, kind)
