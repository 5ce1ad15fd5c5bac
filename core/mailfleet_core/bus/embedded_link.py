"""The client's connection to the log process: made again whenever it breaks."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from mailfleet_core.bus import embedded_wire as wire
from mailfleet_core.bus.port import BusUnavailable

log = logging.getLogger(__name__)

RETRY_SECONDS = 0.1


class _Gone(ConnectionError):
    """The connection broke before the answer came."""


class _Protocol(wire.Frames):
    def __init__(self, made: Callable[[], None], frame: Callable[[int, bytes], None], lost: Callable[[], None]) -> None:
        super().__init__()
        self._made = made
        self._frame = frame
        self._lost = lost

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._made()

    def frame(self, kind: int, body: bytes) -> None:
        self._frame(kind, body)

    def connection_lost(self, error: Exception | None) -> None:
        self._lost()


class Link:
    """Frames to and from the log, questions with answers, and a new connection when one breaks.

    `on_frame` gets what is no answer; `on_connected` runs on every new connection, before anything waits for it.
    """

    def __init__(
        self,
        directory: Path,
        patience: float,
        on_frame: Callable[[int, bytes], None],
        on_connected: Callable[[], Awaitable[None]],
        on_lost: Callable[[], None],
    ) -> None:
        self.connected = asyncio.Event()
        self._directory = directory
        self._patience = patience
        self._on_frame = on_frame
        self._on_connected = on_connected
        self._on_lost = on_lost
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._transport: asyncio.Transport | None = None
        self._broken = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    async def open(self, seconds: float) -> None:
        """Connect for the first time. Raises BusUnavailable."""
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            try:
                await self._connect()
                break
            except OSError as error:
                if asyncio.get_running_loop().time() > deadline:
                    raise BusUnavailable(
                        f"no log process answers at {self._directory / wire.SOCKET} ({error.strerror or error}); start one with "
                        f"`mailfleet run`, or `python -m mailfleet_core.bus.logd --directory {self._directory}`"
                    ) from error
                await asyncio.sleep(RETRY_SECONDS)
        self._keeper = asyncio.get_running_loop().create_task(self._keep())

    async def close(self) -> None:
        """Disconnect for good."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        if self._transport is not None:
            self._transport.close()

    def write(self, pieces: list[bytes]) -> None:
        """Send frames, if there is a connection."""
        if self._transport is not None:
            self._transport.writelines(pieces)

    async def ask(self, verb: str, *arguments: Any) -> Any:
        """The log's answer, also over a broken connection (every question may be asked twice). Raises BusUnavailable."""
        try:
            async with asyncio.timeout(self._patience):
                while True:
                    await self.connected.wait()
                    with contextlib.suppress(_Gone):
                        return await self.ask_once(verb, *arguments)
        except TimeoutError:
            raise BusUnavailable(f"the log did not answer for {self._patience:g} s") from None

    async def ask_once(self, verb: str, *arguments: Any) -> Any:
        """The log's answer on this connection."""
        if self._transport is None:
            raise _Gone
        number = next(self._numbers)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        self._transport.write(wire.frame(wire.REQUEST, number, verb, *arguments))
        try:
            good, value = await answer
        finally:
            del self._asked[number]
        if not good:
            raise BusUnavailable(value)
        return value

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_unix_connection(
            lambda: _Protocol(self._broken.clear, self._frame, self._lost), wire.socket_path(self._directory)
        )
        self._transport = transport
        self._transport.set_write_buffer_limits(high=64 << 20)
        try:
            await self._on_connected()
        except BaseException:
            transport.close()
            raise
        if self._transport is not None:
            self.connected.set()

    def _frame(self, kind: int, body: bytes) -> None:
        if kind == wire.ANSWER:
            number, good, value = wire.decode(body)
            answer = self._asked.get(number)
            if answer is not None and not answer.done():
                answer.set_result((good, value))
        else:
            self._on_frame(kind, body)

    def _lost(self) -> None:
        self._transport = None
        self.connected.clear()
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(_Gone())
        self._broken.set()
        self._on_lost()

    async def _keep(self) -> None:
        while True:
            await self._broken.wait()
            log.warning("the log process is away; what is not acknowledged is kept")
            while self._broken.is_set():
                try:
                    await self._connect()
                except BusUnavailable as error:
                    log.error("the log process refuses us: %s", error)
                    await asyncio.sleep(10 * RETRY_SECONDS)
                except OSError:
                    await asyncio.sleep(RETRY_SECONDS)
            log.info("the log process is back")
