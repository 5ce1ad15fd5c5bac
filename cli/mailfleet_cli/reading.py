"""Reading the log from outside: everything a topic holds now, and what the routers know."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from mailfleet_core.bus import topics
from mailfleet_core.bus.opening import open_bus
from mailfleet_core.bus.port import Bus, BusUnavailable, Record
from mailfleet_core.model import wire
from mailfleet_core.settings import BusSettings, SettingsFile

HOLE_SECONDS = {topics.CONTROL: 3.0}
LONGEST_HOLE_SECONDS = 20.0
"""The end is known by its offset. Only where the last records of all are gone (a tombstone after compaction, events past
their retention) it is known by silence, so long that a busy log is not taken for a silent one and a story cut short."""
PAGE_SECONDS = 5.0

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's I/O."""
    return asyncio.run(work)


@asynccontextmanager
async def opened(file: SettingsFile) -> AsyncIterator[Bus]:
    """The bus of the settings, started. Raises BusUnavailable."""
    bus_settings = file.section("bus", BusSettings)
    if bus_settings.kind == "embedded":
        await _knock(Path(bus_settings.directory) / "log.sock")
    bus = open_bus(bus_settings, "mailfleet-cli")
    try:
        await bus.start()
        yield bus
    finally:
        await bus.close()


async def _knock(path: Path) -> None:
    # Services wait some time for the log to come up; a person should be told at once.
    try:
        _, writer = await asyncio.open_unix_connection(path)
    except OSError as error:
        raise BusUnavailable(f"{path}: {error.strerror}") from error
    writer.close()


async def everything(bus: Bus, topic: str, take: Callable[[Record], None]) -> None:
    """Give `take` all records that `topic` holds now, in order within each partition."""
    await asyncio.gather(*(_partition(bus, topic, number, take) for number in range(bus.partitions(topic))))


async def _partition(bus: Bus, topic: str, partition: int, take: Callable[[Record], None]) -> None:
    async for batch in records(bus, topic, partition):
        for record in batch:
            take(record)


async def records(
    bus: Bus, topic: str, partition: int, start: int = 0, end: int | None = None
) -> AsyncGenerator[list[Record], None]:
    """The records of a partition from an offset to its end, or to what its end is now, in order."""
    end = await bus.end(topic, partition) if end is None else end
    if end <= start:
        return
    tail = bus.tail(topic, partition, start)
    try:
        while True:
            batch = await asyncio.wait_for(anext(tail), HOLE_SECONDS.get(topic, LONGEST_HOLE_SECONDS))
            yield batch
            if batch and batch[-1].offset + 1 >= end:
                break
    except (TimeoutError, StopAsyncIteration):
        pass
    finally:
        with contextlib.suppress(Exception):
            await tail.aclose()  # type: ignore[attr-defined]


async def control(bus: Bus) -> dict[bytes, bytes]:
    """The newest value of every key in `mail.control` that has one."""
    found: dict[bytes, bytes] = {}

    def take(record: Record) -> None:
        if record.value is None:
            found.pop(record.key, None)
        else:
            found[record.key] = record.value

    await everything(bus, topics.CONTROL, take)
    return found


def members(records: dict[bytes, bytes], service: str) -> list[wire.Member]:
    """The processes of `service` that announced themselves; some may be gone."""
    prefix = f"member|{service}|".encode()
    return [wire.decode(wire.Member, value) for key, value in records.items() if key.startswith(prefix)]


async def ask(routers: list[wire.Member], path: str) -> list[Any]:
    """The JSON answers of those routers that give one."""
    answers = await asyncio.gather(*(page(router.http + path) for router in routers))
    return [msgspec.json.decode(answer) for answer in answers if answer is not None]


async def page(url: str) -> bytes | None:
    """The page at an `http:` URL; None when nobody gives one in time. An HTTP library would take half a second to load."""
    to = urlsplit(url)
    asked = f"GET {to.path}{'?' + to.query if to.query else ''} HTTP/1.0\r\nHost: {to.netloc}\r\n\r\n"
    try:
        async with asyncio.timeout(PAGE_SECONDS):
            reader, writer = await asyncio.open_connection(to.hostname, to.port or 80)
            try:
                writer.write(asked.encode())
                head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return None
    return body if head.split(b" ", 2)[1:2] == [b"200"] else None
