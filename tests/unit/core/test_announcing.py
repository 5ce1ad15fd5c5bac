"""Where a process says that it answers."""

from __future__ import annotations

import asyncio
import socket

from aiohttp import web

from mailfleet_core import service
from mailfleet_core.bus import topics
from mailfleet_core.bus.memory import MemoryBus, MemoryLog
from mailfleet_core.clock import SystemClock
from mailfleet_core.model import wire
from mailfleet_core.service import Context
from mailfleet_core.settings import load


async def announced(http: str, given: str) -> str:
    log = MemoryLog()
    bus = MemoryBus(log, "router")
    runner = web.AppRunner(web.Application())
    await runner.setup()
    host, _, port = http.rpartition(":")
    await web.TCPSite(runner, host, int(port)).start()
    await service._announce(Context("router", "r-1", load(None, {}), bus, SystemClock()), runner, given)
    await runner.cleanup()
    (record,) = log.records(topics.CONTROL, 0)
    return wire.decode(wire.Member, record.value or b"").http.rpartition(":")[0]


def test_the_host_that_is_given_is_announced_whatever_it_listens_at() -> None:
    assert asyncio.run(announced("127.0.0.1:0", "10.1.2.3")) == "http://10.1.2.3"
    assert asyncio.run(announced("0.0.0.0:0", "fd00::7")) == "http://[fd00::7]"
    assert asyncio.run(announced("127.0.0.1:0", "")) == "http://127.0.0.1"


def test_who_listens_everywhere_announces_an_address_that_can_be_reached() -> None:
    def known(name: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        return [(0, 0, 0, "", (address, 0)) for address in ("127.0.1.1", "10.9.8.7")]

    assert service.own_address(known) == "10.9.8.7"


def test_a_name_that_nobody_knows_is_announced_itself() -> None:
    def unknown(*_: object, **__: object) -> list[tuple[object, ...]]:
        raise OSError

    assert service.own_address(unknown) == socket.gethostname()
