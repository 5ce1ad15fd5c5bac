"""Tags of queue records: first byte what the record is, then the writer's epoch, then the unit's hop where it is not 0.

With them a router folds a partition without decoding what it will not keep.
"""

from __future__ import annotations

from functools import lru_cache

PUT, ATTEMPT, RETRY, DONE, CLAIM = b"P", b"A", b"R", b"D", b"C"
NOTE = b"N"
"""Says nothing about any unit: a reader wrote it to know, when it reads it, how far it has read."""
NO_EPOCH = bytes(8)
EPOCH_KEY = b"!epoch"
"""Key of every CLAIM."""


@lru_cache(maxsize=1024)  # few are in use at a time, and a mail needs half a dozen
def tag(kind: bytes, epoch: int = 0, hop: int = 0) -> bytes:
    """The tag of a queue record: kind, epoch (8 bytes, big-endian; 0 where there is no owner), hop (2 bytes or none)."""
    return kind + epoch.to_bytes(8, "big") + (hop.to_bytes(2, "big") if hop else b"")


def epoch_of(record_tag: bytes) -> int:
    """The epoch in a tag."""
    return int.from_bytes(record_tag[1:9], "big")


def hop_of(record_tag: bytes) -> int:
    """The hop in a tag."""
    return int.from_bytes(record_tag[9:11], "big")
