"""The reply parser: any bytes in, replies out; the same ones however the bytes were split, in bounded memory."""

from __future__ import annotations

import re
from collections.abc import Iterable

from mailfleet_core.model.reply import MAX_TEXT, Reply, printable

MAX_LINE_BYTES = 2048
"""Kept of a line; RFC 5321 4.5.3.1.5 promises 512."""
MAX_LINES = 100
MAX_REPLY_BYTES = 65_536

_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?", re.DOTALL)
_ENHANCED = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: |$)")
_KNOWN = 16


class ReplyParser:
    """Turns the bytes of one connection into replies.

    What is no reply (an odd code, codes that change within one reply, more than 64 KB) comes out as one reply with
    code 0, and then nothing more: where the next reply would begin is not known.
    """

    __slots__ = ("_broken", "_dropped", "_known", "_lines", "_partial", "_size", "idle")

    def __init__(self) -> None:
        self.idle = True
        """Is nothing begun? A connection with half a reply in it is not fit for another command."""
        self._partial = b""
        self._dropped = 0
        """Bytes of the unfinished line that are not kept."""
        self._lines: list[bytes] = []
        self._size = 0
        """Bytes of the finished lines of the unfinished reply."""
        self._broken = False
        self._known: dict[bytes, list[Reply]] = {}

    def feed(self, data: bytes) -> list[Reply]:
        """The replies that `data` completes."""
        fresh = self.idle
        if fresh and (known := self._known.get(data)):
            return known
        replies: list[Reply] = []
        start = 0
        while not self._broken and (end := data.find(b"\n", start)) >= 0:
            self._take(data[start:end], end - start + 1, replies)
            start = end + 1
        if not self._broken and start < len(data):
            self._keep(data[start:], replies)
        self.idle = not (self._partial or self._lines or self._broken)
        if fresh and self.idle and len(data) < 256:
            self._remember(data, replies)
        return replies

    def _remember(self, data: bytes, replies: list[Reply]) -> None:
        # A server says the same to MAIL, RCPT and DATA for as long as a connection lives.
        if len(self._known) >= _KNOWN:
            self._known.clear()
        self._known[data] = replies

    def _keep(self, data: bytes, replies: list[Reply]) -> None:
        room = MAX_LINE_BYTES - len(self._partial)
        self._partial += data[:room]
        self._dropped += max(0, len(data) - room)
        if self._size + len(self._partial) + self._dropped > MAX_REPLY_BYTES:
            self._break(f"reply longer than {MAX_REPLY_BYTES} bytes", replies)

    def _take(self, rest: bytes, size: int, replies: list[Reply]) -> None:
        self._size += len(self._partial) + self._dropped + size
        line = (self._partial + rest)[:MAX_LINE_BYTES] if self._partial else rest[:MAX_LINE_BYTES]
        self._partial, self._dropped = b"", 0
        if self._size > MAX_REPLY_BYTES:
            self._break(f"reply longer than {MAX_REPLY_BYTES} bytes", replies)
            return
        match = _LINE.fullmatch(line.rstrip(b"\r"))
        if match is None or (self._lines and self._lines[0][:3] != match[1]):
            self._break(f"not a reply: {_text(line)[:200]}", replies)
            return
        if len(self._lines) < MAX_LINES or match[2] != b"-":
            self._lines.append(line)
        if match[2] != b"-":
            replies.append(reply_of(int(match[1]), (kept.rstrip(b"\r")[4:] for kept in self._lines)))
            self._lines, self._size = [], 0

    def _break(self, why: str, replies: list[Reply]) -> None:
        self._broken = True
        self._lines, self._partial = [], b""
        replies.append(Reply(0, "4.5.0", why))


def reply_of(code: int, lines: Iterable[bytes]) -> Reply:
    """The reply of a code and the texts of its lines: the enhanced code taken out, the rest made printable."""
    texts = [_text(line) for line in lines]
    match = _ENHANCED.match(texts[0]) if texts else None
    enhanced = match[1] if match and match[1][0] == str(code)[0] else ""
    if enhanced:
        texts = [text[len(enhanced) :] if text.startswith(enhanced) else text for text in texts]
    return Reply(code, enhanced, " ".join(filter(None, (text.strip() for text in texts)))[:MAX_TEXT])


def _text(line: bytes) -> str:
    return printable(line.decode("utf-8", "backslashreplace"))
