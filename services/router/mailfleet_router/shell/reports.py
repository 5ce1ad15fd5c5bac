"""Makes a DSN a queued mail: body first, then its PUT, as ingest does it."""

from __future__ import annotations

import asyncio
import logging

from mailfleet_core import metrics
from mailfleet_core.bus import topics
from mailfleet_core.bus.port import Bus, BusUnavailable, NotFound
from mailfleet_core.clock import Clock
from mailfleet_core.model import ids, wire
from mailfleet_core.model.site import domain_of, partition_of
from mailfleet_core.model.wire import BodyRef, Entry, Envelope, Recipient, Unit
from mailfleet_router.decisions import dsn
from mailfleet_router.decisions.outbox import Report
from mailfleet_router.shell.control import Control

log = logging.getLogger(__name__)

AT_ONCE = 32
PATIENCE_SECONDS = 1.0


class Reports:
    """Writes reports, a bounded number at a time."""

    def __init__(self, bus: Bus, clock: Clock, control: Control, host: str, expire_seconds: float) -> None:
        self._bus = bus
        self._clock = clock
        self._control = control
        self._host = host
        self._expire_seconds = expire_seconds
        self._room = asyncio.Semaphore(AT_ONCE)

    async def write(self, report: Report) -> None:
        """Queue the report durably, however long the log is away. Doing it again queues nothing new."""
        async with self._room:
            while True:
                try:
                    await self._write(report)
                    return
                except BusUnavailable as error:
                    log.warning("a report waits for the log", extra={"error": str(error)})
                    await asyncio.sleep(PATIENCE_SECONDS)

    async def _write(self, report: Report) -> None:
        envelope = report.entry.unit.envelope
        original = await self._original(envelope.body, envelope.ret)
        made = dsn.build(report.entry, report.purpose, report.endings, report.at, original, self._host, report.mx)
        body = await self._store(made)
        key, value, site = self._unit(made, body, envelope)
        home = partition_of(site, self._bus.partitions(topics.QUEUE))
        await self._bus.append(topics.QUEUE, home, key, value, topics.tag(topics.PUT))
        metrics.DSNS.labels(made.action).inc()

    async def _original(self, body: BodyRef, ret: str) -> bytes:
        """The message if it is short enough to be returned, else its first chunk, which has the headers."""
        whole = ret != "HDRS" and body.length <= dsn.MAX_RETURNED_BYTES
        parts = []
        try:
            for offset in body.offsets if whole else body.offsets[:1]:
                hint = min(body.length, topics.MAX_CHUNK_BYTES)
                parts.append(await self._bus.read(topics.BODY, body.partition, offset, hint))
        except NotFound:
            log.error("the body of a mail is gone before its report was made", extra={"offset": body.offsets[0]})
        return b"".join(parts)

    async def _store(self, made: dsn.Dsn) -> BodyRef:
        partition = made.message_id[-1] % self._bus.partitions(topics.BODY)
        chunks = [
            made.content[start : start + topics.MAX_CHUNK_BYTES]
            for start in range(0, len(made.content), topics.MAX_CHUNK_BYTES)
        ]
        appends = [self._bus.place(topics.BODY, partition, made.message_id, chunk) for chunk in chunks]
        return BodyRef(partition, tuple(await asyncio.gather(*appends)), len(made.content))

    def _unit(self, made: dsn.Dsn, body: BodyRef, about: Envelope) -> tuple[bytes, bytes, str]:
        now = self._clock.now()
        envelope = Envelope(
            message_id=made.message_id, reverse_path="", tenant=about.tenant, stream="transactional", pool=about.pool,
            body=body, accepted_at=now, expires_at=now + self._expire_seconds, eight_bit=made.eight_bit,
            smtputf8=made.smtputf8, header_message_id=f"<{ids.text(made.message_id)}@{self._host}>",
        )  # fmt: skip
        domain = domain_of(about.reverse_path)
        site = self._control.sites.get(domain, domain)
        recipient = Recipient(0, about.reverse_path, wire.NOTIFY_NEVER)
        unit = Unit(ids.unit_id(made.message_id, 0), site, envelope, (recipient,))
        return unit.unit_id, wire.encode(Entry(unit)), site
