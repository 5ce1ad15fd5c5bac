"""How many units a process keeps in memory, and where the others lie."""

from __future__ import annotations

from typing import NamedTuple, Protocol

SMALLEST_CHUNK_UNITS = 4
LARGEST_CHUNK_UNITS = 256


class SpillLost(Exception):
    """What was written to the local store cannot be read. The log has it: whoever owns the partition folds it again."""


class Space(Protocol):
    """Room for chunks of bytes outside memory. It need not outlive the process."""

    def write(self, data: bytes) -> int | None:
        """Keep `data`; the address to read it at. None: there is no room, or no such space."""

    def read(self, address: int, length: int) -> bytes:
        """What was written. Raises SpillLost."""

    def free(self, address: int, length: int) -> None:
        """It is not needed any more."""

    def clear(self) -> None:
        """Nothing of it all is needed any more."""


class NoSpace:
    """Everything stays in memory."""

    def write(self, data: bytes) -> int | None:
        """Never."""
        return None

    def read(self, address: int, length: int) -> bytes:
        """Raises SpillLost."""
        raise SpillLost("nothing was written")

    def free(self, address: int, length: int) -> None:
        """Nothing to do."""

    def clear(self) -> None:
        """Nothing to do."""


class Room:
    """How many units all partitions of a process have in memory, and how many they may."""

    def __init__(self, units: float = float("inf"), smallest: int = SMALLEST_CHUNK_UNITS) -> None:
        self.units = units
        self.used = 0
        self.queues = 0
        """Backlogs of which a part does not lie in memory."""
        self._smallest = smallest

    @property
    def pressed(self) -> bool:
        """Are there more than there may be?"""
        return self.used >= self.units

    @property
    def chunk_units(self) -> int:
        """How many units go into a chunk: fewer when there are many queues, for each keeps up to a chunk at both ends."""
        if self.units == float("inf"):
            return LARGEST_CHUNK_UNITS
        return max(self._smallest, min(LARGEST_CHUNK_UNITS, int(self.units) // (4 * (self.queues + 1))))

    @property
    def head_units(self) -> int:
        """How many of a queue stay in memory when it is divided."""
        return self.chunk_units


class Spill(NamedTuple):
    """Where a partition puts what it need not have in memory; by default nowhere."""

    room: Room
    space: Space


def nowhere() -> Spill:
    """Everything stays in memory."""
    return Spill(Room(), NoSpace())
