"""How many units a process keeps in memory, and where the others lie."""

from __future__ import annotations

from typing import NamedTuple, Protocol

SMALLEST_CHUNK_UNITS = 4
LARGEST_CHUNK_UNITS = 256
STEP_OVER = 0.05
"""Chunks have half as many units for each such part by which memory holds too much."""


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
        self.pressed = False
        """Are there more than there may be?"""
        self.chunk_units = LARGEST_CHUNK_UNITS
        """How many units go into a chunk."""
        self.head_units = LARGEST_CHUNK_UNITS
        """How many of a queue stay in memory when it is divided."""
        self._queues = 0
        self._smallest = smallest
        self.change(0, 0)

    def change(self, units: int, queues: int) -> None:
        """So many more units are in memory, so many more backlogs have a part that is not.

        Chunks are smaller when there are many backlogs, for each keeps up to a chunk at both ends in memory; and when
        much more is in memory than there may be, for then many queues are too short for large ones.
        """
        self.used += units
        self._queues += queues
        self.pressed = self.used >= self.units
        if self.pressed:
            over = int((self.used - self.units) / max(1.0, self.units) / STEP_OVER)
            most = min(LARGEST_CHUNK_UNITS >> min(over, 16), int(self.units) // (4 * (self._queues + 1)))
            self.chunk_units = self.head_units = max(self._smallest, most)


class Spill(NamedTuple):
    """Where a partition puts what it need not have in memory; by default nowhere."""

    room: Room
    space: Space


def nowhere() -> Spill:
    """Everything stays in memory."""
    return Spill(Room(), NoSpace())
