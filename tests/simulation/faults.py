"""Bugs that somebody might write. The simulation must catch each; one that it does not catch is not tested."""

from __future__ import annotations

import msgspec

from mailfleet_core.model import wire
from mailfleet_core.model.tags import CLAIM, PUT, tag
from mailfleet_core.model.wire import Entry
from mailfleet_router.decisions.journal import Pending, Waiting
from mailfleet_router.decisions.ledger import Ledger
from mailfleet_router.decisions.outbox import Append
from mailfleet_router.decisions.partition import Partition
from mailfleet_router.decisions.progress import Progress
from mailfleet_router.decisions.site_queue import IN_FLIGHT, Held


class DispatchesBeforeTheAttemptIsDurable(Partition):
    """The dispatch is handed to the log together with the ATTEMPT."""

    def _write(self, held: Held, pending: Pending) -> None:
        super()._write(held, pending)
        if pending.then == "dispatch":
            self.out.dispatches.append(Append(held.lane, held.key, pending.dispatch, tag(PUT)))
            held.state = IN_FLIGHT


class EagerProgress(Progress):
    """Says that a result is dealt with as soon as it was read."""

    def begin(self, offset: int) -> list[int]:
        self.position = offset + 1
        return super().begin(offset)


class CommitsBeforeTheEffectsAreDurable(Partition):
    """The position of a result is committed when it was read."""

    def claimed(self, epoch: int, position: int) -> None:
        super().claimed(epoch, position)
        self.progress = EagerProgress(position)


class CommitsWhatWasOnlyAcknowledged(Partition):
    """The position moves on when the RETRY or DONE was written, valid or not."""

    def _one_less(self, waiting: Waiting) -> None:
        super()._one_less(waiting)
        if not waiting.left and waiting.item:
            self.progress.done(waiting.item)


class CredulousLedger(Ledger):
    """Takes every record for valid."""

    def replay(self, offset: int, key: bytes, tag: bytes, value: bytes | None) -> bool:
        return super().replay(offset, key, tag if tag[:1] in (PUT, CLAIM) else tag[:1] + b"\xff" * 8 + tag[9:], value)


class IgnoresEpochs(Partition):
    """A zombie's records count."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.ledger = CredulousLedger(self.policy.recent_units)

    def _repair(self, key: bytes, hop: int) -> None:
        pass


class DoesNotStopAsZombie(Partition):
    """A newer claim does not impress it, and so it takes its own records for valid that come after."""

    def fold(self, records: object, now: float) -> None:
        super().fold([r for r in records if not (r[2][:1] == CLAIM and r[0] > self.epoch >= 0)], now)  # type: ignore[attr-defined]


class ForgetsBeforeItTells(Partition):
    """DONE does not wait for the events and the DSN."""

    def _tell(self, waiting: Waiting, *arguments: object) -> None:
        super()._tell(waiting, *arguments)  # type: ignore[arg-type]
        waiting.left = 1

    def _settle(self, held: Held, result: wire.Result, offset: int) -> None:
        super()._settle(held, result, offset)
        for waiting in self._batches.pop(self._batch, []):
            self._one_less(waiting)


class RepairsNothing(Partition):
    """What a zombie or a repetition wrote last stays the last record of its key."""

    def _repair(self, key: bytes, hop: int) -> None:
        pass


class ExpiresByItsOwnClock(Partition):
    """Tells of the expiry before it is sure that nobody else delivers the mail."""

    def expire(self, held: Held, now: float) -> None:
        entry = msgspec.structs.replace(wire.decode(Entry, held.raw), due_at=max(now, held.expires_at))
        self._end(held, entry, now)


class EndsOnCommandAtOnce(Partition):
    """Tells that a unit is cancelled before that is in the log."""

    def _cancel(self, held: Held, cancelled: wire.Cancelled, now: float) -> None:
        entry = msgspec.structs.replace(wire.decode(Entry, held.raw), due_at=now, cancelled=cancelled)
        self._end(held, entry, now)


class MovesWithoutWritingItDown(Partition):
    """Puts a unit into another partition on the strength of what the DNS said just now."""

    def _retry(self, held: Held, entry: Entry, then: str, item: list[int] | None = None) -> None:
        before = wire.decode(Entry, held.raw).unit
        if entry.unit.hop > before.hop:
            held.raw = wire.encode(entry)
            held.kind = b"R"
            self._finish(held, entry, 0.0)
        else:
            super()._retry(held, entry, then, item)


class CountsOnOneNumber(Partition):
    """A result for any attempt settles the one in flight."""

    def results(self, records: object, now: float) -> None:
        changed = []
        for offset, key, mark, value in records:  # type: ignore[attr-defined]
            held = self.ledger.units.get(key)
            if held is not None and value is not None:
                result = wire.decode(wire.Result, value)
                value = wire.encode(msgspec.structs.replace(result, attempt=held.attempts, hop=held.hop))
            changed.append((offset, key, mark, value))
        super().results(changed, now)


PARTITION_FAULTS = (
    DispatchesBeforeTheAttemptIsDurable, CommitsBeforeTheEffectsAreDurable, CommitsWhatWasOnlyAcknowledged,
    IgnoresEpochs, DoesNotStopAsZombie, ForgetsBeforeItTells, RepairsNothing, ExpiresByItsOwnClock,
    MovesWithoutWritingItDown, CountsOnOneNumber, EndsOnCommandAtOnce,
)  # fmt: skip
SENDER_FAULTS = ("sender has no memory", "sender does again what it never saw", "sender drops what it inherits")
MOVING_FAULTS = ("sender gives back what it began", "sender forgets what it gives back")
"""Of senders whose sources come and go."""
# A sender that ignores epochs is not caught: with `again` and answers read back it takes a zombie router, asleep between
# reading its ATTEMPT back and writing the dispatch, and a sender that starts meanwhile.
