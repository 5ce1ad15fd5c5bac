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

    def __init__(self, number: int, policy: Policy, controls: Controls) -> None:
        super().__init__(number, policy)
        self.commands = Commands(controls, self._entry)
        self.scheduler = Scheduler(self.commands, policy.shaping)
        self._walk: deque[bytes] = deque()
        """Units to look at."""
        self._whole = False
        """The walk began with all units."""
        self._walked: frozenset[str] = frozenset()
        """Commands for which it did."""

    def commanded(self, now: float) -> None:
        """Commands came, ended or were taken back."""
        parked = [held.key for held in self.scheduler.resumed()]
        work = self.commands.work
        if work - self._walked or (work and self._whole and self._walk):
            self._walk, self._whole = deque(self.ledger.units), True
        else:
            self._walk.extend(parked)
        self._walked = work

    @property
    def idle(self) -> bool:
        """Is there nothing to do before something comes?"""
        return self.scheduler.idle and not (self._walk and self._room())

    def _room(self) -> int:
        """How many units may be ended now."""
        if len(self._tokens) >= MOST_REPORTS:
            return 0
        return max(LEAST_ENDED, MOST_RECORDS - len(self._pending))

    def _carry_out(self, now: float) -> None:
        """One slice of the walk."""
        if not self._walk:
            return
        room = self._room()
        for _ in range(min(SLICE_UNITS, len(self._walk))):
            if room <= 0:
                return
            held = self.ledger.units.get(self._walk.popleft())
            if held is not None and held.state in WAITING and self._look(held, now):
                room -= 1
        if not self._walk:
            self._whole = False

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
        self.scheduler.park(held)
        if held.reported != hold.reason:
            self.tell_held(held, hold.reason, hold.until, hold.by, now)

    @abstractmethod
    def _place(self, held: Held, now: float) -> None:
        """Where does a unit wait that is due?"""

    @abstractmethod
    def _hurry(self, held: Held, now: float) -> None:
        """A deferred unit is due now."""
