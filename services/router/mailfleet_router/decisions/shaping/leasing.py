"""What the owners of a process ask for and hold of the limits that span partitions, and the records of `mail.lease`.

A holder writes what it could use (`Wanted`), the granter writes shares (`Given`), everybody acts on what it reads. A lease
answers a numbered record of its holder and counts, for the holder, from the instant at which that record was handed to the log.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple, TypeVar

import msgspec

from mailfleet_core.model.tags import CLAIM, EPOCH_KEY, PUT, epoch_of, tag
from mailfleet_core.model.wire import Malformed, Struct
from mailfleet_router.decisions.shaping import leases
from mailfleet_router.decisions.shaping.leases import (
    CLOCK_SECONDS,
    EARLY_SECONDS,
    PERIOD_SECONDS,
    TERM_SECONDS,
    Held,
    Lease,
    Limit,
)

BEAT_SECONDS = 2.0
"""Between two records of a holder. Two of them fit into a period, so that one may be late."""
IDLE_SECONDS = PERIOD_SECONDS
"""A limit that nobody asked about for so long is idle: its holder keeps the least share."""
FORGET_SECONDS = 60.0
"""And then it is no holder of it."""
MOST_A_RECORD = 2000
"""Demands or shares in one record, some 100 bytes each."""
LAST_BIT = 1e-9
"""A sum of rounded numbers may miss a whole message by so much."""


# --- records -----------------------------------------------------------------------------------------------------
class Want(Struct, frozen=True):
    """What a holder says of one limit."""

    counter: str
    total: float
    whole: bool
    demand: float
    """What it could use: messages per second, or units at once; negative: it uses nothing any more."""
    share: float
    """What it may use now by the newest lease that it has read."""
    used: float
    """Units that it has in use."""


class Wanted(Struct, frozen=True):
    """A record of a holder."""

    holder: str
    number: int
    """Of this record."""
    epoch: int
    """It has read all leases up to that of this granter with the number `last`, and uses none that is older than its newest."""
    last: int
    wants: tuple[Want, ...]
    gone: bool = False
    """It is no holder any more, and uses nothing."""


class Given(Struct, frozen=True):
    """A share, in a record of the granter."""

    counter: str
    holder: str
    share: float
    number: int
    """Of the granter's leases, whichever limit they are of; grows."""
    asked: int
    """Number of the holder's record that it answers."""


class Record(NamedTuple):
    """A record to write."""

    key: bytes
    tag: bytes
    value: bytes


class Claimed(NamedTuple):
    """A granter's claim, as read."""

    epoch: int


class Granted(NamedTuple):
    """Shares of a granter, as read."""

    epoch: int
    given: tuple[Given, ...]


GRANT_KEY = b"grant"
_encode = msgspec.msgpack.Encoder().encode
_decode_wanted = msgspec.msgpack.Decoder(Wanted).decode
_decode_given = msgspec.msgpack.Decoder(tuple[Given, ...]).decode


_T = TypeVar("_T")


def _parts_of(items: Iterable[_T]) -> Iterator[tuple[_T, ...]]:
    rest = iter(items)
    while part := tuple(islice(rest, MOST_A_RECORD)):
        yield part


def holder_name(partition: int, epoch: int) -> str:
    """One owner of one partition: the next owner is another holder."""
    return f"{partition}@{epoch}"


def claim(epoch: int, who: str) -> Record:
    """The claim of the owner of queue partition 0, with the epoch it has there; `who` is for people."""
    return Record(EPOCH_KEY, tag(CLAIM, epoch), who.encode())


def grants(epoch: int, given: list[Given]) -> list[Record]:
    """The records of a grant."""
    return [Record(GRANT_KEY, tag(PUT, epoch), _encode(part)) for part in _parts_of(given)]


def read(key: bytes, mark: bytes, value: bytes | None) -> Claimed | Granted | Wanted | None:
    """What a record says; None: nothing. Raises Malformed."""
    try:
        if mark[:1] == CLAIM:
            return Claimed(epoch_of(mark))
        if value is None:
            return None
        return Granted(epoch_of(mark), _decode_given(value)) if key == GRANT_KEY else _decode_wanted(value)
    except msgspec.MsgspecError as error:
        raise Malformed(f"no record of mail.lease: {error}") from error


