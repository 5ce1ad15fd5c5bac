"""Compaction of sealed segments of the state journal, in a process of its own, so that the log's loop never waits for it.

In: raw segments, oldest first, and the file of compacted topics before them, if any. Out: one file of the compacted
topics with the newest record of each key, and one of the others without what nobody needs. Offsets stay as they were.
The second file is renamed last: it is what makes the raw segments superfluous after a crash.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from mailfleet_core.bus import embedded_format as form
from mailfleet_core.bus.embedded_notes import Cover
from mailfleet_core.bus.embedded_segment import AGED, KEYS, RAW, Segment, file_name, key_of, sync_directory
from mailfleet_core.bus.port import Record

MERGED_BYTES = 64 << 10
BUCKET_MILLISECONDS = 60_000
"""Records of one merged batch are at most this far apart, so that tombstones grow old."""


class Plan(msgspec.Struct):
    """What to compact, and what may go."""

    directory: str
    raw: list[str]
    covers: int
    """The address after the last raw segment."""
    keys: str = ""
    compacted: list[int] = []
    """Topics of which the newest record of each key is kept."""
    drop_before: dict[int, int] = {}
    """By partition: trimmed, or consumed by all who consume."""
    drop_older: dict[int, int] = {}
    """By topic that is not compacted: milliseconds since 1970."""
    tombstones_older: int = 0
    """Milliseconds since 1970: tombstones before it may go …"""
    tombstones_before: dict[int, int] = {}
    """… unless a tail of the partition has not passed them: it may have read what they end."""


class Damaged(Exception):
    """A sealed file does not hold what it should; nothing is thrown away."""


class _Output:
    """A compacted file while it is written."""

    def __init__(self, directory: Path, base: int, kind: str) -> None:
        self.path = directory / file_name(base, kind)
        self.making = self.path.with_name(self.path.name + ".making")
        self._file = self.making.open("wb")
        os.chmod(self.making, 0o600)
        self._chain = form.seed(base)

    def put(self, payload: bytes, base: int, time: int) -> None:
        """One batch; `payload` is PART and entries."""
        crc = form.PART.unpack_from(payload)[0]
        head, self._chain = form.head(len(payload), crc, base, time, self._chain)
        self._file.write(head)
        self._file.write(payload)

    def put_records(self, key: int, found: list[Record], base: int, time: int) -> None:
        """One batch of records that are kept."""
        entries = [form.entry(record.offset - base, record.key, record.tag, record.value) for record in found]
        span = found[-1].offset - base + 1
        self.put(form.sign((key >> 16, key & 0xFFFF, 0, 0, span), entries) + b"".join(entries), base, time)

    def finish(self) -> None:
        """Durable, under its name."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self.making.rename(self.path)


def compact(plan: Plan) -> list[str]:
    """Write the compacted files; their names. Raises Damaged, OSError."""
    directory = Path(plan.directory)
    raw = [_segment(directory / name) for name in plan.raw]
    keys = [_segment(directory / plan.keys)] if plan.keys else []
    newest, covers = _survey(plan, raw)
    base = (keys or raw)[0].base
    kept, aged = _Output(directory, base, KEYS), _Output(directory, raw[0].base, AGED)
    for output, cover in ((kept, Cover(plan.covers)), (aged, covers)):
        entry = form.entry(0, b"cover", b"", msgspec.msgpack.encode(cover))
        output.put(form.sign((form.META_TOPIC, 0, 0, 0, 1), [entry]) + entry, 0, 0)
    merging = _Merging(kept)
    for segment in (*keys, *raw):
        for found, batch in _batches(segment, plan.covers):
            if found.topic in plan.compacted:
                merging.add(found, list(_alive(plan, found, batch, newest, segment.kind == RAW)))
            elif found.topic != form.META_TOPIC and not _gone(plan, found):
                aged.put(batch[form.HEAD.size :], found.base, found.time)
    merging.flush()
    kept.finish()
    aged.finish()
    sync_directory(directory)
    return [kept.path.name, aged.path.name]


