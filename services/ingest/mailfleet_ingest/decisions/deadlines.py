"""Which clients keep us waiting too long. One look at every connection a second; nothing is timed per read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from mailfleet_ingest.decisions import reply
from mailfleet_ingest.decisions.reply import Reply


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long is too long."""

    idle_seconds: float = 300.0
    session_seconds: float = 3600.0
    min_bytes_per_second: float = 500.0
    grace_seconds: float = 30.0
    """Content is not judged by its speed before this."""
    write_seconds: float = 60.0


class Look(NamedTuple):
    """What a connection looks like now."""

    waiting: bool
    """It waits for us."""
    in_content: bool
    commands: int
    messages: int
    received_bytes: int
    unsent_bytes: int
    """Replies that the client has not taken."""


class Overdue(NamedTuple):
    """End the connection; without an answer when the client does not read."""

    answer: Reply | None


class Watch:
    """The looks at one connection over time."""

    __slots__ = ("_command", "_content", "_message", "_unsent_since")

    def __init__(self, now: float) -> None:
        self._command = (0, now)
        self._message = (0, now)
        self._content: tuple[int, float] | None = None
        self._unsent_since: float | None = None

    def judge(self, look: Look, limits: Deadlines, now: float) -> Overdue | None:
        """None: it may go on."""
        if self._unread(look, limits, now):
            return Overdue(None)
        if look.messages != self._message[0]:
            self._message = (look.messages, now)
        if look.waiting:
            self._command, self._content = (look.commands, now), None
            return None
        if look.in_content:
            return self._judge_content(look, limits, now)
        self._content = None
        if look.commands != self._command[0]:
            self._command = (look.commands, now)
        idle = now - self._command[1] > limits.idle_seconds
        return Overdue(reply.IDLE) if idle or now - self._message[1] > limits.session_seconds else None

    def _unread(self, look: Look, limits: Deadlines, now: float) -> bool:
        if not look.unsent_bytes:
            self._unsent_since = None
        elif self._unsent_since is None:
            self._unsent_since = now
        return self._unsent_since is not None and now - self._unsent_since > limits.write_seconds

    def _judge_content(self, look: Look, limits: Deadlines, now: float) -> Overdue | None:
        self._command = (look.commands, now)
        if self._content is None:
            self._content = (look.received_bytes, now)
        seconds = now - self._content[1]
        speed_bytes = look.received_bytes - self._content[0]
        slow = seconds > limits.grace_seconds and speed_bytes < limits.min_bytes_per_second * seconds
        return Overdue(reply.TOO_SLOW) if slow else None
