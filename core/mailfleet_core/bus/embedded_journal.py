"""A journal: segments that are written at one end; groups of batches become durable with one write and one sync.

Nothing here knows sockets or event loops. One thread writes; others may read the segments that it has listed.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Collection
from itertools import pairwise
from pathlib import Path

from mailfleet_core.bus import embedded_format as form
from mailfleet_core.bus.embedded_notes import (
    Append,
    Checkpoint,
    Notes,
    Producer,
    cover_of,
    decode_checkpoint,
    decode_notes,
    encode,
    meta_append,
    notes_append,
)
from mailfleet_core.bus.embedded_segment import (
    AGED,
    PAGE_BYTES,
    RAW,
    ZEROS,
    Extents,
    Segment,
    add_to,
    file_name,
    first_value,
    key_of,
    listed,
    sync_directory,
    write_zeros,
)

REFUSED, WRITTEN_BEFORE = 0, 1
"""Answers in place of a base: no room; or written before, and its base is not known any more."""
REMEMBERED_BATCHES = 1024
"""Per producer: more than it may have unacknowledged, so that what is sent again finds its base."""
PRODUCER_KEPT_MILLISECONDS = 600_000
FIRST_SEGMENT_BYTES = 4 << 20
_IOV_MAX = 512
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class _Run:
    """What goes into one segment with one write and one sync."""

    __slots__ = ("before", "chain", "end", "pieces", "placed", "start", "time")

    def __init__(self, start: int, chain: int) -> None:
        self.start = self.end = start
        self.chain = chain
        self.time = 0
        self.pieces: list[bytes] = []
        self.placed: list[tuple[Append, int]] = []
        self.before: dict[int, int] = {}
        """Last sequence of each producer, as it was before this run."""

    def undo(self, state: Checkpoint) -> None:
        """Forget the sequences of a run that was not written."""
        for identity, last in self.before.items():
            producer = state.producers[identity]
            producer.last = last
            producer.bases = {sequence: base for sequence, base in producer.bases.items() if sequence <= last}


class Journal:
    """The segments of one directory. `now` gives milliseconds since 1970."""

    def __init__(self, directory: Path, segment_bytes: int, now: Callable[[], int]) -> None:
        self.directory = directory
        self.segment_bytes = segment_bytes
        self.state = Checkpoint()
        self._now = now
        self.closed: frozenset[int] = frozenset()
        """Topics that are refused now."""
        directory.mkdir(mode=0o700, exist_ok=True)
        self.segments: list[Segment] = []
        """Oldest first; replaced, never changed in place, so that readers may keep one."""
        self._position = 0
        self._chain = 0
        self._spare_ready = False
        self._syncing = threading.Lock()
        self._unsynced: set[int] = set()
        """Producers of batches in the current segment that were written and not synced."""
        self.before_write: Callable[[Collection[int]], None] | None = None
        """Makes durable what batches of these producers refer to."""
        self._recover()
        # What a killed process left unsynced may be referred to as soon as we answer again.
        os.fdatasync(self.current.descriptor)

    @property
    def current(self) -> Segment:
        """The segment that is written to."""
        return self.segments[-1]

    @property
    def address(self) -> int:
        """Where the next batch goes."""
        return self.current.base + self._position

    def write(self, appends: list[Append]) -> list[int]:
        """Make all durable; the base of each, or REFUSED, or WRITTEN_BEFORE. Raises OSError when the disk fails."""
        answers: list[int] = []
        while len(answers) < len(appends):
            run = _Run(self._position, self._chain)
            rest = appends[len(answers) :]
            try:
                if not self._room(rest[0], run):
                    self._roll(rest[0])
                    run = _Run(self._position, self._chain)
                if not self._position:
                    self._place(meta_append(b"checkpoint", encode(self.state)), run)
                placed = self._place_run(rest, run)
                self._flush(run)
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise
                run.undo(self.state)
                return answers + [REFUSED] * (len(appends) - len(answers))
            self._settle(run)
            answers += placed
        return answers

    def seal(self) -> None:
        """Go on in a new segment, though there is room. Of the writing thread's. Raises OSError."""
        if self._position:
            self._roll(notes_append(Notes()))
            self.write([notes_append(Notes())])

    @property
    def has_spare(self) -> bool:
        """Is the next segment ready?"""
        return self._spare_ready

    def prepare(self) -> None:
        """Have the next segment ready, so that no append waits for it. May run in another thread. Raises OSError."""
        spare = self.directory / "spare"
        if not spare.exists():
            making = self.directory / "spare.making"
            write_zeros(making, self._next_bytes())
            making.rename(spare)
        self._spare_ready = True

    def replace(self, old: list[Segment], new: list[Segment]) -> None:
        """After compaction or retention: `new` in place of `old`. Of the writing thread's, like `write`."""
        gone = set(map(id, old))
        kept = [segment for segment in self.segments if id(segment) not in gone]
        self.segments = sorted(kept + new, key=lambda segment: (segment.base, segment is self.current))
        replaced = {segment.path for segment in new}
        for segment in old:
            segment.close()
            if segment.path not in replaced:
                segment.path.unlink(missing_ok=True)
        sync_directory(self.directory)

    def close(self) -> None:
        """Give back the files."""
        for segment in self.segments:
            segment.close()

    def fits(self, appends: list[Append]) -> bool:
        """Can they be written without a new segment?"""
        size = sum(form.HEAD.size + len(item.payload) for item in appends)
        return 0 < self._position <= self.current.size - size

    def _next_bytes(self) -> int:
        return min(self.segment_bytes, max(FIRST_SEGMENT_BYTES, 2 * self.current.size))

    def _place_run(self, appends: list[Append], run: _Run) -> list[int]:
        """Place what fits into the current segment; at least one."""
        answers = []
        for item in appends:
            if not item.producer:
                answers.append(self._place(item, run) if self._room(item, run) else -1)
            else:
                answers.append(self._once(item, run))
            if answers[-1] < 0:
                answers.pop()
                break
        return answers

    def _once(self, item: Append, run: _Run) -> int:
        """Place a producer's batch unless it was written before; -1 when it does not fit."""
        producer = self.state.producers.get(item.producer)
        if producer is None:
            producer = self.state.producers[item.producer] = Producer(-1, run.time, {})
        elif item.sequence <= producer.last:
            return producer.bases.get(item.sequence, WRITTEN_BEFORE)
        if item.topic in self.closed:
            return REFUSED
        if not self._room(item, run):
            return -1
        run.before.setdefault(item.producer, producer.last)
        base = self._place(item, run)
        producer.last, producer.seen = item.sequence, run.time
        producer.bases[item.sequence] = base
        return base

    def _room(self, item: Append, run: _Run) -> bool:
        return run.end + form.HEAD.size + len(item.payload) <= self.current.size

    def _place(self, item: Append, run: _Run) -> int:
        base = self.current.base + run.end
        if not run.time:
            run.time = self._now()
        head, run.chain = form.head(len(item.payload), item.crc, base, run.time, run.chain)
        run.pieces.append(head)
        run.pieces.append(item.payload)
        run.placed.append((item, base))
        run.end += len(head) + len(item.payload)
        return base

    def _flush(self, run: _Run) -> None:
        position, pieces = run.start, run.pieces
        if not pieces:
            return
        if self.before_write is not None:
            # Not merely before the sync: the kernel may store our pages first, and after a power cut a record would
            # refer to an address that another body gets.
            self.before_write(run.before)
        # Up to the end of the page: what would be in it need not be read from the disk first.
        fill = min(-run.end % PAGE_BYTES, self.current.size - run.end)
        if fill:
            pieces.append(ZEROS[:fill])
        for first in range(0, len(pieces), _IOV_MAX):
            some = pieces[first : first + _IOV_MAX]
            expected = sum(map(len, some))
            written = os.pwritev(self.current.descriptor, some, position)
            if written < expected:
                rest = b"".join(some)
                while written < expected:
                    written += os.pwrite(self.current.descriptor, memoryview(rest)[written:], position + written)
            position += expected
        if any(item.durable for item, _ in run.placed):
            os.fdatasync(self.current.descriptor)
        else:
            self._unsynced.update(run.before)
        self._position, self._chain = run.end, run.chain

    def sync(self, producers: Collection[int] | None = None) -> None:
        """Make durable what was placed, if it was by one of `producers`. May run in another thread. Raises OSError."""
        # The look is inside, too: another thread's sync must have ended before we say that it is done.
        with self._syncing:
            if self._unsynced and (producers is None or not self._unsynced.isdisjoint(producers)):
                # First: what is placed from here on is synced next time.
                self._unsynced = set()
                os.fdatasync(self.current.descriptor)

    def _settle(self, run: _Run) -> None:
        """Note what is durable now: index, ends, the log's own records, and forget old sequences."""
        index, ends, segment_base = self.current.index, self.state.ends, self.current.base
        for item, base in run.placed:
            if item.topic == form.META_TOPIC:
                self._apply(item.payload)
                continue
            key = key_of(item.topic, item.partition)
            ends[key] = base + item.span
            if index is not None:
                extents = index.get(key) or index.setdefault(key, Extents())
                extents.add(base, item.span, base - segment_base, form.HEAD.size + len(item.payload))
        for identity in run.before:
            producer = self.state.producers[identity]
            if len(producer.bases) > 2 * REMEMBERED_BATCHES:
                producer.bases = dict(list(producer.bases.items())[-REMEMBERED_BATCHES:])

    def _apply(self, payload: bytes) -> None:
        # A batch without its HEAD: PART tells nothing that records() needs but where the entries begin.
        length = form.HEAD.size + len(payload)
        record = next(iter(form.records(form.HEAD.pack(0, length, 0, 0) + payload)))
        if record.value is None or record.key != b"notes":
            return
        notes = decode_notes(record.value)
        self.state.positions.update(notes.positions)
        self.state.trims.update(notes.trims)

    def _roll(self, item: Append) -> None:
        """Go on in a new segment. Raises OSError when there is no room for one."""
        address = self.address
        self._forget_producers()
        path = self.directory / file_name(address, RAW)
        needed = form.HEAD.size + len(item.payload) + len(encode(self.state)) + 4096
        spare = self.directory / "spare"
        if spare.exists() and spare.stat().st_size >= needed:
            spare.rename(path)
            self._spare_ready = False
        else:
            self._allocate(path, max(needed, self._next_bytes()))
        sync_directory(self.directory)
        segment = Segment(path, address, RAW, path.stat().st_size)
        segment.index = {}
        self.sync()  # only the current segment may have something unsynced
        with self._syncing:
            if self.segments:
                self.current.end = address
            self.segments = [*self.segments, segment]
        self._position, self._chain = 0, form.seed(address)

    def _allocate(self, path: Path, size: int) -> None:
        """Without a spare: space is sure, the syncs in it are slower."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError:
            path.unlink()
            raise
        finally:
            os.close(descriptor)

    def _forget_producers(self) -> None:
        oldest = self._now() - PRODUCER_KEPT_MILLISECONDS
        for identity, producer in list(self.state.producers.items()):
            if producer.seen < oldest:
                del self.state.producers[identity]
            producer.bases = dict(list(producer.bases.items())[-REMEMBERED_BATCHES:])

    def _recover(self) -> None:
        """Find the end of the journal; what is after the last whole batch was never acknowledged."""
        for left in self.directory.glob("*.making"):
            left.unlink()
        found = self._without_replaced(listed(self.directory))
        while found and found[-1].kind == RAW and first_value(found[-1]) is None:
            # Cut off between its creation and its first sync: nothing in it was acknowledged.
            empty = found.pop()
            empty.close()
            empty.path.unlink()
        self.segments = found
        if not found:
            self._start_at(form.FIRST_OFFSET)
        elif found[-1].kind != RAW:
            self._start_at(found[-1].end)
        else:
            self._replay(found[-1])

    def _start_at(self, address: int) -> None:
        path = self.directory / file_name(address, RAW)
        self._allocate(path, FIRST_SEGMENT_BYTES)
        sync_directory(self.directory)
        segment = Segment(path, address, RAW, FIRST_SEGMENT_BYTES)
        segment.index = {}
        self.segments = [*self.segments, segment]
        self._position, self._chain = 0, form.seed(address)

    def _without_replaced(self, found: list[Segment]) -> list[Segment]:
        """Without the files that a compaction cut off half-way had replaced already."""
        kept: list[Segment] = []
        compacted_to = 0
        for segment in found:
            if segment.kind != RAW:
                segment.cover = cover_of(segment)
                segment.end = segment.cover.covers
                if segment.kind == AGED:
                    # Renamed last: only with it is a compaction done.
                    compacted_to = max(compacted_to, segment.end)
        raw = [segment for segment in found if segment.kind == RAW]
        for segment, after in pairwise(raw):
            segment.end = after.base
        for segment in found:
            if segment.kind == RAW and segment.base < compacted_to:
                segment.close()
                segment.path.unlink()
            else:
                kept.append(segment)
        return kept

    def _replay(self, last: Segment) -> None:
        last.index = {}
        self._position, self._chain = 0, form.seed(last.base)
        for found in last.scan():
            self._position, self._chain = found.position + found.length, found.chain
            if found.topic == form.META_TOPIC:
                self._replay_meta(os.pread(last.descriptor, found.length, found.position))
                continue
            add_to(last.index, found)
            self.state.ends[key_of(found.topic, found.partition)] = found.base + found.span
            if found.producer:
                producer = self.state.producers.setdefault(found.producer, Producer(-1, found.time, {}))
                producer.last, producer.seen = found.sequence, found.time
                producer.bases[found.sequence] = found.base

    def _replay_meta(self, batch: bytes) -> None:
        record = next(iter(form.records(batch)))
        if record.key == b"checkpoint" and record.value:
            self.state = decode_checkpoint(record.value)
        else:
            self._apply(batch[form.HEAD.size :])
