"""A queue of which only the ends need lie in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from mailfleet_router.decisions.site_queue import Held
from mailfleet_router.decisions.spill.store import Chunk, Store


class Backlog:
    """First in, first out, as a deque of units: what is put in comes out, in its order, also what nobody wants any more.

    When the process has no room for more, the middle lies in the store. `wanted` says of a unit whether this queue is
    still where it waits; only such a unit is put out of memory. `first` units always stay: whoever looks at the first one
    and then takes it, takes the same object.
    """

    __slots__ = ("_chunks", "_first", "_head", "_stored", "_tail", "_wanted", "store")

    def __init__(self, store: Store, wanted: Callable[[Held], bool], first: int = 1) -> None:
        self.store = store
        self._wanted = wanted
        self._first = first
        self._head: deque[Held] = deque()
        self._chunks: deque[Chunk] | None = None
        """None as long as nothing of it is in the store: most queues are short, and there are many."""
        self._tail: list[Held] = []
        self._stored = 0

    def __len__(self) -> int:
        return len(self._head) + self._stored + len(self._tail)

    def __iter__(self) -> Iterator[Held]:
        """The first of them: those that lie in memory."""
        return iter(self._head)

    def append(self, held: Held) -> None:
        """One more, as the last."""
        room = self.store.room
        if self._chunks is not None:
            self._tail.append(held)
            if room.pressed and len(self._tail) % room.chunk_units == 0:
                self._spill(room.chunk_units)
            return
        self._head.append(held)
        if room.pressed and len(self._head) >= max(self._first, room.head_units) + room.chunk_units:
            self._begin()

    def appendleft(self, held: Held) -> None:
        """One more, as the first."""
        self._head.appendleft(held)

    def __getitem__(self, index: int) -> Held:
        """The first, with index 0; others only as far as they lie in memory. Raises IndexError, SpillLost."""
        if not self._head and self._chunks is not None:
            self._refill()
        return self._head[index]

    def popleft(self) -> Held:
        """The first. Raises IndexError when there is none, SpillLost."""
        if not self._head and self._chunks is not None:
            self._refill()
        return self._head.popleft()

    def clear(self) -> list[Held]:
        """Take everything out. Raises SpillLost."""
        found: list[Held] = []
        while self:
            found.append(self.popleft())
        return found

    def _begin(self) -> None:
        """Of what is in memory only the first are left there."""
        self._chunks = deque()
        keep = max(self._first, self.store.room.head_units)
        self.store.queue_begun()
        head = self._head
        while len(head) > keep:
            self._tail.append(head.pop())
        self._tail.reverse()
        self._spill(self.store.room.chunk_units)

    def _spill(self, units: int) -> None:
        assert self._chunks is not None
        while len(self._tail) >= units:
            # Without room a full chunk more is waited for, or each unit would cost a try.
            chunk = self.store.write(self._tail[:units], self._wanted)
            if chunk is None:
                return
            self._chunks.append(chunk)
            self._stored += chunk.units
            del self._tail[:units]

    def _refill(self) -> None:
        assert self._chunks is not None
        if self._chunks:
            chunk = self._chunks[0]
            self._head.extend(self.store.read(chunk))
            self._chunks.popleft()
            self._stored -= chunk.units
            return
        self._head.extend(self._tail)
        self._tail = []
        self._chunks = None
        self.store.queue_begun(-1)
