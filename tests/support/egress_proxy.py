"""The egress proxy on loopback, in this process; and servers that tell who they see."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from mailfleet_core.clock import SystemClock
from mailfleet_core.service import Alone
from mailfleet_core.settings import SettingsFile
from mailfleet_core.socks import wire
from mailfleet_egress.settings import EgressProxySettings, check
from mailfleet_egress.shell.service import EgressProxy

HERE, UNPLUMBED = "127.0.0.7", "203.0.113.99"
GREETING = b"\x05\x01\x00"

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def egress_proxy(**changes: Any) -> AsyncIterator[EgressProxy]:
    """A running one; from HERE it connects to any port of loopback that `ports` names."""
    fields: dict[str, Any] = {"port": 0, "addresses": (HERE, UNPLUMBED), "allowed_inside": ("127.0.0.0/8",)}
    settings = EgressProxySettings(**(fields | {"drain_seconds": 1.0} | changes))
    check(settings)
    proxy = EgressProxy(Alone("egress", "test", SettingsFile({}, "test", {}), SystemClock()), settings)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.drain()


@asynccontextmanager
async def server(handler: Handler) -> AsyncIterator[int]:
    """A TCP server on loopback; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield int(listening.sockets[0].getsockname()[1])
    finally:
        listening.close()


class Client:
    """A client that says what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def of(cls, proxy: EgressProxy, **options: Any) -> Client:
        """Connected to `proxy`."""
        return cls(*await asyncio.open_connection("127.0.0.1", proxy.port, **options))

    async def ask(self, said: bytes, octets: int) -> bytes:
        """So many octets of the answer; fewer when the connection ends before."""
        self.writer.write(said)
        try:
            async with asyncio.timeout(5):
                return await self.reader.readexactly(octets)
        except asyncio.IncompleteReadError as ended:
            return ended.partial
        except ConnectionError:
            return b""

    async def bind(self, source: str = HERE) -> int:
        """The code of the reply."""
        assert await self.ask(GREETING, 2) == b"\x05\x00"
        return (await self.ask(wire.message(wire.BIND, source), 10))[1]

    async def connect(self, port: int, address: str = "127.0.0.1") -> int:
        """The code of the reply."""
        said = wire.message(wire.CONNECT, address, port)
        return (await self.ask(said, 10))[1]

    async def ended(self, seconds: float = 5.0) -> bool:
        """Does the proxy close the connection?"""
        try:
            async with asyncio.timeout(seconds):
                return await self.reader.read() == b""
        except TimeoutError:
            return False
        except ConnectionError:
            return True

    def close(self) -> None:
        """Be gone."""
        self.writer.close()


async def open_to(proxy: EgressProxy, port: int, source: str = HERE) -> Client:
    """A client whose connection to `port` has come about."""
    client = await Client.of(proxy)
    assert await client.bind(source) == 0
    assert await client.connect(port) == 0
    return client


async def until(what: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait until `what()` holds."""
    async with asyncio.timeout(seconds):
        while not what():
            await asyncio.sleep(0.01)
