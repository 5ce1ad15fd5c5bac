"""CPU of the router per mail, on the memory log: N mails are put in, every dispatch is answered at once.

`python bench/bench_router.py [mails] [sites] [--profile]`. What the log's own work costs is measured by appending and tailing the
same number of records without a router, and printed beside.
"""

from __future__ import annotations

import asyncio
import cProfile
import pstats
import sys
import time
import tracemalloc

import uvloop

from mailfleet_core.bus import topics
from mailfleet_core.bus.memory import MemoryBus, MemoryLog
from mailfleet_core.clock import SystemClock
from mailfleet_core.dns.port import MxAnswer
from mailfleet_core.model import ids, wire
from mailfleet_core.model.site import partition_of, site_name
from mailfleet_core.service import Context
from mailfleet_core.settings import SettingsFile
from mailfleet_router.shell.service import Router

SETTINGS = {"router": {"audit": False}, "route": [{"name": "", "site_window": 2000}]}


class Dns:
    async def mx(self, domain: str) -> MxAnswer:
        return MxAnswer("mx", ((10, f"mx.{domain}"),))

    async def addresses(self, host: str) -> tuple[str, ...]:
        return ()


def mails(count: int, sites: int) -> list[tuple[int, bytes, bytes]]:
    now, made = time.time(), []
    for number in range(count):
        domain = f"d{number % sites}.example"
        message = ids.message_id(now, number.to_bytes(10, "big"))
        envelope = wire.Envelope(
            message_id=message, reverse_path="bounces+123456@mail.customer.example", tenant="acme",
            stream="transactional", pool="default", body=wire.BodyRef(number % 4, (number * 5000,), 4096),
            accepted_at=now, expires_at=now + 432000, header_message_id="<0123456789abcdef@mail.customer.example>",
            client="192.0.2.17",
        )  # fmt: skip
        site = site_name([f"mx.{domain}"])
        recipient = wire.Recipient(0, f"some.body{number}@{domain}")
        unit = wire.Unit(ids.unit_id(message, 0), site, envelope, (recipient,))
        made.append((partition_of(site, 4), unit.unit_id, wire.encode(wire.Entry(unit))))
    return made


async def answer(bus: MemoryBus, lane: int, spent: list[float]) -> None:
    async for batch in bus.tail(topics.DISPATCH, lane, 0):
        began = time.thread_time()
        for record in batch:
            work = wire.decode(wire.Dispatch, record.value or b"")
            now = time.time()
            outcome = (wire.RecipientOutcome(0, wire.DELIVERED, 250, "2.0.0", "2.0.0 Ok: queued as 4F6C21A0B3", "dot"),)
            result = wire.Result(
                record.key, 0, work.attempt, wire.SETTLED, work.source, now, now, outcome, "mx.example", "192.0.2.1",
                "TLSv1.3 TLS_AES_256_GCM_SHA384",
            )  # fmt: skip
            bus.append(topics.RESULT, work.queue_partition, record.key, wire.encode(result), topics.tag(topics.PUT))
        spent.append(time.thread_time() - began)


async def measure(count: int, sites: int, profiler: cProfile.Profile | None) -> None:
    memory = MemoryLog(4, 1)
    bus, mine = MemoryBus(memory, "world"), MemoryBus(memory, "router")
    await bus.start()
    await mine.start()
    router = Router(Context("router", "bench", SettingsFile(SETTINGS, "bench", {}), mine, SystemClock()), Dns())
    await router.start()
    while not (len(router.owners) == 4 and router.ready):
        await asyncio.sleep(0.01)
    spent: list[float] = []
    sender = asyncio.create_task(answer(bus, 0, spent))
    work = mails(count, sites)
    if profiler:
        profiler.enable()
    began, wall, loading = time.process_time(), time.perf_counter(), 0.0
    for start in range(0, count, 200):
        before = time.thread_time()
        for home, key, value in work[start : start + 200]:
            bus.append(topics.QUEUE, home, key, value, topics.tag(topics.PUT))
        loading += time.thread_time() - before
        await asyncio.sleep(0.002)
        while sum(len(o.partition.ledger.units) for o in router.owners.values() if o.partition) > 3000:
            await asyncio.sleep(0.002)
    while any(owner.partition and owner.partition.ledger.units for owner in router.owners.values()):
        await asyncio.sleep(0.005)
    cpu, wall = time.process_time() - began - loading - sum(spent), time.perf_counter() - wall
    if profiler:
        profiler.disable()
    told = sum(len(wire.told(r.value or b"")) for n in range(4)
               for r in memory.records(topics.EVENTS, n))  # fmt: skip
    appended = sum(len(memory.records(t, n)) for t in (topics.QUEUE, topics.EVENTS) for n in range(4))
    print(
        f"{count} mails, {sites} sites: router {cpu / count * 1e6:.0f} µs CPU a mail with the memory log's own work, "
        f"{count / wall:.0f} mails/s, {told / count:.1f} events and {appended / count:.2f} queue and event records a mail"
    )
    sender.cancel()
    await router.drain()


async def log_alone(count: int) -> None:
    """The memory log's share: five records a mail are appended, and the four that the router reads are read."""
    memory = MemoryLog(4, 1)
    bus = MemoryBus(memory, "world")
    await bus.start()
    value, began = b"x" * 350, time.process_time()

    async def read(partition: int) -> None:
        seen = 0
        async for batch in bus.tail(topics.QUEUE, partition, 0):
            seen += len(batch)
            if seen >= count:
                return

    readers = [asyncio.create_task(read(partition)) for partition in range(4)]
    for number in range(count * 4):
        bus.append(topics.QUEUE, number % 4, b"k" * 18, value).add_done_callback(lambda _: None)
        if number % 800 == 0:
            await asyncio.sleep(0)
    await asyncio.gather(*readers)
    print(f"the memory log alone: {(time.process_time() - began) / count * 1e6:.0f} µs a mail (4 records)")


def memory_per_unit(count: int = 20_000) -> None:
    from mailfleet_router.decisions.partition import Partition
    from mailfleet_router.decisions.policy import Policy
    from mailfleet_router.decisions.routing import Routing
    from mailfleet_router.decisions.shaping.control import Controls

    policy = Policy()
    work = mails(count, 500)
    tracemalloc.start()
    partition = Partition(0, 1, policy, Routing(policy), Controls())
    partition.claimed(1, 0)
    partition.fold([(1, b"!epoch", topics.tag(topics.CLAIM), b"")], 0.0)
    partition.restore(0.0)
    partition.resume(0.0)
    for at, (_, key, value) in enumerate(work, 2):
        partition.fold([(at, bytes(bytearray(key)), topics.tag(topics.PUT), bytes(bytearray(value)))], 0.0)
        partition.take()
    print(f"{tracemalloc.get_traced_memory()[0] / count:.0f} bytes a queued unit")
    tracemalloc.stop()


if __name__ == "__main__":
    sys.setswitchinterval(0.0005)
    words = [word for word in sys.argv[1:] if word.isdigit()]
    n, s = int(words[0]) if words else 20_000, int(words[1]) if len(words) > 1 else 50
    prof = cProfile.Profile() if "--profile" in sys.argv else None
    uvloop.run(measure(n, s, prof))
    uvloop.run(log_alone(n))
    memory_per_unit()
    if prof:
        pstats.Stats(prof).sort_stats("tottime").print_stats(32)
