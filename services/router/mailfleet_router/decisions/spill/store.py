"""Units that were put out of memory, a chunk at a time."""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple, NoReturn

import msgspec

from mailfleet_core.model.ids import UNIT_ID_BYTES
from mailfleet_router.decisions.routing import Domain
from mailfleet_router.decisions.site_queue import ENDING, Held, SiteQueue
from mailfleet_router.decisions.spill.keys import MOST_HOPS, StoredKeys
from mailfleet_router.decisions.spill.row import pack, unpack
from mailfleet_router.decisions.spill.space import Spill, SpillLost

CHUNKS = 1 << 32
"""Numbers of chunks begin again after so many."""


class Chunk(msgspec.Struct, gc=False):
    """Some units that lie together."""

    number: int
    address: int
    length: int
    check: int
    units: int
    look_at: float
    """The first instant at which one of them needs a look although nobody asks for it."""


class Finder(NamedTuple):
    """What the names in a chunk stand for."""

    site: Callable[[str], SiteQueue]
    domain: Callable[[str], Domain]


def _nobody(name: str) -> NoReturn:
    raise KeyError(name)


NOTHING = Finder(_nobody, _nobody)
"""Before a unit has a site."""


class Store:
    """The units of one partition that lie outside memory. A unit is in `units` or here, never in both."""

    def __init__(self, units: dict[bytes, Held], spill: Spill, finder: Finder = NOTHING) -> None:
        self.room = spill.room
        self.finder = finder
        self.queues = 0
        """Backlogs of this partition of which a part lies here."""
        self.look_at: Callable[[Held], float] = lambda held: held.expires_at
        self._units = units
        self._space = spill.space
        self._keys = StoredKeys()
        self._chunks: dict[int, Chunk] = {}
        self._looks: list[tuple[float, int]] = []
        self._number = 0
        self._counted = 0

    def __len__(self) -> int:
        return len(self._keys)

    def count(self) -> None:
        """Tell the process how many units are in memory now."""
        self.room.change(len(self._units) - self._counted, 0)
        self._counted = len(self._units)

    def queue_begun(self, more: int = 1) -> None:
        """One more backlog has a part here, or (-1) one less."""
        self.queues += more
        self.room.change(0, more)

    def close(self) -> None:
        """The partition is given up; nothing of it counts any more."""
        self.room.change(-self._counted, -self.queues)
        self._counted = self.queues = 0
        self._space.clear()

    # --- by key --------------------------------------------------------------------------------------------------
    def hop(self, key: bytes) -> int:
        """With which hop a unit lies here; -1 when it does not."""
        if not self._keys:
            return -1
        where = self._keys.get(key)
        return -1 if where is None else where.hop

    def forget(self, key: bytes) -> bool:
        """The unit does not wait any more; did it lie here?"""
        return bool(self._keys) and self._keys.remove(key)

    def peek(self, key: bytes) -> Held | None:
        """A copy of a unit that lies here. Raises SpillLost."""
        where = self._keys.get(key) if self._keys else None
        if where is None:
            return None
        return next(held for held in self._read(self._chunks[where.chunk]) if held.key == key)

    def change(self, key: bytes, change: Callable[[Held], None]) -> None:
        """Change a unit that lies here. Raises SpillLost."""
        where = self._keys.get(key) if self._keys else None
        if where is not None:
            self.examine(where.chunk, lambda held: change(held) if held.key == key else None)

    def take(self, key: bytes) -> Held | None:
        """A unit that lies here, from now on in memory and in no queue. Raises SpillLost."""
        held = self.peek(key)
        if held is not None:
            self._keys.remove(key)
            self._units[key] = held
        return held

    # --- by chunk ------------------------------------------------------------------------------------------------
    def write(self, units: list[Held], wanted: Callable[[Held], bool]) -> Chunk | None:
        """Put units out of memory; those that are not `wanted` any more only leave a mark. None: there is no room."""
        mine = self._units
        keep = [held for held in units if wanted(held) and mine.get(held.key) is held]
        if any(len(held.key) != UNIT_ID_BYTES or held.hop > MOST_HOPS for held in keep):
            return None
        self._number = (self._number + 1) % CHUNKS
        chunk = Chunk(self._number, 0, 0, 0, len(units), min(map(self.look_at, keep), default=float("inf")))
        if not self._place(chunk, units):
            return None
        self._chunks[chunk.number] = chunk
        for held in keep:
            if mine.pop(held.key, None) is not None:
                self._keys.add(held.key, chunk.number, held.hop)
                # Whoever still has this object has nothing that waits.
                held.state = ENDING
        self._note(chunk)
        self.count()
        return chunk

    def read(self, chunk: Chunk) -> list[Held]:
        """Take the units of a chunk back into memory, in their order. In the place of one that left meanwhile there is one
        that is ending. Raises SpillLost."""
        found = self._read(chunk)
        for held in found:
            if self._keys.remove(held.key, chunk.number):
                self._units[held.key] = held
            else:
                held.state = ENDING
        self._space.free(chunk.address, chunk.length)
        del self._chunks[chunk.number]
        if not self._chunks:
            self._space.clear()
        self.count()
        return found

    # --- a look at what waits --------------------------------------------------------------------------------------
    def chunks(self) -> list[int]:
        """Numbers of all chunks, for `examine`."""
        return list(self._chunks)

    def copies(self, number: int) -> list[Held]:
        """Of the units of a chunk; none when it is not there any more. Raises SpillLost."""
        chunk = self._chunks.get(number)
        return [] if chunk is None else [held for held in self._read(chunk) if self._lies(held.key, number)]

    def to_look_at(self, now: float) -> Iterator[int]:
        """Chunks with a unit that needs a look, each once."""
        while self._looks and self._looks[0][0] <= now:
            at, number = heapq.heappop(self._looks)
            chunk = self._chunks.get(number)
            if chunk is not None and chunk.look_at == at:
                chunk.look_at = float("inf")
                yield number

    def examine(self, number: int, look: Callable[[Held], None]) -> int:
        """Show each unit of a chunk to `look`, which may change it. A unit whose state it changed is in memory from then on,
        and in no queue. Returns how many were shown. Raises SpillLost."""
        chunk = self._chunks.get(number)
        if chunk is None:
            return 0
        found = self._read(chunk)
        changed, shown, look_at = False, 0, float("inf")
        for held in found:
            if not self._lies(held.key, number):
                continue
            shown += 1
            changed = self._show(held, number, look) or changed
            if self._lies(held.key, number):
                look_at = min(look_at, self.look_at(held))
        chunk.look_at = look_at
        if changed:
            self._replace(chunk, found)
        self._note(chunk)
        return shown

    def _show(self, held: Held, number: int, look: Callable[[Held], None]) -> bool:
        """Is it another one than before, and still here?"""
        state, raw, reported, delay = held.state, held.raw, held.reported, held.delay
        # It is in memory while it is looked at, as everything that decisions see.
        self._keys.remove(held.key)
        self._units[held.key] = held
        look(held)
        if held.state != state or self._units.get(held.key) is not held:
            return False
        del self._units[held.key]
        self._keys.add(held.key, number, held.hop)
        return held.raw is not raw or held.reported != reported or held.delay != delay

    def _replace(self, chunk: Chunk, units: list[Held]) -> None:
        address, length, check = chunk.address, chunk.length, chunk.check
        if self._place(chunk, units):
            self._space.free(address, length)
            return
        # No room to change it: what was changed is told or done once more.
        chunk.address, chunk.length, chunk.check = address, length, check

    def _place(self, chunk: Chunk, units: list[Held]) -> bool:
        data = pack(units)
        address = self._space.write(data)
        if address is None:
            return False
        chunk.address, chunk.length, chunk.check = address, len(data), zlib.crc32(data)
        return True

    def _read(self, chunk: Chunk) -> list[Held]:
        data = self._space.read(chunk.address, chunk.length)
        if zlib.crc32(data) != chunk.check:
            raise SpillLost("the local store does not hold what was written to it")
        return unpack(data, self.finder.site, self.finder.domain)

    def _lies(self, key: bytes, number: int) -> bool:
        where = self._keys.get(key)
        return where is not None and where.chunk == number

    def _note(self, chunk: Chunk) -> None:
        if chunk.look_at < float("inf"):
            heapq.heappush(self._looks, (chunk.look_at, chunk.number))
