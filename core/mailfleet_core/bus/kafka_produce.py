"""Produce requests: a batch for each of some partitions, and what the broker says of each."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

PRODUCE, PRODUCE_VERSION = 0, 8
"""Brokers know it since Kafka 2.4."""
ALL_REPLICAS = -1
NO_TRANSACTION = -1


class Written(NamedTuple):
    """A batch for a partition."""

    topic: str
    partition: int
    pieces: list[bytes]


def request(batches: Iterable[Written], wait_ms: int) -> list[bytes]:
    """The request for `batches`, in pieces."""
    topics: dict[str, list[Written]] = {}
    for written in batches:
        topics.setdefault(written.topic, []).append(written)
    pieces = [struct.pack(">hhii", NO_TRANSACTION, ALL_REPLICAS, wait_ms, len(topics))]
    for topic, of_topic in topics.items():
        name = topic.encode()
        pieces.append(struct.pack(f">h{len(name)}si", len(name), name, len(of_topic)))
        for written in of_topic:
            pieces.append(struct.pack(">ii", written.partition, sum(map(len, written.pieces))))
            pieces += written.pieces
    return pieces


def parse(answer: bytes) -> dict[tuple[str, int], tuple[int, int]]:
    """Error code and first offset of each partition in the answer to a Produce request."""
    found: dict[tuple[str, int], tuple[int, int]] = {}
    (topics,) = struct.unpack_from(">i", answer)
    at = 4
    for _ in range(topics):
        (size,) = struct.unpack_from(">h", answer, at)
        topic = answer[at + 2 : at + 2 + size].decode()
        (partitions,) = struct.unpack_from(">i", answer, at + 2 + size)
        at += size + 6
        for _ in range(partitions):
            number, code, offset, _, _, errors = struct.unpack_from(">ihqqqi", answer, at)
            found[topic, number] = (code, offset)
            at += 34
            for _ in range(errors):
                at = _after_text(answer, at + 4)
            at = _after_text(answer, at)
    return found


def _after_text(answer: bytes, at: int) -> int:
    size: int = struct.unpack_from(">h", answer, at)[0]
    return at + 2 + max(0, size)
