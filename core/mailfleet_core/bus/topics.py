"""The only list of topics: who writes them, their keys, how long they keep what."""

from __future__ import annotations

from dataclasses import dataclass

BODY = "mail.body"
ACCEPT = "mail.accept"
QUEUE = "mail.queue"
DISPATCH = "mail.dispatch"
RESULT = "mail.result"
EVENTS = "mail.events"
CONTROL = "mail.control"

DAY = 86_400
MAX_CHUNK_BYTES = 900_000
"""A body record is at most this; longer messages are several records."""


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic. Partition counts of queue and result are equal and fixed for life (a site's partition follows from them)."""

    name: str
    partitions: int
    compacted: bool
    """Keep the newest record of each key; else drop records older than `retention_seconds`."""
    retention_seconds: int
    durable: bool
    """Its acknowledgement is what a 250 or a state of a unit rests on: refused with weaker settings than design asks."""


def topics(queue_partitions: int, lanes: int, queue_life_seconds: int) -> dict[str, Topic]:
    """All topics by name."""
    life = queue_life_seconds + DAY
    listed = (
        Topic(BODY, min(queue_partitions, 24), False, life, True),
        Topic(ACCEPT, min(queue_partitions, 24), False, life, True),
        Topic(QUEUE, queue_partitions, True, 0, True),
        Topic(DISPATCH, lanes, False, DAY, True),
        Topic(RESULT, queue_partitions, False, life, True),
        Topic(EVENTS, min(queue_partitions, 16), False, 7 * DAY, True),
        Topic(CONTROL, 1, True, 0, True),
    )
    return {topic.name: topic for topic in listed}


# --- tags: first byte what the record is, then the epoch of the writer (8 bytes, big-endian; 0 where there is no owner)
PUT, ATTEMPT, RETRY, DONE, CLAIM = b"P", b"A", b"R", b"D", b"C"
NO_EPOCH = bytes(8)


def tag(kind: bytes, epoch: int = 0, hop: int = 0) -> bytes:
    """The tag of a queue record: kind, epoch and (for DONE, whose value is empty) the hop of the unit that ended."""
    return kind + epoch.to_bytes(8, "big") + (hop.to_bytes(2, "big") if hop else b"")


def epoch_of(record_tag: bytes) -> int:
    """The epoch in a tag."""
    return int.from_bytes(record_tag[1:9], "big")


def hop_of(record_tag: bytes) -> int:
    """The hop in the tag of a DONE."""
    return int.from_bytes(record_tag[9:11], "big")
