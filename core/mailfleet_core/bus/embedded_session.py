"""One client of the log process."""

from __future__ import annotations

import asyncio
import itertools
import logging
import struct
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

import msgspec

from mailfleet_core.bus import embedded_wire as wire
from mailfleet_core.bus.embedded_feed import CatchUp, Feed, read_from
from mailfleet_core.bus.embedded_groups import Group
from mailfleet_core.bus.embedded_journal import REFUSED
from mailfleet_core.bus.embedded_notes import Append, Notes, notes_append

if TYPE_CHECKING:
    from mailfleet_core.bus.embedded_server import LogServer

log = logging.getLogger(__name__)

PENDING_BYTES = 32 << 20
"""A client that has more than this unwritten is not read from until it has less than half."""
RELEASE_SECONDS = 10.0
_members = itertools.count(1)
_specs = msgspec.convert


class Session(wire.Frames):
    """The connection of one client: its appends, tails, memberships and questions."""

    def __init__(self, server: LogServer) -> None:
        super().__init__()
        self.server = server
        self._feeds: dict[int, Feed] = {}
        self.name = "?"
        self._out: list[bytes] = []
        self._acks: list[bytes] = []
        self._pending = 0
        self._paused = False
        self._members: dict[int, tuple[int, Group]] = {}
        """By the client's number: ours, and the group."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._transport: asyncio.Transport

    # --- the connection -----------------------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client came."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=64 << 20)
        self.server.sessions.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        """It is gone: its partitions go to others at once."""
        self.server.sessions.discard(self)
        for feed in self._feeds.values():
            self.server.drop_tail(feed)
        self._feeds.clear()
        members, self._members = self._members, {}
        for member, group in members.values():
            group.leave(member)
            self.server.rebalance(group)

    def close(self) -> None:
        """Let it go."""
        self._transport.close()

    def buffer_updated(self, count: int) -> None:
        """Bytes of frames."""
        try:
            super().buffer_updated(count)
        except (ValueError, struct.error, LookupError, TypeError) as error:
            log.error("a client that does not speak our language is cut off: %s", error, extra={"client": self.name})
            self._transport.abort()

    def frame(self, kind: int, body: bytes) -> None:
        """An append, credit for a tail, or a question."""
        if kind == wire.APPEND:
            self._append(Append.parse(body))
        elif kind == wire.PLACE:
            self._append(Append.parse(body, durable=False))
        elif kind == wire.GRANT:
            self._grant(*wire.CREDIT.unpack(body))
        else:
            self._start(self._answer(*wire.decode(body)))

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- appends ------------------------------------------------------------------------------------------------------
    def _append(self, append: Append) -> None:
        spec = self.server.topic(append.topic)
        if append.partition >= spec.partitions or not append.producer:
            raise ValueError(f"a batch for {spec.name} partition {append.partition}")
        self._pending += len(append.payload)
        if self._pending > PENDING_BYTES and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self.server.append(spec.journal, (self._written, append))

    def _written(self, append: Append, base: int) -> None:
        self._pending -= len(append.payload)
        if self._paused and self._pending < PENDING_BYTES // 2:
            self._paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()
        self._acks.append(wire.ACK.pack(self.server.topics[append.topic - 1].journal, append.sequence, base))

    def flush(self) -> None:
        """After a group: acknowledgements and what its tails wait for, in one write."""
        if self._acks:
            body = b"".join(self._acks)
            self._acks.clear()
            self._out[:0] = wire.FRAME.pack(len(body), wire.ACKS), body
        if self._out:
            self._transport.writelines(self._out)
            self._out = []

    def tell(self, *what: Any) -> None:
        """Something it did not ask for."""
        self._transport.write(wire.frame(wire.TOLD, *what))

    # --- tails --------------------------------------------------------------------------------------------------------
    def feed(self, feed: Feed, fresh: list[tuple[int, bytes]]) -> None:
        """New durable batches of a partition that it reads, with the next flush."""
        data = feed.offer([batch for _, batch in fresh], [base for base, _ in fresh], self.server.ends[feed.key])
        if data is not None:
            self._out += (wire.FRAME.pack(len(data) + wire.TAIL.size, wire.DATA), wire.TAIL.pack(feed.number), data)
        else:
            self._catch_up(feed)

    def _grant(self, number: int, credit: int) -> None:
        feed = self._feeds.get(number)
        if feed is not None:
            feed.credit += credit
            self._catch_up(feed)

    def _catch_up(self, feed: Feed) -> None:
        if feed.live or feed.reading or feed.closed or feed.credit <= 0:
            return

        def send(data: bytes) -> None:
            self._transport.writelines(
                (wire.FRAME.pack(len(data) + wire.TAIL.size, wire.DATA), wire.TAIL.pack(feed.number), data)
            )

        journal = self.server.journals[self.server.journal_of(feed.key)]
        compacted = self.server.topic(feed.key >> 16).compacted
        self._start(CatchUp(send, lambda key: self.server.ends.get(key, 0)).run(feed, journal, compacted))

    # --- questions ----------------------------------------------------------------------------------------------------
    async def _answer(self, number: int, verb: str, *arguments: Any) -> None:
        try:
            answer = await QUESTIONS[verb](self, *arguments)
        except Exception as error:
            log.warning("%s failed: %s", verb, error, extra={"client": self.name})
            self._transport.write(wire.frame(wire.ANSWER, number, False, str(error)))
        else:
            self._transport.write(wire.frame(wire.ANSWER, number, True, answer))

    async def _hello(self, name: str, specs: list[Any]) -> Any:
        self.name = name
        return self.server.declare(_specs(specs, list[wire.TopicSpec])), self.server.full

    async def _end(self, key: int) -> int:
        return self.server.ends.get(key, 0)

    async def _read(self, key: int, offset: int) -> bytes:
        journal = self.server.journals[self.server.journal_of(key)]
        compacted = self.server.topic(key >> 16).compacted
        loop = asyncio.get_running_loop()
        data, _ = await loop.run_in_executor(None, read_from, journal, key, compacted, offset, 1)
        return data

    async def _commit(self, group: str, positions: dict[int, int]) -> None:
        await self._note(wire.STATE, Notes(positions={f"{group}|{key}": at for key, at in positions.items()}))

    async def _committed(self, group: str, key: int) -> int:
        return self.server.journals[wire.STATE].state.positions.get(f"{group}|{key}", 0)

    async def _trim(self, key: int, before: int) -> None:
        await self._note(self.server.journal_of(key), Notes(trims={key: before}))
        self.server.keep_house()

    async def _note(self, journal: int, notes: Notes) -> None:
        """Make a note of the log's own durable."""
        written: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def done(_: Append, base: int) -> None:
            if not written.done():
                written.set_result(base)

        self.server.append(journal, (done, notes_append(notes)))
        if await written == REFUSED:
            raise OSError("the disk is full")

    async def _tail(self, number: int, key: int, start: int, credit: int) -> None:
        self.server.topic(key >> 16)
        await self._untail(number)
        feed = self._feeds[number] = Feed(number, key, start, credit)
        self.server.add_tail(self, feed)
        self._catch_up(feed)

    async def _untail(self, number: int) -> None:
        feed = self._feeds.pop(number, None)
        if feed is not None:
            self.server.drop_tail(feed)

    # --- groups -------------------------------------------------------------------------------------------------------
    async def _join(
        self, number: int, name: str, topic: int, holding: list[int], only: list[int] | None = None
    ) -> list[int]:
        group = self.server.group(name, topic)
        member = next(_members)
        self._members[number] = member, group
        group.enter(member, holding, only)
        kept = sorted(group.held[member])
        asyncio.get_running_loop().call_soon(self.server.rebalance, group)
        return kept

    async def _leave(self, number: int) -> None:
        member, group = self._members.pop(number)
        group.leave(member)
        self.server.rebalance(group)

    async def _released(self, number: int, partitions: list[int]) -> None:
        if number in self._members:
            member, group = self._members[number]
            group.released(member, partitions)
            self.server.rebalance(group)

    def tell_member(self, verb: str, member: int, partitions: frozenset[int]) -> None:
        """Give partitions to a member, or ask it to let them go, if it is one of this client's."""
        for number, (known, group) in self._members.items():
            if known == member:
                self.tell(verb, number, sorted(partitions))
                if verb == "ask":
                    asyncio.get_running_loop().call_later(RELEASE_SECONDS, self._take, group, member, partitions)

    def _take(self, group: Group, member: int, partitions: frozenset[int]) -> None:
        """It was given the time."""
        late = partitions & group.leaving.get(member, set())
        if late:
            log.warning("partitions taken from a member that did not let go", extra={"client": self.name})
            group.released(member, late)
            self.server.rebalance(group)


QUESTIONS: dict[str, Callable[..., Awaitable[Any]]] = {
    "hello": Session._hello, "end": Session._end, "read": Session._read, "commit": Session._commit,
    "committed": Session._committed, "trim": Session._trim, "tail": Session._tail, "untail": Session._untail,
    "join": Session._join, "leave": Session._leave, "released": Session._released,
}  # fmt: skip
