"""Single records by offset: own fetch requests, several partitions in one, and the neighbours kept for a moment.

Reading one record by a consumer's seek and poll takes milliseconds; a Fetch for exactly its offset takes a third of one.
The broker sends the whole batch that holds the record, so what came beside it is kept: bodies are read soon after each
other.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from dataclasses import dataclass

from kafka.errors import KafkaError, OffsetOutOfRangeError, for_code

from mailfleet_core.bus.kafka_connection import Line
from mailfleet_core.bus.kafka_fetch import Fetched, Want, fetch
from mailfleet_core.bus.kafka_link import RETRY_SECONDS, Link
from mailfleet_core.bus.port import BusUnavailable, NotFound

READ_SECONDS = 10.0
CACHE_BYTES = 16 << 20
OVERHEAD_BYTES = 512
RESPONSE_BYTES = 8 << 20
PARTITIONS_AT_ONCE = 8
REQUESTS_AT_ONCE = 2


@dataclass(slots=True, eq=False)
class _Wanted:
    """A record somebody waits for."""

    topic: str
    partition: int
    offset: int
    length: int
    answer: asyncio.Future[bytes]


class Reads:
    """Reads of this process."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._lines: dict[int, Line] = {}
        self._wanted: deque[_Wanted] = deque()
        self._running = 0
        self._scheduled = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._kept: OrderedDict[tuple[str, int, int], bytes] = OrderedDict()
        self._kept_bytes = 0
        self._batch_bytes: dict[str, int] = {}

    async def read(self, topic: str, partition: int, offset: int, length: int) -> bytes:
        """See `Bus.read`."""
        kept = self._kept.pop((topic, partition, offset), None)
        if kept is not None:
            self._kept_bytes -= len(kept)
            return kept
        answer: asyncio.Future[bytes] = self._loop.create_future()
        self._wanted.append(_Wanted(topic, partition, offset, length, answer))
        self._schedule()
        try:
            async with asyncio.timeout(READ_SECONDS):
                return await answer
        except TimeoutError:
            raise BusUnavailable(f"Kafka did not give {topic}[{partition}] at {offset} in {READ_SECONDS:g} s") from None

    async def close(self) -> None:
        """Read no more."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for line in self._lines.values():
            line.drop()

    def _line(self, node: int) -> Line:
        if node not in self._lines:
            self._lines[node] = Line(self._link, node)
        return self._lines[node]

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        self._scheduled = False
        while self._wanted and self._running < REQUESTS_AT_ONCE:
            task = self._loop.create_task(self._round(*self._choose()))
            self._running += 1
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._running -= 1
        if self._wanted:
            self._schedule()

    def _choose(self) -> tuple[int | None, list[_Wanted]]:
        """The oldest, and others that one request to the same broker can serve: a lowest offset for each partition."""
        node: int | None = None
        chosen: dict[tuple[str, int], list[_Wanted]] = {}
        rest: deque[_Wanted] = deque()
        while self._wanted:
            wanted = self._wanted.popleft()
            place = (wanted.topic, wanted.partition)
            leader = self._leader(wanted)
            if wanted.answer.done():
                continue
            if not chosen:
                node = leader
            if leader == node and (place in chosen or len(chosen) < PARTITIONS_AT_ONCE):
                chosen.setdefault(place, []).append(wanted)
            else:
                rest.append(wanted)
        self._wanted = rest
        return node, [wanted for group in chosen.values() for wanted in group]

    def _leader(self, wanted: _Wanted) -> int | None:
        try:
            return self._link.leader(wanted.topic, wanted.partition)
        except KafkaError:
            return None

    async def _round(self, node: int | None, chosen: list[_Wanted]) -> None:
        """One request. What it did not bring is asked for again, the oldest first."""
        wants: dict[tuple[str, int], Want] = {}
        for wanted in chosen:
            place = (wanted.topic, wanted.partition)
            size = max(wanted.length + OVERHEAD_BYTES, self._batch_bytes.get(wanted.topic, 0))
            if place not in wants or wanted.offset < wants[place].offset:
                wants[place] = Want(wanted.topic, wanted.partition, wanted.offset, size)
        try:
            if node is None:
                raise KafkaError("no leader")
            found = await fetch(self._line(node), wants.values(), 0, RESPONSE_BYTES)
        except KafkaError:
            await asyncio.sleep(RETRY_SECONDS)
            self._wanted.extendleft(reversed(chosen))
            return
        self._settle(chosen, wants, found)

    def _settle(
        self, chosen: list[_Wanted], wants: dict[tuple[str, int], Want], found: dict[tuple[str, int], Fetched]
    ) -> None:
        values = {
            (*place, record.offset): record.value for place, fetched in found.items() for record in fetched.records
        }
        for fetched_place, fetched in found.items():
            self._learn(fetched_place[0], fetched)
        again = [wanted for wanted in chosen if not self._answer(wanted, values, wants, found)]
        self._wanted.extendleft(reversed(again))
        asked = {(wanted.topic, wanted.partition, wanted.offset) for wanted in chosen}
        for place, value in values.items():
            if value is not None and place not in asked:
                self._keep(place, value)

    def _learn(self, topic: str, fetched: Fetched) -> None:
        if fetched.size:
            self._batch_bytes[topic] = min(1 << 20, max(fetched.size, self._batch_bytes.get(topic, 0) * 9 // 10))

    def _answer(
        self,
        wanted: _Wanted,
        values: dict[tuple[str, int, int], bytes | None],
        wants: dict[tuple[str, int], Want],
        found: dict[tuple[str, int], Fetched],
    ) -> bool:
        """Answer it if the response can; otherwise it has to be asked again."""
        place = (wanted.topic, wanted.partition)
        if wanted.answer.done():
            return True
        value = values.get((*place, wanted.offset))  # Several may wait for the same record.
        if value is not None:
            wanted.answer.set_result(value)
            return True
        fetched = found.get(place)
        if fetched is None or not self._gone(wanted, fetched, first=wants[place].offset == wanted.offset):
            return False
        wanted.answer.set_exception(NotFound(f"{wanted.topic}[{wanted.partition}] has no record at {wanted.offset}"))
        return True

    def _gone(self, wanted: _Wanted, fetched: Fetched, first: bool) -> bool:
        """Does the response say that there is no such record? `first`: it was what the request asked for."""
        if fetched.error:
            if for_code(fetched.error) is OffsetOutOfRangeError:
                return first
            self._link.stale()
            return False
        return wanted.offset < fetched.next_offset or wanted.offset >= fetched.end

    def _keep(self, place: tuple[str, int, int], value: bytes) -> None:
        if place in self._kept:
            return
        self._kept[place] = value
        self._kept_bytes += len(value)
        while self._kept_bytes > CACHE_BYTES:
            self._kept_bytes -= len(self._kept.popitem(last=False)[1])
