"""What receivers stored, read back from their Maildirs and told apart from the trace lines that they put on top."""

from __future__ import annotations

import email
import email.policy
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import cast

TRACE = (b"return-path:", b"delivered-to:", b"x-original-to:", b"envelope-to:", b"delivery-date:", b"received:")
"""Lines that the systems on the way put before a message, in lower case."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One message in one mailbox."""

    recipient: str
    reverse_path: str
    content: bytes
    """As it lies in the mailbox."""

    @property
    def bare(self) -> bytes:
        """The message with CRLF line ends and without the trace lines before it."""
        return without_trace(self.content)

    def parsed(self) -> EmailMessage:
        """The message as Python's email package reads it."""
        return cast(EmailMessage, email.message_from_bytes(self.content, policy=email.policy.default))


def without_trace(content: bytes) -> bytes:
    """`content` with CRLF line ends, from its first line that is no trace."""
    lines = content.replace(b"\r\n", b"\n").split(b"\n")
    start, in_trace = 0, True
    for number, line in enumerate(lines):
        if not line.startswith((b" ", b"\t")):
            in_trace = line.lower().startswith(TRACE)
        if not in_trace:
            start = number
            break
    return b"\r\n".join(lines[start:])


def maildir_files(*directories: Path) -> list[Path]:
    """The messages of Maildirs, oldest first."""
    found = [file for directory in directories for part in ("new", "cur") for file in (directory / part).glob("*")]
    return sorted(found, key=lambda file: file.stat().st_mtime_ns)


def header(content: bytes, name: str) -> str:
    """The first value of a header line, as text; empty when there is none."""
    wanted = name.lower().encode() + b":"
    for line in content.replace(b"\r\n", b"\n").split(b"\n"):
        if not line:
            break
        if line.lower().startswith(wanted):
            return line[len(wanted) :].strip().decode("utf-8", "surrogateescape")
    return ""


def wait_for(
    read: Callable[[], Iterable[Stored]], count: int, seconds: float = 30.0, *, settle: float = 0.0
) -> list[Stored]:
    """What `read` gives once there are `count` messages (and `settle` seconds later, to see one too many).

    Raises AssertionError when they do not come.
    """
    deadline = time.monotonic() + seconds
    while len(found := list(read())) < count:
        assert time.monotonic() < deadline, f"{len(found)} of {count} messages after {seconds} s"
        time.sleep(0.05)
    if settle:
        time.sleep(settle)
        found = list(read())
    return found
