"""Accepting connections that begin with something before SMTP: a PROXY header, a TLS handshake, or both.

Who has not got past that is counted and timed like everybody else. The PROXY header is peeked at and taken off the
socket to the byte, so that what follows it (a handshake, or a greeting to wait for) begins exactly where it should.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl

from mailfleet_ingest.decisions import proxy
from mailfleet_ingest.decisions.admission import Network, within
from mailfleet_ingest.shell.connection import HANDSHAKE_SECONDS, Connection
from mailfleet_ingest.shell.hub import Hub, Listener

log = logging.getLogger(__name__)
HEADER_SECONDS = 5.0
MAX_BEGINNING = 500
"""Connections on their way to the greeting; more are closed."""


class CarefulServer:
    """A listening socket whose connections do not begin with SMTP."""

    def __init__(self, sock: socket.socket, proxies: tuple[Network, ...] | None, hub: Hub, listener: Listener) -> None:
        self._sock = sock
        self._proxies = proxies
        """None: no PROXY header comes."""
        self._hub = hub
        self._listener = listener
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.get_running_loop().create_task(self._accept(), name="accept")

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
            if not self._welcome(peer[0].removeprefix("::ffff:")):
                connection.close()
                continue
            task = loop.create_task(self._hand_on(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _welcome(self, peer: str) -> bool:
        return len(self._tasks) < MAX_BEGINNING and (self._proxies is None or within(peer, self._proxies))

    async def _hand_on(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        certificates = self._listener.certificates if self._listener.implicit_tls else None
        try:
            client = await asyncio.wait_for(_client(connection), HEADER_SECONDS) if self._proxies is not None else ""
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: Connection(self._hub, self._listener, client),
                connection,
                ssl=certificates.context() if certificates is not None else None,
                ssl_handshake_timeout=HANDSHAKE_SECONDS if certificates is not None else None,
            )
        except (proxy.BadProxyHeader, OSError, ssl.SSLError) as error:
            log.info("connection closed before it began: %s", error, extra={"listener": self._listener.label})
            connection.close()
        except asyncio.CancelledError:
            connection.close()
            raise


async def _client(connection: socket.socket) -> str:
    """The client that the PROXY header names."""
    seen = 0
    while True:
        await _readable(connection)
        data = connection.recv(proxy.MAX_V2_OCTETS, socket.MSG_PEEK)
        header = proxy.parse(data)
        if header is not None:
            connection.recv(header.octets)
            return header.client
        if len(data) == seen:
            raise proxy.BadProxyHeader("the PROXY header does not come")
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
