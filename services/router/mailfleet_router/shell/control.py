"""`mail.control` as the router reads and writes it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

import msgspec

from mailfleet_core.bus import topics
from mailfleet_core.bus.port import Bus, BusUnavailable, Record
from mailfleet_core.clock import Clock
from mailfleet_core.model import wire
from mailfleet_core.model.shards import Numbered, learn
from mailfleet_core.model.sources import Table
from mailfleet_router.decisions.shaping import control
from mailfleet_router.decisions.shaping.control import Controls
from mailfleet_router.decisions.shaping.learned import Wide

log = logging.getLogger(__name__)

HOLE_SECONDS = 3.0
"""The last records before the end may be gone by compaction: after so long without another one, all were read."""


class Control:
    """Commands and the learned table of sites."""

    def __init__(
        self, bus: Bus, controls: Controls, on_commands: Callable[[], None], wide: Wide, clock: Clock, table: Table
    ) -> None:  # fmt: skip
        self.sites: dict[str, str] = {}
        """Domain → site."""
        self.shards: dict[str, Numbered] = {}
        """Maps of hot sites."""
        self.on_sources: Callable[[], None] = lambda: None
        """Told that the sources are others."""
        self.on_shards: Callable[[str], None] = lambda site: None
        """Told which site has a new map."""
        self._bus = bus
        self._controls = controls
        self._on_commands = on_commands
        self._wide = wide
        self._table = table
        self._clock = clock
        self._read_to = 0
        self._progressed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the topic from its beginning and go on reading. Returns when all that lay there was read: who does not
        know the commands must not route mail. Raises BusUnavailable."""
        end = await self._bus.end(topics.CONTROL, 0)
        self._task = asyncio.create_task(self._tail())
        with suppress(TimeoutError):
            while self._read_to < end:
                self._progressed.clear()
                async with asyncio.timeout(HOLE_SECONDS):
                    await self._progressed.wait()

    async def stop(self) -> None:
        """Read no further."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def teach(self, domain: str, site: str) -> None:
        """Tell ingest and the other routers which site a domain belongs to."""
        if self.sites.get(domain) != site:
            self.sites[domain] = site
            said = self._bus.append(topics.CONTROL, 0, f"site|{domain}".encode(), site.encode(), topics.tag(topics.PUT))
            said.add_done_callback(_unsaid)

    def teach_of(self, source: str, value: bytes) -> None:
        """Tell the other routers what an answer has done to a source at all sites."""
        said = self._bus.append(topics.CONTROL, 0, f"backoff|{source}".encode(), value, topics.tag(topics.PUT))
        said.add_done_callback(_unsaid)

    async def _tail(self) -> None:
        async for batch in self._bus.tail(topics.CONTROL, 0, 0):
            commands = sources = False
            for record in batch:
                try:
                    commands |= self._read(record)
                    sources |= self._table.read(record.key, record.value)
                except (wire.Malformed, msgspec.MsgspecError, ValueError):
                    log.warning("a record of mail.control is not understood", extra={"offset": record.offset})
            if sources:
                self.on_sources()
            if commands:
                self._on_commands()
            self._read_to = batch[-1].offset + 1
            self._progressed.set()

    def _read(self, record: Record) -> bool:
        """Take one record; True: commands changed."""
        kind, _, rest = record.key.partition(b"|")
        if kind == b"site":
            if record.value is None:
                self.sites.pop(rest.decode(), None)
            else:
                self.sites[rest.decode()] = record.value.decode()
        elif kind == b"shards":
            if (site := learn(self.shards, record.offset, record.key, record.value)) is not None:
                self.on_shards(site)
        elif kind == b"backoff" and record.value is not None:
            self._wide.read(rest.decode(), record.value, self._clock.now())
        elif kind == b"command":
            self._controls.set(rest.decode(), None if record.value is None else control.decode(record.value))
            return True
        elif kind == b"suspend":
            what, _, name = rest.decode().partition("|")
            value = None if record.value is None else wire.decode(wire.Suspension, record.value)
            for identifier, given in control.suspensions(what, name, value).items():
                self._controls.set(identifier, given)
            return True
        return False


def _unsaid(future: asyncio.Future[int]) -> None:
    if not future.cancelled() and isinstance(error := future.exception(), BusUnavailable):
        # It is learned again by the next unit that needs it.
        log.warning("mail.control could not be written", extra={"error": str(error)})
