"""The learned table domain → site, as `mail.control` tells it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from mailfleet_core.bus import topics
from mailfleet_core.bus.port import Bus, Record
from mailfleet_core.model import shards
from mailfleet_core.model.shards import Numbered
from mailfleet_core.model.wire import Malformed

log = logging.getLogger(__name__)

PREFIX = b"site|"


class Sites:
    """Follows `mail.control`. A domain it does not know is a site of its own, which a router corrects later."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._task: asyncio.Task[None] | None = None
        self.table: dict[str, str] = {}
        self.shards: dict[str, Numbered] = {}
        """Maps of hot sites."""

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
            for record in records:
                try:
                    shards.learn(self.shards, record.offset, record.key, record.value)
                except Malformed:
                    log.warning("a map of mail.control is not understood", extra={"offset": record.offset})


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
