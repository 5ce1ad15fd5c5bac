"""Octets both ways between two transports, never faster than the slower one takes them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

HIGH_BYTES = 128 << 10
"""Unsent octets to one side at which the other is not read any more."""


class Relay:
    """Two sides. When one has said all, the other is told so and may finish; when one is gone, so is the other."""

    __slots__ = ("_over", "half_closed_at", "left", "moved_at", "now", "right")

    def __init__(self, now: Callable[[], float], over: Callable[[], None] = lambda: None) -> None:
        """`now`: a clock that never steps. `over` is called once, when both sides are gone."""
        self.now = now
        self.left, self.right = Side(self), Side(self)
        self.left.other, self.right.other = self.right, self.left
        self.moved_at = now()
        """When octets came last, or could be sent on."""
        self.half_closed_at = 0.0
        """When one side had said all; 0: neither has."""
        self._over = over

    def abort(self) -> None:
        """End it now."""
        for side in (self.left, self.right):
            if side.transport is not None:
                side.transport.abort()

    def gone(self, side: Side, error: Exception | None) -> None:
        """A side's connection is closed."""
        other = side.other
        if other.transport is None:
            self._over()
        elif error is not None:
            other.transport.abort()
        else:
            other.transport.close()


class Side(asyncio.Protocol):
    """One of them; `octets` came from it."""

    other: Side

    def __init__(self, relay: Relay) -> None:
        self.octets = 0
        self.transport: asyncio.Transport | None = None
        self._relay = relay
        self._said_all = False

    def adopt(self, transport: asyncio.Transport) -> None:
        """A transport that had another protocol before."""
        self.transport = transport
        transport.set_write_buffer_limits(high=HIGH_BYTES)
        transport.set_protocol(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it
        self.transport.set_write_buffer_limits(high=HIGH_BYTES)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        relay, there = self._relay, self.other.transport
        relay.moved_at = relay.now()
        self.octets += len(data)
        if there is not None:
            there.write(data)

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        if self.other.transport is not None and not self.other.transport.is_closing():
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._relay.moved_at = self._relay.now()
        if self.other.transport is not None and not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def eof_received(self) -> bool:
        """See `asyncio.Protocol`. TLS knows no half of a connection: there it ends."""
        mine, there = self.transport, self.other.transport
        self._said_all = True
        self._relay.half_closed_at = self._relay.half_closed_at or self._relay.now()
        if there is None or mine is None or self.other._said_all:
            return False
        if not there.can_write_eof() or not mine.can_write_eof():
            return False
        there.write_eof()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self.transport = None
        self._relay.gone(self, error)
