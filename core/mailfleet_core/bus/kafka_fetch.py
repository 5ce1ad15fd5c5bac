"""Fetch requests of our own: one partition's records from one offset, several partitions in a request."""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from kafka.errors import CorruptRecordError, KafkaError

from mailfleet_core.bus import kafka_format
from mailfleet_core.bus.kafka_connection import Line
from mailfleet_core.bus.port import Record

log = logging.getLogger(__name__)

FETCH, FETCH_VERSION = 1, 11
"""Brokers know it since Kafka 2.3; newer ones want the ids of topics instead of their names."""
ANSWER_SECONDS = 10.0
_REQUEST = struct.Struct(">iiiibiii")
"""Replica, wait, least and most bytes, isolation, session and its epoch, count of topics."""
_PLACE = struct.Struct(">iiqqi")
"""Partition, leader's epoch, offset, oldest offset, most bytes."""
_ANSWER = struct.Struct(">ihii")
"""Throttling, error, session, count of topics."""
_FOUND = struct.Struct(">ihqqqi")
"""Partition, error, end, stable end, oldest offset, count of aborted transactions."""
_NO_FORGOTTEN_NO_RACK = struct.pack(">ih", 0, 0)


class Want(NamedTuple):
    """Records of a partition from an offset on."""

    topic: str
    partition: int
    offset: int
    max_bytes: int


@dataclass(slots=True)
class Fetched:
    """What came for one partition."""

    error: int
    end: int
    """The offset after the last record that readers may see."""
    records: list[Record]
    next_offset: int
    """Where to go on; no less than what was asked for."""
    size: int
    """Bytes of complete batches."""


Place = tuple[str, int]


async def fetch(line: Line, wants: Iterable[Want], wait_ms: int, max_bytes: int) -> dict[Place, Fetched]:
    """What the broker has for `wants`, at the latest after `wait_ms`. Raises KafkaError."""
    asked = list(wants)
    answer = await line.ask(FETCH, FETCH_VERSION, [request(asked, wait_ms, max_bytes)], ANSWER_SECONDS + wait_ms / 1000)
    try:
        return parse(answer, {(want.topic, want.partition): want.offset for want in asked})
    except (struct.error, ValueError, IndexError) as error:
        log.error("what Kafka gave cannot be read: %r", error)
        raise KafkaError(f"unreadable: {error!r}") from error


def request(wants: Iterable[Want], wait_ms: int, max_bytes: int) -> bytes:
    """The request for `wants`. The first partition with records gives a whole batch, however big."""
    topics: dict[str, list[bytes]] = {}
    for topic, partition, offset, most in wants:
        topics.setdefault(topic, []).append(_PLACE.pack(partition, -1, offset, -1, most))
    pieces = [_REQUEST.pack(-1, wait_ms, 1 if wait_ms else 0, max_bytes, 0, 0, -1, len(topics))]
    for topic, places in topics.items():
        name = topic.encode()
        pieces += (struct.pack(f">h{len(name)}si", len(name), name, len(places)), *places)
    pieces.append(_NO_FORGOTTEN_NO_RACK)
    return b"".join(pieces)


def parse(answer: bytes, offsets: dict[Place, int]) -> dict[Place, Fetched]:
    """The records of an answer from `offsets` on; what a batch has before them is left out."""
    found: dict[Place, Fetched] = {}
    _, _, _, topics = _ANSWER.unpack_from(answer)
    at = _ANSWER.size
    for _ in range(topics):
        size = int.from_bytes(answer[at : at + 2], "big")
        topic = answer[at + 2 : at + 2 + size].decode()
        partitions = int.from_bytes(answer[at + 2 + size : at + 6 + size], "big")
        at += 6 + size
        for _ in range(partitions):
            number, error, end, _, _, aborted = _FOUND.unpack_from(answer, at)
            at += _FOUND.size + 16 * max(0, aborted) + 4  # After the aborted: the replica to ask the next time.
            (size,) = struct.unpack_from(">i", answer, at)
            at += 4
            place = (topic, number)
            if error or size <= 0:
                found[place] = Fetched(error, end, [], offsets[place], 0)
            else:
                found[place] = _read(place, answer[at : at + size], offsets[place], end)
            at += max(0, size)
    return found


def _read(place: Place, data: bytes, offset: int, end: int) -> Fetched:
    try:
        read = kafka_format.read(data, offset)
    except CorruptRecordError as error:
        log.error("%s[%d]: %s", *place, error)
        return Fetched(CorruptRecordError.errno, end, [], offset, 0)
    return Fetched(0, end, read.records, read.next_offset, read.size)