# --- one holder, one limit -----------------------------------------------------------------------------------------
class Part:
    """A holder's part of one limit: the lease it has read and, of a rate, the bucket that follows it."""

    __slots__ = ("asked", "at", "demand", "held", "level", "limit", "pace", "used", "wanted_at")

    def __init__(self, limit: Limit, now: float, asked: int = 0) -> None:
        self.limit = limit
        self.asked = asked
        """Leases that answer this record or an older one are not for it: what they gave was given back."""
        self.demand = 0.0
        self.used = 0.0
        self.wanted_at = now
        self.held = Held()
        self.level = 0.0
        """Messages saved. A new holder starts with none: it does not know what the old one sent."""
        self.at = now
        self.pace = 0.0
        """Messages per second that were taken lately."""

    def share(self, now: float) -> float:
        """What it may use."""
        return leases.usable(self.held.lease, now)

    def settle(self, now: float) -> None:
        """Save what the lease gave until `now`, or until it ended; without one, one message stays at most."""
        lease = self.held.lease
        if lease is not None and now > self.at:
            end = lease.until - CLOCK_SECONDS
            gained = max(0.0, min(now, end) - self.at) * lease.share
            self.level = min(self.level + gained, leases.burst(lease.share if now < end else 0.0, self.limit))
        self.pace *= math.exp(min(0.0, self.at - now) / PERIOD_SECONDS)
        self.at = max(self.at, now)

    def follow(self, held: Held, now: float) -> None:
        """From now on this lease counts."""
        self.settle(now)
        self.held = held
        self.level = min(self.level, leases.burst(self.share(now), self.limit))

    def wait(self, now: float) -> float:
        """Seconds until one message may go: 0: now, infinite: it has no share."""
        self.settle(now)
        share = self.share(now)
        if share <= 0:
            return math.inf
        return 0.0 if self.level >= 1.0 - LAST_BIT else (1.0 - self.level) / share

    def take(self, now: float) -> None:
        """One message goes."""
        self.settle(now)
        self.level -= 1.0
        self.pace += 1.0 / PERIOD_SECONDS


