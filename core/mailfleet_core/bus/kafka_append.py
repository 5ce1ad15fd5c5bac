"""Appends to Kafka: producers of kafka-python, whose acknowledgements reach our loop in bursts.

Two producers, because batches differ: bodies go in batches of 256 KB (a reader of one body is sent its whole batch),
small records in batches of 64 KB. `send` runs on the loop; it does not wait, for all topics are known beforehand.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any, NamedTuple

from kafka import KafkaProducer
from kafka.errors import KafkaError, KafkaTimeoutError

from mailfleet_core.bus.port import BusUnavailable

log = logging.getLogger(__name__)

BODY_BATCH_BYTES = 256 << 10
SMALL_BATCH_BYTES = 64 << 10
SMALL_LINGER_MILLISECONDS = 3
"""A request costs as much as fifty records; state is written in many small turns of the loop."""
TAG = "t"
LATE_SECONDS = 5.0
REPLACE_SECONDS = 0.5


class _Append(NamedTuple):
    """One append as `KafkaProducer.send` wants it."""

    number: int
    topic: str
    value: bytes | None
    key: bytes
    tag: bytes
    partition: int


class Appender:
    """One producer and what it has not acknowledged."""

    def __init__(
        self,
        options: dict[str, Any],
        topics: list[str],
        batch_bytes: int,
        linger_milliseconds: int,
        delivery_seconds: float,
    ) -> None:
        self.in_flight_bytes = 0
        self._delivery_seconds = delivery_seconds
        self._options = {
            **options,
            "acks": "all",
            "enable_idempotence": True,
            "batch_size": batch_bytes,
            "linger_ms": linger_milliseconds,
            "max_request_size": 8 << 20,
            "delivery_timeout_ms": int(delivery_seconds * 1000),
            "request_timeout_ms": min(options["request_timeout_ms"], int(delivery_seconds * 500)),
            "max_block_ms": 2000,
            "retry_backoff_ms": 20,
            "metrics_enabled": False,
        }
        self._topics = topics
        self._producer: Any = None
        self._replacing: asyncio.Task[None] | None = None
        self._waiting: deque[_Append] = deque()
        """Appends of the time between two producers."""
        self._pending: dict[int, tuple[asyncio.Future[int], int, float]] = {}
        self._count = 0
        self._done: deque[tuple[int, int, BaseException | None]] = deque()
        self._armed = False
        self._loop: asyncio.AbstractEventLoop

    async def start(self) -> None:
        """Connect. Raises KafkaError."""
        self._loop = asyncio.get_running_loop()
        self._producer = await asyncio.to_thread(self._open)

    async def close(self, seconds: float) -> None:
        """Wait until everything is acknowledged, but not for ever."""
        if waiting := self._unanswered():
            await asyncio.wait(waiting, timeout=seconds)
        if self._replacing is not None:
            self._replacing.cancel()
            await asyncio.wait([self._replacing])
        if self._producer is not None:
            await asyncio.to_thread(self._shut, self._producer)
        while self._waiting:
            self._finish(self._waiting.popleft().number, -1, KafkaError("closed"))
        if waiting := self._unanswered():
            await asyncio.wait(waiting, timeout=1.0)

    def _unanswered(self) -> list[asyncio.Future[int]]:
        return [future for future, _, _ in self._pending.values() if not future.done()]

    @property
    def late(self) -> bool:
        """Has the oldest append waited for longer than a working broker needs?"""
        return bool(self._pending) and self._loop.time() - next(iter(self._pending.values()))[2] > LATE_SECONDS

    def append(self, topic: str, partition: int, key: bytes, value: bytes | None, tag: bytes) -> asyncio.Future[int]:
        """See `Bus.append`."""
        self._count += 1
        number = self._count
        size = len(key) + len(value or b"") + len(tag)
        future = self._loop.create_future()
        self._pending[number] = (future, size, self._loop.time())
        self.in_flight_bytes += size
        append = _Append(number, topic, value, key, tag, partition)
        if self._replacing is None:
            self._send(append)
        else:
            self._waiting.append(append)
        return future

    def _send(self, append: _Append) -> None:
        number = append.number
        headers = [(TAG, append.tag)] if append.tag else None
        try:
            sent = self._producer.send(append.topic, append.value, append.key, headers, append.partition)
        except (KafkaError, ValueError) as error:
            self._finish(number, -1, error)
        else:
            sent._add_cb_eb(
                lambda metadata: self._finish(number, metadata.offset, None),
                lambda error: self._finish(number, -1, error),
            )

    def _open(self) -> Any:
        producer = KafkaProducer(**self._options)
        for topic in self._topics:
            producer.partitions_for(topic)
        return producer

    def _shut(self, producer: Any) -> None:
        try:
            producer.close(1)
        except KafkaError:  # It could not flush in that time, and would go on trying.
            self._abandon(producer)

    def _finish(self, number: int, offset: int, error: BaseException | None) -> None:
        """Called on kafka-python's thread: one wake-up of the loop for a whole burst."""
        self._done.append((number, offset, error))
        if not self._armed:
            self._armed = True
            self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        self._armed = False
        expired = False
        while self._done:
            number, offset, error = self._done.popleft()
            future, size, _ = self._pending.pop(number)
            self.in_flight_bytes -= size
            expired = expired or isinstance(error, KafkaTimeoutError)
            if future.done():
                continue
            if error is None:
                future.set_result(offset)
            else:
                future.set_exception(BusUnavailable(f"Kafka did not take a record: {error!r}"))
        if self._replacing is None and (expired or self._producer._transaction_manager.has_fatal_error()):
            self._replacing = self._loop.create_task(self._replace())

    async def _replace(self) -> None:
        """Go on with a new producer.

        When a batch expires after it was sent, kafka-python 3.0.12 drops its producer id and never asks for another:
        it sends nothing more, for ever. What the old one still has fails with it.
        """
        log.error("Kafka took nothing for %g s: what was under way has failed", self._delivery_seconds)
        await asyncio.to_thread(self._abandon, self._producer)
        self._producer = None
        while self._producer is None:
            try:
                self._producer = await asyncio.to_thread(self._open)
            except KafkaError:
                self._expire_waiting()
                await asyncio.sleep(REPLACE_SECONDS)
        while self._waiting:
            self._send(self._waiting.popleft())
        self._replacing = None

    def _expire_waiting(self) -> None:
        oldest = self._loop.time() - self._delivery_seconds
        while self._waiting and self._pending[self._waiting[0].number][2] < oldest:
            self._finish(self._waiting.popleft().number, -1, KafkaTimeoutError("no broker"))

    @staticmethod
    def _abandon(producer: Any) -> None:
        producer._unregister_cleanup()
        producer._sender.force_close()
        producer._sender.join(5)
        producer._closed = True
