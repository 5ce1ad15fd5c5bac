"""The log process's side of a tail: from memory while at the head, from the files while behind, as far as its credit goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mailfleet_core.bus.embedded_journal import Journal
from mailfleet_core.bus.embedded_segment import AGED, KEYS, RAW

READ_BYTES = 256 << 10


def read_from(journal: Journal, key: int, compacted: bool, start: int, limit: int) -> tuple[bytes, int]:
    """Batches of a partition that have offsets ≥ `start`, at most about `limit` bytes, and the offset after them.

    Nothing and `start` when there are none. Runs in a thread.
    """
    while True:
        try:
            return _read_from(
                journal, key, (RAW, KEYS if compacted else AGED), max(start, _trimmed(journal, key)), limit
            )
        except FileNotFoundError:
            # Compaction has replaced it since we looked at the list.
            continue


def _trimmed(journal: Journal, key: int) -> int:
    return journal.state.trims.get(key, 0)


def _read_from(journal: Journal, key: int, kinds: tuple[str, str], start: int, limit: int) -> tuple[bytes, int]:
    for segment in journal.segments:
        if segment.kind not in kinds or (segment.end and segment.end <= start):
            continue
        extents = segment.extents(key)
        if extents is None:
            continue
        number = extents.first_after(start)
        if number < len(extents.lengths):
            data, after = segment.read(extents, number, limit)
            return data, extents.ends[after - 1]
    return b"", start


class Feed:
    """One tail of one client."""

    def __init__(self, number: int, key: int, start: int, credit: int) -> None:
        self.number = number
        self.key = key
        self.next = start
        """The offset from which it still has to be sent."""
        self.credit = credit
        self.live = False
        """It has all there is: new batches go to it from memory."""
        self.reading = False
        self.closed = False

    def offer(self, batches: list[bytes], bases: list[int], end: int) -> bytes | None:
        """New durable batches: what to send now, or None when it has to catch up from the files later."""
        if not self.live or end <= self.next:
            return None
        if bases[0] < self.next:
            fresh = [(batch, base) for batch, base in zip(batches, bases, strict=True) if base >= self.next]
            batches = [batch for batch, _ in fresh]
        data = b"".join(batches) if len(batches) > 1 else batches[0]
        if len(data) > self.credit:
            self.live = False
            return None
        self.credit -= len(data)
        self.next = end
        return data


class CatchUp:
    """Reads for feeds that are behind, one read at a time each."""

    def __init__(self, send: Callable[[bytes], None], end_of: Callable[[int], int]) -> None:
        self._send = send
        self._end_of = end_of

    async def run(self, feed: Feed, journal: Journal, compacted: bool) -> None:
        """Send what the files have, until it is at the head or its credit is used up."""
        loop = asyncio.get_running_loop()
        feed.reading = True
        try:
            while not feed.closed and not feed.live and feed.credit > 0:
                end = self._end_of(feed.key)
                limit = min(feed.credit, READ_BYTES)
                data, after = b"", feed.next
                if end > feed.next:
                    data, after = await loop.run_in_executor(
                        None, read_from, journal, feed.key, compacted, feed.next, limit
                    )
                if data and not feed.closed:
                    self._send(data)
                    feed.credit -= len(data)
                # Nothing there although there was an end: compaction or a trim took it.
                feed.next = after if data else max(feed.next, end)
                feed.live = self._end_of(feed.key) <= feed.next
        finally:
            feed.reading = False
