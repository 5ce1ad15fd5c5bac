"""The local store of one partition: a file without a name, gone with the process."""

from __future__ import annotations

import logging
import os
import tempfile
from contextlib import suppress

from mailfleet_router.decisions.spill.space import SpillLost

log = logging.getLogger(__name__)

SMALLEST_BYTES = 1024
"""Chunks lie in pieces of this many bytes times a power of two, which are used again."""
TRY_AGAIN_CHUNKS = 1000
"""After a write that failed so many are kept in memory before the next try."""


class SpillFile:
    """See `Space`. Nothing of it is ever synced: it is a cache of the log."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._file = -1
        self._end = 0
        self._free: dict[int, list[int]] = {}
        self._refused = 0

    def write(self, data: bytes) -> int | None:
        """Keep `data`; the address to read it at. None when the disk is full or fails, which is said once."""
        if self._refused:
            self._refused -= 1
            return None
        size = _piece(len(data))
        pieces = self._free.get(size)
        address = pieces.pop() if pieces else self._end
        try:
            self._write(data, address)
        except OSError as error:
            if pieces is not None and address < self._end:
                pieces.append(address)
            self._refused = TRY_AGAIN_CHUNKS
            log.warning("the queue stays in memory: its local store takes no more",
                        extra={"directory": self._directory, "reason": str(error)})  # fmt: skip
            return None
        self._end = max(self._end, address + size)
        return address

    def read(self, address: int, length: int) -> bytes:
        """What was written. Raises SpillLost."""
        try:
            data = os.pread(self._file, length, address)
        except OSError as error:
            raise SpillLost(f"the local store cannot be read: {error}") from error
        if len(data) != length:
            raise SpillLost("the local store is shorter than what was written to it")
        return data

    def free(self, address: int, length: int) -> None:
        """It is not needed any more."""
        self._free.setdefault(_piece(length), []).append(address)

    def clear(self) -> None:
        """Nothing in it is needed any more: the disk gets its room back."""
        if self._file >= 0:
            with suppress(OSError):
                os.close(self._file)
        self._file, self._end, self._free = -1, 0, {}

    def _write(self, data: bytes, address: int) -> None:
        if self._file < 0:
            self._file = _open(self._directory)
        written = 0
        while written < len(data):
            written += os.pwrite(self._file, data[written:], address + written)


def _open(directory: str) -> int:
    """A file that nobody can see: when the process is gone, so is it."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    number, name = tempfile.mkstemp(prefix="mailfleet-queue-", dir=directory)
    os.unlink(name)
    return number


def _piece(length: int) -> int:
    return max(SMALLEST_BYTES, 1 << (length - 1).bit_length())