class _Merging:
    """Small batches of a partition become larger ones."""

    def __init__(self, output: _Output) -> None:
        self._output = output
        self._pending: dict[int, tuple[int, int, list[Record]]] = {}
        self._sizes: dict[int, int] = {}

    def add(self, found: form.BatchInfo, alive: list[Record]) -> None:
        """What is left of a batch."""
        if not alive:
            return
        key = key_of(found.topic, found.partition)
        size = sum(len(record.key) + len(record.value or b"") for record in alive)
        pending = self._pending.get(key)
        if pending is not None:
            base, time, records = pending
            near = found.time - time <= BUCKET_MILLISECONDS and alive[-1].offset - base < 1 << 31
            if near and self._sizes[key] + size <= MERGED_BYTES:
                records += alive
                self._sizes[key] += size
                return
            self._output.put_records(key, records, base, time)
        self._pending[key] = alive[0].offset, found.time, alive
        self._sizes[key] = size

    def flush(self) -> None:
        """Write the rest."""
        for key, (base, time, records) in self._pending.items():
            self._output.put_records(key, records, base, time)
        self._pending.clear()


def _segment(path: Path) -> Segment:
    return Segment(path, int(path.stem), path.suffix[1:], path.stat().st_size)


def _batches(segment: Segment, covers: int) -> Iterator[tuple[form.BatchInfo, bytes]]:
    """All batches of a sealed file. Raises Damaged when it ends early."""
    after = 0
    with segment.path.open("rb") as file:
        for found in segment.scan():
            after = found.position + found.length
            yield found, os.pread(file.fileno(), found.length, found.position)
    expected = segment.end - segment.base if segment.kind == RAW else segment.size
    if after != expected:
        raise Damaged(f"{segment.path} is damaged at {after}: {covers - segment.base - after} bytes cannot be read")


def _survey(plan: Plan, raw: list[Segment]) -> tuple[dict[tuple[int, bytes], int], Cover]:
    """The newest offset of each key in the raw segments, and what the file of the other topics will hold."""
    newest: dict[tuple[int, bytes], int] = {}
    cover = Cover(plan.covers)
    for segment, after in zip(raw, [*(other.base for other in raw[1:]), plan.covers], strict=True):
        segment.end = after
        for found, batch in _batches(segment, plan.covers):
            key = key_of(found.topic, found.partition)
            if found.topic in plan.compacted:
                newest.update(((key, record.key), record.offset) for record in form.records(batch))
            elif found.topic != form.META_TOPIC and not _gone(plan, found):
                cover.ends[key] = found.base + found.span
                cover.newest = max(cover.newest, found.time)
    return newest, cover


def _gone(plan: Plan, found: form.BatchInfo) -> bool:
    key = key_of(found.topic, found.partition)
    return found.base + found.span <= plan.drop_before.get(key, 0) or found.time < plan.drop_older.get(found.topic, 0)


def _alive(
    plan: Plan, found: form.BatchInfo, batch: bytes, newest: dict[tuple[int, bytes], int], raw: bool
) -> Iterator[Record]:
    """The records of a batch of a compacted topic that are kept."""
    key = key_of(found.topic, found.partition)
    old_enough = found.time < plan.tombstones_older
    passed = plan.tombstones_before.get(key, 1 << 63)
    for record in form.records(batch):
        if record.offset < plan.drop_before.get(key, 0):
            continue
        if newest.get((key, record.key)) != (record.offset if raw else None):
            continue
        if record.value is None and old_enough and record.offset < passed:
            continue
        yield record


def main() -> None:
    """Read a plan from standard input, carry it out, print the names of the files."""
    os.nice(19)
    try:
        names = compact(msgspec.json.decode(sys.stdin.buffer.read(), type=Plan))
    except (Damaged, OSError) as error:
        sys.exit(str(error))
    print(*names)


if __name__ == "__main__":
    main()
