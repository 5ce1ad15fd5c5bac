"""Which units lie in the local store, and in which of its chunks: some 25 bytes a unit, and not an object for each."""

from __future__ import annotations

from typing import NamedTuple

from mailfleet_core.model.ids import UNIT_ID_BYTES

CHUNK_AT = UNIT_ID_BYTES
HOP_AT = CHUNK_AT + 4
ROW_BYTES = HOP_AT + 1
MOST_HOPS = 255
"""A unit that was moved more often cannot be noted."""
MEAN_ROWS = 48
"""Of a bucket, when the next one is divided."""


class Where(NamedTuple):
    """What is known of a unit without reading it."""

    chunk: int
    hop: int


class Bucket:
    """Rows one behind the other, and a byte of the hash of each, by which they are found."""

    __slots__ = ("marks", "rows")

    def __init__(self) -> None:
        self.marks = bytearray()
        self.rows = bytearray()

    def find(self, key: bytes, mark: int) -> int:
        """Where the row of `key` begins; -1 when it is not here."""
        number = self.marks.find(mark)
        while number >= 0:
            at = number * ROW_BYTES
            if self.rows.startswith(key, at):
                return at
            number = self.marks.find(mark, number + 1)
        return -1


class StoredKeys:
    """Unit id → (chunk, hop), exact. A hash table of byte strings that grows by a bucket at a time (W. Litwin, Linear
    hashing, VLDB 1980, https://www.vldb.org/conf/1980/P212.PDF): no call ever waits for the whole to be copied."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._buckets = [Bucket()]
        self._mask = 0
        self._split = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, key: bytes, chunk: int, hop: int) -> None:
        """The unit lies in `chunk` now. It must not be here yet; its key has `UNIT_ID_BYTES`, its hop is at most `MOST_HOPS`."""
        spread = hash(key)
        bucket = self._bucket(spread)
        bucket.marks.append(spread >> 48 & 255)
        bucket.rows += b"%b%b%c" % (key, chunk.to_bytes(4, "big"), hop)
        self._count += 1
        if self._count > len(self._buckets) * MEAN_ROWS:
            self._grow()

    def get(self, key: bytes) -> Where | None:
        """Where the unit lies; None when it does not lie here."""
        spread = hash(key)
        bucket = self._bucket(spread)
        at = bucket.find(key, spread >> 48 & 255)
        if at < 0:
            return None
        return Where(int.from_bytes(bucket.rows[at + CHUNK_AT : at + HOP_AT], "big"), bucket.rows[at + HOP_AT])

    def remove(self, key: bytes, chunk: int | None = None) -> bool:
        """Forget the unit, if it lies here (in `chunk`, when one is given); did it?"""
        spread = hash(key)
        bucket = self._bucket(spread)
        at, rows, marks = bucket.find(key, spread >> 48 & 255), bucket.rows, bucket.marks
        if at < 0 or (chunk is not None and not rows.startswith(chunk.to_bytes(4, "big"), at + CHUNK_AT)):
            return False
        last = marks.pop()
        if at < len(rows) - ROW_BYTES:
            rows[at : at + ROW_BYTES] = rows[-ROW_BYTES:]
            marks[at // ROW_BYTES] = last
        del rows[-ROW_BYTES:]
        self._count -= 1
        if not self._count:
            self._clear()
        return True

    def _bucket(self, spread: int) -> Bucket:
        index = spread & self._mask
        if index < self._split:
            index = spread & (self._mask << 1 | 1)
        return self._buckets[index]

    def _grow(self) -> None:
        """Divide the next bucket between itself and a new one."""
        wide = self._mask << 1 | 1
        old, stay, go = self._buckets[self._split], Bucket(), Bucket()
        for number, mark in enumerate(old.marks):
            row = old.rows[number * ROW_BYTES : (number + 1) * ROW_BYTES]
            side = stay if hash(bytes(row[:CHUNK_AT])) & wide == self._split else go
            side.marks.append(mark)
            side.rows += row
        self._buckets[self._split] = stay
        self._buckets.append(go)
        self._split += 1
        if self._split > self._mask:
            self._mask, self._split = wide, 0
