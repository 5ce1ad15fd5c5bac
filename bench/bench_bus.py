"""What one append, one read and one tailed record cost on a bus: µs of CPU of this process, and rates.

python bench/bench_bus.py embedded DIRECTORY | kafka HOST:PORT
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Awaitable, Callable

import uvloop

from mailfleet_core.bus.opening import open_bus
from mailfleet_core.bus.port import Bus
from mailfleet_core.bus.topics import BODY, QUEUE
from mailfleet_core.settings import BusSettings

PARTITIONS = 8


async def measured(what: str, count: int, work: Callable[[], Awaitable[None]]) -> None:
    began, cpu = time.perf_counter(), time.process_time()
    await work()
    seconds, used = time.perf_counter() - began, time.process_time() - cpu
    print(f"{what:44} {count / seconds:9.0f}/s {used / count * 1e6:8.0f} µs CPU")


async def appends(bus: Bus, topic: str, size: int, count: int, sessions: int) -> list[tuple[int, int]]:
    places: list[tuple[int, int]] = []

    async def session(number: int) -> None:
        for index in range(count // sessions):
            partition = (number + index) % PARTITIONS
            places.append((partition, await bus.append(topic, partition, b"key", random.randbytes(size), b"P" * 9)))

    async def all_sessions() -> None:
        await asyncio.gather(*[session(number) for number in range(sessions)])

    await measured(f"append {size} B, {sessions} sessions", count // sessions * sessions, all_sessions)
    return places


async def reads(bus: Bus, places: list[tuple[int, int]], size: int, at_once: int) -> None:
    random.shuffle(places)
    left = iter(places)

    async def reader() -> None:
        for partition, offset in left:
            await bus.read(BODY, partition, offset, size)

    async def readers() -> None:
        await asyncio.gather(*[reader() for _ in range(at_once)])

    await measured(f"read {size} B at an offset, {at_once} at once", len(places), readers)


async def tails(bus: Bus, topic: str) -> None:
    seen = 0

    async def one(partition: int) -> None:
        nonlocal seen
        end = await bus.end(topic, partition)
        async for batch in bus.tail(topic, partition, 0):
            seen += len(batch)
            if batch[-1].offset + 1 >= end:
                return

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*[one(partition) for partition in range(PARTITIONS)])
    seconds, used = time.perf_counter() - began, time.process_time() - cpu
    print(f"{'tail ' + topic:44} {seen / seconds:9.0f}/s {used / seen * 1e6:8.0f} µs CPU")


async def idle(bus: Bus) -> None:
    ends = [await bus.end(QUEUE, partition) for partition in range(PARTITIONS)]
    open_tails = [asyncio.ensure_future(anext(bus.tail(QUEUE, at, end))) for at, end in enumerate(ends)]
    await asyncio.sleep(2)
    cpu = time.process_time()
    await asyncio.sleep(5)
    print(f"{'idle, ' + str(PARTITIONS) + ' tails':44} {(time.process_time() - cpu) / 5 * 100:9.2f} % of a core")
    for task in open_tails:
        task.cancel()


async def main(kind: str, where: str) -> None:
    lies = (
        {"directory": where} if kind == "embedded" else {"bootstrap": where, "topic_prefix": f"bench{time.time_ns()}."}
    )
    bus = open_bus(BusSettings(kind=kind, queue_partitions=PARTITIONS, lanes=2, **lies), "bench")
    await bus.start()
    await appends(bus, QUEUE, 600, 2_000, 100)
    await appends(bus, QUEUE, 600, 20_000, 500)
    await appends(bus, QUEUE, 600, 200, 1)
    await tails(bus, QUEUE)
    for sessions in (1, 20, 100):
        places = await appends(bus, BODY, 75_000, min(2_000, 200 * sessions), sessions)
        await reads(bus, places, 75_000, 1)
        await reads(bus, places, 75_000, 16)
    await tails(bus, BODY)
    await idle(bus)
    await bus.close()


if __name__ == "__main__":
    sys.setswitchinterval(0.0005)
    uvloop.run(main(*sys.argv[1:]))
