"""The way of a session's bytes: lines in, replies out, and what waits for the shell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mailfleet_ingest.decisions import reply
from mailfleet_ingest.decisions.dialogue import MAX_AUTH_LINE, NEXT, Close, Event, State, Transaction
from mailfleet_ingest.decisions.policy import Policy
from mailfleet_ingest.decisions.reply import Reply


class Reading:
    """What reading one connection needs, whatever the commands mean."""

    def __init__(self, policy: Policy, commands: Callable[[Any], bool]) -> None:
        self.policy = policy
        self.rejections: list[Reply] = []
        """Refusals since the shell last looked."""
        self._state = State.NEW
        self._buffer = b""
        self._at = 0
        self._out: list[bytes] = []
        self._read = self._commands = commands
        """What takes the next bytes: commands at first, and again after what is not one."""
        self._events: list[Event] = []
        self._transaction: Transaction | None = None
        self._errors = 0

    def receive(self, data: bytes) -> list[Event]:
        """Take bytes from the client; b"" goes on after an answer."""
        if data:
            self._buffer = self._buffer[self._at :] + data if self._at < len(self._buffer) else data
            self._at = 0
        while self._at < len(self._buffer) and self._read(self):
            pass
        if self._at >= len(self._buffer):
            self._buffer, self._at = b"", 0
        if not self._events:
            return []
        events, self._events = self._events, []
        return events

    def output(self) -> bytes:
        """The replies since the last call."""
        out = self._out
        if len(out) == 1:
            self._out = []
            return out[0]
        self._out = []
        return b"".join(out)

    def close(self, answer: Reply | None, *, abort: bool = False) -> None:
        """End the session with `answer`; nothing more is read."""
        if answer is not None:
            self._say(answer)
        self._read = STOP
        self._transaction = None
        self._events.append(Close(abort))

    @property
    def ahead(self) -> bool:
        """Something the client has sent is not read yet."""
        return self._buffer != b""

    @property
    def waiting(self) -> bool:
        """An answer of the shell is due."""
        return self._read is WAIT

    def _say(self, answer: Reply) -> None:
        self._out.append(answer.wire)
        if answer.reason:
            self.rejections.append(answer)

    def _wait(self) -> bool:
        """Read nothing: an answer of the shell is due."""
        return False

    def _stop(self) -> bool:
        """Read nothing any more."""
        return False

    def _line(self) -> bytes | None:
        """The next line without its CRLF; None: it has not come whole, or it ended the session."""
        buffer, start = self._buffer, self._at
        end = buffer.find(b"\n", start)
        if end < 0:
            if len(buffer) - start > MAX_AUTH_LINE:
                self.close(reply.LINE_TOO_LONG)
            return None
        line = buffer[start : end - 1] if end > start else b"\n"
        if len(line) > MAX_AUTH_LINE:
            self.close(reply.LINE_TOO_LONG)
            return None
        self._at = end + 1
        # Numbers, not b"\r": for bytes in bytes an exception is made and dropped first.
        if end == start or buffer[end - 1] != 13 or 13 in line or 0 in line:
            # What follows cannot be trusted to be a command: it may be the smuggled half of something.
            self.close(reply.BARE_NEWLINE)
            return None
        return line

    def _limit_reached(self, answer: Reply) -> None:
        if self._read is self._commands:
            self.close(answer)

    def _error(self, answer: Reply) -> None:
        self._say(answer)
        self._errors += 1
        if self._errors >= self.policy.limits.errors:
            self._limit_reached(reply.TOO_MANY_ERRORS)

    def _go(self, verb: bytes, answer: Reply) -> None:
        self._say(answer)
        self._state = NEXT[self._state, verb]


WAIT, STOP = Reading._wait, Reading._stop
