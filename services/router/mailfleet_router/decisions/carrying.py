"""Commands carried out: one record of a postmaster, any number of units, a slice of them at a time."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque

import msgspec

from mailfleet_core.model.wire import Cancelled
from mailfleet_router.decisions.commands import Commands, Hold
from mailfleet_router.decisions.policy import Policy
from mailfleet_router.decisions.scheduler import Scheduler
from mailfleet_router.decisions.shaping.control import Controls
from mailfleet_router.decisions.site_queue import DEFERRED, PARKED, READY, RESOLVING, Held
from mailfleet_router.decisions.spill.backlog import Backlog
from mailfleet_router.decisions.spill.space import Spill
from mailfleet_router.decisions.telling import Telling

SLICE_UNITS = 500
"""Looked at in one go: other mail comes between."""
MOST_RECORDS = 2_000
MOST_REPORTS = 2_000
"""Of ours under way in the log, and reports being written: with more the walk stops, so that a purge takes turns with the
mail of others and never lies in memory as a whole."""
LEAST_ENDED = 50
"""A slice may end so many units however busy the partition is."""

WAITING = frozenset({READY, PARKED, RESOLVING, DEFERRED})
"""In nobody's hands. Others are looked at when they come back."""


class Carrying(Telling):
    """The units that commands are about, and how far we are with them."""

    def __init__(self, number: int, policy: Policy, controls: Controls, spill: Spill | None = None) -> None:
        super().__init__(number, policy, spill)
        self.commands = Commands(controls, self._entry)
        self.scheduler = Scheduler(self.commands, policy.shaping, self.ledger.store)
        self._walk: deque[bytes] = deque()
        """Units to look at, in memory."""
        self._chunks: deque[int] = deque()
        """And in the store."""
        self._unparked: deque[Backlog] = deque()
        """What was parked under other commands."""
        self._whole = False
        """The walk began with all units."""
        self._walked: frozenset[str] = frozenset()
        """Commands for which it did."""

    def commanded(self, now: float) -> None:
        """Commands came, ended or were taken back."""
        parked = self.scheduler.resumed()
        if parked:
            self._unparked.append(parked)
        work = self.commands.work
        if work - self._walked or (work and self._whole and self._walking):
            self._walk, self._chunks, self._whole = deque(self.ledger.units), deque(self.ledger.store.chunks()), True
        self._walked = work

    @property
    def idle(self) -> bool:
        """Is there nothing to do before something comes?"""
        return self.scheduler.idle and not (self._walking and self._room())

    @property
    def _walking(self) -> bool:
        return bool(self._walk or self._chunks or self._unparked)

    def _room(self) -> int:
        """How many units may be ended now."""
        if len(self._tokens) >= MOST_REPORTS:
            return 0
        return max(LEAST_ENDED, MOST_RECORDS - len(self._pending))

    def _carry_out(self, now: float) -> None:
        """One slice of the walk."""
        if not self._walking:
            return
        room = self._room()
        for _ in range(SLICE_UNITS):
            if room <= 0:
                return
            held = self._next()
            if held is None:
                break
            if held.state in WAITING and self._look(held, now):
                room -= 1
        else:
            return
        if self._chunks:
            self.ledger.store.examine(self._chunks.popleft(), lambda held: self._look_stored(held, now))
        self._whole = self._walking

    def _next(self) -> Held | None:
        """The next unit that lies in memory, or comes there."""
        while self._unparked:
            parked = self._unparked[0]
            while parked:
                held = parked.popleft()
                if held.state == PARKED and self.ledger.units.get(held.key) is held:
                    return held
            self._unparked.popleft()
        while self._walk:
            known = self.ledger.units.get(self._walk.popleft())
            if known is not None:
                return known
        return None

    def _look_stored(self, held: Held, now: float) -> None:
        # What is parked comes by itself when it may go.
        if held.state in WAITING and (held.state != PARKED or self.commands.cancelled(held) is not None):
            self._look(held, now)

    def _look(self, held: Held, now: float) -> bool:
        """Do to a unit that waits what the commands ask for. True: it is written anew."""
        if (cancelled := self.commands.cancelled(held)) is not None:
            self._cancel(held, cancelled, now)
            return True
        if held.state == PARKED:
            self._let_go(held, now)
        elif held.state == DEFERRED and self.commands.hurried(held):
            self._hurry(held, now)
        return False

    def _let_go(self, held: Held, now: float) -> None:
        if self.commands.hold(held) is not None:
            self.scheduler.park(held)
            return
        due_at = self._entry(held).due_at
        if due_at > now and not self.commands.hurried(held):
            self.scheduler.defer(held, due_at, now)
        else:
            self._place(held, now)

    def _cancel(self, held: Held, cancelled: Cancelled, now: float) -> None:
        """A command ends it. First written, then told: another owner may be delivering it."""
        entry = self._entry(held)
        self._retry(held, msgspec.structs.replace(entry, due_at=now, cancelled=cancelled), "go on")

    def _set_aside(self, held: Held, now: float) -> bool:
        """Before an attempt: does a command forbid it?"""
        if self._condemned(held):
            return True
        hold = self.commands.hold(held)
        if hold is None:
            return False
        self._park(held, hold, now)
        return True

    def _condemned(self, held: Held) -> bool:
        """Does a command end it? Then it waits for its turn in the walk."""
        if not self.commands or self.commands.cancelled(held) is None:
            return False
        held.state = PARKED
        self._walk.append(held.key)
        return True

    def _park(self, held: Held, hold: Hold, now: float) -> None:
        if held.reported != hold.reason:
            self.tell_held(held, hold.reason, hold.until, hold.by, now)
        self.scheduler.park(held)

    @abstractmethod
    def _place(self, held: Held, now: float) -> None:
        """Where does a unit wait that is due?"""

    @abstractmethod
    def _hurry(self, held: Held, now: float) -> None:
        """A deferred unit is due now."""
