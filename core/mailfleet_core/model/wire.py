"""The records of the log: values and their bytes.

Every value is a MessagePack array, so a field may only ever be added at the end and with a default; golden files in
`tests/unit/golden` hold what older versions wrote. Addresses are text exactly as the client sent them (RFC 6531 makes
UTF-8 legal); instants are seconds since 1970.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import TypeVar

import msgspec

from mailfleet_core.model import ids

# --- DSN options of RFC 3461 -------------------------------------------------------------------------------------
NOTIFY_NEVER, NOTIFY_SUCCESS, NOTIFY_FAILURE, NOTIFY_DELAY = 1, 2, 4, 8
"""Bits of `Recipient.notify`; 0 is "the client said nothing", which means failure and delay (RFC 3461 4.1)."""


class Struct(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A frozen value that is a MessagePack array on the wire."""


class BodyRef(Struct, frozen=True):
    """Where the bytes of a message lie in `mail.body`: one offset per chunk, in order."""

    partition: int
    offsets: tuple[int, ...]
    length: int
    """Bytes in all chunks together; needed to read without a second question to the log."""


class Recipient(Struct, frozen=True):
    """One RCPT TO address with its DSN options (RFC 3461)."""

    index: int
    """Its place in the envelope of the message, from 0; stable through every split."""
    address: str
    notify: int = 0
    orcpt: str = ""
    """As sent, xtext undecoded (`rfc822;user@example.org`); empty when not given."""


class Envelope(Struct, frozen=True):
    """What is the same for all recipients of a message."""

    message_id: bytes
    reverse_path: str
    """Empty for the null sender."""
    tenant: str
    stream: str
    pool: str
    body: BodyRef
    accepted_at: float
    expires_at: float
    eight_bit: bool = False
    """BODY=8BITMIME was given, or the content has bytes above 127."""
    smtputf8: bool = False
    ret: str = ""
    """`FULL`, `HDRS` or empty (RFC 3461 4.3)."""
    envid: str = ""
    """As sent, xtext undecoded; empty when not given."""
    header_message_id: str = ""
    client: str = ""
    """Address of the client that submitted it; empty for what we made ourselves."""
    campaign: str = ""
    """The client's own label of the message, from a header field that the settings name; printable, mostly empty."""


class Accepted(Struct, frozen=True):
    """A message for several sites, whole, in `mail.accept`: one record, so acceptance is atomic.

    `sites` are as ingest knew them when it accepted (one per recipient); splitting by them, and by nothing learned
    later, gives the same units however often it is done.
    """

    envelope: Envelope
    recipients: tuple[Recipient, ...]
    sites: tuple[str, ...]


class Unit(Struct, frozen=True):
    """One message × one site × at most N recipients with equal options: what is queued, attempted and ended."""

    unit_id: bytes
    site: str
    envelope: Envelope
    recipients: tuple[Recipient, ...]
    """Those without a terminal state."""
    hop: int = 0
    """How often it was moved to another site's partition; a record of a lower hop is history."""


class Cancelled(Struct, frozen=True):
    """What a command ends of a unit; written before it is told, so that no other owner tries the unit."""

    text: str
    """Who ended it and why; the sender is told."""
    domain: str = ""
    """Only recipients of this domain; empty: all."""
    quiet: bool = False
    """The reverse path is not told."""


class Entry(Struct, frozen=True):
    """The state of a unit, whole, in `mail.queue` under the unit's id (records of one key must be self-contained,
    or compaction would drop the envelope). The record's tag says which of PUT, ATTEMPT and RETRY it is."""

    unit: Unit
    attempts: int = 0
    """Attempts begun; a wait that we impose is none."""
    due_at: float = 0.0
    lane: int = -1
    """ATTEMPT: the lane it was given to."""
    source: str = ""
    attempted_at: float = 0.0
    last: RecipientOutcome | None = None
    """RETRY: why it waits."""
    delay_reported: bool = False
    """A DSN "delayed" went out; there is at most one."""
    client_name: str = ""
    rung: int = 0
    """Rungs of the retry ladder used: deferrals by the site. `attempts` also counts those nobody answered for."""
    cancelled: Cancelled | None = None
    """RETRY: it is on its way out."""


