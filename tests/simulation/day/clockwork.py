"""Virtual time: what happens next."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from typing import Any

from simulation.day.mails import Mail

Act = Callable[[Any], None]


class Clockwork:
    """Things to do, in order of time; of two at one instant, the one that was asked for first."""

    def __init__(self, now: float) -> None:
        self.now = now
        self._heap: list[tuple[float, int, Act, Any]] = []
        self._number = 0
        self._mails: Iterator[Mail] = iter(())
        self._mail: Mail | None = None
        self._submit: Callable[[Mail], None]

    def at(self, when: float, act: Act, what: object) -> None:
        """Do `act(what)` at `when`."""
        self._number += 1
        heapq.heappush(self._heap, (when, self._number, act, what))

    def feed(self, mails: Iterator[Mail], submit: Callable[[Mail], None]) -> None:
        """Mails come in, in order of time."""
        self._mails, self._submit, self._mail = mails, submit, next(mails, None)

    def run(self, until: float) -> None:
        """All that happens before `until`."""
        heap, pop = self._heap, heapq.heappop
        while True:
            mail = self._mail
            if mail is not None and (not heap or mail.at <= heap[0][0]):
                if mail.at >= until:
                    break
                self.now = mail.at
                self._submit(mail)
                self._mail = next(self._mails, None)
            elif heap and heap[0][0] < until:
                self.now, _, act, what = pop(heap)
                act(what)
            else:
                break
        self.now = until
