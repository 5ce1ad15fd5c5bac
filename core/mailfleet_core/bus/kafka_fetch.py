"""Fetch requests of our own: one partition's records from one offset, several partitions in a request."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from kafka.protocol.consumer import FetchRequest
from kafka.record import MemoryRecords

from mailfleet_core.bus.kafka_append import TAG
from mailfleet_core.bus.port import Record

NAMES_VERSION = 12
"""The newest version of Fetch that names topics; later ones want their ids."""


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
    oldest: int
    """First offset kept; -1 when unknown."""
    end: int
    """The offset after the last record that readers may see."""
    records: list[Record]
    next_offset: int
    """Where to go on; no less than what was asked for."""
    size: int
    """Bytes of complete batches."""


def request(wants: Iterable[Want], wait_ms: int, max_bytes: int) -> Any:
    """The request for `wants`. The first partition with records gives a whole batch, however big."""
    topics: dict[str, list[Any]] = {}
    for want in wants:
        partition = FetchRequest.FetchTopic.FetchPartition(
            partition=want.partition,
            current_leader_epoch=-1,
            fetch_offset=want.offset,
            last_fetched_epoch=-1,
            log_start_offset=-1,
            partition_max_bytes=want.max_bytes,
        )
        topics.setdefault(want.topic, []).append(partition)
    return FetchRequest(
        replica_id=-1,
        max_wait_ms=wait_ms,
        min_bytes=1 if wait_ms else 0,
        max_bytes=max_bytes,
        isolation_level=0,
        session_id=0,
        session_epoch=-1,
        topics=[FetchRequest.FetchTopic(topic=topic, partitions=partitions) for topic, partitions in topics.items()],
        forgotten_topics_data=[],
        rack_id="",
        max_version=NAMES_VERSION,
    )


def parse(response: Any, offsets: dict[tuple[str, int], int]) -> dict[tuple[str, int], Fetched]:
    """The records of a response from `offsets` on; what a batch has before them is left out."""
    found = {}
    for topic in response.responses:
        for answer in topic.partitions:
            place = (topic.topic, answer.partition_index)
            found[place] = _parse(answer, offsets[place])
    return found


def _parse(answer: Any, offset: int) -> Fetched:
    fetched = Fetched(answer.error_code, answer.log_start_offset, answer.high_watermark, [], offset, 0)
    if answer.error_code or not answer.records:
        return fetched
    for batch in MemoryRecords(answer.records):
        fetched.size += batch.size_in_bytes
        if batch.is_control_batch:
            fetched.next_offset = max(fetched.next_offset, batch.last_offset + 1)
            continue
        next_offset = batch.last_offset + 1
        fetched.records += [
            Record(record.offset, record.key or b"", _tag(record.headers), record.value)
            for record in batch
            if record.offset >= offset
        ]
        fetched.next_offset = max(fetched.next_offset, next_offset)
    return fetched


def _tag(headers: list[tuple[str, bytes]]) -> bytes:
    for name, value in headers:
        if name == TAG:
            return value
    return b""