class Dispatch(Struct, frozen=True):
    """One attempt, as work for one lane of one egress source, in `mail.dispatch`."""

    unit: Unit
    attempt: int
    queue_partition: int
    epoch: int
    """Of the router that owns `queue_partition`; a sender drops what is older than the newest it saw."""
    source: str
    route: Route
    again: bool = False
    """Said by a new owner of the partition, which cannot know whether it was said before. A sender that has no such
    attempt in hand answers `not_attempted`: if an earlier incarnation had it, its result lies before that answer."""


class Route(Struct, frozen=True):
    """The next hop of a unit."""

    kind: str
    """`mx`, `smart_host` or `lmtp`."""
    hosts: tuple[tuple[int, str], ...]
    """(preference, host name or address or, for LMTP, `unix:` and a path), best first."""
    port: int = 25
    tls: str = "opportunistic"
    """`opportunistic`, `required` (encrypted, name not checked), `verify` (certificate must match) or `off`."""
    username: str = ""
    """Of a smart host that wants AUTH; the secret is in the sender's settings under the route's name."""
    name: str = ""
    max_connections: int = 20
    connections_per_second: float = 0.0
    """0: unlimited."""
    messages_per_second: float = 0.0
    messages_per_connection: int = 100


DELIVERED, DEFERRED, BOUNCED, CANCELLED = "delivered", "deferred", "bounced", "cancelled"


class RecipientOutcome(Struct, frozen=True):
    """What one attempt came to for one recipient."""

    index: int
    verdict: str
    """`delivered`, `deferred` or `bounced`."""
    code: int
    """SMTP reply code; 0 when no reply came."""
    enhanced: str
    """RFC 3463, the site's or, where it gave none, ours for the same class."""
    text: str
    """Of the reply or of the network error; printable, at most 1,000 characters."""
    phase: str
    """dns, egress, connect, greeting, ehlo, starttls, auth, mail, rcpt, data, dot; command: a postmaster ended it."""


SETTLED, LOST, NOT_ATTEMPTED = "settled", "lost", "not_attempted"


class Result(Struct, frozen=True):
    """What became of one dispatch, in `mail.result` under the unit's id."""

    unit_id: bytes
    hop: int
    attempt: int
    kind: str
    """`settled`: `outcomes` hold. `lost`: the sender that had it is gone; it may have been delivered.
    `not_attempted`: nothing was sent (overload, drain, or, with `outcomes` of the phase egress, our own way out failed);
    no rung of the ladder was used up."""
    source: str
    started_at: float
    ended_at: float
    outcomes: tuple[RecipientOutcome, ...] = ()
    mx: str = ""
    address: str = ""
    tls: str = ""
    """Protocol and cipher, empty for clear text; `clear (…)` with the reason after a failed STARTTLS."""
    connection_reused: bool = False
    dsn_passed_on: bool = False
    """The site speaks DSN and was given NOTIFY: it tells of success itself (RFC 3461 5.2.2)."""


