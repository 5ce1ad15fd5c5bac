"""Segment files of the embedded log, and where in them the batches of each partition lie."""

from __future__ import annotations

import contextlib
import mmap
import os
from array import array
from bisect import bisect_right
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from mailfleet_core.bus.embedded_format import META_TOPIC, BatchInfo, records, scan

RAW, KEYS, AGED = "raw", "keys", "aged"
"""raw: as written, all topics. keys: compacted topics after compaction. aged: the others after it."""
ZEROS = bytes(1 << 20)
PAGE_BYTES = 4096


class Extents:
    """Batches of one partition in one segment, in order."""

    __slots__ = ("bases", "ends", "lengths", "positions")

    def __init__(self) -> None:
        self.bases, self.ends = array("Q"), array("Q")
        self.positions, self.lengths = array("Q"), array("I")

    def add(self, base: int, span: int, position: int, length: int) -> None:
        """One more batch, the newest."""
        self.bases.append(base)
        self.ends.append(base + span)
        self.positions.append(position)
        self.lengths.append(length)

    def first_after(self, offset: int) -> int:
        """Number of the first batch that has offsets ≥ `offset`."""
        return bisect_right(self.ends, offset)


Index = dict[int, Extents]
"""By `key_of(topic, partition)`."""


def key_of(topic: int, partition: int) -> int:
    """Topic and partition as one number."""
    return topic << 16 | partition


class Segment:
    """One file of a journal."""

    def __init__(self, path: Path, base: int, kind: str, size: int) -> None:
        self.path = path
        self.base = base
        self.kind = kind
        self.size = size
        self.end = 0
        """The address after it; 0 while it is the one written to."""
        self.index: Index | None = None
        self.cover: Any = None
        """Of a compacted file: its first record."""
        self._descriptor = -1

    @property
    def descriptor(self) -> int:
        """The file, open for writing; of the writing thread's only, so that nobody reads from a closed number."""
        if self._descriptor < 0:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        return self._descriptor

    def close(self) -> None:
        """Give back the descriptor."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def scan(self) -> Generator[BatchInfo, None, None]:
        """Its batches, each one checked."""
        if not self.size:
            return
        with (
            self.path.open("rb") as file,
            mmap.mmap(file.fileno(), self.size, access=mmap.ACCESS_READ) as mapped,
            memoryview(mapped) as view,
        ):
            yield from scan(view, self.base, dense=self.kind == RAW)

    def extents(self, key: int) -> Extents | None:
        """Where the batches of a partition lie; reads the file the first time."""
        if self.index is None:
            self.index = index_of(self.scan())
        return self.index.get(key)

    def read(self, extents: Extents, number: int, limit: int) -> tuple[bytes, int]:
        """Batches from `number` on, verbatim, at least one and about `limit` bytes; and the number after them."""
        pieces: list[bytes] = []
        size = 0
        with self.path.open("rb", buffering=0) as file:
            descriptor = file.fileno()
            while number < len(extents.lengths) and (not pieces or size + extents.lengths[number] <= limit):
                pieces.append(os.pread(descriptor, extents.lengths[number], extents.positions[number]))
                size += len(pieces[-1])
                number += 1
        return b"".join(pieces), number


def index_of(batches: Iterator[BatchInfo]) -> Index:
    """The index of the batches of one file."""
    index: Index = {}
    for found in batches:
        if found.topic != META_TOPIC:
            add_to(index, found)
    return index


def add_to(index: Index, found: BatchInfo) -> None:
    """Note one batch."""
    key = key_of(found.topic, found.partition)
    extents = index.get(key)
    if extents is None:
        extents = index[key] = Extents()
    extents.add(found.base, found.span, found.position, found.length)


def first_value(segment: Segment) -> bytes | None:
    """The value of the first record of a file (its checkpoint or cover), None when it has no whole batch."""
    with contextlib.closing(segment.scan()) as found, segment.path.open("rb", buffering=0) as file:
        for batch in found:
            return next(iter(records(os.pread(file.fileno(), batch.length, batch.position)))).value
    return None


def file_name(base: int, kind: str) -> str:
    """Name of a segment's file."""
    return f"{base:020d}.{kind}"


def listed(directory: Path) -> list[Segment]:
    """The segments in a directory, oldest first."""
    found = []
    for path in directory.iterdir():
        if path.suffix[1:] in (RAW, KEYS, AGED):
            found.append(Segment(path, int(path.stem), path.suffix[1:], path.stat().st_size))
    return sorted(found, key=lambda segment: segment.base)


def sync_directory(directory: Path) -> None:
    """Make creations, renames and removals in `directory` durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_zeros(path: Path, size: int) -> None:
    """A durable file of zeros, so that syncing what is later written over them changes no metadata.

    Measured on ext4: fdatasync of 2 KB appended 1,020 µs, over fallocate 420 µs, over zeros 220 µs.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)
            done = _zeros_past_the_cache(path, size)
            while done < size:
                done += os.pwrite(descriptor, ZEROS[: size - done], done)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _zeros_past_the_cache(path: Path, size: int) -> int:
    """Write zeros straight to the disk as far as that goes; how far it went.

    Through the cache a page of zeros costs 11 µs of CPU, past it 0.7. Whoever writes into such a file writes whole pages.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
    except OSError:
        return 0
    done = 0
    try:
        with mmap.mmap(-1, len(ZEROS)) as aligned, memoryview(aligned) as zeros:
            while size - done >= PAGE_BYTES:
                done += os.pwrite(descriptor, zeros[: (size - done) // PAGE_BYTES * PAGE_BYTES], done)
    except OSError:
        # A file system that cannot, or no room: the cache's way says which.
        return done
    finally:
        os.close(descriptor)
    return done
