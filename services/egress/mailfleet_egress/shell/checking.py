"""`mailfleet_egress check`: a listener outside, which tells every client the address it came from."""

from __future__ import annotations

import asyncio
import logging

from mailfleet_core.socks.seen import answer

log = logging.getLogger(__name__)
CLOSE_SECONDS = 5.0
"""How long a client may take to read one line."""


class Teller(asyncio.Protocol):
    """One client: it is told, and that is all."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)
        peer = transport.get_extra_info("peername")
        transport.write(answer(str(peer[0])))
        transport.close()
        asyncio.get_running_loop().call_later(CLOSE_SECONDS, transport.abort)
        log.info("told", extra={"peer": str(peer[0])})


async def listen(listen_on: str) -> asyncio.Server:
    """The listener at `address:port`. Raises OSError, ValueError."""
    host, _, port = listen_on.rpartition(":")
    server = await asyncio.get_running_loop().create_server(Teller, host.strip("[]") or None, int(port), backlog=1024)
    log.info("listening", extra={"address": host, "port": server.sockets[0].getsockname()[1]})
    return server


async def serve(listen_on: str) -> None:
    """Listen until the process is ended."""
    server = await listen(listen_on)
    await server.serve_forever()
