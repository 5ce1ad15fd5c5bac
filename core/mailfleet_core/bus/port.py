"""The bus: what every adapter promises (`tests/contract/test_bus.py` is the promise, run on all of them).

One event loop uses one Bus object; nothing here may be called from another thread.

* Offsets of a partition grow strictly and are otherwise opaque (the embedded log uses byte positions).
* `append` keeps the order of calls per partition, also through a broker's restart, and never writes one call twice.
* An acknowledged record is durable and is seen by every tail that starts at or before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import NamedTuple, Protocol

DELIVERY_SECONDS = 120.0
"""How long an append is tried before it fails. A client waits ten minutes for the reply after its dot (RFC 5321, 4.5.3.2.6),
and what we refuse it may be written all the same, so it would come twice; meanwhile no new mail is taken (`healthy`)."""


class Record(NamedTuple):
    """One record as read. `value` None is a tombstone: the key has no state any more."""

    offset: int
    key: bytes
    tag: bytes
    value: bytes | None


class BusUnavailable(Exception):
    """The log cannot take or give records now (broker away, disk full); what was not acknowledged did not happen."""


class BusFull(BusUnavailable):
    """The log has no room; it recovers by itself when there is."""


class NotFound(LookupError):
    """There is no such record (never was, or retention took it)."""


class UnsafeDurability(Exception):
    """The topics promise less than Mailfleet needs; the text says which setting, why, and what to set."""


class Membership(Protocol):
    """This process's share of a topic's partitions."""

    @property
    def assigned(self) -> frozenset[int]:
        """The partitions it holds now."""

    @property
    def sure_until(self) -> float:
        """Until when, on the event loop's clock, nobody else can have been given what it holds.

        A process that was stopped for long wakes beyond it: others may hold its partitions, and it has not heard of it.
        """

    async def leave(self) -> None:
        """Give all of them back (calls `on_revoked` first)."""


OnAssigned = Callable[[frozenset[int]], None]
OnRevoked = Callable[[frozenset[int]], Awaitable[None]]
"""Awaited before the partitions go to another member, if this one is given the time: stop, flush, commit."""


class Bus(Protocol):
    """An ordered, durable, partitioned log."""

    async def start(self) -> None:
        """Connect, create what is missing, check durability. Raises BusUnavailable, UnsafeDurability."""

    async def close(self) -> None:
        """Flush what was appended, then let go."""

    def partitions(self, topic: str) -> int:
        """How many partitions `topic` has."""

    def append(
        self, topic: str, partition: int, key: bytes, value: bytes | None, tag: bytes = b""
    ) -> asyncio.Future[int]:
        """Write one record; the future has its offset once it is durable, or BusUnavailable.

        Never blocks and never refuses: look at `in_flight_bytes` first. Cancelling the future cancels nothing.
        """

    def place(self, topic: str, partition: int, key: bytes, value: bytes) -> asyncio.Future[int]:
        """Write one record that nobody needs before another one tells of it; else as `append`.

        Its future may have the offset before the record is durable, but whatever this process appends after that is
        acknowledged only when the placed record is durable too: one wait instead of two.
        """

    @property
    def in_flight_bytes(self) -> int:
        """Bytes appended by this process and not acknowledged."""

    @property
    def healthy(self) -> bool:
        """False while the log is away or full: do not accept new mail."""

    def tail(self, topic: str, partition: int, start: int) -> AsyncIterator[list[Record]]:
        """Records from offset `start` (0: the oldest kept) on, in order, without end, in batches as they become durable.

        Ends when the iterator is closed (`aclose`). Survives the broker's restart. Bounded: a slow reader holds back
        its own tail only.
        """

    async def read(self, topic: str, partition: int, offset: int, length: int) -> bytes:
        """The value of one record; `length` is its size in bytes, as a hint. Raises NotFound, BusUnavailable."""

    def read_at_once(self, topic: str, partition: int, offset: int, length: int) -> bytes | None:
        """What `read` would give, if it can be had without waiting; None says nothing about the record."""

    async def end(self, topic: str, partition: int) -> int:
        """The offset after the last durable record now: a tail that passed it has seen all there was."""

    async def join(
        self,
        group: str,
        topic: str,
        on_assigned: OnAssigned,
        on_revoked: OnRevoked,
        only: frozenset[int] | None = None,
        name: str = "",
    ) -> Membership:
        """Share the partitions of `topic` with the other members of `group`.

        With `only`, this member takes no others. A partition that no member takes has no holder until one comes.
        `name`: of this member, and of the one that is started in its place after it was killed: where the log knows what
        to do with it, that one need not wait until the group takes its predecessor for dead. Only for members that do not
        trust `sure_until`: who has the name already, and still lives, learns of the other at its next heartbeat.
        Each partition has at most one holder that was told so and not told otherwise; a holder that stops answering
        may keep believing it. Safety rests on epochs in the log, not on this.
        """

    async def commit(self, group: str, topic: str, positions: Mapping[int, int]) -> None:
        """Remember, durably, per partition, the offset after the last record whose effects are durable."""

    async def committed(self, group: str, topic: str, partition: int) -> int:
        """The offset remembered, or 0."""

    async def trim(self, topic: str, partition: int, before: int) -> None:
        """Records before this offset are not needed any more; the log may drop them."""
