"""The ingest service on a log in memory, and stock aiosmtpd beside it to show what a test can tell apart."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from aiosmtpd.smtp import SMTP, AuthResult

from mailfleet_core.bus import topics
from mailfleet_core.bus.memory import MemoryBus, MemoryLog
from mailfleet_core.bus.port import Record
from mailfleet_core.clock import Clock, SystemClock
from mailfleet_core.model import wire
from mailfleet_core.service import Context
from mailfleet_core.settings import SettingsFile
from mailfleet_ingest.decisions.credentials import Credential
from mailfleet_ingest.shell import credential_file
from mailfleet_ingest.shell.service import Ingest


class Taken(NamedTuple):
    """An accepted message as a router finds it."""

    envelope: wire.Envelope
    recipients: tuple[wire.Recipient, ...]
    content: bytes
    site: str
    """Empty when it was for several."""


class IngestServer:
    """Ours."""

    def __init__(self, directory: Path, listeners: list[dict[str, Any]] | None = None, **settings: Any) -> None:
        self.bus = MemoryBus(MemoryLog(), "ingest")
        self.credentials = directory / "credentials.toml"
        listeners = [{"port": 0, "name": "main", **listener} for listener in listeners or [{}]]
        raw = {"hostname": "mx.example", "credentials_file": str(self.credentials), "listeners": listeners, **settings}
        self._file = SettingsFile({"ingest": raw}, "test", {})
        self.clock: Clock = SystemClock()
        self.service: Ingest

    async def __aenter__(self) -> IngestServer:
        await self.bus.start()
        self.service = Ingest(Context("ingest", "test", self._file, self.bus, self.clock))
        await self.service.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.bus.release()
        for connection in list(self.service.hub.connections):
            connection.abort()
        await self.service.drain()
        await self.bus.close()

    @property
    def port(self) -> int:
        """Of the first listener."""
        return next(iter(self.service.ports.values()))

    def add_credential(self, name: str, password: str, *domains: str, **fields: Any) -> None:
        """A credential of tenant `acme`."""
        credential = Credential(name=name, tenant="acme", hash="", domains=domains or ("*",), **fields)
        credential_file.add(self.credentials, credential, password)

    async def taken(self) -> list[Taken]:
        """What was accepted, in order of acceptance."""
        found = []
        for record in await self._records(topics.QUEUE):
            unit = wire.decode(wire.Entry, record.value or b"").unit
            found.append(Taken(unit.envelope, unit.recipients, await self._body(unit.envelope.body), unit.site))
        for record in await self._records(topics.ACCEPT):
            accepted = wire.decode(wire.Accepted, record.value or b"")
            body = await self._body(accepted.envelope.body)
            found.append(Taken(accepted.envelope, accepted.recipients, body, ""))
        return sorted(found, key=lambda taken: taken.envelope.message_id)

    async def _records(self, topic: str) -> list[Record]:
        found = []
        for partition in range(self.bus.partitions(topic)):
            end, at = await self.bus.end(topic, partition), 0
            tail = self.bus.tail(topic, partition, 0)
            while at < end - 1:
                try:
                    records = await asyncio.wait_for(anext(tail), 0.05)
                except TimeoutError:
                    break
                found += records
                at = records[-1].offset
                if len(records) < 500:
                    break
            await tail.aclose()
        return found

    async def _body(self, body: wire.BodyRef) -> bytes:
        chunks = [await self.bus.read(topics.BODY, body.partition, offset, body.length) for offset in body.offsets]
        return b"".join(chunks)


class StockServer:
    """aiosmtpd as it comes: what a test must be able to tell from ours."""

    def __init__(self, tls: ssl.SSLContext | None = None, *, implicit: bool = False, **settings: Any) -> None:
        self._implicit = tls if implicit else None
        self._settings = {"hostname": "mx.example", "tls_context": None if implicit else tls, **settings}
        self.envelopes: list[Any] = []
        self.sessions: list[SMTP] = []
        self.authentications = 0
        self.verify: Callable[[], None] = lambda: None
        """What its authenticator does before it says no."""

    async def __aenter__(self) -> StockServer:
        loop = asyncio.get_running_loop()

        def authenticate(*_: object) -> AuthResult:
            self.authentications += 1
            self.verify()
            return AuthResult(success=False, handled=False)

        def session() -> SMTP:
            self.sessions.append(SMTP(self, loop=loop, authenticator=authenticate, **self._settings))
            return self.sessions[-1]

        self._server = await loop.create_server(session, "127.0.0.1", 0, ssl=self._implicit)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def handle_DATA(self, server: object, session: object, envelope: Any) -> str:  # noqa: N802
        """aiosmtpd's handler."""
        self.envelopes.append(envelope)
        return "250 OK"

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.sockets[0].getsockname()[1])
