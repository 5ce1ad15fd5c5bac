"""An independent count: whoever was accepted must be told of, by the time the mail expires."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import msgspec

from mailfleet_core.model import ids
from mailfleet_core.model.tags import ATTEMPT, DONE, PUT, RETRY
from mailfleet_core.model.wire import ends


class _Recipient(msgspec.Struct, array_like=True, frozen=True, gc=False):
    index: int


class _BodyRef(msgspec.Struct, array_like=True, frozen=True, gc=False):
    partition: int
    offsets: tuple[int, ...]


class _Envelope(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The first fields of `wire.Envelope`."""

    message_id: bytes
    reverse_path: msgspec.Raw
    tenant: msgspec.Raw
    stream: msgspec.Raw
    pool: msgspec.Raw
    body: _BodyRef
    accepted_at: float
    expires_at: float


class _Unit(msgspec.Struct, array_like=True, frozen=True, gc=False):
    unit_id: bytes
    site: msgspec.Raw
    envelope: _Envelope
    recipients: tuple[_Recipient, ...]


class _Entry(msgspec.Struct, array_like=True, frozen=True, gc=False):
    unit: _Unit


class _Accepted(msgspec.Struct, array_like=True, frozen=True, gc=False):
    envelope: _Envelope
    recipients: tuple[_Recipient, ...]


_entry = msgspec.msgpack.Decoder(_Entry).decode
_accepted = msgspec.msgpack.Decoder(_Accepted).decode

Record = tuple[int, bytes, bytes, bytes | None]
"""Offset, key, tag, value: what the bus gives."""
MINUTE = 60


class _Message(msgspec.Struct, gc=False):
    """An accepted message with a recipient that has no terminal state. Recipients are bits, by index."""

    open: int
    known: int
    """Those that were accepted or have ended."""
    expires_at: float
    partition: int
    """Of `mail.body`."""
    offset: int


class Audit:
    """Counts recipients, not units: it knows nothing of how the router works. Everything may be told twice.

    It starts with what the log of the queue says is open; what ended before it started is not its business.
    """

    def __init__(self, recent: int = 20_000) -> None:
        self.open = 0
        """Accepted recipients without a terminal state."""
        self.newest_bodies: dict[int, int] = {}
        """By partition of `mail.body`, the highest offset that was referred to."""
        self._messages: dict[bytes, _Message] = {}
        self._minutes: dict[int, set[bytes]] = {}
        """The minute in which they expire → those messages."""
        self._ended: dict[bytes, int] = {}
        """Recipients that ended, of messages that are not open: events and records come by different ways, and a message
        has several, so a beginning may be read after the end."""
        self._ended_before: dict[bytes, int] = {}
        """The same, of an earlier time: the older half is forgotten at once, which costs less than one after the other."""
        self._recent = recent
        self._start: dict[tuple[int, bytes], _Unit] | None = {}
        """While the queue is folded to its present end: its units, by partition, for one may be in two while it moves."""

    def queue(self, partition: int, records: Iterable[Record]) -> None:
        """Records of a partition of `mail.queue`."""
        if self._start is not None:
            self._fold(self._start, partition, records)
            return
        for _, _, tag, value in records:
            # One in three, and the only kind that accepts anybody.
            if tag[:1] == PUT and value is not None:
                unit = _entry(value).unit
                self._accept(unit.envelope, unit.recipients)

    @staticmethod
    def _fold(units: dict[tuple[int, bytes], _Unit], partition: int, records: Iterable[Record]) -> None:
        for _, key, tag, value in records:
            kind = tag[:1]
            if kind == DONE:
                units.pop((partition, key), None)
            elif kind in (PUT, ATTEMPT, RETRY) and value is not None:
                units[partition, key] = _entry(value).unit

    def begin(self) -> None:
        """The queue is folded: what is in it is open. From now on only events end anything."""
        units, self._start = self._start or {}, None
        for unit in units.values():
            self._accept(unit.envelope, unit.recipients)

    def accepted(self, value: bytes) -> None:
        """A record of `mail.accept`."""
        message = _accepted(value)
        self._accept(message.envelope, message.recipients)

    def events(self, value: bytes) -> None:
        """A record of `mail.events`."""
        for message, index in ends(value):
            self._end(message, 1 << index)

    def overdue(self, now: float, grace_seconds: float) -> int:
        """How many are without a terminal state so long after their expiry."""
        return sum(held.open.bit_count() for _, held in self._overdue(now - grace_seconds))

    def examples(self, now: float, grace_seconds: float) -> list[str]:
        """Some overdue recipients, for people to look at."""
        late = islice(self._overdue(now - grace_seconds), 10)
        return [f"{ids.text(message)}/{held.open.bit_length() - 1}" for message, held in late]

    def bodies_free_before(self, seen: dict[int, int]) -> dict[int, int]:
        """By partition, the offset before which no body is needed: of messages with an open recipient all are.

        `seen` is `newest_bodies` as it was some time ago, at least as long as a body may wait for the record that refers to
        it, and that much of the queue has been read since: a body below it that nobody refers to now, nobody ever will.
        """
        free = dict(seen)
        for held in self._messages.values():
            if held.offset < free.get(held.partition, 0):
                free[held.partition] = held.offset
        return free

    def _overdue(self, expired_by: float) -> Iterator[tuple[bytes, _Message]]:
        for minute in [minute for minute in self._minutes if minute * MINUTE <= expired_by]:
            for message in self._minutes[minute]:
                held = self._messages[message]
                if held.expires_at <= expired_by:
                    yield message, held

    def _accept(self, envelope: _Envelope, recipients: tuple[_Recipient, ...]) -> None:
        message, body = envelope.message_id, envelope.body
        newest = max(body.offsets)
        if newest > self.newest_bodies.get(body.partition, 0):
            self.newest_bodies[body.partition] = newest
        bits = 0
        for recipient in recipients:
            bits |= 1 << recipient.index
        held = self._messages.get(message)
        if held is None:
            held = _Message(0, self._ends_of(message), envelope.expires_at, body.partition, min(body.offsets))
            # The least offset of all: a message written anew by a slow client has them in any order.
            if not bits & ~held.known:
                return
            self._messages[message] = held
            self._minutes.setdefault(int(held.expires_at // MINUTE), set()).add(message)
        bits &= ~held.known
        held.known |= bits
        held.open |= bits
        self.open += bits.bit_count()

    def _end(self, message: bytes, bit: int) -> None:
        held = self._messages.get(message)
        if held is None:
            self._remember(message, self._ends_of(message) | bit)
            return
        held.known |= bit
        if held.open & bit:
            held.open ^= bit
            self.open -= 1
            if not held.open:
                self._forget(message, held)

    def _ends_of(self, message: bytes) -> int:
        return self._ended.get(message, 0) | self._ended_before.get(message, 0)

    def _remember(self, message: bytes, ended: int) -> None:
        self._ended[message] = ended
        if len(self._ended) > self._recent:
            self._ended_before, self._ended = self._ended, {}

    def _forget(self, message: bytes, held: _Message) -> None:
        del self._messages[message]
        self._remember(message, held.known)
        minute = int(held.expires_at // MINUTE)
        expiring = self._minutes[minute]
        expiring.discard(message)
        if not expiring:
            del self._minutes[minute]
