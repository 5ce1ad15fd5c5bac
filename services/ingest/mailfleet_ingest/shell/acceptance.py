"""Making a message durable: body first, then the record that lets a router see it, then the 250."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from mailfleet_core import metrics
from mailfleet_core.bus import topics
from mailfleet_core.bus.port import Bus, BusUnavailable
from mailfleet_core.clock import Clock
from mailfleet_core.model import ids, wire
from mailfleet_ingest.decisions import headers, placement, reply
from mailfleet_ingest.decisions.dialogue import Transaction
from mailfleet_ingest.decisions.policy import Identity
from mailfleet_ingest.decisions.reply import Reply
from mailfleet_ingest.decisions.session import Session
from mailfleet_ingest.shell.sites import Sites

log = logging.getLogger(__name__)
PUT_TAG = topics.tag(topics.PUT)
ENTROPY_BYTES = 10
"""Of each message id."""
STICKY_BYTES = 256 << 10
"""Placed in a row into one partition of `mail.body`: a full batch of the log's client, which sends one batch of a partition
at a time, so that more would wait where another partition is free."""


REWRITE_SECONDS = 60.0
"""Content of a client slower than this is placed again at its end: the log drops a body that nothing refers to for some
minutes (the router's audit says how many)."""


class Draft:
    """A message that is being written."""

    __slots__ = (
        "at", "begun", "body_partition", "done", "eight_bit", "identity", "length", "message_id", "offsets", "session", "started",
        "text", "transaction",
    )  # fmt: skip

    def __init__(
        self, session: Session, identity: Identity, transaction: Transaction, message_id: bytes, at: float
    ) -> None:
        self.session = session
        self.identity = identity
        self.transaction = transaction
        self.message_id = message_id
        self.text = ids.text(message_id)
        self.at = at
        self.begun = 0.0
        self.body_partition = 0
        self.offsets: list[asyncio.Future[int]] = []
        self.length = 0
        self.eight_bit = transaction.mail.eight_bit
        self.started = 0.0
        self.done: Callable[[Reply], None] = _nobody


def _nobody(_: Reply) -> None:
    """Nobody waits for the reply yet."""


class Acceptance:
    """Writes messages to the log. What it began it finishes, whether the client is still there or not."""

    def __init__(self, bus: Bus, clock: Clock, sites: Sites, per_unit: int) -> None:
        self._bus = bus
        self._clock = clock
        self._sites = sites
        self._per_unit = per_unit
        self._writes: set[Draft] = set()
        self._ended = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._settling = False
        self._random = b""
        self._random_at = 0
        self._placed_bytes = STICKY_BYTES
        self._body_partition = self._accept_partition = 0
        self._accepted: dict[str, list[int]] = {}
        """Messages, recipients and bytes by tenant since the metrics were told."""

    def begin(self, session: Session, transaction: Transaction) -> Draft:
        """A draft for the message whose first content has come."""
        identity = session.identity
        assert identity is not None, "MAIL is refused without one"
        now = self._clock.now()
        draft = Draft(session, identity, transaction, ids.message_id(now, self._entropy()), now)
        if self._placed_bytes >= STICKY_BYTES:
            self._placed_bytes = 0
            self._body_partition = int(self._clock.jitter() * self._bus.partitions(topics.BODY))
            self._accept_partition = int(self._clock.jitter() * self._bus.partitions(topics.ACCEPT))
        draft.begun = self._clock.monotonic()
        draft.body_partition = self._body_partition
        return draft

    def _entropy(self) -> bytes:
        at = self._random_at
        if at >= len(self._random):
            # One question to the system for hundreds of mails.
            self._random, at = self._clock.entropy(ENTROPY_BYTES * 256), 0
        self._random_at = at + ENTROPY_BYTES
        return self._random[at : at + ENTROPY_BYTES]

    def append(self, draft: Draft, data: bytes) -> asyncio.Future[int] | None:
        """Append content, our header lines before the first of it; the future of its last record."""
        if not draft.eight_bit and not data.isascii():
            draft.eight_bit = True
        if not draft.length:
            data = self._opening(draft) + data
        length = len(data)
        if not length:
            return None
        draft.length += length
        self._placed_bytes += length
        for start in range(0, length, topics.MAX_CHUNK_BYTES):
            chunk = data[start : start + topics.MAX_CHUNK_BYTES]  # the same object when it is all of it
            placed = self._bus.place(topics.BODY, draft.body_partition, draft.message_id, chunk)
            draft.offsets.append(placed)
        return placed

    def _opening(self, draft: Draft) -> bytes:
        recipients = draft.transaction.recipients
        only = recipients[0].address if len(recipients) == 1 else ""
        header = draft.transaction.header
        assert header is not None, "the first block was judged"
        return headers.additions(header, draft.session.trace(), draft.text, only, draft.at)

    def finish(self, draft: Draft, data: bytes, done: Callable[[Reply], None]) -> None:
        """Write the rest and the record that makes it mail, then call `done` with the reply.

        Callbacks, not a task: the two waits of a task cost more than all else here. The draft is held by us and not by
        the connection, so a client that goes away cancels nothing.
        """
        draft.started = self._clock.monotonic()
        draft.done = done
        self.append(draft, data)
        self._writes.add(draft)
        if draft.started - draft.begun > REWRITE_SECONDS:
            task = asyncio.get_running_loop().create_task(self._write_anew(draft))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self._await_body(draft)

    async def _write_anew(self, draft: Draft) -> None:
        try:
            for number, written in enumerate(draft.offsets):
                chunk = await self._bus.read(topics.BODY, draft.body_partition, await written, topics.MAX_CHUNK_BYTES)
                draft.offsets[number] = self._bus.place(topics.BODY, draft.body_partition, draft.message_id, chunk)
        except BaseException as error:
            self._end(draft, _failure(draft, error))
        else:
            self._await_body(draft)

    def _await_body(self, draft: Draft) -> None:
        body: asyncio.Future[Any] = draft.offsets[0] if len(draft.offsets) == 1 else asyncio.gather(*draft.offsets)
        body.add_done_callback(partial(self._body_written, draft))

    def _body_written(self, draft: Draft, body: asyncio.Future[Any]) -> None:
        try:
            written = body.result()
            offsets = tuple(written) if isinstance(written, list) else (written,)
            topic, partition, key, value = self._record(draft, offsets)
            record = self._bus.append(topic, partition, key, value, PUT_TAG)
        except BaseException as error:
            self._end(draft, _failure(draft, error))
        else:
            record.add_done_callback(partial(self._record_written, draft))

    def _record_written(self, draft: Draft, record: asyncio.Future[int]) -> None:
        try:
            record.result()
        except BaseException as error:
            self._end(draft, _failure(draft, error))
        else:
            metrics.DURABLE_SECONDS.note(self._clock.monotonic() - draft.started)
            self._count(draft)
            self._end(draft, reply.accepted(draft.text))

    def _end(self, draft: Draft, answer: Reply) -> None:
        self._writes.discard(draft)
        if self._settling:
            self._ended.set()
        draft.done(answer)

    def _record(self, draft: Draft, offsets: tuple[int, ...]) -> tuple[str, int, bytes, bytes]:
        envelope = self._envelope(draft, wire.BodyRef(draft.body_partition, offsets, draft.length))
        partitions = self._bus.partitions(topics.QUEUE)
        placed = placement.place(
            envelope, draft.transaction.recipients, self._sites.table, self._per_unit, partitions, self._sites.shards
        )
        if isinstance(placed, placement.OneSite):
            return topics.QUEUE, placed.partition, placed.entry.unit.unit_id, wire.encode(placed.entry)
        return topics.ACCEPT, self._accept_partition, draft.message_id, wire.encode(placed.accepted)

    def _envelope(self, draft: Draft, body: wire.BodyRef) -> wire.Envelope:
        mail, identity, header = draft.transaction.mail, draft.identity, draft.transaction.header
        assert header is not None, "the first block was judged"
        hostname = draft.session.policy.hostname
        # In the order of the fields: names cost more than the values.
        return wire.Envelope(
            draft.message_id, mail.reverse_path, identity.tenant, identity.stream, identity.pool, body,
            draft.at, draft.at + identity.expire_seconds, draft.eight_bit, mail.smtputf8, mail.ret, mail.envid,
            header.message_id or headers.made_message_id(draft.text, hostname), draft.session.client,
            header.campaign,
        )  # fmt: skip

    def _count(self, draft: Draft) -> None:
        tenant = draft.identity.tenant
        counts = self._accepted.get(tenant)
        if counts is None:
            counts = self._accepted[tenant] = [0, 0, 0]
        counts[0] += 1
        counts[1] += len(draft.transaction.recipients)
        counts[2] += draft.length

    def tell_metrics(self) -> None:
        """Add what was counted: told for each mail, four metrics would cost thirteen calls and six locks."""
        for tenant, (messages, recipients, size_bytes) in self._accepted.items():
            metrics.ACCEPTED_MESSAGES.labels(tenant).inc(messages)
            metrics.ACCEPTED_RECIPIENTS.labels(tenant).inc(recipients)
            metrics.ACCEPTED_BYTES.labels(tenant).inc(size_bytes)
        self._accepted.clear()
        metrics.DURABLE_SECONDS.tell()

    async def settle(self) -> None:
        """Wait until every write that was begun has ended."""
        self._settling = True
        while self._writes:
            self._ended.clear()
            await self._ended.wait()


def _failure(draft: Draft, error: BaseException) -> Reply:
    """The log hears everything, the client only that it should come again."""
    unknown = None if isinstance(error, BusUnavailable) else error
    log.error("message not accepted: %s", error, extra={"message_id": draft.text}, exc_info=unknown)
    return reply.CONTENT_TROUBLE
