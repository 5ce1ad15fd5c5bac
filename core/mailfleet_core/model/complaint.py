"""A recipient's complaint about a mail, as it stands in `mail.site`: whoever was told of it writes it there, and it is counted
because it is there.

Its key names the message and the recipient, so a complaint that is told twice is one. The owner of the partition writes beside
its counts up to which offset complaints are in them; a new owner counts those that lie behind it.
"""

from __future__ import annotations

import msgspec

from mailfleet_core.model import ids
from mailfleet_core.model.shards import Numbered, Shard, shard_name
from mailfleet_core.model.site import partition_of
from mailfleet_core.model.wire import Malformed, Struct

PREFIX = b"complaint|"


class Complaint(Struct, frozen=True):
    """A record of `mail.site` under `key`."""

    at: float
    """When it was made, as far as it says so: seconds since 1970."""
    delivered_at: float
    tenant: str
    stream: str
    source: str
    site: str
    domain: str
    """Of the recipient."""
    mx: str
    """The host that took the mail."""
    kind: str
    """Feedback-Type of RFC 5965, such as `abuse`."""
    by: str = ""
    """Who reported it."""
    first: int = -1
    """Offset of the record that told it first, where an owner has written it again: it was counted as that one."""


_decoder = msgspec.msgpack.Decoder(Complaint)


def key(message_id: bytes, index: int) -> bytes:
    """The key of a complaint of the recipient with this index in the message's envelope."""
    return PREFIX + f"{ids.text(message_id)}/{index}".encode()


def encode(complaint: Complaint) -> bytes:
    """The value of a record."""
    return msgspec.msgpack.encode(complaint)


def decode(value: bytes) -> Complaint:
    """What a record says. Raises Malformed."""
    try:
        return _decoder.decode(value)
    except msgspec.MsgspecError as error:
        raise Malformed(f"not a complaint: {error}") from error


def partition(complaint: Complaint, shards: dict[str, Numbered], partitions: int) -> int:
    """Where it is written: the queue partition whose owner judges its source at its site."""
    known = shards.get(complaint.site)
    if known is None:
        return partition_of(complaint.site, partitions)
    every = known.map.sources
    place = next((place for place, sources in enumerate(every) if complaint.source in sources), 0)
    return partition_of(shard_name(Shard(complaint.site, place, len(every), known.number)), partitions)
