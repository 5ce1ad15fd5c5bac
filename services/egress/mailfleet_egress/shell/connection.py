"""One client: its octets to the machine, the machine's events to sockets, then octets both ways."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Coroutine
from typing import cast

from mailfleet_core import metrics
from mailfleet_core.socks.connecting import source_socket
from mailfleet_core.socks.relay import Relay
from mailfleet_core.socks.wire import Code
from mailfleet_egress.decisions import rules
from mailfleet_egress.decisions.rules import Answer
from mailfleet_egress.decisions.session import Authenticate, Bind, Connect, Event, Refused, Session, State
from mailfleet_egress.shell.hub import Hub

log = logging.getLogger(__name__)
WRONG_PASSWORD_SECONDS = 1.0
"""Before it is said that a password is wrong."""
CLOSE_SECONDS = 5.0
"""How long a client may take to read why it was refused."""


class Connection(asyncio.Protocol):
    """From accept to the last octet. It holds one handshake message and what the client sent ahead with it."""

    def __init__(self, hub: Hub, client: str) -> None:
        self._hub = hub
        self._client = client
        self._session = Session(hub.users.any)
        self._transport: asyncio.Transport | None = None
        self._sock: socket.socket | None = None
        """Bound to the source, not connected yet."""
        self._relay: Relay | None = None
        self._source = ""
        self._counted = (0, 0)
        self._left = False
        self._until = hub.clock.monotonic() + hub.settings.handshake_seconds
        self._task: asyncio.Task[None] | None = None

    @property
    def open(self) -> bool:
        """Is it connected to a destination?"""
        return self._relay is not None

    # --- asyncio's callbacks -------------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)
        if self._hub.draining:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._session.state is not State.OVER:
            self._act(self._session.receive(data))

    def eof_received(self) -> bool:
        """See `asyncio.Protocol`: who says no more before it is connected has gone."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._transport = None
        if self._session.state not in (State.OVER, State.OPEN):
            self._hub.refuse("left", self._client)
        self.leave()

    # --- the handshake -------------------------------------------------------------------------------------------
    def _act(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Authenticate):
                self._authenticate(event)
            elif isinstance(event, Bind):
                self._bind(event)
            elif isinstance(event, Connect):
                self._connect(event)
            else:
                self._end(event)
        self._flush()

    def _authenticate(self, said: Authenticate) -> None:
        known = self._hub.users.at_once(said.user, said.password) if self._hub.users.any else True
        if known:
            self._act(self._session.authenticated(True))
        else:
            self._start(self._identify(said, known))

    async def _identify(self, said: Authenticate, known: bool | None) -> None:
        if known is None:
            known = await self._hub.users.identify(said.user, said.password)
        if not known:
            await asyncio.sleep(WRONG_PASSWORD_SECONDS)
        self._resume()
        self._act(self._session.authenticated(known))

    def _bind(self, wanted: Bind) -> None:
        answer = self._hub.rules.source(wanted.address)
        if not answer.code:
            try:
                self._sock = source_socket(wanted.address)
            except OSError as error:
                answer = rules.binding(error.errno)
                log.warning("cannot bind", extra={"source": wanted.address, "error": error.strerror})
        if not answer.code:
            self._source = wanted.address
            self._until = self._hub.clock.monotonic() + self._hub.settings.request_seconds
        self._act(self._session.bound(answer.code, answer.reason, wanted.address))

    def _connect(self, wanted: Connect) -> None:
        answer = self._hub.rules.destination(self._source, wanted.address, wanted.port)
        if answer.code:
            self._act(self._session.connected(*answer))
        else:
            self._until = float("inf")
            self._start(self._connect_to(wanted))

    async def _connect_to(self, wanted: Connect) -> None:
        sock, began_at = self._sock, self._hub.clock.monotonic()
        assert sock is not None
        answer = rules.DONE
        try:
            async with asyncio.timeout(self._hub.settings.connect_seconds):
                await asyncio.get_running_loop().sock_connect(sock, (wanted.address, wanted.port))
        except TimeoutError:
            answer = rules.TIMED_OUT
        except OSError as error:
            answer = rules.connecting(error.errno)
        metrics.EGRESS_CONNECT_SECONDS.observe(self._hub.clock.monotonic() - began_at)
        if answer.code or self._transport is None:
            self._failed(answer)
            return
        mine = sock.getsockname()
        self._act(self._session.connected(Code.DONE, "", mine[0], mine[1]))
        await self._join(sock)

    def _failed(self, answer: Answer) -> None:
        metrics.EGRESS_CONNECT_FAILURES.labels(self._source, answer.reason or "left").inc()
        if self._transport is not None:
            self._act(self._session.connected(*answer))

    async def _join(self, sock: socket.socket) -> None:
        """From here on octets go both ways."""
        transport = self._transport
        assert transport is not None
        relay = self._relay = Relay(self._hub.clock.monotonic, self.leave)
        metrics.EGRESS_OPENED.labels(self._source).inc()
        metrics.EGRESS_CONNECTIONS.labels(self._source).inc()
        # First, for mail servers speak as soon as there is a connection; the client is not read before it stands.
        relay.left.adopt(transport)
        try:
            there, _ = await asyncio.get_running_loop().create_connection(lambda: relay.right, sock=sock)
        except OSError:
            transport.abort()
            return
        self._sock = None
        if relay.left.transport is None:
            there.abort()
            return
        if rest := self._session.rest():
            relay.left.data_received(rest)
        self._resume()

    # --- pieces --------------------------------------------------------------------------------------------------
    def _end(self, refused: Refused) -> None:
        more = {"user": self._session.user, "source": self._source}
        self._hub.refuse(refused.reason, self._client, **{key: value for key, value in more.items() if value})
        self._flush()
        self._until = self._hub.clock.monotonic() + CLOSE_SECONDS
        if self._transport is not None:
            self._transport.close()

    def _flush(self) -> None:
        out = self._session.output()
        if out and self._transport is not None and not self._transport.is_closing():
            self._transport.write(out)

    def _start(self, work: Coroutine[None, None, None]) -> None:
        """Do something that takes time; nothing is read meanwhile."""
        if self._transport is not None:
            self._transport.pause_reading()
        self._task = asyncio.get_running_loop().create_task(work)

    def _resume(self) -> None:
        transport = self._transport
        if transport is not None and not transport.is_closing():
            transport.resume_reading()

    # --- time and the end ----------------------------------------------------------------------------------------
    def look(self, now: float) -> None:
        """Once a second: end it when it takes too long."""
        if self._relay is None:
            if now >= self._until:
                self._hub.refuse("slow", self._client)
                self.abort()
            return
        settings, moved_at = self._hub.settings, self._relay.moved_at
        half_closed = self._relay.half_closed_at
        if now - moved_at >= settings.idle_seconds:
            self._hub.refuse("idle", self._client, source=self._source)
            self.abort()
        elif half_closed and now - max(moved_at, half_closed) >= settings.half_close_seconds:
            self._hub.refuse("half_closed", self._client, source=self._source)
            self.abort()

    def count(self) -> None:
        """Add what was moved since the last time."""
        if self._relay is not None:
            moved = (self._relay.left.octets, self._relay.right.octets)
            self._hub.octets[self._source, "out"] += moved[0] - self._counted[0]
            self._hub.octets[self._source, "in"] += moved[1] - self._counted[1]
            self._counted = moved

    def abort(self) -> None:
        """End it now."""
        if self._relay is not None:
            self._relay.abort()
        elif self._transport is not None:
            self._transport.abort()

    def leave(self) -> None:
        """It is over. Said twice it changes nothing."""
        if self._left:
            return
        self._left = True
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        if self._sock is not None:
            self._sock.close()
        if self._relay is not None:
            self.count()
            metrics.EGRESS_CONNECTIONS.labels(self._source).dec()
        self._hub.connections.discard(self)
        self._hub.doorman.leave(self._client)
        self._hub.changed.set()
