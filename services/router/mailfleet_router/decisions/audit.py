"""An independent count: whoever was accepted must be told of, by the time the mail expires."""

from __future__ import annotations

import heapq

import msgspec

from mailfleet_core.model import ids
from mailfleet_core.model.tags import ATTEMPT, DONE, PUT, RETRY
from mailfleet_core.model.wire import TERMINAL_KINDS


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


class _Event(msgspec.Struct, frozen=True, gc=False):
    kind: str
    message_id: str
    recipients: tuple[tuple[int, str], ...] = ()


_entry = msgspec.msgpack.Decoder(_Entry).decode
_accepted = msgspec.msgpack.Decoder(_Accepted).decode
_events = msgspec.msgpack.Decoder(list[_Event]).decode

Key = tuple[bytes, int]
SLACK = 10_000


class Bodies:
    """Which bodies are still needed: those of messages with a recipient that has no terminal state."""

    def __init__(self) -> None:
        self.newest: dict[int, int] = {}
        """By partition of `mail.body`, the highest offset that was referred to."""
        self._needed: dict[bytes, list[int]] = {}
        """By message: partition, first offset, open recipients."""

    def needed(self, message: bytes, partition: int, offsets: tuple[int, ...], recipients: int) -> None:
        """So many more recipients of `message` are open."""
        self.newest[partition] = max(self.newest.get(partition, 0), *offsets)
        if not recipients:
            return
        held = self._needed.get(message)
        if held is None:
            # The least of all: a message written anew by a slow client has them in any order.
            self._needed[message] = [partition, min(offsets), recipients]
        else:
            held[2] += recipients

    def released(self, message: bytes) -> None:
        """One recipient of `message` has a terminal state."""
        held = self._needed.get(message)
        if held is not None:
            held[2] -= 1
            if not held[2]:
                del self._needed[message]

    def free_before(self, seen: dict[int, int]) -> dict[int, int]:
        """By partition, the offset before which no body is needed.

        `seen` is `newest` as it was some time ago, at least as long as a body may wait for the record that refers to it,
        and that much of the queue has been read since: a body below it that nobody refers to now, nobody ever will.
        """
        free = dict(seen)
        for partition, offset, _ in self._needed.values():
            if offset < free.get(partition, 0):
                free[partition] = offset
        return free


class Audit:
    """Counts recipients, not units: it knows nothing of how the router works. Everything may be told twice.

    It starts with what the log of the queue says is open; what ended before it started is not its business.
    """

    def __init__(self, recent: int = 200_000) -> None:
        self._open: dict[Key, float] = {}
        self._times: list[tuple[float, Key]] = []
        self._overdue: set[Key] = set()
        self._ended: dict[Key, None] = {}
        self._recent = recent
        self.bodies = Bodies()
        self._start: dict[tuple[int, bytes], _Unit] | None = {}
        """While the queue is folded to its present end: its units, by partition, for one may be in two while it moves."""

    @property
    def open(self) -> int:
        """Accepted recipients without a terminal state."""
        return len(self._open)

    def queue(self, key: tuple[int, bytes], tag: bytes, value: bytes | None) -> None:
        """A record of `mail.queue`; `key` with its partition."""
        kind = tag[:1]
        if self._start is not None:
            if kind == DONE:
                self._start.pop(key, None)
            elif kind in (PUT, ATTEMPT, RETRY) and value is not None:
                self._start[key] = _entry(value).unit
        elif kind == PUT and value is not None:
            unit = _entry(value).unit
            self._accept(unit.envelope, unit.recipients)

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
        for event in _events(value):
            if event.kind in TERMINAL_KINDS:
                message = ids.parse(event.message_id)
                for index, _ in event.recipients:
                    self._end((message, index))

    def overdue(self, now: float, grace_seconds: float) -> int:
        """How many are without a terminal state so long after their expiry."""
        while self._times and self._times[0][0] + grace_seconds <= now:
            _, key = heapq.heappop(self._times)
            if key in self._open:
                self._overdue.add(key)
        return len(self._overdue)

    def examples(self) -> list[str]:
        """Some overdue recipients, for people to look at."""
        return [f"{ids.text(message)}/{index}" for message, index in list(self._overdue)[:10]]

    def _accept(self, envelope: _Envelope, recipients: tuple[_Recipient, ...]) -> None:
        added = 0
        for recipient in recipients:
            key = (envelope.message_id, recipient.index)
            if key not in self._ended and key not in self._open:
                self._open[key] = envelope.expires_at
                heapq.heappush(self._times, (envelope.expires_at, key))
                added += 1
        if len(self._times) > SLACK + 2 * len(self._open):
            # What ended leaves its time behind for days; without this the heap would hold a queue's life of mail.
            self._times = [(expires_at, key) for key, expires_at in self._open.items()]
            heapq.heapify(self._times)
        self.bodies.needed(envelope.message_id, envelope.body.partition, envelope.body.offsets, added)

    def _end(self, key: Key) -> None:
        if self._open.pop(key, None) is None:
            # Events and records come by different ways; the end may be read first.
            self._ended[key] = None
            if len(self._ended) > self._recent:
                del self._ended[next(iter(self._ended))]
        else:
            self.bodies.released(key[0])
        self._overdue.discard(key)
