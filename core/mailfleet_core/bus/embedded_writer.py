"""One thread a journal: while it syncs a group, the next one collects."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

from mailfleet_core.bus.embedded_journal import Journal
from mailfleet_core.bus.embedded_notes import Append

log = logging.getLogger(__name__)

GROUP_BYTES = 16 << 20
Acknowledge = Callable[[Append, int], None]
"""Told on the loop what became of a batch: its base, REFUSED or WRITTEN_BEFORE."""
Item = tuple[Acknowledge, Append]
Written = Callable[[list[Item], list[int]], None]


class Writer:
    """Takes batches from the loop, makes them durable in groups, and tells the loop."""

    def __init__(self, journal: Journal, loop: asyncio.AbstractEventLoop, written: Written, pause: float) -> None:
        self.journal = journal
        self._loop = loop
        self._written = written
        self._pause = pause
        """Least seconds between the starts of two groups: a sync costs 100 µs of CPU, a wait costs none.
        After a group of one nobody else is there to wait for."""
        self._last_group = 0
        self._queue: SimpleQueue[Item | Callable[[], None] | None] = SimpleQueue()
        self.put = self._queue.put
        """Write this batch; or call this function in the writing thread, between two groups; None: stop."""
        self._thread = threading.Thread(target=self._work, name=f"writer-{journal.directory.name}", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Write what was put, then end the thread."""
        self.put(None)
        await self._loop.run_in_executor(None, self._thread.join)

    def _work(self) -> None:
        try:
            clock, started = self._loop.time, 0.0
            while (first := self._queue.get()) is not None:
                if self._last_group > 1 and (wait := started + self._pause - clock()) > 0:
                    # An event that nobody sets: a sleep that can be told from a mistake.
                    threading.Event().wait(wait)
                started = clock()
                if not self._work_on(first):
                    return
        except BaseException as error:
            # After a failed sync the kernel may have dropped the pages: the only honest thing left is to stop.
            log.critical("the log cannot be written, stopping: %s", error, exc_info=True)
            os._exit(errno.EIO)

    def _work_on(self, first: Item | Callable[[], None]) -> bool:
        """One group; False after the last."""
        group, going_on = self._group(first)
        self._last_group = len(group)
        if group:
            answers = self.journal.write([append for _, append in group])
            self._loop.call_soon_threadsafe(self._written, group, answers)
        return going_on

    def _group(self, item: Item | Callable[[], None] | None) -> tuple[list[Item], bool]:
        group: list[Item] = []
        size = 0
        while item is not None:
            if isinstance(item, tuple):
                group.append(item)
                size += len(item[1].payload)
            else:
                item()
            if size > GROUP_BYTES:
                return group, True
            try:
                item = self._queue.get_nowait()
            except Empty:
                return group, True
        return group, False
