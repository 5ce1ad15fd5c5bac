"""Receiving servers that follow scripts, each the MX of one domain, and the DNS that leads to them; in a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from support import addresses
from support.dns_server import DnsServer
from support.scripted_mx import ScriptedMx


@dataclass(frozen=True, slots=True)
class ScriptedTown:
    """Everything outside of Mailfleet."""

    mx: Mapping[str, ScriptedMx]
    """By domain."""
    dns: DnsServer
    port: int

    @property
    def settings(self) -> dict[str, Any]:
        """What makes a fleet use it; over the settings that tests share."""
        return {
            "dns": {"nameservers": [f"127.0.0.1:{self.dns.port}"], "timeout_seconds": 3.0},
            "route": [{"name": "all", "domains": ["*"], "kind": "mx", "port": self.port, "tls": "off"}],
        }


@contextmanager
def scripted_town(mx: Mapping[str, ScriptedMx]) -> Iterator[ScriptedTown]:
    """Start all of it: `mx.DOMAIN` is the MX of DOMAIN, at an address of its own."""
    port = addresses.free_port()
    zone: dict[tuple[str, str], tuple[int, list[str]]] = {}
    for domain, server in mx.items():
        server.host, server.port = addresses.loopback(), port
        zone[domain, "MX"] = (60, [f"10 mx.{domain}."])
        zone[f"mx.{domain}", "A"] = (60, [server.host])
    town = ScriptedTown(mx, DnsServer(zone), port)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    stack = AsyncExitStack()
    try:
        asyncio.run_coroutine_threadsafe(_start(town, stack), loop).result(20)
        yield town
    finally:
        asyncio.run_coroutine_threadsafe(stack.aclose(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()


async def _start(town: ScriptedTown, stack: AsyncExitStack) -> None:
    for server in (*town.mx.values(), town.dns):
        await stack.enter_async_context(server)
