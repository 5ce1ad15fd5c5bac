"""Who reads a queue partition lets others hear it: the log sends it once, and it is taken apart once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mailfleet_core.bus.port import Record


class Reading:
    """What one fold has read of its partition, and at most one listener."""

    def __init__(self) -> None:
        self.last = -1
        """Offset of the last record; -1 before the first one."""
        self._listener: Callable[[list[Record]], None] | None = None
        self._over: asyncio.Future[None] | None = None

    def read(self, batch: list[Record]) -> None:
        """The next records."""
        self.last = batch[-1].offset
        if self._listener is not None:
            try:
                self._listener(batch)
            except Exception as error:
                # It is the listener's, and must not become the reader's.
                self._end(error)

    def listen(self, listener: Callable[[list[Record]], None]) -> asyncio.Future[None]:
        """Give the listener everything that is read from now on; the future is done when that ends, or has the
        listener's own error."""
        self._listener, self._over = listener, asyncio.get_running_loop().create_future()
        return self._over

    def end(self) -> None:
        """Nothing more is read, or nobody listens any more."""
        self._end(None)

    def _end(self, error: Exception | None) -> None:
        self._listener = None
        if self._over is None or self._over.done():
            return
        if error is None:
            self._over.set_result(None)
        else:
            self._over.set_exception(error)
