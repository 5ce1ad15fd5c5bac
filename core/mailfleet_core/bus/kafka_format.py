"""Kafka's record batches (format 2) as bytes: what a Produce request carries and a Fetch response brings.

kafka-python reads and writes them too, at 16 µs a record; this takes 3. What is not ours (compressed, older formats: a
topic's settings may ask for it) it still reads.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from crc32c import crc32c
from kafka.errors import CorruptRecordError
from kafka.record import MemoryRecords

from mailfleet_core.bus.port import Record

HEADER = struct.Struct(">qiibIhiqqqhii")
"""Base offset, length, leader epoch, format, checksum, attributes, last offset's delta, two timestamps, producer's
identity, epoch and sequence, count."""
CHECKED = struct.Struct(">hiqqqhii")
"""The part of it that the checksum covers, with all that follows."""
FORMAT = 2
COMPRESSED, CONTROL = 0x07, 0x20
BEFORE_LENGTH = 12
BEFORE_CHECKED = 21
COPIED_BYTES = 16 << 10
"""Longer values are not copied into their batch, but sent as they are."""
TAG = b"t"
NO_TAG = b"\x00"
WITH_TAG = b"\x02\x02" + TAG
"""One header, of a name of one byte."""
NO_VALUE = b"\x01"


class Entry(NamedTuple):
    """A record to be written."""

    key: bytes
    value: bytes | None
    tag: bytes


class Producer(NamedTuple):
    """Whose batch it is: the broker writes each sequence of an epoch once, and no older epoch after a newer one."""

    identity: int
    epoch: int
    sequence: int


def _varint(number: int) -> bytes:
    """A number of no less than 0, zigzag, seven bits a byte."""
    number <<= 1
    spelt = bytearray()
    while number > 0x7F:
        spelt.append(number & 0x7F | 0x80)
        number >>= 7
    spelt.append(number)
    return bytes(spelt)


_SMALL = [_varint(number) for number in range(8192)]


def varint(number: int) -> bytes:
    """A number of no less than 0 as records spell it."""
    return _SMALL[number] if number < 8192 else _varint(number)


def batch(entries: Sequence[Entry], producer: Producer, at_ms: int) -> list[bytes]:
    """The batch of `entries`, in pieces."""
    pieces: list[bytes] = []
    small: list[bytes] = []
    for delta, (key, value, tag) in enumerate(entries):
        spelt = NO_VALUE if value is None else varint(len(value))
        head = b"\x00\x00" + varint(delta) + varint(len(key)) + key + spelt
        tail = WITH_TAG + varint(len(tag)) + tag if tag else NO_TAG
        value = value or b""
        small += (varint(len(head) + len(value) + len(tail)), head)
        if len(value) > COPIED_BYTES:
            pieces += (b"".join(small), value)
            small = [tail]
        else:
            small += (value, tail)
    pieces.append(b"".join(small))
    count = len(entries)
    checked = CHECKED.pack(0, count - 1, at_ms, at_ms, *producer, count)
    checksum = crc32c(checked)
    for piece in pieces:
        checksum = crc32c(piece, checksum)
    length = BEFORE_CHECKED - BEFORE_LENGTH + len(checked) + sum(map(len, pieces))
    header = HEADER.pack(0, length, -1, FORMAT, checksum, 0, count - 1, at_ms, at_ms, *producer, count)
    return [header, *pieces]


class Read(NamedTuple):
    """What was found in the bytes of a partition."""

    records: list[Record]
    next_offset: int
    size: int
    """Bytes of complete batches."""


def read(data: bytes, offset: int) -> Read:
    """The records from `offset` on; what a batch has before it is left out, and so is a batch that was cut off.

    Raises CorruptRecordError when a batch is not what was written.
    """
    records: list[Record] = []
    next_offset, at = offset, 0
    while len(data) - at >= HEADER.size:
        base, length, _, form, checksum, attributes, last, _, _, _, _, _, count = HEADER.unpack_from(data, at)
        end = at + BEFORE_LENGTH + length
        if end > len(data):
            break
        if form == FORMAT and crc32c(data[at + BEFORE_CHECKED : end]) != checksum:
            raise CorruptRecordError(f"the batch at {base} is damaged")
        if form != FORMAT or attributes & COMPRESSED:
            records += [record for record in _foreign(data[at:end]) if record.offset >= offset]
            next_offset = max(next_offset, records[-1].offset + 1 if records else 0, base + 1)
        elif not attributes & CONTROL:
            _read_batch(data, at + HEADER.size, base, count, offset, records)
        if form == FORMAT:
            next_offset = max(next_offset, base + last + 1)
        at = end
    return Read(records, next_offset, at)


def _read_batch(data: bytes, at: int, base: int, count: int, offset: int, records: list[Record]) -> None:
    for _ in range(count):
        length, at = _number(data, at)
        end = at + length
        _, at = _number(data, at + 1)
        delta, at = _number(data, at)
        if base + delta >= offset:
            size, at = _number(data, at)
            key = data[at : at + size] if size > 0 else b""
            size, at = _number(data, at + max(0, size))
            value = data[at : at + size] if size >= 0 else None
            at += max(0, size)
            records.append(Record(base + delta, key, _tag(data, at) if data[at] else b"", value))
        at = end


def _tag(data: bytes, at: int) -> bytes:
    count, at = _number(data, at)
    for _ in range(count):
        size, at = _number(data, at)
        name = data[at : at + size]
        size, at = _number(data, at + size)
        if name == TAG:
            return data[at : at + max(0, size)]
        at += max(0, size)
    return b""


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A number and what follows it."""
    byte = data[at]
    at += 1
    if byte < 0x80:
        return (byte >> 1) ^ -(byte & 1), at
    number, shift = byte & 0x7F, 7
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), at
        shift += 7


def _foreign(data: bytes) -> list[Record]:
    records = []
    for found in MemoryRecords(data):
        for record in found:
            tags = [value for name, value in record.headers if name == TAG.decode()]
            records.append(Record(record.offset, record.key or b"", tags[0] if tags else b"", record.value))
    return records
