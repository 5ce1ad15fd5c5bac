"""The fold of a queue partition: records in order → which units there are, and in which state."""

from __future__ import annotations

from collections import OrderedDict

from mailfleet_core.model.tags import ATTEMPT, CLAIM, DONE, PUT, RETRY
from mailfleet_router.decisions.site_queue import Held


class Ledger:
    """Units of one partition. Which records count is decided here and nowhere else."""

    def __init__(self, recent_units: int) -> None:
        self.units: dict[bytes, Held] = {}
        self.newest = -1
        """The newest claim read."""
        self._recent: OrderedDict[bytes, int] = OrderedDict()
        self._recent_units = recent_units

    def replay(self, offset: int, key: bytes, tag: bytes, value: bytes | None) -> bool:
        """Take one record that somebody else wrote. True: it does not hold, but compaction would keep it; the owner
        must write the unit's own state again."""
        kind, hop = tag[:1], int.from_bytes(tag[9:11], "big")
        if kind == PUT:
            return self.put(key, hop, value) is None and self.knows(key, hop)
        if kind == CLAIM:
            self.newest = max(self.newest, offset)
            return False
        if int.from_bytes(tag[1:9], "big") < self.newest:
            return True
        known = self.units.get(key)
        if known is not None and known.hop > hop:
            return True
        if kind == DONE:
            self.end(key, hop)
        elif kind in (ATTEMPT, RETRY) and value is not None:
            if known is None:
                self.units[key] = Held(key, value, kind, hop)
            else:
                known.raw, known.kind, known.hop = value, kind, hop
        return False

    def put(self, key: bytes, hop: int, value: bytes | None) -> Held | None:
        """The unit that a PUT brings; None when it brings none, for it is a repetition (or no PUT: it has no value)."""
        if value is None or self.knows(key, hop):
            return None
        held = self.units[key] = Held(key, value, PUT, hop)
        return held

    def knows(self, key: bytes, hop: int) -> bool:
        """Is a PUT of this unit and hop a repetition?"""
        known = self.units.get(key)
        return (known is not None and hop <= known.hop) or hop <= self._recent.get(key, -1)

    def end(self, key: bytes, hop: int) -> None:
        """The unit has left the partition for good, or until it comes with a higher hop."""
        self.units.pop(key, None)
        self._recent[key] = hop
        if len(self._recent) > self._recent_units:
            self._recent.popitem(last=False)

    def ended_hop(self, key: bytes) -> int:
        """The hop with which a unit ended here; 0 when that is not remembered."""
        return self._recent.get(key, 0)
