"""Appends to Kafka: an idempotent producer of our own, on our event loop.

To each broker one request at a time (bodies: four), and what is appended meanwhile goes with the next: the busier the
log, the fewer requests and syncs a record costs. A request has a batch for each partition that has something. A batch keeps its
sequence until the broker has answered for it, so that it is written once, however often it is sent.

A batch that is given up after it was sent may still be written, by a broker that wakes up. Its partition therefore goes
on in a newer epoch of the same identity: the broker writes nothing of an older epoch after that.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from kafka.errors import (
    DuplicateSequenceNumberError,
    KafkaError,
    OutOfOrderSequenceNumberError,
    UnknownProducerIdError,
    for_code,
)
from kafka.protocol.producer import InitProducerIdRequest

from mailfleet_core.bus import kafka_format, kafka_produce
from mailfleet_core.bus.kafka_connection import Line
from mailfleet_core.bus.kafka_format import Entry, Producer
from mailfleet_core.bus.kafka_link import RETRY_SECONDS, Link
from mailfleet_core.bus.kafka_produce import Written
from mailfleet_core.bus.port import BusUnavailable
from mailfleet_core.clock import SystemClock

log = logging.getLogger(__name__)

REQUEST_BYTES = 8 << 20
REQUEST_SECONDS = 10.0
LATE_SECONDS = 5.0
_LOST_TRACK = (OutOfOrderSequenceNumberError, UnknownProducerIdError)


class Manner(NamedTuple):
    """How records of a kind are written."""

    batch_bytes: int
    lanes: int
    """Connections to each broker. What goes over one connection is synced in turn, over several at the same time."""
    pace_seconds: float
    """Least time between two requests; a quiet log is written at once."""


BODIES = Manner(256 << 10, 4, 0.0)
"""A reader of one body is sent its whole batch, so these are small."""
SMALL = Manner(256 << 10, 1, 0.002)

_Lane = tuple[int, int]
"""A broker and one of the connections to it."""


class _Append(NamedTuple):
    """One append and who waits for it."""

    entry: Entry
    size: int
    at: float
    future: asyncio.Future[int]


class _Batch:
    """Appends that are written together or not at all."""

    __slots__ = ("appends", "doubtful", "pieces", "size")

    def __init__(self, appends: list[_Append], size: int) -> None:
        self.appends = appends
        self.size = size
        self.pieces: list[bytes] = []
        self.doubtful = False
        """It was sent and not answered: it may be written."""


class _Partition:
    """What a partition has not acknowledged: at most one batch that was sent, and what waits for it."""

    __slots__ = ("batch", "epoch", "number", "sequence", "topic", "waiting")

    def __init__(self, topic: str, number: int) -> None:
        self.topic = topic
        self.number = number
        self.epoch = 0
        """Grows when a batch was given up; 32,767 of these are 45 days of a log that is away."""
        self.sequence = 0
        self.batch: _Batch | None = None
        self.waiting: deque[_Append] = deque()

    @property
    def oldest_at(self) -> float:
        """When the first append was made that is not acknowledged; there is one."""
        return self.batch.appends[0].at if self.batch else self.waiting[0].at

    def next_batch(self, most_bytes: int) -> _Batch:
        """The batch to send now: the one that was sent before, or the oldest that wait."""
        if self.batch is None:
            appends = [self.waiting.popleft()]
            size = appends[0].size
            while self.waiting and size + self.waiting[0].size <= most_bytes:
                appends.append(self.waiting.popleft())
                size += appends[-1].size
            self.batch = _Batch(appends, size)
        return self.batch

    def renew(self) -> None:
        """Nothing that was sent before is written after what is sent from now on."""
        self.epoch += 1
        self.sequence = 0
        if self.batch is not None:
            self.batch.pieces = []


class Appender:
    """A producer and what it has not acknowledged."""

    def __init__(self, link: Link, how: Manner, delivery_seconds: float) -> None:
        self.in_flight_bytes = 0
        self._link = link
        self._how = how
        self._delivery_seconds = delivery_seconds
        self._request_seconds = min(REQUEST_SECONDS, delivery_seconds / 2)
        self._clock = SystemClock()
        self._identity = -1
        self._partitions: dict[tuple[str, int], _Partition] = {}
        self._pending: dict[_Partition, None] = {}
        """Those with something unacknowledged."""
        self._lines: dict[_Lane, Line] = {}
        self._busy: set[_Partition] = set()
        """Those with a batch on the way."""
        self._busy_lanes: set[_Lane] = set()
        self._begun_at = 0.0
        self._scheduled = False
        self._expiry: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._struggling = False
        self._closed = False
        self._loop: asyncio.AbstractEventLoop

    async def start(self) -> None:
        """Get an identity. Raises KafkaError."""
        self._loop = asyncio.get_running_loop()
        while True:
            request = InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=60_000, max_version=1)
            response = await self._link.asks.call(request)
            if not response.error_code:
                break
            error = for_code(response.error_code)
            if not error.retriable:
                raise error()
            await asyncio.sleep(RETRY_SECONDS)
        self._identity = response.producer_id

    async def close(self, seconds: float) -> None:
        """Wait until everything is acknowledged, but not for ever."""
        if waiting := [append.future for append in self._unanswered() if not append.future.done()]:
            await asyncio.wait(waiting, timeout=seconds)
        self._closed = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for partition in list(self._pending):
            self._give_up(partition, BusUnavailable("the bus was closed"), before=float("inf"))
        if self._expiry is not None:
            self._expiry.cancel()
        for line in self._lines.values():
            line.drop()

    def _unanswered(self) -> Iterable[_Append]:
        for partition in self._pending:
            if partition.batch is not None:
                yield from partition.batch.appends
            yield from partition.waiting

    @property
    def late(self) -> bool:
        """Did the last request fail, or has the oldest append waited for longer than a working broker needs?"""
        if self._struggling and self._pending:
            return True
        since = self._loop.time() - LATE_SECONDS if self._pending else 0.0
        return any(partition.oldest_at < since for partition in self._pending)

    def append(self, topic: str, number: int, key: bytes, value: bytes | None, tag: bytes) -> asyncio.Future[int]:
        """See `Bus.append`."""
        future = self._loop.create_future()
        if self._closed:
            future.set_exception(BusUnavailable("the bus was closed"))
            return future
        partition = self._partitions.get((topic, number))
        if partition is None:
            partition = self._partitions[topic, number] = _Partition(topic, number)
        now = self._loop.time()
        size = len(key) + len(value or b"") + len(tag)
        partition.waiting.append(_Append(Entry(key, value, tag), size, now, future))
        self.in_flight_bytes += size
        self._pending[partition] = None
        if not self._scheduled:
            self._schedule()
        if self._expiry is None:
            self._expiry = self._loop.call_later(self._delivery_seconds, self._expire)
        return future

    # --- requests ----------------------------------------------------------------------------------------------------
    def _schedule(self, seconds: float = 0.0) -> None:
        """Send soon: after what this turn of the loop still appends, and not sooner than the pace allows."""
        self._scheduled = True
        at = max(self._loop.time() + seconds, self._begun_at + self._how.pace_seconds)
        self._loop.call_at(at, self._begin)

    def _begin(self) -> None:
        """To each broker that has answered the last request, the next one."""
        self._scheduled = False
        if self._closed:
            return
        self._begun_at = self._loop.time()
        chosen: dict[_Lane, list[_Partition]] = {}
        for partition in self._pending:
            if partition in self._busy:
                continue
            try:
                node = self._link.leader(partition.topic, partition.number)
            except KafkaError:
                self._later()
                continue
            lane = (node, partition.number % self._how.lanes)
            if lane not in self._busy_lanes:
                chosen.setdefault(lane, []).append(partition)
        for lane, partitions in chosen.items():
            self._busy_lanes.add(lane)
            task = self._loop.create_task(self._round(lane, self._fill(partitions)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _later(self) -> None:
        if not self._scheduled:
            self._schedule(RETRY_SECONDS)

    def _fill(self, partitions: list[_Partition]) -> list[tuple[_Partition, _Batch]]:
        """A batch of each of them, as far as a request goes; the oldest first, so that nobody waits for ever."""
        filled: list[tuple[_Partition, _Batch]] = []
        size = 0
        at_ms = int(self._clock.now() * 1000)
        for partition in sorted(partitions, key=lambda each: each.oldest_at):
            batch = partition.next_batch(self._how.batch_bytes)
            size += batch.size
            if filled and size > REQUEST_BYTES:
                break
            if not batch.pieces:
                producer = Producer(self._identity, partition.epoch, partition.sequence)
                batch.pieces = kafka_format.batch([append.entry for append in batch.appends], producer, at_ms)
            self._busy.add(partition)
            filled.append((partition, batch))
        return filled

    async def _round(self, lane: _Lane, filled: list[tuple[_Partition, _Batch]]) -> None:
        """One request; what failed for now is sent again."""
        line = self._lines.get(lane)
        if line is None:
            line = self._lines[lane] = Line(self._link, lane[0])
        again = True
        try:
            written = [Written(partition.topic, partition.number, batch.pieces) for partition, batch in filled]
            body = kafka_produce.request(written, int(self._request_seconds * 1000))
            answer = await line.ask(
                kafka_produce.PRODUCE, kafka_produce.PRODUCE_VERSION, body, self._request_seconds + 1.0
            )
            again = self._settle(filled, kafka_produce.parse(answer))
            self._struggling = False
        except (KafkaError, struct.error, ValueError) as error:
            self._struggling = True
            log.debug("produce to broker %d failed: %r", lane[0], error)
            for _, batch in filled:
                batch.doubtful = True
        finally:
            self._busy.difference_update(partition for partition, _ in filled)
            self._busy_lanes.discard(lane)
        if again:
            self._later()
        elif self._pending and not self._scheduled:
            self._schedule()

    # --- answers -----------------------------------------------------------------------------------------------------
    def _settle(self, filled: list[tuple[_Partition, _Batch]], answers: dict[tuple[str, int], tuple[int, int]]) -> bool:
        """Tell those who wait; is there something that has to be sent again?"""
        again = False
        for partition, batch in filled:
            if partition.batch is not batch:  # It was given up meanwhile.
                continue
            code, offset = answers.get((partition.topic, partition.number), (-1, -1))
            if code == 0:
                self._written(partition, batch, offset)
            else:
                again = self._refused(partition, batch, for_code(code)) or again
        return again

    def _written(self, partition: _Partition, batch: _Batch, offset: int) -> None:
        partition.sequence = (partition.sequence + len(batch.appends)) & 0x7FFFFFFF
        self._remove(partition, batch)
        for append in batch.appends:
            if not append.future.done():
                append.future.set_result(offset)
            offset += 1

    def _refused(self, partition: _Partition, batch: _Batch, error: type[KafkaError]) -> bool:
        """May the batch be sent again? Otherwise it has failed."""
        if error.invalid_metadata:
            self._link.stale()
        if error.retriable and error not in _LOST_TRACK:
            # "Not enough replicas after append", "timed out": it may be written.
            batch.doubtful = True
            return True
        if error in _LOST_TRACK:
            # The broker lacks something that it had acknowledged before, so it lacks this too: had it this, it would
            # know the sequence. (With our settings that does not happen; with `unsafe_durability` it does.)
            log.error("%s[%d] lost what it had acknowledged", partition.topic, partition.number)
            partition.renew()
            return True
        if batch.doubtful or error is DuplicateSequenceNumberError:
            partition.renew()
        self._remove(partition, batch)
        _fail(batch.appends, BusUnavailable(f"Kafka did not take a record: {error.__name__}"))
        return False

    def _remove(self, partition: _Partition, batch: _Batch) -> None:
        partition.batch = None
        self.in_flight_bytes -= batch.size
        if not partition.waiting:
            del self._pending[partition]

    # --- patience ----------------------------------------------------------------------------------------------------
    def _expire(self) -> None:
        """Fail what waits for longer than our patience; it is not sent again."""
        self._expiry = None
        before = self._loop.time() - self._delivery_seconds
        error = BusUnavailable(f"Kafka took nothing for {self._delivery_seconds:g} s")
        failed = sum(self._give_up(partition, error, before) for partition in list(self._pending))
        if failed:
            log.error("Kafka took nothing for %g s: %d records have failed", self._delivery_seconds, failed)
        if self._pending:
            oldest = min(partition.oldest_at for partition in self._pending)
            self._expiry = self._loop.call_at(oldest + self._delivery_seconds + 0.01, self._expire)

    def _give_up(self, partition: _Partition, error: BusUnavailable, before: float) -> int:
        """Fail what was appended to it before then."""
        failed: list[_Append] = []
        if partition.batch is not None and partition.batch.appends[0].at <= before:
            failed += partition.batch.appends
            partition.batch = None
            partition.renew()
        while partition.batch is None and partition.waiting and partition.waiting[0].at <= before:
            failed.append(partition.waiting.popleft())
        self.in_flight_bytes -= sum(append.size for append in failed)
        if partition.batch is None and not partition.waiting:
            del self._pending[partition]
        _fail(failed, error)
        return len(failed)


def _fail(appends: Iterable[_Append], error: BusUnavailable) -> None:
    for append in appends:
        if not append.future.done():
            append.future.set_exception(error)
            # Some appends are not waited for; their loss shows in `healthy`, not as "never retrieved".
            append.future.exception()
