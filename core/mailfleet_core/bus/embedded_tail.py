"""The client's side of a tail."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from mailfleet_core.bus.embedded_format import Torn, take
from mailfleet_core.bus.port import BusUnavailable, Record

CREDIT_BYTES = 1 << 20


class Tail(AsyncIterator[list[Record]]):
    """Batches of one partition as they become durable; holds at most about CREDIT_BYTES that were not taken."""

    def __init__(
        self, number: int, key: int, start: int, grant: Callable[[int, int], None], close: Callable[[int], None]
    ) -> None:
        self.number = number
        self.key = key
        self.position = start
        """The offset after the last record that was taken: where to go on after a broken connection."""
        self._grant = grant
        self._close = close
        self._arrived: deque[bytes] = deque()
        self._taken = 0
        self._wake: asyncio.Future[None] | None = None
        self._closed = False

    def feed(self, data: bytes) -> None:
        """Batches from the log."""
        self._arrived.append(data)
        self._stir()

    def restart(self) -> None:
        """The connection broke: what was not taken will come again, with new credit."""
        self._arrived.clear()
        self._taken = 0

    async def __anext__(self) -> list[Record]:
        while not self._closed:
            if not self._arrived:
                self._wake = asyncio.get_running_loop().create_future()
                await self._wake
                continue
            found = self._take(self._arrived.popleft())
            if found:
                return found
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End it."""
        if not self._closed:
            self._closed = True
            self._stir()
            self._close(self.number)

    def _stir(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _take(self, data: bytes) -> list[Record]:
        found: list[Record] = []
        at, start, size = 0, self.position, len(data)
        while at < size:
            try:
                batch, after, at = take(data, at)
            except Torn as error:
                raise BusUnavailable(f"a damaged batch in the log: {error}") from error
            if batch and batch[0].offset < start:
                batch = [record for record in batch if record.offset >= start]
            found += batch
            if after > self.position:
                self.position = after
        self._taken += size
        if self._taken > CREDIT_BYTES // 2:
            self._grant(self.number, self._taken)
            self._taken = 0
        return found
