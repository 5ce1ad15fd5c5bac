"""What a partition writes, and what it waits for: records to be read back, events and DSNs to be durable."""

from __future__ import annotations

from collections import deque

import msgspec

from mailfleet_core.model import wire
from mailfleet_core.model.tags import ATTEMPT, DONE, PUT, RETRY, tag
from mailfleet_core.model.wire import Entry
from mailfleet_router.decisions.ledger import Ledger
from mailfleet_router.decisions.outbox import Append, Outbox
from mailfleet_router.decisions.progress import Progress
from mailfleet_router.decisions.site_queue import ENDING, TOLD, Held
from mailfleet_router.decisions.spill.space import Spill

DECODED_UNITS = 500
"""The newest of a partition that are kept decoded."""


class Waiting(msgspec.Struct, gc=False):
    """A unit whose events and DSN must be durable before its RETRY or DONE is written."""

    held: Held
    entry: Entry | None
    item: list[int] | None
    left: int


class Pending(msgspec.Struct, frozen=True, gc=False):
    """A record of ours on its way, and what happens when it is read back."""

    key: bytes
    then: str
    held: Held | None
    item: list[int] | None = None
    entry: Entry | None = None
    dispatch: bytes = b""


class Journal:
    """The partition's own records in the log: each is written once and acted on when it comes back."""

    def __init__(self, number: int, recent_units: int, spill: Spill | None = None) -> None:
        self.number = number
        self.epoch = -1
        self._mine = b""
        self.stopped = False
        """A newer claim was read: somebody else owns the partition. Nothing that it wants counts any more."""
        self.ledger = Ledger(recent_units, spill)
        self.progress = Progress(0)
        self._pending: deque[Pending] = deque()
        self._decoded: deque[Held] = deque()
        self._tokens: dict[int, Waiting] = {}
        self._delays: dict[int, Held] = {}
        self._token = 0
        self._batches: dict[int, list[Waiting]] = {}
        self._batch = 1
        self.out = Outbox(self._batch)

    def durable(self, batch: int) -> None:
        """The events of this batch are in the log."""
        for waiting in self._batches.pop(batch, ()):
            self._one_less(waiting)

    def carried_out(self, token: int) -> None:
        """A report is queued, or a PUT is in the log."""
        if (waiting := self._tokens.pop(token, None)) is not None:
            self._one_less(waiting)
        elif (held := self._delays.pop(token, None)) is not None:
            self._delay_told(held)

    def _delay_told(self, held: Held) -> None:
        held.delay = TOLD
        # Meanwhile it may have been put into the store, and be another object.
        known = self.ledger.units.get(held.key)
        if known is None:
            self.ledger.store.change(held.key, lambda stored: self._note_delay(stored, held.hop))
        else:
            self._note_delay(known, held.hop)

    def _note_delay(self, known: Held, hop: int) -> None:
        if known.kind == DONE or known.hop != hop:
            return
        known.delay = TOLD
        entry = msgspec.structs.replace(self._entry(known), delay_reported=True)
        known.raw, known.entry = wire.encode(entry), None
        known.kind = ATTEMPT if known.kind == ATTEMPT else RETRY
        self._write(known, Pending(known.key, "", known))

    @property
    def quiet(self) -> bool:
        """Is nothing of ours under way in the log?"""
        return not (self._pending or self._batches or self._tokens)

    def take(self) -> Outbox:
        """Everything wanted since the last call; a partition that lost its claim wants nothing."""
        out = self.out
        self._batch += 1
        self.out = Outbox(self._batch)
        return Outbox(out.batch) if self.stopped else out

    @staticmethod
    def _entry(held: Held) -> Entry:
        return held.entry or wire.decode(Entry, held.raw)

    def _keep_decoded(self, held: Held, entry: Entry) -> None:
        """Most units go from PUT to DONE within seconds; those that wait are many, and are kept small."""
        held.entry = entry
        self._decoded.append(held)
        if len(self._decoded) > DECODED_UNITS:
            self._decoded.popleft().entry = None

    def _token_for(self, waiting: Waiting) -> int:
        self._token += 1
        self._tokens[self._token] = waiting
        return self._token

    def _one_less(self, waiting: Waiting) -> None:
        waiting.left -= 1
        if waiting.left or self.stopped:
            return
        held = waiting.held
        if self.ledger.units.get(held.key) is not held:
            # It came back from elsewhere meanwhile; what is in the log about it is newer than what we have to say.
            if waiting.item:
                self.progress.done(waiting.item)
        elif waiting.entry is None:
            held.kind = DONE
            self.out.own.append(Append(self.number, held.key, None, tag(DONE, self.epoch, held.hop)))
            self._pending.append(Pending(held.key, "gone", held, waiting.item))
        else:
            self._retry(held, waiting.entry, "go on", waiting.item)

    def _retry(self, held: Held, entry: Entry, then: str, item: list[int] | None = None) -> None:
        if held.delay == TOLD and not entry.delay_reported:
            entry = msgspec.structs.replace(entry, delay_reported=True)
        held.state, held.raw, held.kind, held.entry = ENDING, wire.encode(entry), RETRY, None
        self._write(held, Pending(held.key, then, held, item, entry))

    def _write(self, held: Held, pending: Pending) -> None:
        self.out.own.append(Append(self.number, held.key, held.raw, tag(held.kind, self.epoch, held.hop)))
        self._pending.append(pending)

    def _repair(self, key: bytes, hop: int) -> None:
        """Make our state of a unit the last record of its key again."""
        held = self.ledger.look_up(key)
        if held is None or held.kind == DONE:
            hop = max(hop, held.hop if held else self.ledger.ended_hop(key))
            self.out.own.append(Append(self.number, key, None, tag(DONE, self.epoch, hop)))
            self._pending.append(Pending(key, "", held))
            return
        if held.kind == PUT:
            held.kind = RETRY
        self._write(held, Pending(key, "", held))
