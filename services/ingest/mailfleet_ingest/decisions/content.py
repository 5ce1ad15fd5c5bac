"""The content of a message: found, checked and cut into blocks with a few operations over all bytes.

Nothing here looks at a line at a time: a Python loop over lines costs 60 µs per KB, these searches 1 µs.
"""

from __future__ import annotations

import io
from enum import Enum

from mailfleet_ingest.decisions import reply
from mailfleet_ingest.decisions.reply import Reply

TERMINATOR = b"\r\n.\r\n"
BLOCK_BYTES = 256 << 10
"""Content is handed on when this much has come, so a connection never holds more than that and one read."""


def problem(block: bytes, line_octets: int = 998) -> Reply | None:
    """What is wrong with `block`, which is whole lines; None: nothing."""
    if not has_only_crlf(block):
        return reply.BARE_IN_CONTENT
    if 0 in block:  # b"\0" would cost an exception, made and dropped
        return reply.NUL_IN_CONTENT
    return reply.LONG_LINE if has_long_line(block, line_octets + 2) else None


def has_only_crlf(block: bytes) -> bool:
    """Whether each CR and LF of `block` is part of a CRLF. The decoder notes which kinds of newline it passes, in C and
    in one pass: three counts take three times as long."""
    decoder = io.IncrementalNewlineDecoder(None, translate=False)
    decoder.decode(block.decode("latin-1"), final=True)
    return decoder.newlines in (None, "\r\n")


def has_long_line(block: bytes, octets: int) -> bool:
    """Whether a line of `block` is longer than `octets`, its CRLF included. Hops from one window's last line to the next."""
    at, end = 0, len(block) - octets
    while at <= end:
        at = block.rfind(b"\n", at, at + octets) + 1
        if at == 0:
            return True
    return False


def repaired(block: bytes) -> bytes:
    """`block` with each bare LF made CRLF."""
    if block.count(b"\r\n") == block.count(b"\n"):
        return block
    return block.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def unstuffed(block: bytes) -> bytes:
    """`block`, which begins at a line's start, without the dots that RFC 5321 4.5.2 put at starts of lines."""
    if block.startswith(b"."):
        block = block[1:]
    return block.replace(b"\r\n.", b"\r\n")


class Content:
    """Gathers the content of one message into blocks of whole, checked lines.

    Once something is wrong the rest is only counted: `refusal` is the answer to give at its end.
    """

    __slots__ = ("_dots", "_held", "_limit", "_line_octets", "_repair", "dotted", "length", "refusal")

    def __init__(self, limit: int, repair: bool, dots: bool, line_octets: int = 998) -> None:
        self._held = bytearray()
        self._limit = limit
        self._repair = repair
        self._dots = dots
        self._line_octets = line_octets
        self.length = 0
        self.dotted = False
        """Lines may begin with dots that were put there."""
        self.refusal: Reply | None = None

    @property
    def held_bytes(self) -> int:
        """Bytes in memory now."""
        return len(self._held)

    @property
    def runaway(self) -> bool:
        """It is so much over its limit that reading on only to be polite is not worth it."""
        return self.length > 2 * self._limit + (10 << 20)

    def refuse(self, answer: Reply) -> None:
        """Keep nothing more; `answer` at the end."""
        if self.refusal is None:
            self.refusal = answer
        self._held.clear()

    def add(self, data: bytes) -> bytes | None:
        """Take `data`; a block, when enough has come."""
        self.length += len(data)
        if self.length > self._limit:
            self.refuse(reply.TOO_BIG)
        if self.refusal is not None:
            return None
        self._held += data
        if len(self._held) < BLOCK_BYTES:
            return None
        cut = self._held.rfind(b"\n") + 1
        if not cut:
            self.refuse(reply.LONG_LINE)
            return None
        block = bytes(memoryview(self._held)[:cut])
        del self._held[:cut]
        return self._checked(block)

    def end(self, data: bytes, back: int = 0) -> bytes | None:
        """The last block: what is held and `data`, without the last `back` bytes held (they were of the terminator)."""
        self.length += len(data) - back
        if self.length > self._limit:
            self.refuse(reply.TOO_BIG)
        if self.refusal is not None:
            return None
        if not self._held:
            return self._checked(data)
        if back:
            del self._held[-back:]
        self._held += data
        return self._checked(bytes(self._held))

    def _checked(self, block: bytes) -> bytes | None:
        if self._repair:
            block = repaired(block)
        if self.dotted:
            block = unstuffed(block)
        elif not self._dots and block and not block.endswith(b"\n"):
            # Only the last BDAT block can end so; every reader after us speaks in lines.
            block += b"\r\n"
        wrong = problem(block, self._line_octets)
        if wrong is not None:
            self.refuse(wrong)
            return None
        return block


class End(Enum):
    """What ended with the bytes that were taken."""

    NOTHING = 0
    CHUNK = 1
    MESSAGE = 2


NOTHING, CHUNK, MESSAGE = End


class Dots:
    """DATA: content ends at the first CRLF.CRLF, across however many reads; the CRLF of the DATA line counts."""

    __slots__ = ("_edge", "content")

    def __init__(self, content: Content) -> None:
        self.content = content
        self._edge = b"\r\n"

    def take(self, data: bytes, start: int) -> tuple[int, bytes | None, End]:
        """(where the next read or command begins, a block if there is one, what ended)."""
        content = self.content
        if not start and not content.length and data[:1] != b".":
            # Nearly all mail: all of it in one read, the only dot at a line's start is the last one's.
            end = len(data) - 5
            if data.find(b"\r\n.") == end and data.endswith(TERMINATOR):
                return end + 5, content.end(data[:-3]), MESSAGE
        at = self._find(data, start)
        if at is None:
            return len(data), content.add(data[start:] if start else data), NOTHING
        end = at + 2
        block = content.end(data[start:end] if end > start else b"", max(0, start - end))
        return at + 5, block, MESSAGE

    def _find(self, data: bytes, start: int) -> int | None:
        """Where the terminator begins in `data`; below `start`, when in an earlier read.

        One search serves two ends: no line with a dot at its start before the terminator, nothing to take off.
        """
        edge = self._edge
        seam = edge + data[start : start + 4]
        if seam.find(b"\r\n.") >= 0:
            self.content.dotted = True
            at = seam.find(TERMINATOR)
            if at >= 0:
                return at - len(edge) + start
        at = data.find(b"\r\n.", start)
        if at >= 0 and data[at + 3 : at + 5] != b"\r\n":
            self.content.dotted = True
            at = data.find(TERMINATOR, at)
        if at < 0:
            self._edge = (edge + data[max(start, len(data) - 4) :])[-4:]
            return None
        return at


class Chunk:
    """BDAT: content is the next so many octets, whatever they are."""

    __slots__ = ("_last", "_octets", "content")

    def __init__(self, content: Content, octets: int, last: bool) -> None:
        self.content = content
        self._octets = octets
        self._last = last

    def take(self, data: bytes, start: int) -> tuple[int, bytes | None, End]:
        """As Dots.take."""
        piece = data[start : start + self._octets]
        self._octets -= len(piece)
        at = start + len(piece)
        if self._octets:
            return at, self.content.add(piece), NOTHING
        if self._last:
            return at, self.content.end(piece), MESSAGE
        return at, self.content.add(piece), CHUNK
