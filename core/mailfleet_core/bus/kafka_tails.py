"""All tails of a process: long polls of many partitions at once, each tail with a bounded store of its own.

A broker looks at every partition of a request twice, so what is busy is not polled together with what is quiet: a tail
that had records within a second is polled on the hot lane, all others wait in one long poll on the cold one. And it
answers the requests of a connection in turn, so a tail that becomes ready during the long poll would wait for its end:
it is polled on the hot lane too, which never waits long, until the cold one takes it over.
A tail whose store is full is not polled: it holds back nobody.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass, field
from operator import attrgetter

from kafka.errors import KafkaError, OffsetOutOfRangeError, for_code

from mailfleet_core.bus.kafka_connection import Line
from mailfleet_core.bus.kafka_fetch import Fetched, Want, fetch
from mailfleet_core.bus.kafka_link import RETRY_SECONDS, Link
from mailfleet_core.bus.port import Record

log = logging.getLogger(__name__)

PACE_SECONDS = 0.005
"""Least time between two rounds of fetches: one request costs what fifty records cost, so a busy log is read in
mouthfuls. A quiet one is read at once."""
COLD, HOT = 0, 1
WAIT_MS = (500, 20)
HOT_SECONDS = 1.0
SHARED_RECORDS = 500
"""Tails of one partition that are no further apart are served by one fetch: neither waits for the other's past."""
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
    hot_until: float = 0.0

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
    """The cold lane waits for the hot one, to take over what is quiet now."""


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
            if node.ready:
                self._begin(node)

    def _node(self, number: int) -> _Node:
        if number not in self._nodes:
            self._nodes[number] = _Node((Line(self._link, number), Line(self._link, number)))
        return self._nodes[number]

    def _begin(self, node: _Node) -> None:
        """Poll what is ready on the lanes that are free."""
        if node.merging and node.busy[HOT]:
            return
        node.merging = False
        now = self._loop.time()
        if not node.busy[COLD]:
            self._take(node, COLD, [tail for tail in node.ready if tail.hot_until < now])
        if not node.busy[HOT]:
            self._take(node, HOT, list(node.ready))

    def _take(self, node: _Node, lane: int, tails: list[Tail]) -> None:
        """Poll them on this lane; tails that are close to each other in a partition share what comes."""
        polled: dict[tuple[str, int], list[Tail]] = {}
        for tail in tails:
            sharing = polled.setdefault((tail.topic, tail.partition), [])
            if tail.closed:
                del node.ready[tail]
            elif not sharing or abs(sharing[0].offset - tail.offset) <= SHARED_RECORDS:
                del node.ready[tail]
                sharing.append(tail)
        polled = {place: sharing for place, sharing in polled.items() if sharing}
        if polled:
            node.busy[lane] = True
            self._spawn(self._poll(node, lane, polled))

    async def _poll(self, node: _Node, lane: int, polled: dict[tuple[str, int], list[Tail]]) -> None:
        found: dict[tuple[str, int], Fetched] = {}
        try:
            wants = [
                Want(*place, min(tail.offset for tail in sharing), PARTITION_BYTES) for place, sharing in polled.items()
            ]
            found = await fetch(node.lanes[lane], wants, WAIT_MS[lane], RESPONSE_BYTES)
        except KafkaError as error:
            log.debug("fetch failed: %r", error)
        finally:
            node.busy[lane] = False
        arrived = False
        for place, sharing in polled.items():
            for tail in sharing:
                if place in found:
                    arrived = self._deliver(tail, found[place]) or arrived
                else:
                    self._later(tail)
        node.merging = lane == COLD and bool(found) and not arrived and node.busy[HOT]
        self._schedule()

    def _deliver(self, tail: Tail, fetched: Fetched) -> bool:
        """Put what came into the tail's store; was there anything?"""
        if fetched.error:
            self._recover(tail, fetched)
            return False
        records = fetched.records
        if records and records[0].offset < tail.offset:
            records = records[bisect_left(records, tail.offset, key=attrgetter("offset")) :]
        tail.offset = max(tail.offset, fetched.next_offset)
        if records:
            tail.hot_until = self._loop.time() + HOT_SECONDS
            tail.arrived.set()
        for at in range(0, len(records), BATCH_RECORDS):
            batch = records[at : at + BATCH_RECORDS]
            size = sum(100 + len(record.key) + len(record.value or b"") for record in batch)
            tail.batches.append((batch, size))
            tail.stored_bytes += size
        tail.polled = False
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