class Event(Struct, frozen=True):
    """One step of a mail's story. In the log its ids are bytes: their texts are for people, and made when shown."""

    unit: bytes
    """The unit it is about."""
    kind: str
    """accepted, queued, held, attempted, deferred, delivered, bounced, expired, suppressed, cancelled, in_doubt, complaint;
    about no unit: shaping (what a scope may send has changed), policy (another traffic policy is in force)."""
    at: float
    recipients: tuple[tuple[int, str], ...] = ()
    """(index, address) of those it is about."""
    attempt: int = 0
    hop: int = 0
    """queued: the unit's."""
    tenant: str = ""
    stream: str = ""
    site: str = ""
    source: str = ""
    code: int = 0
    enhanced: str = ""
    text: str = ""
    phase: str = ""
    mx: str = ""
    address: str = ""
    tls: str = ""
    seconds: float = 0
    """How long the attempt took."""
    until: float = 0
    """held and deferred: when it is tried again."""
    by: str = ""
    """held: which limit, suspension or person."""
    reverse_path: str = ""
    header_message_id: str = ""
    client: str = ""
    size_bytes: int = 0
    expires_at: float = 0
    spelled: tuple[str, ...] = ()
    """Id, message id and unit id, where an older version wrote the texts themselves."""

    @property
    def id(self) -> str:
        """Stable: the same step told twice has the same id."""
        if self.spelled:
            return self.spelled[0]
        if not self.unit:
            return f"{self.kind}/{self.site}/{self.source}/{self.tenant}/{self.at:.3f}"
        turn = {"accepted": 0, "queued": self.hop}.get(self.kind, self.attempt)
        first = self.by if self.kind == "held" or not self.recipients else self.recipients[0][0]
        return f"{self.unit_id}/{turn}/{self.kind}/{first}"

    @property
    def message_id(self) -> str:
        """Text of the id of the message."""
        return self.spelled[1] if self.spelled else ids.text(self.unit[: ids.MESSAGE_ID_BYTES])

    @property
    def unit_id(self) -> str:
        """Text of the id of the unit."""
        return self.spelled[2] if self.spelled else ids.text(self.unit)


EVENT_KINDS = (
    "accepted", "queued", "held", "attempted", "deferred", "delivered", "bounced", "expired", "suppressed",
    "cancelled", "in_doubt", "complaint", "shaping", "policy",
)  # fmt: skip
TERMINAL_KINDS = frozenset({"delivered", "bounced", "expired", "suppressed", "cancelled"})


class Told(Struct, frozen=True):
    """A record of `mail.events` (made by `tell`)."""

    ends: bytes
    """An `END` for every recipient that one of the events ends: whoever only counts need not look at the events."""
    events: list[Event]


END = struct.Struct(">16sI")
"""Message id, index of the recipient in its envelope."""


class _Ends(Struct, frozen=True):
    """The beginning of `Told`."""

    ends: bytes


class _SpelledEvent(msgspec.Struct, frozen=True):
    """An event as it was before `Told`: a map, in an array of them."""

    id: str
    kind: str
    at: float
    message_id: str
    unit_id: str = ""
    recipients: tuple[tuple[int, str], ...] = ()
    tenant: str = ""
    stream: str = ""
    reverse_path: str = ""
    header_message_id: str = ""
    client: str = ""
    size_bytes: int = 0
    expires_at: float = 0
    site: str = ""
    source: str = ""
    attempt: int = 0
    code: int = 0
    enhanced: str = ""
    text: str = ""
    phase: str = ""
    mx: str = ""
    address: str = ""
    tls: str = ""
    seconds: float = 0
    until: float = 0
    by: str = ""

    def event(self) -> Event:
        """The same as events are now."""
        fields = msgspec.structs.asdict(self)
        spelled = (fields.pop("id"), fields.pop("message_id"), fields.pop("unit_id"))
        return Event(b"", spelled=spelled, **fields)


class Suspension(Struct, frozen=True):
    """A postmaster's "not now" for a site or a tenant, in `mail.control` under `suspend|site|…` or `suspend|tenant|…`."""

    reason: str
    author: str
    at: float
    until: float = 0.0
    """0: until resumed."""


class ShardMap(Struct, frozen=True):
    """How a hot site is divided, in `mail.control` under `shards|<site>`; see `model.shards`."""

    sources: tuple[tuple[str, ...], ...]
    """Of each shard. Every source is in exactly one."""
    pools: tuple[tuple[str, bytes], ...]
    """Pool → for each slot the index of a shard that has sources of the pool. The pool without a name is for all others."""


