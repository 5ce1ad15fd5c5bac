"""The fold of a queue partition: records in order → which units there are, and in which state."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator

from mailfleet_core.model import ids
from mailfleet_core.model.tags import ATTEMPT, CLAIM, DONE, PUT, RETRY
from mailfleet_router.decisions.site_queue import FOLDED, Held
from mailfleet_router.decisions.spill.backlog import Backlog
from mailfleet_router.decisions.spill.space import Spill, nowhere
from mailfleet_router.decisions.spill.store import Store

TOLD_AGAIN_UNITS = 20_000
"""New units whose story a new owner begins again, in case the old one died before it was durable."""


MOST_RECIPIENTS = 10_000
"""Of a message: so many of its units are looked for in the store."""


class Ledger:
    """Units of one partition. Which records count is decided here and nowhere else."""

    def __init__(self, recent_units: int, spill: Spill | None = None) -> None:
        self.units: dict[bytes, Held] = {}
        """Those in memory. What waits may lie in `store` instead."""
        self.store = Store(self.units, spill or nowhere())
        self.newest = -1
        """The newest claim read."""
        self.folded = Backlog(self.store, _folded, 0)
        """What the replay found, to be taken up in this order; units that came or went since are here too."""
        self.newest_puts: deque[bytes] = deque(maxlen=TOLD_AGAIN_UNITS)
        """Of the replay."""
        self._recent: OrderedDict[bytes, int] = OrderedDict()
        self._recent_units = recent_units

    def __len__(self) -> int:
        return len(self.units) + len(self.store)

    def replay(self, offset: int, key: bytes, tag: bytes, value: bytes | None) -> bool:
        """Take one record that somebody else wrote. True: it does not hold, but compaction would keep it; the owner
        must write the unit's own state again."""
        kind, hop = tag[:1], int.from_bytes(tag[9:11], "big")
        if kind == PUT:
            held = self.put(key, hop, value)
            if held is None:
                return self.knows(key, hop)
            self.folded.append(held)
            self.newest_puts.append(key)
            return False
        if kind == CLAIM:
            self.newest = max(self.newest, offset)
            return False
        if int.from_bytes(tag[1:9], "big") < self.newest:
            return True
        if self.hop(key) > hop:
            return True
        if kind == DONE:
            self.end(key, hop)
        elif kind in (ATTEMPT, RETRY) and value is not None:
            self._replace(key, value, kind, hop)
        return False

    def _replace(self, key: bytes, value: bytes, kind: bytes, hop: int) -> None:
        known = self.units.get(key)
        if known is None:
            self.store.forget(key)
            known = self.units[key] = Held(key, value, kind, hop)
            self.folded.append(known)
            return
        void = known.kind == ATTEMPT != kind
        known.raw, known.kind, known.hop = value, kind, hop
        if void:
            # In flight it was not put out of memory with its chunk, so its place in there is void.
            self.folded.append(known)

    def put(self, key: bytes, hop: int, value: bytes | None) -> Held | None:
        """The unit that a PUT brings; None when it brings none, for it is a repetition (or no PUT: it has no value)."""
        if value is None:
            return None
        known = self.hop(key)
        if hop <= known or hop <= self._recent.get(key, -1):
            return None
        if known >= 0:
            self.store.forget(key)
        held = self.units[key] = Held(key, value, PUT, hop)
        return held

    def knows(self, key: bytes, hop: int) -> bool:
        """Is a PUT of this unit and hop a repetition?"""
        return hop <= self.hop(key) or hop <= self._recent.get(key, -1)

    def look_up(self, key: bytes) -> Held | None:
        """The unit, or a copy of one that lies in the store. Raises SpillLost."""
        return self.units.get(key) or self.store.peek(key)

    def walk(self) -> Iterator[Held]:
        """All units, those in the store as copies, for counting; whoever changes place meanwhile is met once, twice or not
        at all. Raises SpillLost."""
        yield from list(self.units.values())
        for number in self.store.chunks():
            yield from self.store.copies(number)

    def of_message(self, message: bytes) -> list[Held]:
        """The units of a message, those in the store as copies. Raises SpillLost."""
        found = [held for key, held in self.units.items() if key.startswith(message)]
        if self.store:
            stored = (self.store.peek(ids.unit_id(message, first)) for first in range(MOST_RECIPIENTS))
            found += [held for held in stored if held is not None]
        return found

    def end(self, key: bytes, hop: int) -> None:
        """The unit has left the partition for good, or until it comes with a higher hop."""
        if self.units.pop(key, None) is None:
            self.store.forget(key)
        self._recent[key] = hop
        if len(self._recent) > self._recent_units:
            self._recent.popitem(last=False)

    def ended_hop(self, key: bytes) -> int:
        """The hop with which a unit ended here; 0 when that is not remembered."""
        return self._recent.get(key, 0)

    def hop(self, key: bytes) -> int:
        """Of a queued unit; -1 when there is none."""
        known = self.units.get(key)
        return known.hop if known is not None else self.store.hop(key)


def _folded(held: Held) -> bool:
    return held.state == FOLDED and held.kind != ATTEMPT
