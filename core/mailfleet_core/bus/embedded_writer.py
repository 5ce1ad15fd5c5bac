"""One thread a journal: while it syncs a group, the next one collects. What needs no sync is written on the loop."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import NoReturn

from mailfleet_core.bus.embedded_journal import Journal
from mailfleet_core.bus.embedded_notes import Append

log = logging.getLogger(__name__)

GROUP_BYTES = 16 << 20
ALONE = 2
"""A group of so few records has nobody to wait for ..."""
SECONDS_PER_RECORD = 0.00025
"""... and each record more is a reason to wait so long for company before the next group starts."""
Acknowledge = Callable[[Append, int], None]
"""Told on the loop what became of a batch: its base, REFUSED or WRITTEN_BEFORE."""
Item = tuple[Acknowledge, Append]
Written = Callable[[list[Item], list[int]], None]


def pause_after(records: int, most: float) -> float:
    """Least seconds between the start of a group of `records` and the next: a sync costs 100 µs of CPU, a wait costs none."""
    return max(0.0, min(most, (records - ALONE) * SECONDS_PER_RECORD))


class Writer:
    """Takes batches from the loop, makes them durable in groups, and tells the loop."""

    def __init__(self, journal: Journal, loop: asyncio.AbstractEventLoop, written: Written, pause: float) -> None:
        self.journal = journal
        self._loop = loop
        self._written = written
        self._pause = pause
        self._queue: SimpleQueue[Item | Callable[[], None] | None] = SimpleQueue()
        self._in_thread = 0
        """Given to the thread and not reported: until it is 0, the journal is the thread's."""
        self._placed: list[Item] = []
        self._place_at = 0.0
        self._never = threading.Lock()
        self._never.acquire()
        self._thread = threading.Thread(target=self._work, name=f"writer-{journal.directory.name}", daemon=True)
        self._thread.start()

    def put(self, item: Item | Callable[[], None] | None) -> None:
        """Write this batch; or call this function in the writing thread, between two groups; None: stop."""
        if not self._in_thread and isinstance(item, tuple) and not item[1].durable:
            if not self._placed:
                self._loop.call_at(self._place_at, self._place)
            self._placed.append(item)
            return
        self._hand_over()
        self._in_thread += 1
        self._queue.put(item)

    async def stop(self) -> None:
        """Write what was put, then end the thread."""
        self.put(None)
        await self._loop.run_in_executor(None, self._thread.join)

    # --- on the loop --------------------------------------------------------------------------------------------------
    def _place(self) -> None:
        """Write what need not be synced: a copy into the system's memory, cheaper than telling a thread."""
        if not self._placed:
            return
        if not self.journal.fits([append for _, append in self._placed]):
            # A new segment takes milliseconds.
            self._hand_over()
            return
        group, self._placed = self._placed, []
        self._place_at = self._loop.time() + pause_after(len(group), self._pause)
        try:
            answers = self.journal.write([append for _, append in group])
        except OSError as error:
            _stop(error)
        self._written(group, answers)

    def _hand_over(self) -> None:
        """What waits for its turn on the loop goes to the thread, before what the thread gets next."""
        for item in self._placed:
            self._in_thread += 1
            self._queue.put(item)
        self._placed.clear()

    def _done(self, taken: int, group: list[Item], answers: list[int]) -> None:
        self._in_thread -= taken
        if group:
            self._written(group, answers)

    # --- in the thread ------------------------------------------------------------------------------------------------
    def _work(self) -> None:
        try:
            clock = self._loop.time
            while (first := self._queue.get()) is not None:
                started = clock()
                going_on, records = self._work_on(first)
                if not going_on:
                    return
                # Before the next one comes and not after: who puts it need not wake us.
                if (wait := started + pause_after(records, self._pause) - clock()) > 0:
                    self._never.acquire(timeout=wait)
        except BaseException as error:
            _stop(error)

    def _work_on(self, first: Item | Callable[[], None]) -> tuple[bool, int]:
        """One group; False after the last, and its records."""
        group, taken, going_on = self._group(first)
        answers = self.journal.write([append for _, append in group]) if group else []
        self._loop.call_soon_threadsafe(self._done, taken, group, answers)
        return going_on, sum(append.span for _, append in group)

    def _group(self, item: Item | Callable[[], None] | None) -> tuple[list[Item], int, bool]:
        group: list[Item] = []
        size = taken = 0
        while item is not None:
            taken += 1
            if isinstance(item, tuple):
                group.append(item)
                size += len(item[1].payload)
            else:
                item()
            if size > GROUP_BYTES:
                return group, taken, True
            try:
                item = self._queue.get_nowait()
            except Empty:
                return group, taken, True
        return group, taken, False


def _stop(error: BaseException) -> NoReturn:
    # After a failed sync the kernel may have dropped the pages: the only honest thing left is to stop.
    log.critical("the log cannot be written, stopping: %s", error, exc_info=error)
    os._exit(errno.EIO)
