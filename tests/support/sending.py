"""A sender on the memory log, fed with dispatches as a router would."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from mailfleet_core.bus import topics
from mailfleet_core.bus.memory import MemoryBus, MemoryLog
from mailfleet_core.clock import SystemClock
from mailfleet_core.model import ids, wire
from mailfleet_core.settings import EgressSettings, RouteSettings, SourceSettings, egress, load
from mailfleet_sender.settings import SenderSettings
from mailfleet_sender.shell.service import Sender
from support.static_resolver import StaticResolver

CONTENT = b"From: a@example.com\r\nSubject: x\r\n\r\nHello.\r\n"
QUICK = {
    "allowed_inside": ("127.0.0.0/8", "::1"),
    "connect_seconds": 2.0,
    "greeting_seconds": 1.0,
    "ehlo_seconds": 1.0,
    "mail_seconds": 0.4,
    "rcpt_seconds": 0.4,
    "data_seconds": 0.4,
    "block_seconds": 0.4,
    "dot_seconds": 0.4,
    "idle_seconds": 0.5,
    "pause_seconds": 0.2,
    "drain_seconds": 2.0,
}
"""Time-outs short enough for tests of time-outs."""


def settings(**changes: object) -> SenderSettings:
    """Quick settings, changed."""
    return SenderSettings(**(QUICK | changes))  # type: ignore[arg-type]


def route(port: int = 0, hosts: Sequence[tuple[int, str]] = ((10, "mx.test"),), **changes: object) -> wire.Route:
    """An MX route to a port of this machine."""
    return wire.Route(changes.pop("kind", "mx"), tuple(hosts), port, **changes)  # type: ignore[arg-type]


@dataclass
class Sending:
    """The log, the sender under test and a router's pen."""

    log: MemoryLog = field(default_factory=MemoryLog)
    resolver: StaticResolver = field(default_factory=lambda: StaticResolver(hosts={"mx.test": ("127.0.0.1",)}))
    egress: EgressSettings = field(default_factory=lambda: egress(load(None, {})))
    count: int = 0

    def __post_init__(self) -> None:
        self.bus = MemoryBus(self.log, "router")

    def sender(self, changed: SenderSettings | None = None, name: str = "sender-1") -> tuple[Sender, MemoryBus]:
        """Another sender on the same log."""
        bus = MemoryBus(self.log, name)
        return Sender(bus, SystemClock(), changed or settings(), self.egress, self.resolver, name), bus

    @asynccontextmanager
    async def running(self, changed: SenderSettings | None = None) -> AsyncIterator[Sender]:
        """A sender that runs, and is drained in the end."""
        sender, bus = self.sender(changed)
        await bus.start()
        await sender.start()
        try:
            yield sender
        finally:
            await sender.drain()
            await bus.close()

    async def unit(
        self, to: Sequence[str | wire.Recipient] = ("b@example.net",), content: bytes = CONTENT, **changes: object
    ) -> wire.Unit:
        """A unit whose body is in the log."""
        self.count += 1
        chunks = [content[at : at + topics.MAX_CHUNK_BYTES] for at in range(0, len(content), topics.MAX_CHUNK_BYTES)]
        offsets = [await self.bus.append(topics.BODY, 0, b"", chunk) for chunk in chunks]
        message = ids.message_id(1.7e9, self.count.to_bytes(10, "big"))
        fields: dict[str, object] = {
            "reverse_path": "a@example.com", "tenant": "t", "stream": "bulk", "pool": "default",
            "body": wire.BodyRef(0, tuple(offsets), len(content)), "accepted_at": 1.7e9, "expires_at": 1.8e9,
        }  # fmt: skip
        site = str(changes.pop("site", "mx.test"))
        envelope = wire.Envelope(message, **(fields | changes))  # type: ignore[arg-type]
        recipients = tuple(
            each if isinstance(each, wire.Recipient) else wire.Recipient(index, each) for index, each in enumerate(to)
        )
        return wire.Unit(ids.unit_id(message, 0), site, envelope, recipients)

    async def dispatch(
        self, unit: wire.Unit, way: wire.Route, attempt: int = 1, epoch: int = 1, again: bool = False, lane: int = 0
    ) -> wire.Dispatch:
        """Give the unit to a lane."""
        value = wire.Dispatch(unit, attempt, 0, epoch, self.egress.sources[0].name, way, again)
        await self.bus.append(topics.DISPATCH, lane, unit.unit_id, wire.encode(value))
        return value

    def results(self) -> list[wire.Result]:
        """All results so far."""
        return [wire.decode(wire.Result, r.value or b"") for r in self.log.records(topics.RESULT, 0)]

    async def result(self, count: int = 1, seconds: float = 15.0) -> wire.Result:
        """The last of `count` results, once they are there."""
        async with asyncio.timeout(seconds):
            while len(self.results()) < count:
                await asyncio.sleep(0.005)
        return self.results()[count - 1]

    async def send(self, way: wire.Route, changed: SenderSettings | None = None, **of_unit: object) -> wire.Result:
        """One unit through a sender of its own; its result."""
        async with self.running(changed):
            await self.dispatch(await self.unit(**of_unit), way)  # type: ignore[arg-type]
            return await self.result(len(self.results()) + 1)


def with_routes(
    *routes: RouteSettings, sources: Sequence[SourceSettings] = (SourceSettings(name="default"),)
) -> EgressSettings:
    """Egress settings with static routes."""
    base = egress(load(None, {}))
    return EgressSettings(
        sources=tuple(sources), pools=base.pools, routes=(*routes, *base.routes), streams=base.streams
    )
