"""A socket connected from a given source address: directly, or through an egress proxy."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from mailfleet_core.socks.client import Client, ProxyFailed, Stage
from mailfleet_core.socks.proxy import Proxy

IP_BIND_ADDRESS_NO_PORT = 24
"""Linux: the port is chosen when it is known where to, so that a source is not limited to one set of ports in all. Python
has no name for it."""
CHUNK_BYTES = 64 << 10

Turn = Callable[[], Awaitable[None]]
"""Returns when a connection to the destination may be opened; it is opened at once then."""
FAILURES = (OSError, TimeoutError, ValueError, ProxyFailed)
_pumps: set[asyncio.Task[None]] = set()


async def at_once() -> None:
    """The turn of who need not wait."""


@dataclass(frozen=True, slots=True)
class Door:
    """An egress proxy and how to get through it."""

    proxy: Proxy
    password: str = ""
    context: ssl.SSLContext | None = None
    """Of a proxy with TLS."""
    reach_seconds: float = 10.0
    """Longest until the proxy has taken the source."""
    connect_seconds: float = 30.0
    """Longest from there until it is connected to the destination."""

    async def connected(self, source: str, address: str, port: int, turn: Turn = at_once) -> socket.socket:
        """A socket connected to `address` from `source`. Raises ProxyFailed."""
        line = await self._bound(source)
        try:
            await turn()
            async with asyncio.timeout(self.connect_seconds):
                await line.say(line.client.connect(address, port))
                await line.converse(Stage.OPEN)
            return line.handed_over()
        except FAILURES as error:
            line.close()
            raise _told(error, Stage.CONNECT) from error
        except BaseException:
            line.close()
            raise

    async def try_source(self, source: str) -> None:
        """See whether the proxy takes the source, and go no further. Raises ProxyFailed."""
        (await self._bound(source)).close()

    async def _bound(self, source: str) -> _Line:
        """A conversation in which the proxy has taken the source: the first of all its addresses where that succeeds."""
        try:
            async with asyncio.timeout(self.reach_seconds):
                addresses = await _addresses(self.proxy)
        except (OSError, TimeoutError) as error:
            raise _told(error, Stage.REACH) from error
        failure = ProxyFailed(Stage.REACH, "its name has no address")
        for address in addresses:
            line = _Line(self, Client(source, self.proxy.user, self.password))
            try:
                async with asyncio.timeout(self.reach_seconds):
                    await line.open(address)
                    await line.say(line.client.greeting)
                    await line.converse(Stage.CONNECT)
                return line
            except FAILURES as error:
                line.close()
                failure = max(failure, _told(error, line.client.stage), key=lambda each: each.stage)
            except BaseException:
                line.close()
                raise
        raise failure


class _Line:
    """A connection to a proxy while we talk with it."""

    def __init__(self, door: Door, client: Client) -> None:
        self.client = client
        self._door = door
        self._sock: socket.socket | None = None
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def open(self, address: tuple[int, tuple[str, int]]) -> None:
        family, there = address
        sock = self._sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, there)
        if self._door.proxy.tls:
            name = self._door.proxy.host
            self._streams = await asyncio.open_connection(sock=sock, ssl=self._door.context, server_hostname=name)
            self._sock = None

    async def say(self, data: bytes) -> None:
        if self._streams is not None:
            self._streams[1].write(data)
            await self._streams[1].drain()
        elif self._sock is not None:
            await asyncio.get_running_loop().sock_sendall(self._sock, data)

    async def converse(self, until: Stage) -> None:
        """Answer the proxy until the conversation has come so far."""
        while self.client.stage < until:
            data = await self._hear(self.client.needs)
            if not data:
                raise ProxyFailed(self.client.stage, "it closed the connection")
            if send := self.client.receive(data):
                await self.say(send)

    async def _hear(self, octets: int) -> bytes:
        if self._streams is not None:
            return await self._streams[0].read(octets)
        assert self._sock is not None
        return await asyncio.get_running_loop().sock_recv(self._sock, octets)

    def handed_over(self) -> socket.socket:
        """The socket on which the destination speaks from now on."""
        if self._streams is None:
            assert self._sock is not None
            return self._sock
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setblocking(False)
        task = asyncio.get_running_loop().create_task(_pump_both(theirs, *self._streams))
        _pumps.add(task)
        task.add_done_callback(_pumps.discard)
        return ours

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
        elif self._sock is not None:
            self._sock.close()


async def _pump_both(sock: socket.socket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Between a socket that speaks clear and a stream with TLS, until one of them ends."""
    near, near_writer = await asyncio.open_connection(sock=sock)
    ways = {asyncio.ensure_future(_pump(near, writer)), asyncio.ensure_future(_pump(reader, near_writer))}
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        writer.close()
        near_writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()


def _told(error: Exception, stage: Stage) -> ProxyFailed:
    """One of FAILURES as a failure of the proxy."""
    if isinstance(error, ProxyFailed):
        return error
    if isinstance(error, TimeoutError):
        return ProxyFailed(stage, "no answer in time", silent=True)
    return ProxyFailed(stage, (error.strerror if isinstance(error, OSError) else None) or str(error))


async def _addresses(proxy: Proxy) -> list[tuple[int, tuple[str, int]]]:
    """Where the proxy may be, as the system's resolver says: it is a name of the network we live in, not one of mail."""
    found = await asyncio.get_running_loop().getaddrinfo(proxy.host, proxy.port, type=socket.SOCK_STREAM)
    return [(family, (str(there[0]), int(there[1]))) for family, _, _, _, there in found]


def source_socket(source: str, family: int = 0) -> socket.socket:
    """A socket that will connect from `source`; with an empty one, from where the system likes, in `family`.

    Raises OSError: EADDRNOTAVAIL when the address is not on this machine. IP_FREEBIND, which would hide that, is not used.
    """
    if source:
        family = socket.AF_INET6 if ":" in source else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if source:
            sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((source, 0))
    except BaseException:
        sock.close()
        raise
    return sock
