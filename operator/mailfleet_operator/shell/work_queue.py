"""Keys that want a look: each at most once in the queue, and never looked at by two workers at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

Key = tuple[str, str]
FIRST_SECONDS, LONGEST_SECONDS = 1.0, 60.0
"""Between a look that failed and the next one; doubled each time."""


class WorkQueue:
    """Level-triggered: what has changed does not matter, only that it wants a look."""

    def __init__(self, look: Callable[[Key], Awaitable[None]], failed: Callable[[Key, Exception], None]) -> None:
        self._look, self._failed = look, failed
        self._waiting: deque[Key] = deque()
        self._listed: set[Key] = set()
        """In the queue."""
        self._at_work: set[Key] = set()
        self._again: set[Key] = set()
        """Asked for while they were at work."""
        self._failures: dict[Key, int] = {}
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, key: Key) -> None:
        """Look at `key` soon."""
        if key in self._at_work:
            self._again.add(key)
        elif key not in self._listed:
            self._listed.add(key)
            self._waiting.append(key)
            self._filled.set()

    async def work(self) -> None:
        """Be one of the workers."""
        while True:
            while not self._waiting:
                self._filled.clear()
                await self._filled.wait()
            key = self._waiting.popleft()
            self._listed.discard(key)
            self._at_work.add(key)
            try:
                await self._look(key)
                self._failures.pop(key, None)
            except Exception as error:
                self._later(key)
                self._failed(key, error)
            finally:
                self._at_work.discard(key)
                if key in self._again:
                    self._again.discard(key)
                    self.add(key)

    def _later(self, key: Key) -> None:
        count = self._failures[key] = self._failures.get(key, 0) + 1
        wait = min(LONGEST_SECONDS, FIRST_SECONDS * 2 ** (count - 1))
        asyncio.get_running_loop().call_later(wait, self.add, key)
