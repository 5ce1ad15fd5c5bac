"""The embedded log's client: several processes of one machine meet in one small log process (`bus/logd.py`)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from mailfleet_core.bus import embedded_wire as wire
from mailfleet_core.bus.embedded_bodies import BodyReader
from mailfleet_core.bus.embedded_format import records
from mailfleet_core.bus.embedded_link import Link
from mailfleet_core.bus.embedded_member import Member
from mailfleet_core.bus.embedded_producer import Destination, Producer
from mailfleet_core.bus.embedded_segment import key_of
from mailfleet_core.bus.embedded_tail import CREDIT_BYTES, Tail
from mailfleet_core.bus.opening import QUEUE_LIFE_SECONDS
from mailfleet_core.bus.port import (
    DELIVERY_SECONDS,
    BusUnavailable,
    Membership,
    NotFound,
    OnAssigned,
    OnRevoked,
    Record,
)
from mailfleet_core.bus.topics import ACCEPT, BODY, DISPATCH, RESULT, topics
from mailfleet_core.clock import SystemClock
from mailfleet_core.settings import BusSettings

CONNECT_SECONDS = 10.0
PATIENCE_SECONDS = 15.0
CLOSE_SECONDS = 15.0


class EmbeddedBus:
    """The bus of one process.

    An append that is not acknowledged within `delivery_seconds` fails with BusUnavailable and is never sent again.
    Whether it was written is then unknown if the log process had it already: it may be in the log.
    A question is given up after `patience` seconds.
    """

    def __init__(
        self,
        settings: BusSettings,
        client: str,
        patience: float = PATIENCE_SECONDS,
        delivery_seconds: float = DELIVERY_SECONDS,
        connect_seconds: float = CONNECT_SECONDS,
    ) -> None:
        self._settings = settings
        self._client = client
        self._patience = patience
        self._delivery_seconds = delivery_seconds
        self._connect_seconds = connect_seconds
        self._directory = Path(settings.directory)
        self._topics = topics(settings.queue_partitions, settings.lanes, QUEUE_LIFE_SECONDS)
        self._numbers: dict[str, int] = {}
        self._destinations: dict[tuple[str, int], Destination] = {}
        self._full = False
        self._next = itertools.count(1)
        self._tails: dict[int, Tail] = {}
        self._members: dict[int, Member] = {}
        self._bodies = BodyReader(self._directory / "bodies")
        self._closed = False

    # --- the connection -----------------------------------------------------------------------------------------------
    async def start(self) -> None:
        """Connect to the log process. Raises BusUnavailable."""
        identity = int.from_bytes(SystemClock().entropy(8), "big") | 1
        self._link = Link(self._directory, self._patience, self._on_frame, self._on_connected, self._on_lost)
        self._producer = Producer(identity, self._delivery_seconds, self._link.write)
        try:
            await self._link.open(self._connect_seconds)
        except ValueError as error:
            raise BusUnavailable(str(error)) from error

    async def close(self) -> None:
        """Flush what was appended, then let go."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._producer.drained(), CLOSE_SECONDS)
        for member in list(self._members.values()):
            # A log that is away forgets its members anyway.
            with contextlib.suppress(BusUnavailable):
                await member.leave()
        for tail in list(self._tails.values()):
            await tail.aclose()
        await self._link.close()
        self._producer.close()
        self._bodies.forget()

    async def _on_connected(self) -> None:
        specs = [
            wire.TopicSpec(
                self._settings.topic_prefix + topic.name,
                topic.partitions,
                topic.compacted,
                topic.retention_seconds,
                wire.BODIES if topic.name == BODY else wire.STATE,
                topic.name in (BODY, ACCEPT),
                topic.name in (ACCEPT, DISPATCH, RESULT),
            )
            for topic in self._topics.values()
        ]
        numbers, self._full = await self._link.ask_once("hello", self._client, specs)
        self._numbers = dict(zip(self._topics, numbers, strict=True))
        for name, topic in self._topics.items():
            journal = wire.BODIES if name == BODY else wire.STATE
            for partition in range(topic.partitions):
                self._destinations[name, partition] = Destination(self._numbers[name], partition, journal)
        self._producer.connected()
        for tail in list(self._tails.values()):
            tail.restart()
            await self._link.ask_once("tail", tail.number, tail.key, tail.position, CREDIT_BYTES)
        for member in list(self._members.values()):
            await member.enter()

    def _on_lost(self) -> None:
        self._producer.disconnected()

    def _on_frame(self, kind: int, body: bytes) -> None:
        if kind == wire.ACKS:
            self._producer.acknowledged(body)
        elif kind == wire.DATA:
            tail = self._tails.get(wire.TAIL.unpack_from(body)[0])
            if tail is not None:
                tail.feed(body[wire.TAIL.size :])
        else:
            self._told(*wire.decode(body))

    def _told(self, verb: str, *arguments: Any) -> None:
        if verb == "full":
            self._full = arguments[0]
        elif verb == "dropped":
            self._bodies.forget()
        elif member := self._members.get(arguments[0]):
            (member.given if verb == "give" else member.asked)(arguments[1])

    @property
    def healthy(self) -> bool:
        """False while the log is away or full: do not accept new mail."""
        return self._link.connected.is_set() and not self._full

    # --- records ------------------------------------------------------------------------------------------------------
    def partitions(self, topic: str) -> int:
        """How many partitions `topic` has."""
        return self._topics[topic].partitions

    def append(
        self, topic: str, partition: int, key: bytes, value: bytes | None, tag: bytes = b""
    ) -> asyncio.Future[int]:
        """Write one record; the future has its offset once it is durable, or BusUnavailable (see the class)."""
        return self._producer.append(self._destinations[topic, partition], key, value, tag)

    def place(self, topic: str, partition: int, key: bytes, value: bytes) -> asyncio.Future[int]:
        """Write one record; the future has its offset once it is in the file: durable with whatever is appended then."""
        return self._producer.append(self._destinations[topic, partition], key, value, b"", wire.PLACE)

    @property
    def in_flight_bytes(self) -> int:
        """Bytes appended by this process and not acknowledged."""
        return self._producer.in_flight_bytes

    def tail(self, topic: str, partition: int, start: int) -> AsyncIterator[list[Record]]:
        """Records from offset `start` (0: the oldest kept) on, in order, without end."""
        number = next(self._next)
        tail = self._tails[number] = Tail(number, self._key(topic, partition), start, self._grant, self._end_tail)
        if self._link.connected.is_set():
            self._link.write([wire.frame(wire.REQUEST, 0, "tail", number, tail.key, start, CREDIT_BYTES)])
        return tail

    def _grant(self, number: int, size: int) -> None:
        self._link.write([wire.FRAME.pack(wire.CREDIT.size, wire.GRANT) + wire.CREDIT.pack(number, size)])

    def _end_tail(self, number: int) -> None:
        del self._tails[number]
        self._link.write([wire.frame(wire.REQUEST, 0, "untail", number)])

    async def read(self, topic: str, partition: int, offset: int, length: int) -> bytes:
        """The value of one record; `length` is its size in bytes, as a hint. Raises NotFound, BusUnavailable."""
        if topic == BODY:
            return await self._bodies.read(self._numbers[topic], partition, offset, length)
        batch = await self._link.ask("read", self._key(topic, partition), offset)
        for record in records(batch) if batch else ():
            if record.offset == offset and record.value is not None:
                return record.value
        raise NotFound(f"no record at {offset} of {topic}/{partition}")

    def read_at_once(self, topic: str, partition: int, offset: int, length: int) -> bytes | None:
        """What `read` would give, if it can be had without waiting: bodies that the system has in memory."""
        return self._bodies.read_at_once(self._numbers[topic], partition, offset, length) if topic == BODY else None

    async def end(self, topic: str, partition: int) -> int:
        """The offset after the last durable record now."""
        return int(await self._link.ask("end", self._key(topic, partition)))

    # --- positions ----------------------------------------------------------------------------------------------------
    async def commit(self, group: str, topic: str, positions: Mapping[int, int]) -> None:
        """Remember, durably, per partition, the offset after the last record whose effects are durable."""
        await self._link.ask(
            "commit", group, {self._key(topic, partition): offset for partition, offset in positions.items()}
        )

    async def committed(self, group: str, topic: str, partition: int) -> int:
        """The offset remembered, or 0."""
        return int(await self._link.ask("committed", group, self._key(topic, partition)))

    async def trim(self, topic: str, partition: int, before: int) -> None:
        """Records before this offset are not needed any more; the log may drop them."""
        await self._link.ask("trim", self._key(topic, partition), before)

    # --- groups -------------------------------------------------------------------------------------------------------
    async def join(
        self,
        group: str,
        topic: str,
        on_assigned: OnAssigned,
        on_revoked: OnRevoked,
        only: frozenset[int] | None = None,
        name: str = "",
    ) -> Membership:
        """Share the partitions of `topic` with the other members of `group`."""
        number = next(self._next)
        told = (on_assigned, on_revoked)
        member = Member(number, self._settings.topic_prefix + group, self._numbers[topic], self._link, told, only)
        await self._link.connected.wait()
        self._members[number] = member
        await member.enter()
        return member

    def _key(self, topic: str, partition: int) -> int:
        return key_of(self._numbers[topic], partition)
