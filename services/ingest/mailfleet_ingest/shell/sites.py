"""The learned table domain → site, as `mail.control` tells it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from mailfleet_core.bus import topics
from mailfleet_core.bus.port import Bus, Record

PREFIX = b"site|"


class Sites:
    """Follows `mail.control`. A domain it does not know is a site of its own, which a router corrects later."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._task: asyncio.Task[None] | None = None
        self.table: dict[str, str] = {}

    def start(self) -> None:
        """Begin to follow."""
        self._task = asyncio.get_running_loop().create_task(self._follow(), name="sites")

    async def stop(self) -> None:
        """Follow no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self) -> None:
        async for records in self._bus.tail(topics.CONTROL, 0, 0):
            learn(self.table, records)


def learn(table: dict[str, str], records: Iterable[Record]) -> None:
    """Bring `table` up to `records`."""
    for record in records:
        if not record.key.startswith(PREFIX):
            continue
        domain = record.key[len(PREFIX) :].decode("utf-8", "replace")
        if record.value is None:
            table.pop(domain, None)
        else:
            table[domain] = record.value.decode("utf-8", "replace")