class Member(Struct, frozen=True):
    """A running process and where it answers, in `mail.control` under `member|service|id`."""

    service: str
    http: str
    started_at: float
    host: str = ""
    pid: int = 0


ACTIVE, DRAINING, QUARANTINED, RETIRED = SOURCE_STATES = ("active", "draining", "quarantined", "retired")


class Source(Struct, frozen=True):
    """An egress source as the log knows it, in `mail.control` under `source|<name>`; a tombstone removes it."""

    name: str
    pool: str
    """The egress pool that it belongs to."""
    weight: int = 1
    """Its share of the pool's mail, against the weights of the others."""
    address: str = ""
    """IPv4 address to send from; empty: the system chooses."""
    address6: str = ""
    """IPv6 address to send from; empty: the system chooses."""
    ehlo_name: str = ""
    """Name in EHLO: the PTR of the address. Empty: the name of the sender's machine."""
    lanes: tuple[int, ...] = ()
    """Lanes of dispatch that are its own; each gets 1/len(lanes) of the source's limits. None: nothing goes by it."""
    proxy: str = ""
    """`socks5://user@host:port`, with TLS `socks5s://…`: the egress proxy that has the address; empty: none."""
    state: str = ACTIVE
    """`active`; `draining`, `quarantined`: nothing new is dispatched, what is in hand ends, waiting mail goes by
    others; `retired`: as draining, and it will be removed."""
    warmup: str = ""
    """Name of its warm-up plan; empty: none."""
    started_at: float = 0.0
    """When its warm-up began."""
    reason: str = ""
    """Why its state is what it is."""
    by: str = ""
    """Who set it."""
    at: float = 0.0
    """When."""


class Pool(Struct, frozen=True):
    """An egress pool as the log knows it, in `mail.control` under `pool|<name>`; its sources name it."""

    name: str
    overflow: str = ""
    """The pool that takes what the warm-up of this one's sources does not allow; empty: none."""
    at: float = 0.0
    """When it was set."""


T = TypeVar("T")
_encode = msgspec.msgpack.Encoder().encode
_decoders = {
    kind: msgspec.msgpack.Decoder(kind)
    for kind in (
        Accepted,
        Unit,
        Entry,
        Dispatch,
        Result,
        Suspension,
        ShardMap,
        Member,
        Source,
        Pool,
        Told,
        _Ends,
        list[_SpelledEvent],
    )
}


class Malformed(ValueError):
    """The bytes of a record are not the value they should be."""


def encode(value: object) -> bytes:
    """The bytes of a value of this module."""
    return _encode(value)


def decode(kind: type[T], data: bytes | memoryview) -> T:
    """The value of `kind` in `data`. Raises Malformed."""
    try:
        return _decoders[kind].decode(data)  # type: ignore[index, return-value]
    except msgspec.MsgspecError as error:
        raise Malformed(f"not a {kind}: {error}") from error


def tell(events: list[Event]) -> bytes:
    """The record of `mail.events` that tells of `events`."""
    ends = b"".join(
        [
            END.pack(event.unit[: ids.MESSAGE_ID_BYTES], index)
            for event in events
            if event.kind in TERMINAL_KINDS
            for index, _ in event.recipients
        ]
    )
    return _encode(Told(ends, events))


def told(data: bytes) -> list[Event]:
    """The events in a record of `mail.events`, whichever version wrote it. Raises Malformed."""
    try:
        return decode(Told, data).events
    except Malformed:
        return [old.event() for old in decode(list[_SpelledEvent], data)]


def ends(data: bytes) -> Iterable[tuple[bytes, int]]:
    """Message id and index of every recipient that ends by a record of `mail.events`. Raises Malformed."""
    try:
        return END.iter_unpack(decode(_Ends, data).ends)
    except (Malformed, struct.error):
        return [
            (ids.parse(event.message_id), index)
            for event in told(data)
            if event.kind in TERMINAL_KINDS
            for index, _ in event.recipients
        ]
