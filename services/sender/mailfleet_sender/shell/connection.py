"""One connection to a receiving server, after EHLO: carries out what `Transaction` says."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from mailfleet_core.model import reply as phases
from mailfleet_core.smtp.client import Offered, State, Step, Transaction
from mailfleet_core.smtp.reply import ReplyParser
from mailfleet_sender.settings import SenderSettings
from mailfleet_sender.shell.jobs import Job, Link

PIECE_BYTES = 262_144
"""Given to the transport at once; a longer message goes on when the transport asks for more."""
QUIT_SECONDS = 5.0
SOON = 0.0
"""A deadline that the next `check` sets: asking for the time at every step costs more than a wait is exact."""
_WAIT, _WRITE, _BODY, _DONE = Step


class Owner(Protocol):
    """Who gives a connection its work."""

    def finished(self, connection: Connection, job: Job, transaction: Transaction) -> None:
        """A transaction has ended; the connection may be used again if it is not `quitting`."""

    def untouched(self, connection: Connection, job: Job) -> None:
        """The connection died before the server said a word about `job`."""

    def closed(self, connection: Connection) -> None:
        """The connection is gone."""


def phase_seconds(settings: SenderSettings) -> dict[str, float]:
    """How long each phase may be silent."""
    return {
        phases.MAIL: settings.mail_seconds,
        phases.RCPT: settings.rcpt_seconds,
        phases.DATA: settings.data_seconds,
        phases.DOT: settings.dot_seconds,
    }


class Connection(asyncio.Protocol):
    """An `asyncio.Protocol` that is given an open transport, and then one job after the other."""

    __slots__ = (
        "_job", "_lmtp", "_loop", "_offers", "_owner", "_parser", "_paused", "_pieces", "_reset", "_seconds",
        "_transaction", "_transport", "_unsent", "block_seconds", "deadline", "link", "outdated", "quitting", "sent",
    )  # fmt: skip

    def __init__(
        self, owner: Owner, link: Link, offers: Offered, lmtp: bool, seconds: dict[str, float], block_seconds: float
    ) -> None:
        self.link = link
        self.sent = 0
        self.deadline = 0.0
        self.quitting = False
        self.outdated = False
        """Its source connects in another way by now."""
        self.block_seconds = block_seconds
        self._owner = owner
        self._offers = offers
        self._lmtp = lmtp
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._parser = ReplyParser()
        self._transport: Any = None
        self._transaction: Transaction | None = None
        self._job: Job | None = None
        self._reset = False
        self._paused = False
        self._pieces: list[bytes | memoryview] = []
        self._unsent = 0

    def adopt(self, transport: Any) -> None:
        """Take over a transport on which EHLO was answered."""
        self._transport = transport
        transport.set_protocol(self)

    @property
    def usable(self) -> bool:
        """May another transaction begin?"""
        return (
            self._transaction is None and not self.quitting and not self._transport.is_closing() and self._parser.idle
        )

    @property
    def after_the_dot(self) -> bool:
        """Has the server perhaps taken the mail, without having said so?"""
        return self._transaction is not None and self._transaction.state == State.DOT

    def begin(self, job: Job) -> None:
        """Carry out one job; the owner hears of its end."""
        assert job.body is not None
        self._job = job
        self.sent += 1
        unit = job.dispatch.unit
        self._transaction = transaction = Transaction(unit, job.body, self._offers, self._lmtp, self._reset)
        step = transaction.start()
        if step is _DONE:
            # Everybody was refused here; later, since whoever calls `begin` is in the middle of something.
            self._loop.call_soon(self._finish)
        else:
            self._transport.write(transaction.output)
            self.deadline = SOON

    def quit(self) -> None:
        """Say good-bye and close."""
        if self.quitting or self._transport.is_closing():
            return
        self.quitting = True
        self.deadline = self._loop.time() + QUIT_SECONDS
        self._transport.write(b"QUIT\r\n")

    def abort(self) -> None:
        """Close at once; the owner has taken the job back."""
        self._transaction = self._job = None
        self.quitting = True
        self._transport.abort()

    def check(self, now: float) -> None:
        """Called every now and then: end what is too slow."""
        if self._transaction is None:
            if self.quitting and now >= self.deadline:
                self._transport.abort()
            return
        if self._unsent:
            self._watch_writing(now)
        phase = self._transaction.phase
        if self.deadline == SOON:
            self.deadline = now + self._seconds[phase]
        elif now >= self.deadline:
            self._transaction.lost(f"{self.link.mx or self.link.address}: no answer in time ({phase})")
            self._finish()
            self._transport.abort()

    def _watch_writing(self, now: float) -> None:
        unsent = self._transport.get_write_buffer_size()
        if not unsent and not self._pieces:
            self.deadline = now + self._seconds[phases.DOT]
        elif unsent != self._unsent:
            self.deadline = now + self.block_seconds
        self._unsent = unsent

    # --- asyncio.Protocol ----------------------------------------------------------------------------------------
    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        transaction = self._transaction
        replies = self._parser.feed(data)
        if transaction is None:
            # Nobody asked: 421 before it closes, the answer to QUIT, or nonsense. All of them end the connection.
            if not self.quitting:
                self.quitting = True
            self._transport.close()
            return
        if self._unsent and self._transport.get_write_buffer_size():
            transaction.lost(f"{self.link.mx}: a reply before the end of the message")
            self._finish()
            return
        if len(replies) > 1 and transaction.let_through(replies):
            self._write_body(transaction)
        else:
            for reply in replies:
                step = transaction.receive(reply)
                # The answers to MAIL and RCPT of a pipelined transaction ask for nothing.
                if step is not _WAIT:
                    self._do(transaction, step)
        if replies and self._transaction is transaction and not self._unsent:
            self.deadline = SOON

    def eof_received(self) -> bool:
        """See `asyncio.Protocol`."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        if self._transaction is not None:
            why = f": {error}" if error else ""
            self._transaction.lost(f"lost connection with {self.link.mx or self.link.address}{why}")
            self._finish()
        self._owner.closed(self)

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._paused = True

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._paused = False
        if self._pieces and self._transaction is not None:
            self._write_pieces(self._transaction)

    # --- steps ---------------------------------------------------------------------------------------------------
    def _do(self, transaction: Transaction, step: Step) -> None:
        if step is _DONE:
            if self._transaction is transaction:
                self._finish()
            else:
                self._transport.close()
            return
        if step is _WRITE:
            self._transport.write(transaction.output)
        else:
            self._write_body(transaction)

    def _write_body(self, transaction: Transaction) -> None:
        pieces = transaction.body.pieces
        if len(pieces) == 1:
            self._transport.write(pieces[0])
            transaction.body_written()
            return
        if sum(map(len, pieces)) <= PIECE_BYTES:
            self._transport.writelines(pieces)
            transaction.body_written()
            return
        self._pieces = [
            memoryview(piece)[at : at + PIECE_BYTES] for piece in pieces for at in range(0, len(piece), PIECE_BYTES)
        ]
        self._pieces.reverse()
        self._unsent = PIECE_BYTES
        self._write_pieces(transaction)

    def _write_pieces(self, transaction: Transaction) -> None:
        self.deadline = self._loop.time() + self.block_seconds
        while self._pieces and not self._paused:
            self._transport.write(self._pieces.pop())
        if not self._pieces:
            # Given to the transport, which may hold the rest for long: `check` watches it leave.
            transaction.body_written()

    def _finish(self) -> None:
        transaction, job = self._transaction, self._job
        if transaction is None or job is None:
            return
        self._transaction = self._job = None
        self._reset = transaction.reset_needed
        if self._pieces or self._unsent:
            self._pieces, self._unsent = [], 0
        if not transaction.reusable:
            self.quitting = True
            if transaction.untouched and self.sent > 1 and not job.moved:
                self._transport.close()
                self._owner.untouched(self, job)
                return
            self._end()
        self._owner.finished(self, job, transaction)

    def _end(self) -> None:
        # Without QUIT, which in the middle of a message would be a line of it.
        self._transport.abort() if self._transport.get_write_buffer_size() else self._transport.close()
