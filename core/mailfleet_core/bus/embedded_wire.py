"""What goes over the socket between the log process and its clients: frames of `length, kind, body`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from struct import Struct
from typing import Any

import msgspec

FRAME = Struct("<IB")
"""Length of the body, kind."""
ACK = Struct("<BQQ")
"""journal, sequence, base (or REFUSED, WRITTEN_BEFORE)."""
TAIL = Struct("<I")
"""Number of the tail; batches follow."""
CREDIT = Struct("<IQ")
"""Number of the tail, bytes it may send more."""

# --- kinds, client to log
APPEND, REQUEST, GRANT, PLACE = 1, 2, 3, 4
"""PLACE: an append to be answered when it is in the file, and made durable before the next answer about the state."""
# --- kinds, log to client
ACKS, DATA, ANSWER, TOLD = 11, 12, 13, 14

STATE, BODIES = 0, 1
"""The two journals."""

SOCKET = "log.sock"
MAX_FRAME_BYTES = 64 << 20
RECEIVE_BYTES = 256 << 10

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder().decode


class TopicSpec(msgspec.Struct, array_like=True, frozen=True):
    """A topic as a client declares it and the directory's meta file keeps it."""

    name: str
    partitions: int
    compacted: bool
    retention_seconds: int
    journal: int
    gated: bool
    """Refused when disk space runs low: what brings new mail."""
    consumed: bool = False
    """Not kept longer than until every group that commits on it has passed."""


def frame(kind: int, *values: Any) -> bytes:
    """A MessagePack frame."""
    body = encode(values)
    return FRAME.pack(len(body), kind) + body


class Frames(asyncio.BufferedProtocol):
    """A connection cut into frames: bytes are received into one buffer and copied once, into the frame they belong to."""

    def __init__(self) -> None:
        self._buffer = bytearray(RECEIVE_BYTES)
        self._view = memoryview(self._buffer)
        self._taken_to = self._filled_to = 0

    def frame(self, kind: int, body: bytes) -> None:
        """One whole frame came."""
        raise NotImplementedError

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go."""
        return self._view[self._filled_to :]

    def buffer_updated(self, count: int) -> None:
        """Hand over the frames that are whole now. Raises ValueError for what is no stream of frames."""
        self._filled_to += count
        buffer, view, start, end, width = self._buffer, self._view, self._taken_to, self._filled_to, FRAME.size
        needed = 0
        while end - start >= width:
            length, kind = FRAME.unpack_from(buffer, start)
            if length > MAX_FRAME_BYTES:
                raise ValueError(f"a frame of {length} bytes")
            after = start + width + length
            if after > end:
                needed = width + length
                break
            self.frame(kind, bytes(view[start + width : after]))
            start = after
        self._taken_to = start
        if start == end:
            self._taken_to = self._filled_to = 0
        elif max(needed, RECEIVE_BYTES // 4) > len(buffer) - start:
            self._make_room(needed)

    def _make_room(self, needed: int) -> None:
        """Put the beginning of a frame at the beginning of the buffer, in a larger one if it must be."""
        rest = bytes(self._view[self._taken_to : self._filled_to])
        wanted = max(RECEIVE_BYTES, needed)
        if len(self._buffer) != wanted:
            self._buffer = bytearray(wanted)
            self._view = memoryview(self._buffer)
        self._buffer[: len(rest)] = rest
        self._taken_to, self._filled_to = 0, len(rest)


def socket_path(directory: Path) -> str:
    """Where the log process listens. Raises ValueError when the path is too long for a socket."""
    path = str(directory / SOCKET)
    if len(path.encode()) > 107:
        raise ValueError(f"{path}: longer than the 107 bytes that a socket's path may have; use a shorter directory")
    return path
