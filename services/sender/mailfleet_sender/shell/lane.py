"""A lane of dispatches: take it over, read it, answer what a former owner left, give it back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Protocol, TypeVar, cast

from mailfleet_core.bus import topics
from mailfleet_core.bus.port import Bus, BusUnavailable, Record
from mailfleet_core.model import wire
from mailfleet_sender.decisions import lane as decisions
from mailfleet_sender.decisions.lane import Found, Position
from mailfleet_sender.shell.paths import EgressPath

log = logging.getLogger(__name__)

GROUP = "senders"
PATIENCE_SECONDS = 0.5

T = TypeVar("T")


class Reader(Protocol):
    """Who acts on what a lane reads."""

    def dispatched(self, lane: Lane, offset: int, dispatch: wire.Dispatch) -> None:
        """An attempt to make."""

    def inherited(self, lane: Lane, offset: int, dispatch: wire.Dispatch) -> None:
        """An attempt that a former owner may have begun."""

    def usurped(self, lane: Lane) -> None:
        """Another sender has the lane; it answers for what is not under way here."""


class Lane:
    """One lane that this process has, or had."""

    def __init__(self, bus: Bus, reader: Reader, number: int) -> None:
        self.number = number
        self.position = Position(0)
        self.paths: dict[tuple[str, str], EgressPath] = {}
        """By source and site."""
        self.stopping = False
        self.usurped = False
        """Another sender took it: it answers for everything that is not under way here."""
        self.since = asyncio.get_running_loop().time()
        """From when on it is known what was sent on it."""
        self._bus = bus
        self._reader = reader
        self._taken_at = -1
        self._leaving_at = -1
        """The newest own LEAVING that was read."""
        self._changed = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def caught_up(self) -> None:
        """Say that nothing more is begun, and read as far as that: what was dispatched before is known then."""
        at = await self._append(decisions.LEAVING, b"")
        while self._leaving_at < at and not self.usurped:
            await self._change()

    async def all_answered(self) -> None:
        """Wait until every dispatch that was read has a durable result."""
        while not (self.position.settled or self.usurped):
            await self._change()

    def answered(self, offset: int) -> None:
        """The result of the dispatch at `offset` is durable."""
        self.position.answered(offset)
        if self.stopping:
            self._changed.set()

    async def say_goodbye(self) -> None:
        """Tell the next owner what was not touched, if that is certain."""
        if self._taken_at >= 0 and not self.usurped and self.position.settled:
            await self._append(decisions.LEFT, decisions.left(self._taken_at, self.position.value))

    async def commit(self) -> None:
        """Remember how far it is answered. Raises BusUnavailable."""
        value = self.position.value
        if value != self.position.committed and not self.usurped:
            await self._bus.commit(GROUP, topics.DISPATCH, {self.number: value})
            self.position.committed = value

    async def close(self) -> None:
        """Stop reading."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    # --- inside --------------------------------------------------------------------------------------------------
    async def _run(self) -> None:
        while not self.usurped:
            try:
                start = await patiently(lambda: self._bus.committed(GROUP, topics.DISPATCH, self.number))
                self.position = Position(start)
                self._taken_at = await self._append(decisions.TAKEN, b"")
                self.since = asyncio.get_running_loop().time()
                await self._read(start)
            except Exception:
                # As if it had come from another owner; what is in hand or was answered is known to be.
                log.exception("reading a lane failed; it is taken again", extra={"lane": self.number})
                await asyncio.sleep(PATIENCE_SECONDS)

    async def _read(self, start: int) -> None:
        former: list[Found] | None = []
        tail = cast(AsyncGenerator[list[Record], None], self._bus.tail(topics.DISPATCH, self.number, start))
        try:
            async for batch in tail:
                for record in batch:
                    if self.usurped:
                        return
                    if former is None:
                        if record.key == decisions.MARKER_KEY:
                            self._marked(record)
                        else:
                            self._hand(record.offset, record.value or b"", self._reader.dispatched)
                    elif record.offset < self._taken_at:
                        former.append(Found(record.offset, _marker(record), record.value or b""))
                    else:
                        self._inherit(former)
                        former = None
                        self.position.passed(record.offset)
                        await patiently(self.commit)
        finally:
            await tail.aclose()

    def _inherit(self, former: list[Found]) -> None:
        lost, untouched = decisions.inherit(self.position.committed, former)
        if lost or untouched:
            log.info("took over a lane", extra={"lane": self.number, "lost": len(lost), "untouched": len(untouched)})
        for found, act in [(each, self._reader.inherited) for each in lost] + [
            (each, self._reader.dispatched) for each in untouched
        ]:
            self._hand(found.offset, found.value, act)

    def _marked(self, record: Record) -> None:
        marker = record.tag
        if marker == decisions.LEFT:
            # Never behind the position: the next owner has to find it.
            return
        self.position.passed(record.offset)
        if marker == decisions.TAKEN:
            log.error("another sender has taken the lane", extra={"lane": self.number})
            self.usurped = self.stopping = True
            self._reader.usurped(self)
        elif marker == decisions.LEAVING:
            self._leaving_at = record.offset
        self._changed.set()

    def _hand(self, offset: int, value: bytes, act: Callable[[Lane, int, wire.Dispatch], None]) -> None:
        try:
            dispatch = wire.decode(wire.Dispatch, value)
        except wire.Malformed as error:
            log.error("a dispatch cannot be read", extra={"lane": self.number, "offset": offset, "error": str(error)})
            self.position.passed(offset)
            return
        self.position.met(offset)
        try:
            act(self, offset, dispatch)
        except Exception:
            # Unanswered it stays, so the position stays too, and the next owner calls it lost; but the lane goes on.
            log.exception("a dispatch could not be taken", extra={"lane": self.number, "offset": offset})

    async def _append(self, marker: bytes, value: bytes) -> int:
        return await patiently(
            lambda: self._bus.append(topics.DISPATCH, self.number, decisions.MARKER_KEY, value, marker)
        )


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask until the log answers."""
    while True:
        try:
            return await ask()
        except BusUnavailable:
            await asyncio.sleep(PATIENCE_SECONDS)


def _marker(record: Record) -> bytes:
    return record.tag if record.key == decisions.MARKER_KEY else b""
