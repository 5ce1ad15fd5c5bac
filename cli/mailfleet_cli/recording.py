"""What was recorded, in order of time: the events in the log, or those in a file that `mailfleet events --json` wrote."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator

import click
import msgspec

from mailfleet_cli import output, reading
from mailfleet_cli.story import from_json
from mailfleet_core.bus import topics
from mailfleet_core.bus.port import Bus, Record
from mailfleet_core.model import wire
from mailfleet_core.model.wire import EVENT_KINDS, Event
from mailfleet_core.settings import SettingsFile
from mailfleet_router.decisions.shaping import values

CHUNK_EVENTS = 2_000
CHUNKS = 16
"""That are read ahead, at most."""
MARGIN_SECONDS = 60.0
"""Records of a partition are in the order in which they were written, which is nearly that of their events."""
NEAR = 1 << 16
"""A search for an instant ends when it is so near by offset: the rest is read quicker than asked for."""

Seen = Callable[[int, int], None]
"""Told how far a read is, of how much."""


def span(_: click.Context, __: click.Parameter, text: str | None) -> float | None:
    """A length of time on the command line, as seconds: `90s`, `15m`, `24h`, `7d`, `1d12h`."""
    if text is None:
        return None
    try:
        return values.seconds(text)
    except values.PolicyError:
        raise click.BadParameter(f"{text!r} is not a length of time; write 90s, 15m, 24h or 7d") from None


def from_log(file: SettingsFile, since: float, seen: Seen) -> Iterator[Event]:
    """The events that the log of the settings holds and that happened since an instant. Raises BusUnavailable.

    The log is read by a thread of its own: whoever takes the events may take as long as it likes.
    """
    chunks: queue.Queue[list[Event] | BaseException | None] = queue.Queue(CHUNKS)

    async def read() -> None:
        async with reading.opened(file) as bus:
            chunk: list[Event] = []
            async for events in in_order(bus, since, seen):
                chunk += events
                if len(chunk) >= CHUNK_EVENTS:
                    # Nothing else runs in this loop but the tails, which may wait.
                    chunks.put(chunk)
                    chunk = []
            chunks.put(chunk)

    def work() -> None:
        try:
            reading.run(read())
            chunks.put(None)
        except BaseException as error:
            chunks.put(error)

    threading.Thread(target=work, daemon=True).start()
    while (chunk := chunks.get()) is not None:
        if isinstance(chunk, BaseException):
            raise chunk
        yield from chunk


async def in_order(bus: Bus, since: float, seen: Seen) -> AsyncIterator[list[Event]]:
    """The events of each record, the records of all partitions by their time; of those that are in the log now."""
    count = bus.partitions(topics.EVENTS)
    ends = [await bus.end(topics.EVENTS, number) for number in range(count)]
    starts = [await _offset_at(bus, number, end, since) for number, end in enumerate(ends)]
    heads: dict[int, _Head] = {}
    for number in range(count):
        head = _Head(reading.records(bus, topics.EVENTS, number, starts[number]), starts[number])
        if await head.fill():
            heads[number] = head
    total = sum(ends) - sum(starts)
    left = {number: ends[number] - head.offset for number, head in heads.items()}
    while heads:
        number = min(heads, key=lambda each: heads[each].at)
        head = heads[number]
        yield [event for event in head.take() if event.at >= since]
        left[number] = ends[number] - head.offset
        if not await head.fill():
            del heads[number], left[number]
        seen(total - sum(left.values()), total)


class _Head:
    """What comes next of one partition."""

    def __init__(self, batches: AsyncIterator[list[Record]], offset: int) -> None:
        self._batches = batches
        self._told: deque[tuple[int, float, list[Event]]] = deque()
        self.offset = offset
        self._at = 0.0

    @property
    def at(self) -> float:
        """When the newest event of the next record happened; it never goes back."""
        return max(self._at, self._told[0][1])

    async def fill(self) -> bool:
        """Is there a next record?"""
        while not self._told:
            batch = await anext(self._batches, None)
            if batch is None:
                return False
            for record in batch:
                events = wire.told(record.value) if record.value is not None else []
                if events:
                    self._told.append((record.offset, max(event.at for event in events), events))
        return True

    def take(self) -> list[Event]:
        """The events of the next record."""
        self._at = self.at
        self.offset, _, events = self._told.popleft()
        return events


async def _offset_at(bus: Bus, partition: int, end: int, since: float) -> int:
    """An offset before the events since an instant, by halves: weeks of events are not read for an hour's."""
    low, high = 0, end
    while high - low > NEAR:
        middle = (low + high) // 2
        at = await _first_at(bus, partition, middle, end)
        low, high = (middle, high) if at < since - MARGIN_SECONDS else (low, middle)
    return low


async def _first_at(bus: Bus, partition: int, start: int, end: int) -> float:
    batches = reading.records(bus, topics.EVENTS, partition, start, end)
    async with contextlib.aclosing(batches):
        async for batch in batches:
            for record in batch:
                if record.value is not None and (events := wire.told(record.value)):
                    return max(event.at for event in events)
    return float("inf")


def from_lines(lines: Iterable[str], since: float, origin: str) -> Iterator[Event]:
    """The events in lines of JSON that `events --json` or `trace --json` wrote."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            fields = msgspec.json.decode(line, type=dict)
            event = from_json(fields) if fields.get("kind") in EVENT_KINDS else None
        except (msgspec.MsgspecError, ValueError, TypeError) as error:
            output.fail(f"{origin}:{number} is no event as `mailfleet events --json` writes them: {error}")
        if event is not None and event.at >= since:
            yield event