# --- all holders of a process ----------------------------------------------------------------------------------------
class Holding:
    """The holders of one process. `now` is always the same steady clock, of which nobody else needs to know."""

    def __init__(self) -> None:
        self._parts: dict[str, dict[str, Part]] = {}
        """Holder → counter → part."""
        self._gone: list[str] = []
        self._released: dict[str, dict[str, Limit]] = {}
        """Holder → counters that it needs no more."""
        self._asked: dict[int, float] = {}
        """When a record was handed to the log."""
        self._number = 0
        self._read = (-1, -1)
        """Epoch and number of the newest lease read; all leases of a granter stand in the order of their numbers."""
        self._beat_at = -math.inf
        self.urgent = False
        """There is something to say before the next beat."""

    # --- what a gate asks ------------------------------------------------------------------------------------------
    def want(self, counter: str, holder: str, limit: Limit, demand: float, now: float, used: float = 0.0) -> None:
        """The holder could use so much (messages per second, or units at once) and has so many units in use. Whoever has mail
        for a limit says this at least once in `IDLE_SECONDS`."""
        parts = self._parts.setdefault(holder, {})
        part = parts.get(counter)
        if part is None:
            part = parts[counter] = Part(limit, now, self._number)
            self.urgent = True
        elif now - part.wanted_at >= IDLE_SECONDS and part.share(now) <= 0:
            self.urgent = True
        part.limit, part.demand, part.used, part.wanted_at = limit, demand, used, now

    def demand(self, counter: str, holder: str, waiting: int, now: float) -> float:
        """Of a rate, what the holder could use: what it took lately, and what waits within one period."""
        part = self._parts.get(holder, {}).get(counter)
        if part is not None:
            part.settle(now)
        return (part.pace if part is not None else 0.0) + waiting / PERIOD_SECONDS

    def usable(self, counter: str, holder: str, now: float) -> float:
        """The share that may be used now; 0: none, or none yet."""
        part = self._parts.get(holder, {}).get(counter)
        return part.share(now) if part is not None else 0.0

    def wait(self, counter: str, holder: str, now: float) -> float:
        """Seconds until a message may go by the holder's share of a rate; infinite without a share."""
        part = self._parts.get(holder, {}).get(counter)
        return part.wait(now) if part is not None else math.inf

    def take(self, counter: str, holder: str, now: float) -> None:
        """A message goes; after `wait` gave 0, or as a probe, which is not kept waiting."""
        part = self._parts.get(holder, {}).get(counter)
        if part is not None:
            part.take(now)

    def release(self, counter: str, holder: str) -> None:
        """The holder uses nothing of this limit from now on, and others may have it at once."""
        part = self._parts.get(holder, {}).pop(counter, None)
        if part is not None:
            self._released.setdefault(holder, {})[counter] = part.limit
            self.urgent = True

    def counters(self, holder: str) -> list[str]:
        """The limits of which it holds, or asks for, a share."""
        return list(self._parts.get(holder, ()))

    def left(self, holder: str) -> None:
        """It is no owner any more: it uses nothing from now on."""
        self._released.pop(holder, None)
        if self._parts.pop(holder, None) is not None:
            self._gone.append(holder)
            self.urgent = True

    # --- the log -----------------------------------------------------------------------------------------------------
    def heard(self, record: Claimed | Granted | Wanted | None, now: float) -> set[str]:
        """The next record of the log; the holders whose share it made larger."""
        if isinstance(record, Claimed):
            self._read = max(self._read, (record.epoch, -1))
            # A new granter does not know who wants what.
            self.urgent = True
        if not isinstance(record, Granted):
            return set()
        return {given.holder for given in record.given if self._given(record.epoch, given, now)}

    def due_at(self) -> float:
        """When `ask` will have something to say."""
        if not self._parts and not self._gone and not self._released:
            return math.inf
        return self._beat_at + (EARLY_SECONDS / 2 if self.urgent else BEAT_SECONDS)

    def ask(self, now: float, last: bool = False) -> list[Record]:
        """The records to hand to the log at this instant; `last`: whether they are due or not."""
        if now < self.due_at() and not last:
            return []
        self._beat_at, self.urgent = now, False
        for number in [number for number, at in self._asked.items() if at < now - TERM_SECONDS]:
            del self._asked[number]
        records = [_record(Wanted(holder, 0, *self._read, (), gone=True)) for holder in self._gone]
        self._gone = []
        for holder in list({**self._parts, **self._released}):
            for wants in _parts_of(self._wants(holder, now)):
                self._number += 1
                self._asked[self._number] = now
                records.append(_record(Wanted(holder, self._number, *self._read, wants)))
        return records

    def _wants(self, holder: str, now: float) -> Iterator[Want]:
        for counter, limit in self._released.pop(holder, {}).items():
            if counter not in self._parts.get(holder, ()):
                yield Want(counter, limit.total, limit.whole, -1.0, 0.0, 0.0)
        parts = self._parts.get(holder, {})
        for counter, part in list(parts.items()):
            silent = now - part.wanted_at
            if silent >= FORGET_SECONDS and not part.used:
                del parts[counter]
            else:
                demand = part.demand if silent < IDLE_SECONDS else 0.0
                yield Want(counter, part.limit.total, part.limit.whole, demand, part.share(now), part.used)
        if not parts:
            self._parts.pop(holder, None)

    def _given(self, epoch: int, given: Given, now: float) -> bool:
        # What is older than what was read before is a zombie's, or was read already.
        if (epoch, given.number) <= self._read:
            return False
        self._read = (epoch, given.number)
        part = self._parts.get(given.holder, {}).get(given.counter)
        if part is None or given.asked <= part.asked:
            return False
        until = self._asked.get(given.asked, -math.inf) + TERM_SECONDS
        before = part.share(now)
        lease = Lease(given.holder, given.share, until, epoch, given.number)
        part.follow(leases.heard(part.held, lease, given.holder), now)
        if part.share(now) < before:
            # Others may have the difference as soon as the granter knows that it is free.
            self.urgent = True
        return part.share(now) > before


def _record(wanted: Wanted) -> Record:
    return Record(b"want|" + wanted.holder.encode(), tag(PUT), _encode(wanted))
