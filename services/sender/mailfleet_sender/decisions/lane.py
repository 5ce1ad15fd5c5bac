"""What a sender knows about the dispatches of a lane: how far they are answered, and what the answers were."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from mailfleet_core.model import wire

TAKEN, LEAVING, LEFT = b"T", b"l", b"L"
"""Tags of a lane's own records among the dispatches. TAKEN: whoever wrote it has the lane from here on. LEAVING: its owner
begins nothing more. LEFT: it has answered everything before the offset in the value and touched nothing behind it."""
MARKER_KEY = b"!lane"
REMEMBERED = 50_000

Key = tuple[bytes, int]
"""Unit id and attempt."""


class Position:
    """The offset up to which every dispatch of a lane has a durable result."""

    __slots__ = ("_open", "_seen", "committed")

    def __init__(self, start: int) -> None:
        self.committed = start
        self._seen = start
        self._open: dict[int, None] = {}

    @property
    def settled(self) -> bool:
        """Has everything that was read a durable result?"""
        return not self._open

    @property
    def value(self) -> int:
        """What may be committed: the oldest dispatch without a durable result, or what comes after the last one read."""
        return next(iter(self._open), self._seen)

    def met(self, offset: int) -> None:
        """A dispatch was read."""
        self._open[offset] = None
        if offset >= self._seen:
            self._seen = offset + 1

    def passed(self, offset: int) -> None:
        """A record was read that asks for nothing."""
        self._seen = max(self._seen, offset + 1)

    def answered(self, offset: int) -> None:
        """The result of the dispatch at `offset` is durable. Saying so twice changes nothing."""
        self._open.pop(offset, None)


class Memory:
    """The last answers, so that a repeated dispatch is answered again and never done again."""

    __slots__ = ("_answers", "_size")

    def __init__(self, size: int = REMEMBERED) -> None:
        self._answers: dict[Key, bytes] = {}
        self._size = size

    def __contains__(self, key: Key) -> bool:
        """Was this attempt answered?"""
        return key in self._answers

    def recall(self, key: Key) -> bytes | None:
        """The encoded result given for this attempt, or None."""
        return self._answers.get(key)

    def remember(self, key: Key, result: bytes) -> None:
        """This is the answer from now on."""
        self._answers[key] = result
        if len(self._answers) > self._size:
            del self._answers[next(iter(self._answers))]


class Epochs:
    """The newest epoch known of every queue partition."""

    __slots__ = ("_newest",)

    def __init__(self) -> None:
        self._newest: dict[int, int] = {}

    def heard(self, partition: int, epoch: int) -> None:
        """A router that owns `partition` has this epoch."""
        if epoch > self._newest.get(partition, -1):
            self._newest[partition] = epoch

    def stale(self, partition: int, epoch: int) -> bool:
        """Is a dispatch of this epoch a zombie's? If not, it is the newest from now on."""
        newest = self._newest.get(partition, -1)
        if epoch > newest:
            self._newest[partition] = epoch
        return epoch < newest


class Found(NamedTuple):
    """A record read from a lane before its new owner's TAKEN."""

    offset: int
    marker: bytes
    """TAKEN, LEAVING or LEFT; empty for a dispatch."""
    value: bytes


class Inheritance(NamedTuple):
    """What a new owner makes of the records before its own TAKEN."""

    lost: list[Found]
    """Dispatches that a former owner may have begun."""
    untouched: list[Found]
    """Dispatches that nobody can have begun."""


def inherit(committed: int, found: Iterable[Found]) -> Inheritance:
    """Divide what lies between the committed position and the own TAKEN.

    Without any TAKEN or a commit the lane never had an owner. After a LEFT by the last one that took it nothing behind
    the offset it names was touched. Everything else was in the hands of an owner who did not say good-bye.
    """
    dispatches: list[Found] = []
    untouched_from: int | None = 0 if committed == 0 else None
    taken = -1
    for record in found:
        if record.marker == TAKEN:
            taken, untouched_from = record.offset, None
        elif record.marker == LEFT:
            by, before = left_of(record.value)
            # Whoever was thought dead and says good-bye late cannot speak for the one that came after it.
            untouched_from = before if by >= taken else untouched_from
        elif not record.marker:
            dispatches.append(record)
    if untouched_from is None:
        return Inheritance(dispatches, [])
    return Inheritance(
        [record for record in dispatches if record.offset < untouched_from],
        [record for record in dispatches if record.offset >= untouched_from],
    )


def left(taken: int, before: int) -> bytes:
    """The value of a LEFT: the offset of the own TAKEN, and the first offset that was not touched."""
    return taken.to_bytes(8, "big") + before.to_bytes(8, "big")


def left_of(value: bytes) -> tuple[int, int]:
    """The inverse of `left`."""
    return int.from_bytes(value[:8], "big"), int.from_bytes(value[8:16], "big")


def without_outcome(dispatch: wire.Dispatch, kind: str, now: float) -> wire.Result:
    """The answer `lost` or `not_attempted` to a dispatch."""
    unit = dispatch.unit
    return wire.Result(unit.unit_id, unit.hop, dispatch.attempt, kind, dispatch.source, now, now)
