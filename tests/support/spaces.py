"""A local store that is a dictionary, and may be full."""

from __future__ import annotations

from mailfleet_router.decisions.spill.space import SpillLost


class DictSpace:
    """See `Space`."""

    def __init__(self) -> None:
        self.kept: dict[int, bytes] = {}
        self.full = False
        self._next = 0

    def write(self, data: bytes) -> int | None:
        if self.full:
            return None
        self._next += 1
        self.kept[self._next] = data
        return self._next

    def read(self, address: int, length: int) -> bytes:
        if address not in self.kept or len(self.kept[address]) != length:
            raise SpillLost(f"nothing at {address}")
        return self.kept[address]

    def free(self, address: int, length: int) -> None:
        del self.kept[address]
