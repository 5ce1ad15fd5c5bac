"""A local store that is a dictionary, and may be full."""

from __future__ import annotations

from mailfleet_router.decisions.spill.space import Room, SpillLost


class Tight(Room):
    """There is never room: whatever may be put out of memory is."""

    def change(self, units: int, queues: int) -> None:
        self.pressed, self.chunk_units, self.head_units = True, 1, 0


class DictSpace:
    """See `Space`."""

    written = 0
    """Chunks, by all there ever were."""

    def __init__(self) -> None:
        self.kept: dict[int, bytes] = {}
        self.full = False
        self._next = 0

    def write(self, data: bytes) -> int | None:
        if self.full:
            return None
        self._next += 1
        DictSpace.written += 1
        self.kept[self._next] = data
        return self._next

    def read(self, address: int, length: int) -> bytes:
        if address not in self.kept or len(self.kept[address]) != length:
            raise SpillLost(f"nothing at {address}")
        return self.kept[address]

    def free(self, address: int, length: int) -> None:
        del self.kept[address]

    def clear(self) -> None:
        self.kept.clear()
