"""A router on the memory log, and a sender that answers as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from mailfleet_core.bus import topics
from mailfleet_core.bus.memory import MemoryBus, MemoryLog
from mailfleet_core.clock import SystemClock
from mailfleet_core.dns.port import DnsTemporary, MxAnswer
from mailfleet_core.model import ids, wire
from mailfleet_core.model.site import domain_of, partition_of
from mailfleet_core.service import Context
from mailfleet_core.settings import SettingsFile
from mailfleet_router.shell.service import Router

Answer = Callable[[wire.Dispatch], wire.Result]


class Dns:
    """MX answers by domain; unknown domains have an MX of their own."""

    def __init__(self) -> None:
        self.answers: dict[str, MxAnswer | DnsTemporary] = {}
        self.asked: list[str] = []

    async def mx(self, domain: str) -> MxAnswer:
        self.asked.append(domain)
        answer = self.answers.get(domain, MxAnswer("mx", ((10, f"mx.{domain}"),)))
        if isinstance(answer, DnsTemporary):
            raise answer
        return answer

    async def addresses(self, host: str) -> tuple[str, ...]:
        return ("192.0.2.1",)


def delivered(work: wire.Dispatch, verdict: str = wire.DELIVERED, code: int = 250, text: str = "ok") -> wire.Result:
    now = SystemClock.now()
    outcomes = tuple(
        wire.RecipientOutcome(r.index, verdict, code, {2: "2.0.0", 4: "4.2.0", 5: "5.1.1"}[code // 100], text, "dot")
        for r in work.unit.recipients
    )
    return wire.Result(
        work.unit.unit_id, work.unit.hop, work.attempt, wire.SETTLED, work.source, now - 0.1, now, outcomes,
        mx="mx.example.org", address="192.0.2.1",
    )  # fmt: skip


@dataclass
class Fleet:
    """Everything around the router."""

    memory: MemoryLog
    bus: MemoryBus
    dns: Dns
    router: Router
    answer: Answer = delivered
    dispatches: list[wire.Dispatch] = field(default_factory=list)
    _count: int = 0

    async def put(self, address: str = "a@example.org", site: str = "", **options: object) -> bytes:
        """Accept a mail as ingest does; the id of its unit."""
        self._count += 1
        message = ids.message_id(SystemClock.now(), self._count.to_bytes(10, "big"))
        content = b"Subject: test\r\nFrom: <s@example.net>\r\n\r\nbody\r\n"
        offset = await self.bus.append(topics.BODY, 0, message, content)
        now = SystemClock.now()
        fields: dict[str, object] = {
            "message_id": message, "reverse_path": "s@example.net", "tenant": "acme", "stream": "transactional",
            "pool": "default", "body": wire.BodyRef(0, (offset,), len(content)), "accepted_at": now,
            "expires_at": now + 3600, **options,
        }  # fmt: skip
        notify = int(fields.pop("notify", 0))  # type: ignore[call-overload]
        envelope = wire.Envelope(**fields)  # type: ignore[arg-type]
        site = site or f"mx.{domain_of(address)}"
        unit = wire.Unit(ids.unit_id(message, 0), site, envelope, (wire.Recipient(0, address, notify),))
        home = partition_of(site, self.bus.partitions(topics.QUEUE))
        await self.bus.append(topics.QUEUE, home, unit.unit_id, wire.encode(wire.Entry(unit)), topics.tag(topics.PUT))
        return unit.unit_id

    def events(self, unit: bytes | None = None) -> list[wire.Event]:
        """Events told, of one unit or all."""
        word = ids.text(unit) if unit else ""
        found = []
        for partition in range(self.bus.partitions(topics.EVENTS)):
            for record in self.memory.records(topics.EVENTS, partition):
                assert record.value is not None
                found += wire.told(record.value)
        return [event for event in found if not word or event.unit_id == word]

    def kinds(self, unit: bytes) -> list[str]:
        """Kinds of the events of a unit."""
        return [event.kind for event in self.events(unit)]

    def tags(self, unit: bytes) -> list[str]:
        """The records of a unit, as letters."""
        return [
            record.tag[:1].decode()
            for partition in range(self.bus.partitions(topics.QUEUE))
            for record in self.memory.records(topics.QUEUE, partition)
            if record.key == unit
        ]

    async def until(self, what: Callable[[], bool]) -> None:
        """Let everybody work until `what` holds."""
        async with asyncio.timeout(5):
            while not what():
                await asyncio.sleep(0.001)

    async def send(self, lane: int) -> None:
        """The sender of one lane."""
        async for batch in self.bus.tail(topics.DISPATCH, lane, 0):
            for record in batch:
                assert record.value is not None
                work = wire.decode(wire.Dispatch, record.value)
                self.dispatches.append(work)
                result = self.answer(work)
                self.bus.append(topics.RESULT, work.queue_partition, record.key, wire.encode(result))


@asynccontextmanager
async def fleet(raw: dict[str, object]) -> AsyncIterator[Fleet]:
    """A router that owns all four partitions, and a sender for each of four lanes."""
    memory = MemoryLog(4, 4)
    bus = MemoryBus(memory, "test")
    await bus.start()
    mine = MemoryBus(memory, "router")
    await mine.start()
    dns = Dns()
    context = Context("router", "r0", SettingsFile(raw, "test", {}), mine, SystemClock())
    router = Router(context, dns)
    await router.start()
    it = Fleet(memory, bus, dns, router)
    senders = [asyncio.create_task(it.send(lane)) for lane in range(4)]
    await it.until(lambda: len(router.owners) == 4 and router.ready)
    yield it
    await router.drain()
    for task in senders:
        task.cancel()
    await mine.close()
    await bus.close()
