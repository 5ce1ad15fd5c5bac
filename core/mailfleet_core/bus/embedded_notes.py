"""Batches to write, and what a journal remembers of itself in records of its own."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from mailfleet_core.bus import embedded_format as form
from mailfleet_core.bus.embedded_segment import Segment, first_value


class Append(NamedTuple):
    """A batch to write: PART and entries as received, and what PART says."""

    payload: bytes
    crc: int
    topic: int
    partition: int
    producer: int
    sequence: int
    span: int
    durable: bool = True
    """False: placed; somebody calls `Journal.sync` before anything that refers to it is written."""

    @classmethod
    def parse(cls, payload: bytes, *, durable: bool = True) -> Append:
        """The batch that `payload` is. Raises struct.error when it is none."""
        crc, topic, partition, producer, sequence, span = form.PART.unpack_from(payload)
        return cls(payload, crc, topic, partition, producer, sequence, span, durable)


class Producer(msgspec.Struct, array_like=True):
    """What is remembered of one producer, so that sending again never writes twice."""

    last: int
    seen: int
    """Milliseconds since 1970."""
    bases: dict[int, int]
    """Base by sequence, of the newest batches."""


class Checkpoint(msgspec.Struct):
    """First record of a segment: everything that older segments would have to be read for."""

    producers: dict[int, Producer] = {}
    positions: dict[str, int] = {}
    trims: dict[int, int] = {}
    ends: dict[int, int] = {}


class Notes(msgspec.Struct):
    """A record of the log's own: changes to committed positions and trims."""

    positions: dict[str, int] = {}
    trims: dict[int, int] = {}


encode = msgspec.msgpack.Encoder().encode
decode_checkpoint = msgspec.msgpack.Decoder(Checkpoint).decode
decode_notes = msgspec.msgpack.Decoder(Notes).decode


def notes_append(notes: Notes) -> Append:
    """`notes` as a batch."""
    return meta_append(b"notes", encode(notes))


def meta_append(key: bytes, value: bytes) -> Append:
    entry = form.entry(0, key, b"", value)
    return Append.parse(form.sign((form.META_TOPIC, 0, 0, 0, 1), [entry]) + entry)


class Cover(msgspec.Struct):
    """First record of a compacted file."""

    covers: int
    """The address after what it stands for."""
    newest: int = 0
    """Time of its newest batch, for retention."""
    ends: dict[int, int] = {}
    """By partition, the offset after its last record in this file, for trims."""


_cover = msgspec.msgpack.Decoder(Cover).decode


def cover_of(segment: Segment) -> Cover:
    """What a compacted file says of itself."""
    value = first_value(segment)
    return _cover(value) if value else Cover(segment.base)
