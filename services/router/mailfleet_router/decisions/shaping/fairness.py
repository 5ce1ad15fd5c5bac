"""Who is next inside one site: streams by priority, tenants of a priority by weighted deficit round robin.

A tenant whose turn it is sends as many units as its weight says, then the next one has its turn: a newcomer waits for one round,
however deep the others' queues are, and every operation takes constant time (Shreedhar and Varghese, 1995,
https://doi.org/10.1145/217391.217453, read 2026-11-22). A lower priority goes when the higher ones have nothing, and besides
has a floor: a share of the turns that nobody can take from it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")

FLOOR = 0.1
"""The share of turns of each lower priority that has something to send; all floors together stay below 1. Our design."""


class Flow(Generic[T]):
    """One tenant's units in one priority."""

    __slots__ = ("deficit", "items", "tenant", "weight")

    def __init__(self, tenant: str, weight: float) -> None:
        self.tenant = tenant
        self.weight = weight
        self.items: deque[T] = deque()
        self.deficit = 0.0
        """What it may still send in this turn; less than one between turns."""


class Class(Generic[T]):
    """One priority: the tenants that have something to send, in the order of their turns."""

    __slots__ = ("credit", "floor", "flows", "turns")

    def __init__(self, floor: float) -> None:
        self.floor = floor
        self.flows: dict[str, Flow[T]] = {}
        self.turns: deque[Flow[T]] = deque()
        self.credit = 0.0
        """Turns that its floor has earned it."""


class Fair(Generic[T]):
    """The units that are ready at one site.

    `weight` gives a tenant's weight, at least 1, asked whenever the tenant begins to wait; `live` says whether a unit
    that comes up is still wanted, so that removing one costs nothing until then; `floor` gives a priority's floor, asked
    once.
    """

    def __init__(
        self,
        weight: Callable[[str], float] = lambda _: 1.0,
        live: Callable[[T], bool] = lambda _: True,
        floor: Callable[[int], float] = lambda _: FLOOR,
    ) -> None:
        self._weight = weight
        self._live = live
        self._floor = floor
        self._classes: dict[int, Class[T]] = {}
        self._order: list[tuple[int, Class[T]]] = []
        self._size = 0

    def __len__(self) -> int:
        """Units that wait, with those that nobody wants any more."""
        return self._size

    def add(self, item: T, tenant: str, priority: int = 0) -> None:
        """One more unit. Priority 0 goes before 1, and so on."""
        self._flow(tenant, priority).items.append(item)
        self._size += 1

    def put_back(self, item: T, tenant: str, priority: int = 0) -> None:
        """A unit that `next` gave out and that could not go: it is its tenant's first again.

        Its turn is spent all the same, or a tenant that is held up would save turns and then hold up the others.
        """
        self._flow(tenant, priority).items.appendleft(item)
        self._size += 1

    def next(self) -> T | None:
        """The next unit, which is no longer kept here; None: nothing waits."""
        while (chosen := self._choose()) is not None:
            item, live = self._pop(chosen)
            if live:
                self._earn(chosen)
                return item
        return None

    def remove(self, tenant: str) -> list[T]:
        """Everything of a tenant, in order of priority."""
        removed: list[T] = []
        for _, class_ in self._order:
            flow = class_.flows.pop(tenant, None)
            if flow is not None:
                removed += flow.items
                flow.items.clear()  # its turn finds it empty
        self._size -= len(removed)
        return removed

    def _flow(self, tenant: str, priority: int) -> Flow[T]:
        class_ = self._classes.get(priority)
        if class_ is None:
            class_ = self._classes[priority] = Class(self._floor(priority))
            self._order = sorted(self._classes.items())
        flow = class_.flows.get(tenant)
        if flow is None:
            flow = class_.flows[tenant] = Flow(tenant, max(1.0, self._weight(tenant)))
            class_.turns.append(flow)
        return flow

    def _choose(self) -> Class[T] | None:
        """The highest priority that has something, or a lower one that has earned a turn."""
        top = None
        for _, class_ in self._order:
            self._skip_empty(class_)
            if not class_.turns:
                continue
            if top is None:
                top = class_
            elif class_.credit >= 1.0:
                return class_
        return top

    def _earn(self, served: Class[T]) -> None:
        """A turn was taken: every lower priority that waits has earned its floor; who took it has paid."""
        above = False
        for _, class_ in self._order:
            if above and class_.turns:
                class_.credit += class_.floor
            above = above or bool(class_.turns) or class_ is served
        served.credit = max(0.0, served.credit - 1.0)

    @staticmethod
    def _skip_empty(class_: Class[T]) -> None:
        while class_.turns and not class_.turns[0].items:
            class_.turns.popleft()

    def _pop(self, class_: Class[T]) -> tuple[T, bool]:
        flow = class_.turns[0]
        item = flow.items.popleft()
        self._size -= 1
        live = self._live(item)
        if live:
            if flow.deficit < 1.0:
                flow.deficit += flow.weight
            flow.deficit -= 1.0
        if not flow.items:
            class_.turns.popleft()
            del class_.flows[flow.tenant]
        elif flow.deficit < 1.0 and live:
            class_.turns.rotate(-1)
        return item, live


def jain(shares: Iterable[float]) -> float:
    """How evenly something is shared: 1 when all get the same, 1/n when one of n gets all.

    The shares of tenants with weights are to be divided by them. R. Jain, D. Chiu, W. Hawe, DEC-TR-301, 1984,
    https://www.cse.wustl.edu/~jain/papers/fairness.htm, read 2026-11-22.
    """
    values = list(shares)
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0
