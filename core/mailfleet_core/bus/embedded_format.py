"""The bytes of the embedded log: batches of records, as producers send them, files hold them and tails get them.

A batch is `HEAD | PART | entries`. The producer makes PART and the entries; the log process puts HEAD before them and
never looks at a record, so its work is per batch. What guards what:

* `crc` (producer's, CRC-32C) covers the rest of PART and the entries, from the producer's memory to the reader's.
* `base` is the batch's own address in the journal, so a recycled file cannot pass for a newer one.
* `chain` covers HEAD and `crc` and is seeded with the chain of the batch before, so that after a torn write nothing of
  an earlier life can follow what is written over it.

The offset of a record is `base + delta`; compaction drops entries and keeps the deltas of the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from struct import Struct
from typing import NamedTuple

from crc32c import crc32c

from mailfleet_core.bus.port import Record

HEAD = Struct("<IIQQ")
"""chain, length of the whole batch, base, milliseconds since 1970 when it was written."""
PART = Struct("<IHHQQI")
"""crc, topic, partition, producer, sequence, span (how many offsets it takes)."""
ENTRY = Struct("<IHHi")
"""delta, length of key, of tag, of value (-1: tombstone)."""
RECORDS_AT = HEAD.size + PART.size
_FIRST_AT = RECORDS_AT + ENTRY.size
FIRST_OFFSET = 4096
"""Of a new journal. Lower numbers are free for answers that are not offsets."""
META_TOPIC = 0
"""Topic of the log's own records: checkpoints, committed positions, trims."""
MAX_BATCH_BYTES = 64 << 20
_CHAINED = Struct("<IQQ")
_CHAIN = Struct("<I")
_SIGNED = Struct("<HHQQI")
_BASE = Struct("<Q")


class Torn(ValueError):
    """These bytes are not a whole batch."""


class BatchInfo(NamedTuple):
    """A batch as a scan finds it."""

    position: int
    """In the file."""
    length: int
    base: int
    time: int
    topic: int
    partition: int
    producer: int
    sequence: int
    span: int
    chain: int


def entry(delta: int, key: bytes, tag: bytes, value: bytes | None) -> bytes:
    """One record of a batch."""
    return b"".join(pieces(delta, key, tag, value))


def pieces(delta: int, key: bytes, tag: bytes, value: bytes | None) -> tuple[bytes, bytes, bytes, bytes]:
    """One record of a batch, not joined yet."""
    if value is None:
        return ENTRY.pack(delta, len(key), len(tag), -1), key, tag, b""
    return ENTRY.pack(delta, len(key), len(tag), len(value)), key, tag, value


def sign(fields: tuple[int, int, int, int, int], pieces: Sequence[bytes]) -> bytes:
    """PART for (topic, partition, producer, sequence, span) and the pieces of entries that will follow it."""
    signed = _SIGNED.pack(*fields)
    crc = crc32c(signed)
    for piece in pieces:
        crc = crc32c(piece, crc)
    return _CHAIN.pack(crc) + signed


def seed(base: int) -> int:
    """The chain before the first batch of the segment that begins at `base`."""
    return crc32c(_BASE.pack(base))


def head(payload_length: int, crc: int, base: int, time: int, chain: int) -> tuple[bytes, int]:
    """HEAD for a payload (PART and entries), and the chain after it."""
    rest = _CHAINED.pack(HEAD.size + payload_length, base, time)
    chain = crc32c(rest, chain ^ crc)
    return _CHAIN.pack(chain) + rest, chain


def records(batch: bytes, position: int = 0) -> Iterator[Record]:
    """The records of the batch at `position`, unchecked."""
    _, length, base, _ = HEAD.unpack_from(batch, position)
    return iter(_entries(batch, position + RECORDS_AT, position + length, base))


def take(data: bytes, position: int) -> tuple[list[Record], int, int]:
    """The records of the batch at `position`, the offset after them, and the position after it. Raises Torn.

    What `check` and `records` say of it in half the time: every record that a tail gives is read this way.
    """
    if len(data) - position < RECORDS_AT:
        raise Torn("too short for a batch")
    _, length, base, _ = HEAD.unpack_from(data, position)
    end = position + length
    if not RECORDS_AT <= length <= len(data) - position:
        raise Torn("its length is impossible")
    crc, _, _, _, _, span = PART.unpack_from(data, position + HEAD.size)
    if crc32c(memoryview(data)[position + HEAD.size + 4 : end]) != crc:
        raise Torn("its checksum differs")
    return _entries(data, position + RECORDS_AT, end, base), base + span, end


def _entries(data: bytes, cursor: int, end: int, base: int) -> list[Record]:
    found: list[Record] = []
    # Without the call of Record(): most of the time of a record went into it.
    unpack, width, make = ENTRY.unpack_from, ENTRY.size, tuple.__new__
    while cursor < end:
        delta, key_length, tag_length, value_length = unpack(data, cursor)
        cursor += width
        tag_at = cursor + key_length
        value_at = tag_at + tag_length
        after = value_at if value_length < 0 else value_at + value_length
        value = None if value_length < 0 else data[value_at:after]
        found.append(make(Record, (base + delta, data[cursor:tag_at], data[tag_at:value_at], value)))
        cursor = after
    return found


def sole(view: memoryview, expected: tuple[int, int, int]) -> bytes | None:
    """The value of the first record of a batch that is whole and has this topic, partition and base; else None.

    What `check` and `records` say of it in a third of the time: bodies are read this way.
    """
    if len(view) < _FIRST_AT:
        return None
    _, length, base, _ = HEAD.unpack_from(view)
    crc, topic, partition, _, _, _ = PART.unpack_from(view, HEAD.size)
    if (topic, partition, base) != expected or not _FIRST_AT <= length <= len(view):
        return None
    if crc32c(view[HEAD.size + 4 : length]) != crc:
        return None
    _, key_length, tag_length, value_length = ENTRY.unpack_from(view, RECORDS_AT)
    value_at = _FIRST_AT + key_length + tag_length
    return bytes(view[value_at : value_at + value_length]) if value_length >= 0 else None


def check(batch: memoryview | bytes, position: int = 0) -> BatchInfo:
    """The batch at `position`, its content proved. Raises Torn."""
    view = memoryview(batch)
    if len(view) - position < RECORDS_AT:
        raise Torn("too short for a batch")
    chain, length, base, time = HEAD.unpack_from(view, position)
    if not RECORDS_AT <= length <= len(view) - position:
        raise Torn("its length is impossible")
    crc, topic, partition, producer, sequence, span = PART.unpack_from(view, position + HEAD.size)
    if crc32c(view[position + HEAD.size + 4 : position + length]) != crc:
        raise Torn("its checksum differs")
    return BatchInfo(position, length, base, time, topic, partition, producer, sequence, span, chain)


def scan(view: memoryview, base: int, *, dense: bool) -> Iterator[BatchInfo]:
    """The whole batches of a segment file, until the first that is torn, stale or absent.

    `dense`: as first written, where a batch lies at its own address; compacted files have gaps.
    """
    position, chain = 0, seed(base)
    while True:
        try:
            found = check(view, position)
        except Torn:
            return
        crc = PART.unpack_from(view, position + HEAD.size)[0]
        if crc32c(_CHAINED.pack(found.length, found.base, found.time), chain ^ crc) != found.chain:
            return
        if dense and found.base != base + position:
            return
        yield found
        position, chain = position + found.length, found.chain
