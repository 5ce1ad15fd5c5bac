"""Accepting connections that begin with a PROXY header.

The header is peeked at and taken off the socket byte for byte before anything else reads it, so that what follows
(a greeting to wait for, a TLS handshake) begins exactly where it should.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

from mailfleet_ingest.decisions import proxy
from mailfleet_ingest.decisions.admission import Network, within

log = logging.getLogger(__name__)
HEADER_SECONDS = 5.0
MAX_UNREAD = 500
"""Connections whose header has not come; more are closed."""


class ProxiedServer:
    """A listening socket behind a proxy."""

    def __init__(
        self, sock: socket.socket, trusted: tuple[Network, ...], factory: Callable[[str], asyncio.Protocol]
    ) -> None:
        self._sock = sock
        self._trusted = trusted
        self._factory = factory
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.get_running_loop().create_task(self._accept(), name="proxied")

    def close(self) -> None:
        """Stop listening."""
        self._accepting.cancel()
        for task in self._tasks:
            task.cancel()
        self._sock.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, peer = await loop.sock_accept(self._sock)
            except OSError as error:
                log.error("cannot accept a connection: %s", error)
                await asyncio.sleep(0.1)
                continue
            if len(self._tasks) >= MAX_UNREAD or not within(peer[0].removeprefix("::ffff:"), self._trusted):
                connection.close()
                continue
            task = loop.create_task(self._hand_on(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _hand_on(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            header = await asyncio.wait_for(_header(connection), HEADER_SECONDS)
            client = header.client
            await asyncio.get_running_loop().connect_accepted_socket(lambda: self._factory(client), connection)
        except (proxy.BadProxyHeader, OSError, TimeoutError) as error:
            log.warning("connection without a PROXY header closed: %s", error)
            connection.close()


async def _header(connection: socket.socket) -> proxy.ProxyHeader:
    seen = 0
    while True:
        await _readable(connection)
        data = connection.recv(proxy.MAX_V2_OCTETS, socket.MSG_PEEK)
        header = proxy.parse(data)
        if header is not None:
            connection.recv(header.octets)
            return header
        if len(data) == seen:
            raise proxy.BadProxyHeader("it does not come")
        seen = len(data)
        # What was peeked at keeps the socket readable, so waiting for readability would spin.
        await asyncio.sleep(0.02)


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(connection, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(connection)
