"""The only list of topics: who writes them, their keys, how long they keep what."""

from __future__ import annotations

from dataclasses import dataclass

from mailfleet_core.model.tags import ATTEMPT, CLAIM, DONE, NO_EPOCH, PUT, RETRY, epoch_of, hop_of, tag

__all__ = [  # tags are values, so they live in the model; whoever has the bus finds them here
    "ACCEPT", "ATTEMPT", "BODY", "CLAIM", "CONTROL", "DISPATCH", "DONE", "EVENTS", "LEASE", "MAX_CHUNK_BYTES",
    "NO_EPOCH", "PUT", "QUEUE", "RESULT", "RETRY", "SITE", "STATS", "Topic", "epoch_of", "hop_of", "tag", "topics",
]  # fmt: skip

BODY = "mail.body"
ACCEPT = "mail.accept"
QUEUE = "mail.queue"
DISPATCH = "mail.dispatch"
RESULT = "mail.result"
EVENTS = "mail.events"
CONTROL = "mail.control"
LEASE = "mail.lease"
SITE = "mail.site"
STATS = "mail.stats"

DAY = 86_400
HOUR = 3600
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
        # One order for claims, demands and leases; all of the last minutes are needed, and nothing older.
        Topic(LEASE, 1, False, HOUR, True),
        Topic(SITE, queue_partitions, True, 0, True),
        # News of each queue partition for whoever steers the fleet (`model.stats`): a lost record is followed by another.
        Topic(STATS, 1, True, 0, False),
    )
    return {topic.name: topic for topic in listed}
