"""The client's appends: records of one turn of the loop become batches; what is unacknowledged is kept and sent again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from mailfleet_core.bus import embedded_wire as wire
from mailfleet_core.bus.embedded_format import ENTRY, PART, pieces, sign
from mailfleet_core.bus.embedded_journal import REFUSED, REMEMBERED_BATCHES, WRITTEN_BEFORE
from mailfleet_core.bus.port import BusFull, BusUnavailable

BATCH_BYTES = 256 << 10
WINDOW_BATCHES = REMEMBERED_BATCHES // 2
WINDOW_BYTES = 16 << 20
"""Per journal: unacknowledged on the wire. More waits here."""
COPIED_BYTES = 16 << 10
"""A record that is longer and alone in its batch is not copied, but sent as it is."""

Send = Callable[[list[bytes]], None]


class Destination(NamedTuple):
    """A partition as appends need it."""

    topic: int
    partition: int
    journal: int


class _Batch:
    """Records that travel together."""

    __slots__ = ("at", "futures", "journal", "kind", "pieces", "size", "target")

    def __init__(self, target: Destination, kind: int) -> None:
        self.target = target
        self.kind = kind
        self.journal = target.journal
        self.pieces: list[bytes] = []
        self.futures: list[asyncio.Future[int]] = []
        self.size = 0
        self.at = 0.0


class Producer:
    """Batches, numbers and sends; every batch is acknowledged, refused or given up."""

    def __init__(self, identity: int, patience: float, send: Send) -> None:
        self.identity = identity
        self.in_flight_bytes = 0
        self._patience = patience
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._open: dict[Destination, _Batch] = {}
        self._connected = False
        self._sequence = [0, 0]
        self._waiting: list[dict[int, _Batch]] = [{}, {}]
        """By journal: sequence → batch not sent on this connection; in order."""
        self._sent: list[dict[int, _Batch]] = [{}, {}]
        self._sent_bytes = [0, 0]
        self._timer: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()
        self._empty.set()

    def append(
        self, target: Destination, key: bytes, value: bytes | None, tag: bytes, kind: int = wire.APPEND
    ) -> asyncio.Future[int]:
        """One record; its offset once it is durable (`kind` PLACE, bodies only: once it is in the file)."""
        future = self._loop.create_future()
        if not self._open:
            self._loop.call_soon(self.flush)
        batch = self._open.get(target)
        if batch is None:
            batch = self._open[target] = _Batch(target, kind)
        futures = batch.futures
        batch.pieces += pieces(len(futures), key, tag, value)
        size = ENTRY.size + len(key) + len(tag) + (len(value) if value else 0)
        futures.append(future)
        batch.size += size
        self.in_flight_bytes += size
        # A body is a batch of its own: it is read by the address of its batch, without an index.
        if target.journal == wire.BODIES or batch.size > BATCH_BYTES:
            del self._open[target]
            self._seal(batch)
        return future

    def flush(self) -> None:
        """Send what was appended in this turn."""
        opened, self._open = self._open, {}
        for batch in opened.values():
            self._seal(batch)
        self._push()

    def _seal(self, batch: _Batch) -> None:
        journal = batch.journal
        self._sequence[journal] = sequence = self._sequence[journal] + 1
        topic, partition, _ = batch.target
        if batch.size <= COPIED_BYTES or len(batch.futures) > 1:
            batch.pieces = [b"".join(batch.pieces)]
        part = sign((topic, partition, self.identity, sequence, len(batch.futures)), batch.pieces)
        batch.pieces.insert(0, wire.FRAME.pack(PART.size + batch.size, batch.kind) + part)
        batch.at = self._loop.time()
        self._waiting[journal][sequence] = batch
        self._empty.clear()
        if self._timer is None:
            self._timer = self._loop.call_later(self._patience, self._give_up)

    def _push(self) -> None:
        if not self._connected:
            return
        out: list[bytes] = []
        for journal in (wire.BODIES, wire.STATE):
            waiting, sent = self._waiting[journal], self._sent[journal]
            while waiting and len(sent) < WINDOW_BATCHES and self._sent_bytes[journal] < WINDOW_BYTES:
                sequence = next(iter(waiting))
                batch = sent[sequence] = waiting.pop(sequence)
                self._sent_bytes[journal] += batch.size
                out += batch.pieces
        if out:
            self._send(out)

    def connected(self) -> None:
        """There is a new connection: send again, in order, what is unacknowledged."""
        for journal in (wire.STATE, wire.BODIES):
            self._waiting[journal] = {**self._sent[journal], **self._waiting[journal]}
            self._sent[journal] = {}
            self._sent_bytes[journal] = 0
        self._connected = True
        self._push()

    def disconnected(self) -> None:
        """Keep what comes until there is a connection."""
        self._connected = False

    def acknowledged(self, acks: bytes) -> None:
        """The log's answers."""
        for journal, sequence, base in wire.ACK.iter_unpack(acks):
            batch = self._sent[journal].pop(sequence, None)
            if batch is None:
                continue
            self._sent_bytes[journal] -= batch.size
            self.in_flight_bytes -= batch.size
            if base > WRITTEN_BEFORE:
                for future in batch.futures:
                    if not future.done():
                        future.set_result(base)
                    base += 1
            elif base == REFUSED:
                _fail(batch, BusFull("the log's disk is full; nothing of this was written"))
            else:
                _fail(batch, BusUnavailable("written before a restart of the log, at an address that is not known"))
        self._push()
        self._settle()

    def _settle(self) -> None:
        if not any(self._sent) and not any(self._waiting):
            self._empty.set()

    async def drained(self) -> None:
        """Nothing is unacknowledged any more."""
        self.flush()
        await self._empty.wait()

    def _give_up(self) -> None:
        """Fail what is older than our patience. It is never sent again; whether it was written is unknown if it was sent."""
        self._timer = None
        oldest = self._loop.time() - self._patience
        for journal in (wire.STATE, wire.BODIES):
            for batches in (self._sent[journal], self._waiting[journal]):
                for sequence, batch in list(batches.items()):
                    if batch.at > oldest:
                        break
                    del batches[sequence]
                    self.in_flight_bytes -= batch.size
                    if batches is self._sent[journal]:
                        self._sent_bytes[journal] -= batch.size
                    _fail(batch, BusUnavailable(f"the log did not acknowledge for {self._patience:g} s"))
        self._settle()
        first = [next(iter(batches.values())).at for batches in (*self._sent, *self._waiting) if batches]
        if first:
            self._timer = self._loop.call_at(min(first) + self._patience + 0.01, self._give_up)

    def close(self) -> None:
        """Fail what is left."""
        if self._timer is not None:
            self._timer.cancel()
        for batches in (*self._sent, *self._waiting):
            for batch in batches.values():
                _fail(batch, BusUnavailable("the bus was closed"))
            batches.clear()
        self.in_flight_bytes = 0


def _fail(batch: _Batch, error: BusUnavailable) -> None:
    for future in batch.futures:
        if not future.done():
            future.set_exception(error)
            # Some appends are not waited for; their loss shows in `healthy`, not as "never retrieved".
            future.exception()
