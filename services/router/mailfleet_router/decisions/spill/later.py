"""Units that wait for an instant."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from mailfleet_router.decisions.site_queue import DEFERRED, Held
from mailfleet_router.decisions.spill.backlog import Backlog
from mailfleet_router.decisions.spill.store import Store

SLOT_SECONDS = 5.0
"""Units that are due in the same seconds wait together, in no order, until shortly before."""
LEAD_SECONDS = 2.0
"""So long before its first second a slot is put in order."""
LAST_SECOND = 1e15
"""What is due later (or never) waits with what is due then."""


class Later:
    """Deferred units by `due_at`: a heap for the next seconds, backlogs by slots of time for the rest."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._near: list[tuple[float, int, Held]] = []
        self._far: dict[int, Backlog] = {}
        self._slots: list[int] = []
        self._number = 0

    def add(self, held: Held, now: float) -> None:
        """The unit, DEFERRED, waits until its `due_at`. Any change of its state or `due_at` ends that."""
        if held.due_at < now + SLOT_SECONDS + LEAD_SECONDS:
            self._number += 1
            heapq.heappush(self._near, (held.due_at, self._number, held))
            return
        slot = int(min(held.due_at, LAST_SECOND) // SLOT_SECONDS)
        backlog = self._far.get(slot)
        if backlog is None:
            backlog = self._far[slot] = Backlog(self._store, _waits, 0)
            heapq.heappush(self._slots, slot)
        backlog.append(held)

    def due(self, now: float, most: int) -> Iterator[Held]:
        """Up to `most` units whose time has come, the earliest first as far as they are in order. Whoever takes one changes
        its state before the next: a unit that was deferred twice to the same instant comes once. Raises SpillLost."""
        self._put_in_order(now, most)
        near = self._near
        while near and near[0][0] <= now and most:
            at, _, held = heapq.heappop(near)
            if held.state == DEFERRED and held.due_at == at:
                most -= 1
                yield held

    def next_at(self) -> float:
        """When there is something to do; infinity when nothing waits."""
        slot = self._slots[0] * SLOT_SECONDS - LEAD_SECONDS if self._slots else float("inf")
        return min(slot, self._near[0][0]) if self._near else slot

    def _put_in_order(self, now: float, most: int) -> None:
        """Up to `most` units of the slots that begin soon."""
        while self._slots and self._slots[0] * SLOT_SECONDS <= now + LEAD_SECONDS:
            backlog = self._far[self._slots[0]]
            while backlog and most:
                most -= 1
                held = backlog.popleft()
                if held.state == DEFERRED:
                    self.add(held, now)
            if backlog:
                return
            del self._far[heapq.heappop(self._slots)]


def _waits(held: Held) -> bool:
    return held.state == DEFERRED
