"""Bodies are read from the files themselves: same machine, no copy through the socket."""

from __future__ import annotations

import asyncio
import os
from bisect import bisect_right
from collections import OrderedDict
from pathlib import Path

from mailfleet_core.bus.embedded_format import HEAD, MAX_BATCH_BYTES, RECORDS_AT, Torn, check, records, sole
from mailfleet_core.bus.embedded_segment import RAW
from mailfleet_core.bus.port import BusUnavailable, NotFound, Record

OPEN_FILES = 16
SCRATCH_BYTES = 65_536
"""Longer batches are read with a wait, since copying them would keep everybody else waiting."""
SLACK_BYTES = 128
"""A little more than the hint, so that header, key and tag come with the first read."""


class BodyReader:
    """Reads batches at their address in the segment files of one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._bases: list[int] = []
        self._open: OrderedDict[int, int] = OrderedDict()
        self._scratch = memoryview(bytearray(SCRATCH_BYTES))

    def read_at_once(self, topic: int, partition: int, offset: int, length: int) -> bytes | None:
        """The value of the record at `offset` if it is small, in memory and whole; `read` knows what else it is."""
        size = RECORDS_AT + SLACK_BYTES + length
        if size > SCRATCH_BYTES:
            return None
        try:
            descriptor, position = self._file(offset, False)
            # One buffer for all: nothing is allocated, and nothing copied but the value in the end.
            size = os.preadv(descriptor, [self._scratch[:size]], position, os.RWF_NOWAIT)
        except OSError:
            return None
        return sole(self._scratch[:size], (topic, partition, offset))

    async def read(self, topic: int, partition: int, offset: int, length: int) -> bytes:
        """The value of the record at `offset`. Raises NotFound, BusUnavailable."""
        for fresh in (False, True):
            batch = await self._batch(offset, length, fresh)
            if batch is None:
                continue
            try:
                found = check(batch)
            except Torn as error:
                raise BusUnavailable(f"the body at {offset} is damaged: {error}") from error
            if (found.topic, found.partition) == (topic, partition):
                record: Record = next(iter(records(batch)))
                if record.value is not None:
                    return record.value
        raise NotFound(f"no body at {offset}")

    async def _batch(self, offset: int, length: int, fresh: bool) -> bytes | None:
        """The batch at `offset`; None when there is none, as far as the list of files that we know goes."""
        try:
            descriptor, position = self._file(offset, fresh)
        except FileNotFoundError:
            return None
        data = await _read(descriptor, position, RECORDS_AT + SLACK_BYTES + length)
        if len(data) < RECORDS_AT:
            return None
        _, size, base, _ = HEAD.unpack_from(data)
        if base != offset or not RECORDS_AT < size <= MAX_BATCH_BYTES:
            return None
        if size > len(data):
            data += await _read(descriptor, position + len(data), size - len(data))
        return data[:size]

    def _file(self, offset: int, fresh: bool) -> tuple[int, int]:
        """The open file that has `offset`, and where in it."""
        if fresh or not self._bases:
            self._bases = sorted(int(path.stem) for path in self._directory.glob(f"*.{RAW}"))
        place = bisect_right(self._bases, offset) - 1
        if place < 0:
            raise FileNotFoundError
        base = self._bases[place]
        descriptor = self._open.get(base)
        if descriptor is None:
            descriptor = os.open(self._directory / f"{base:020d}.{RAW}", os.O_RDONLY | os.O_CLOEXEC)
            self._open[base] = descriptor
            if len(self._open) > OPEN_FILES:
                os.close(self._open.popitem(last=False)[1])
        else:
            self._open.move_to_end(base)
        return descriptor, offset - base

    def forget(self) -> None:
        """Close the files: some were deleted, and open files keep their room on the disk."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()
        self._bases = []


async def _read(descriptor: int, position: int, size: int) -> bytes:
    """From memory at once, from the disk in a thread."""
    buffer = bytearray(size)
    try:
        read = os.preadv(descriptor, [buffer], position, os.RWF_NOWAIT)
    except OSError:
        read = 0
    if read < size:
        # A descriptor of its own: ours may be closed while the thread reads.
        own = os.dup(descriptor)
        try:
            rest = await asyncio.get_running_loop().run_in_executor(None, os.pread, own, size - read, position + read)
        finally:
            os.close(own)
        return bytes(buffer[:read]) + rest
    return bytes(buffer)
