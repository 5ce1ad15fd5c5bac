"""What goes over the socket between the log process and its clients: frames of `length, kind, body`."""

from __future__ import annotations

from collections.abc import Iterator
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
APPEND, REQUEST, GRANT = 1, 2, 3
# --- kinds, log to client
ACKS, DATA, ANSWER, TOLD = 11, 12, 13, 14

STATE, BODIES = 0, 1
"""The two journals."""

SOCKET = "log.sock"
MAX_FRAME_BYTES = 64 << 20

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


class Frames:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The frames that are complete with `data`. Raises ValueError for what is no stream of frames."""
        if self._rest:
            self._rest += data
            if len(self._rest) < FRAME.size or len(self._rest) < FRAME.size + FRAME.unpack_from(self._rest)[0]:
                return
            data = bytes(self._rest)
            self._rest.clear()
        position, size, width = 0, len(data), FRAME.size
        while size - position >= width:
            length, kind = FRAME.unpack_from(data, position)
            if length > MAX_FRAME_BYTES:
                raise ValueError(f"a frame of {length} bytes")
            after = position + width + length
            if after > size:
                break
            yield kind, data[position + width : after]
            position = after
        if position < size:
            self._rest += data[position:]


def socket_path(directory: Path) -> str:
    """Where the log process listens. Raises ValueError when the path is too long for a socket."""
    path = str(directory / SOCKET)
    if len(path.encode()) > 107:
        raise ValueError(f"{path}: longer than the 107 bytes that a socket's path may have; use a shorter directory")
    return path
