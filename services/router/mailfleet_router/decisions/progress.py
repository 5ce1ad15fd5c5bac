"""How far the results of a partition are dealt with."""

from __future__ import annotations

from collections import deque


class Progress:
    """The position in `mail.result` before which every effect is durable and valid."""

    def __init__(self, position: int) -> None:
        self.position = position
        self._open: deque[list[int]] = deque()

    def begin(self, offset: int) -> list[int]:
        """A result was read; what is returned goes to `done` when its effects have come back."""
        item = [offset, 0]
        self._open.append(item)
        return item

    def done(self, item: list[int]) -> None:
        """The effects of this one are in the log for good. Results before it may still be open."""
        item[1] = 1
        while self._open and self._open[0][1]:
            self.position = self._open.popleft()[0] + 1
