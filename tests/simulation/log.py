"""A log whose every step is taken by the simulation: handed over, written, acknowledged, compacted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

Where = tuple[str, int]
COMPACTION_LAG_SECONDS = 3600.0


@dataclass(slots=True)
class Line:
    """One partition."""

    records: list[tuple[int, bytes, bytes, bytes | None]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    end: int = 8

    def after(self, start: int, most: int) -> list[tuple[int, bytes, bytes, bytes | None]]:
        low, high = 0, len(self.records)
        while low < high:
            middle = (low + high) // 2
            if self.records[middle][0] < start:
                low = middle + 1
            else:
                high = middle
        return self.records[low : low + most]


class Log:
    """What outlives every process."""

    def __init__(self, rng: Random) -> None:
        self.lines: dict[Where, Line] = {}
        self.positions: dict[tuple[str, str, int], int] = {}
        self.now = 1_800_000_000.0
        self._rng = rng

    def line(self, topic: str, partition: int) -> Line:
        line = self.lines.get((topic, partition))
        if line is None:
            line = self.lines[topic, partition] = Line()
        return line

    def write(self, where: Where, key: bytes, value: bytes | None, tag: bytes) -> int:
        line = self.line(*where)
        offset = line.end
        line.records.append((offset, key, tag, value))
        line.times.append(self.now)
        line.end += 1 + self._rng.randrange(3)
        return offset

    def compact(self, where: Where) -> None:
        """Keep the newest record of each key among those older than the lag, as a real log may at any time."""
        line = self.line(*where)
        old = sum(1 for at in line.times if at <= self.now - COMPACTION_LAG_SECONDS)
        newest = {record[1]: record[0] for record in line.records[:old]}
        keep = [index for index, record in enumerate(line.records) if index >= old or newest[record[1]] == record[0]]
        line.records = [line.records[index] for index in keep]
        line.times = [line.times[index] for index in keep]


@dataclass(slots=True)
class Append:
    """One append of a client."""

    key: bytes
    value: bytes | None
    tag: bytes
    answer: Callable[[int | None], None] | None
    """Called with the offset, or None when it failed."""


class Client:
    """One process as the log sees it: what it has handed over is written in order per partition, some time."""

    def __init__(self, log: Log, rng: Random) -> None:
        self.log = log
        self.dead = False
        self._rng = rng
        self._fifos: dict[Where, deque[Append]] = {}
        self._answers: deque[tuple[Callable[[int | None], None], int | None]] = deque()

    def append(
        self, topic: str, partition: int, key: bytes, value: bytes | None, tag: bytes = b"",
        answer: Callable[[int | None], None] | None = None,
    ) -> None:  # fmt: skip
        self._fifos.setdefault((topic, partition), deque()).append(Append(key, value, tag, answer))

    def step(self, everything: bool = False) -> None:
        """Write some records of one partition; give some answers."""
        while waiting := [where for where, fifo in self._fifos.items() if fifo]:
            where = self._rng.choice(waiting)
            fifo = self._fifos[where]
            for _ in range(len(fifo) if everything else self._rng.randrange(len(fifo) + 1)):
                append = fifo.popleft()
                offset = self.log.write(where, append.key, append.value, append.tag)
                if append.answer is not None:
                    self._answers.append((append.answer, offset))
            if not everything:
                break
        for _ in range(len(self._answers) if everything else self._rng.randrange(len(self._answers) + 1)):
            answer, offset = self._answers.popleft()
            answer(offset)

    def fail(self) -> None:
        """Some appends of one partition fail, a part of which was written all the same."""
        waiting = [where for where, fifo in self._fifos.items() if fifo]
        if not waiting:
            return
        where = self._rng.choice(waiting)
        written = self._rng.randrange(len(self._fifos[where]) + 1)
        for index, append in enumerate(self._fifos.pop(where)):
            if index < written:
                self.log.write(where, append.key, append.value, append.tag)
            if append.answer is not None:
                self._answers.append((append.answer, None))

    def die(self) -> None:
        """Of what was handed over a part is written, of each partition's from its beginning; no answer comes."""
        self.dead = True
        for where, fifo in self._fifos.items():
            for _ in range(self._rng.randrange(len(fifo) + 1)):
                append = fifo.popleft()
                self.log.write(where, append.key, append.value, append.tag)
        self._fifos.clear()
        self._answers.clear()
