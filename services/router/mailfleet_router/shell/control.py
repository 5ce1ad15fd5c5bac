"""`mail.control` as the router reads and writes it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec

from mailfleet_core.bus import topics
from mailfleet_core.bus.port import Bus, BusUnavailable, Record
from mailfleet_core.clock import Clock
from mailfleet_core.model import wire
from mailfleet_router.decisions.holds import Holds
from mailfleet_router.decisions.shaping.learned import Wide

log = logging.getLogger(__name__)


class Control:
    """Suspensions and the learned table of sites."""

    def __init__(self, bus: Bus, holds: Holds, on_holds: Callable[[], None], wide: Wide, clock: Clock) -> None:
        self.sites: dict[str, str] = {}
        """Domain → site."""
        self._bus = bus
        self._holds = holds
        self._on_holds = on_holds
        self._wide = wide
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Read the topic from its beginning and go on reading."""
        self._task = asyncio.create_task(self._tail())

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
            for record in batch:
                try:
                    self._read(record)
                except (wire.Malformed, msgspec.MsgspecError, ValueError):
                    log.warning("a record of mail.control is not understood", extra={"offset": record.offset})

    def _read(self, record: Record) -> None:
        kind, _, rest = record.key.partition(b"|")
        if kind == b"site":
            if record.value is None:
                self.sites.pop(rest.decode(), None)
            else:
                self.sites[rest.decode()] = record.value.decode()
        elif kind == b"backoff" and record.value is not None:
            self._wide.read(rest.decode(), record.value, self._clock.now())
        elif kind == b"suspend":
            what, _, name = rest.decode().partition("|")
            value = None if record.value is None else wire.decode(wire.Suspension, record.value)
            self._holds.set(what, name, value)
            self._on_holds()


def _unsaid(future: asyncio.Future[int]) -> None:
    if not future.cancelled() and isinstance(error := future.exception(), BusUnavailable):
        # It is learned again by the next unit that needs it.
        log.warning("mail.control could not be written", extra={"error": str(error)})
