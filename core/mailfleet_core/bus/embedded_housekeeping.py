"""What keeps the disk bounded: compaction and retention of sealed segments, away from the loop and the writers."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import msgspec

from mailfleet_core.bus.embedded_compaction import Plan
from mailfleet_core.bus.embedded_journal import Journal
from mailfleet_core.bus.embedded_notes import Checkpoint, Cover, cover_of
from mailfleet_core.bus.embedded_segment import AGED, KEYS, RAW, Segment
from mailfleet_core.bus.embedded_wire import TopicSpec

log = logging.getLogger(__name__)

TOMBSTONE_MILLISECONDS = 600_000
"""A tail that lost its connection for less than this misses no tombstone."""


class Policy(msgspec.Struct, frozen=True):
    """How much is kept."""

    compact_bytes: int = 64 << 20
    """Raw segments are compacted when there is this much of them, or half of what is compacted already."""
    settle_milliseconds: int = 300_000
    """Segments written to since are left alone: the owner of a queue must have read a late write of its predecessor, and
    said what holds, before the record that the late write replaced may go."""
    history_bytes: int = 16 << 30
    """Of topics kept for their age (events): above it the oldest go earlier."""


def droppable(state: Checkpoint, topics: Sequence[TopicSpec]) -> dict[int, int]:
    """By partition, the offset before which nobody needs anything: trimmed, or passed by all who consume it."""
    before = dict(state.trims)
    consumed: dict[int, int] = {}
    for name, position in state.positions.items():
        key = int(name.rpartition("|")[2])
        if 0 < key >> 16 <= len(topics) and topics[(key >> 16) - 1].consumed:
            consumed[key] = min(consumed.get(key, position), position)
    for key, position in consumed.items():
        before[key] = max(before.get(key, 0), position)
    return before


def plan(
    journal: Journal, topics: Sequence[TopicSpec], now: int, tails: dict[int, int], settle_milliseconds: int = 0
) -> Plan | None:
    """The compaction of the sealed raw segments that have settled; None when there is none."""
    raw = [segment for segment in journal.segments[:-1] if segment.kind == RAW]
    if settle_milliseconds:
        settled = now - settle_milliseconds
        raw = list(takewhile(lambda segment: segment.path.stat().st_mtime * 1000 <= settled, raw))
    if not raw:
        return None
    keys = next((segment.path.name for segment in journal.segments if segment.kind == KEYS), "")
    return Plan(
        directory=str(journal.directory),
        raw=[segment.path.name for segment in raw],
        covers=raw[-1].end,
        keys=keys,
        compacted=[number for number, topic in enumerate(topics, 1) if topic.compacted],
        drop_before=droppable(journal.state, topics),
        drop_older={
            number: now - topic.retention_seconds * 1000
            for number, topic in enumerate(topics, 1)
            if not topic.compacted
        },
        tombstones_older=now - TOMBSTONE_MILLISECONDS,
        tombstones_before=tails,
    )


def outdated(
    cover: Cover, topics: Sequence[TopicSpec], before: dict[int, int], now: int, *, crowded: bool = False
) -> bool:
    """May a file go? `crowded`: history may go before its age, work that is not consumed may not."""
    for key, end in cover.ends.items():
        topic = topics[(key >> 16) - 1]
        aged = cover.newest + topic.retention_seconds * 1000 < now
        if not (end <= before.get(key, 0) or aged or (crowded and not topic.consumed)):
            return False
    return True


class Housekeeper:
    """Runs after a segment was sealed and once in a while; one round at a time."""

    def __init__(self, policy: Policy, state: Journal, bodies: Journal) -> None:
        self.policy = policy
        self.state = state
        self.bodies = bodies

    async def round(
        self,
        topics: Sequence[TopicSpec],
        now: int,
        tails: dict[int, int],
        in_writer: Sequence[Callable[[Callable[[], None]], Any]],
    ) -> bool:
        """Compact and drop what can go; True when body files are gone. `in_writer` runs a function in a writing thread."""
        await self._compact(topics, now, tails, in_writer[0])
        await self._drop_aged(topics, now, in_writer[0])
        return await self._drop_bodies(topics, now, in_writer[1])

    async def _compact(
        self,
        topics: Sequence[TopicSpec],
        now: int,
        tails: dict[int, int],
        in_writer: Callable[[Callable[[], None]], Any],
    ) -> None:
        chosen = plan(self.state, topics, now, tails, self.policy.settle_milliseconds)
        if chosen is None:
            return
        raw = [segment for segment in self.state.segments if segment.path.name in chosen.raw]
        keys = [segment for segment in self.state.segments if segment.kind == KEYS]
        enough = max(self.policy.compact_bytes, sum(segment.size for segment in keys) // 2)
        if sum(segment.size for segment in raw) < enough:
            return
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "mailfleet_core.bus.embedded_compaction",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, problem = await process.communicate(msgspec.json.encode(chosen))
        if process.returncode:
            log.error("compaction failed, nothing is dropped: %s", problem.decode(errors="replace").strip()[-1000:])
            return
        new = [_compacted(self.state.directory / name) for name in out.decode().split()]
        await in_writer(lambda: self.state.replace([*raw, *keys], new))
        sizes = [sum(segment.size for segment in some) for some in ((*raw, *keys), new)]
        log.info("compacted", extra={"bytes_before": sizes[0], "bytes_after": sizes[1]})

    async def _drop_aged(
        self, topics: Sequence[TopicSpec], now: int, in_writer: Callable[[Callable[[], None]], Any]
    ) -> None:
        before = droppable(self.state.state, topics)
        aged = [segment for segment in self.state.segments if segment.kind == AGED]
        gone = [segment for segment in aged if outdated(segment.cover, topics, before, now)]
        left = [segment for segment in aged if segment not in gone]
        excess = sum(segment.size for segment in left) - self.policy.history_bytes
        for segment in left:
            if excess > 0 and outdated(segment.cover, topics, before, now, crowded=True):
                gone.append(segment)
                excess -= segment.size
        # The last one stays: it says after a crash how far compaction went.
        gone = [segment for segment in gone if segment is not aged[-1]]
        if gone:
            await in_writer(lambda: self.state.replace(gone, []))

    async def _drop_bodies(
        self, topics: Sequence[TopicSpec], now: int, in_writer: Callable[[Callable[[], None]], Any]
    ) -> bool:
        before = dict(self.bodies.state.trims)
        gone = []
        for segment in self.bodies.segments[:-1]:
            if segment.cover is None:
                segment.cover = await asyncio.get_running_loop().run_in_executor(None, body_cover, segment)
                segment.index = None
            if outdated(segment.cover, topics, before, now):
                gone.append(segment)
        if gone:
            await in_writer(lambda: self.bodies.replace(gone, []))
        return bool(gone)


def body_cover(segment: Segment) -> Cover:
    """What a sealed file of bodies holds."""
    cover = Cover(segment.end, newest=int(segment.path.stat().st_mtime * 1000))
    segment.extents(0)
    for key, extents in (segment.index or {}).items():
        cover.ends[key] = extents.ends[-1]
    return cover


def _compacted(path: Path) -> Segment:
    segment = Segment(path, int(path.stem), path.suffix[1:], path.stat().st_size)
    segment.cover = cover_of(segment)
    segment.end = segment.cover.covers
    return segment
