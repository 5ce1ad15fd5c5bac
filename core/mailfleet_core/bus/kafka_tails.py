"""All tails of a process: long polls of many partitions at once, each tail with a bounded store of its own.

A broker answers the requests of a connection in turn, so a tail that becomes ready during a long poll would wait for
its end. Hence two lanes to each broker: the long one polls all tails that were ready when it was free; a tail that
becomes ready meanwhile is polled on the short lane, which never waits long, until the long one takes it over.
A tail whose store is full is not polled: it holds back nobody.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass, field

from kafka.errors import KafkaError, OffsetOutOfRangeError, for_code

from mailfleet_core.bus.kafka_connection import Line
from mailfleet_core.bus.kafka_fetch import Fetched, Want, fetch
from mailfleet_core.bus.kafka_link import RETRY_SECONDS, Link
from mailfleet_core.bus.port import Record

log = logging.getLogger(__name__)

PACE_SECONDS = 0.005
"""Least time between two rounds of fetches: one request costs what fifty records cost, so a busy log is read in
mouthfuls. A quiet one is read at once."""
LONG, SHORT = 0, 1
WAIT_MS = (500, 20)
PARTITION_BYTES = 1 << 20
RESPONSE_BYTES = 16 << 20
STORE_BYTES = 2 << 20
BATCH_RECORDS = 2000


@dataclass(slots=True, eq=False)
class Tail:
    """One reader's place in a partition and what was fetched for it."""

    topic: str
    partition: int
    offset: int
    batches: deque[tuple[list[Record], int]] = field(default_factory=deque)
    stored_bytes: int = 0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    polled: bool = False
    closed: bool = False

    @property
    def hungry(self) -> bool:
        """Is there room for more?"""
        return not self.closed and self.stored_bytes < STORE_BYTES


@dataclass(slots=True)
class _Node:
    """One broker: its lanes and the tails that wait for one."""

    lanes: tuple[Line, Line]
    busy: list[bool] = field(default_factory=lambda: [False, False])
    ready: dict[Tail, None] = field(default_factory=dict)
    merging: bool = False
    """The long lane waits for the short one, to take its tails over."""


class Tails:
    """The tails of this process."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._nodes: dict[int, _Node] = {}
        self._ready: dict[Tail, None] = {}
        self._scheduled = False
        self._distributed_at = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self, topic: str, partition: int, start: int) -> Tail:
        """A tail from offset `start` on."""
        tail = Tail(topic, partition, start)
        self._hungry(tail)
        return tail

    async def next(self, tail: Tail) -> list[Record]:
        """Its next records, at least one."""
        while not tail.batches:
            tail.arrived.clear()
            await tail.arrived.wait()
        records, size = tail.batches.popleft()
        tail.stored_bytes -= size
        self._hungry(tail)
        return records

    def shut(self, tail: Tail) -> None:
        """Fetch no more for it."""
        tail.closed = True

    async def close(self) -> None:
        """Fetch no more at all."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for node in self._nodes.values():
            for line in node.lanes:
                line.drop()

    def _hungry(self, tail: Tail) -> None:
        if not tail.polled and tail.hungry:
            tail.polled = True
            self._ready[tail] = None
            self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_at(self._distributed_at + PACE_SECONDS, self._distribute)

    def _distribute(self) -> None:
        """Hand the tails that are ready to the brokers that lead their partitions."""
        self._scheduled = False
        self._distributed_at = self._loop.time()
        waiting, self._ready = self._ready, {}
        for tail in waiting:
            try:
                self._node(self._link.leader(tail.topic, tail.partition)).ready[tail] = None
            except KafkaError:
                self._later(tail)
        for node in self._nodes.values():
            while node.ready and self._begin(node):
                pass

    def _node(self, number: int) -> _Node:
        if number not in self._nodes:
            self._nodes[number] = _Node((Line(self._link, number), Line(self._link, number)))
        return self._nodes[number]

    def _begin(self, node: _Node) -> bool:
        """Poll what is ready on a lane that is free; of two tails of one partition only one."""
        if node.merging and node.busy[SHORT]:
            return False
        node.merging = False
        lane = SHORT if node.busy[LONG] else LONG
        if node.busy[lane]:
            return False
        polled: dict[tuple[str, int], Tail] = {}
        for tail in list(node.ready):
            if tail.closed or polled.setdefault((tail.topic, tail.partition), tail) is tail:
                del node.ready[tail]
        if polled:
            node.busy[lane] = True
            self._spawn(self._poll(node, lane, polled))
        return bool(polled)

    async def _poll(self, node: _Node, lane: int, polled: dict[tuple[str, int], Tail]) -> None:
        found: dict[tuple[str, int], Fetched] = {}
        try:
            wants = [Want(tail.topic, tail.partition, tail.offset, PARTITION_BYTES) for tail in polled.values()]
            found = await fetch(node.lanes[lane], wants, WAIT_MS[lane], RESPONSE_BYTES)
        except KafkaError as error:
            log.debug("fetch failed: %r", error)
        finally:
            node.busy[lane] = False
        arrived = False
        for place, tail in polled.items():
            if place in found:
                arrived = self._deliver(tail, found[place]) or arrived
            else:
                self._later(tail)
        node.merging = lane == LONG and bool(found) and not arrived and node.busy[SHORT]
        self._schedule()

    def _deliver(self, tail: Tail, fetched: Fetched) -> bool:
        """Put what came into the tail's store; was there anything?"""
        if fetched.error:
            self._recover(tail, fetched)
            return False
        tail.offset = fetched.next_offset
        records = fetched.records
        for at in range(0, len(records), BATCH_RECORDS):
            batch = records[at : at + BATCH_RECORDS]
            size = sum(100 + len(record.key) + len(record.value or b"") for record in batch)
            tail.batches.append((batch, size))
            tail.stored_bytes += size
        tail.polled = False
        tail.arrived.set()
        self._hungry(tail)
        return bool(records)

    def _recover(self, tail: Tail, fetched: Fetched) -> None:
        if for_code(fetched.error) is OffsetOutOfRangeError:
            self._spawn(self._restart(tail))
        else:
            self._link.stale()
            self._later(tail)

    async def _restart(self, tail: Tail) -> None:
        """Its offset is gone (go on with the oldest kept) or not yet there (wait for it)."""
        try:
            oldest = await self._link.offset(tail.topic, tail.partition, oldest=True)
        except KafkaError:
            oldest = tail.offset
        if tail.offset < oldest:
            tail.offset = oldest
        self._later(tail)

    def _later(self, tail: Tail) -> None:
        def again() -> None:
            tail.polled = False
            self._hungry(tail)

        self._loop.call_later(RETRY_SECONDS, again)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
