"""Who is next inside one site: streams by priority, tenants of a priority by weighted deficit round robin.

A tenant whose turn it is sends as many units as its weight says, then the next one has its turn: a newcomer waits for one round,
however deep the others' queues are, and every operation takes constant time (Shreedhar and Varghese, 1995,
https://doi.org/10.1145/217391.217453, read 2026-11-22). A lower priority goes when the higher ones have nothing, and besides
has a floor: a share of the turns that nobody can take from it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")

FLOOR = 0.1
"""The share of turns of each lower priority that has something to send; all floors together stay below 1. Our design."""

KEPT = 8
"""Tenants of a priority, and queues of a tenant, that are kept while they are empty: most come again at once."""


class Items(Protocol[T]):
    """First in, first out: a deque, or what behaves as one."""

    def append(self, item: T, /) -> None:
        """One more, as the last."""

    def popleft(self) -> T:
        """The first."""

    def __getitem__(self, index: int, /) -> T: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[T]: ...


class Queue(Generic[T]):
    """Units of one tenant and priority that go, or wait, together: the policy makes no difference between them."""

    __slots__ = ("flow", "items", "key", "resting")

    def __init__(self, key: Hashable, flow: Flow[T], items: Items[T]) -> None:
        self.key = key
        self.flow = flow
        self.items = items
        self.resting = False
        """It may not go, and has no turns until somebody wakes it."""


class Flow(Generic[T]):
    """One tenant's units in one priority."""

    __slots__ = ("class_", "deficit", "queues", "ready", "tenant", "waiting", "weight")

    def __init__(self, tenant: str, class_: Class[T]) -> None:
        self.tenant = tenant
        self.weight = 1.0
        self.class_ = class_
        self.queues: dict[Hashable, Queue[T]] = {}
        self.ready: deque[Queue[T]] = deque()
        """Those that may go, in turn."""
        self.waiting = False
        """It is among the turns of its class."""
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
    once; `items` makes the queues.
    """

    __slots__ = ("_classes", "_floor", "_items", "_live", "_order", "_size", "_weight")

    def __init__(
        self,
        weight: Callable[[str], float] = lambda _: 1.0,
        live: Callable[[T], bool] = lambda _: True,
        floor: Callable[[int], float] = lambda _: FLOOR,
        items: Callable[[], Items[T]] = deque,
    ) -> None:
        self._weight = weight
        self._live = live
        self._floor = floor
        self._items = items
        self._classes: dict[int, Class[T]] = {}
        self._order: list[Class[T]] = []
        self._size = 0

    def __len__(self) -> int:
        """Units that wait, with those that nobody wants any more and those that rest."""
        return self._size

    def __iter__(self) -> Iterator[T]:
        """All that waits, as far as it lies in memory: each priority, its tenants in turn, each in its own order."""
        for class_ in self._order:
            for flow in class_.flows.values():
                for queue in flow.queues.values():
                    yield from queue.items

    def flows(self) -> Iterator[tuple[int, Flow[T]]]:
        """Each tenant's units in each priority, the higher priorities first."""
        for priority in sorted(self._classes):
            for flow in self._classes[priority].flows.values():
                yield priority, flow

    def add(self, item: T, tenant: str, priority: int = 0, key: Hashable = "") -> None:
        """One more unit. Priority 0 goes before 1, and so on; units of one `key` rest together."""
        class_ = self._classes.get(priority)
        if class_ is None:
            class_ = self._classes[priority] = Class(self._floor(priority))
            self._order = [self._classes[number] for number in sorted(self._classes)]
        flow = class_.flows.get(tenant)
        if flow is None:
            flow = class_.flows[tenant] = Flow(tenant, class_)
        queue = flow.queues.get(key)
        if queue is None:
            queue = flow.queues[key] = Queue(key, flow, self._items())
        if not queue.items and not queue.resting:
            self._enter(queue)
        queue.items.append(item)
        self._size += 1

    def peek(self) -> Queue[T] | None:
        """The queue whose first unit is next; None: nothing waits that may go. To be followed by `take` or `rest`."""
        while (class_ := self._choose()) is not None:
            queue = class_.turns[0].ready[0]
            while queue.items:
                if self._live(queue.items[0]):
                    return queue
                queue.items.popleft()
                self._size -= 1
            self._leave(queue)
        return None

    def take(self, queue: Queue[T]) -> T:
        """The first unit of the queue that `peek` gave: it goes, and its tenant has paid for it."""
        flow = queue.flow
        item = queue.items.popleft()
        self._size -= 1
        if flow.deficit < 1.0:
            flow.deficit += flow.weight
        flow.deficit -= 1.0
        self._earn(flow.class_)
        if not queue.items:
            self._leave(queue)
        elif len(flow.ready) > 1:
            flow.ready.rotate(-1)
        if flow.waiting and flow.deficit < 1.0:
            flow.class_.turns.rotate(-1)
        return item

    def rest(self, queue: Queue[T]) -> None:
        """The queue that `peek` gave may not go now: it has no turns, and saves none, until `wake`."""
        queue.resting = True
        self._leave(queue)

    def wake(self, queue: Queue[T]) -> None:
        """A queue that rested may go again."""
        if queue.resting:
            queue.resting = False
            if queue.items:
                self._enter(queue)
            else:
                self._leave(queue)

    def wake_all(self) -> None:
        """All that rested may go again."""
        for class_ in self._order:
            for flow in list(class_.flows.values()):
                for queue in list(flow.queues.values()):
                    self.wake(queue)

    def next(self) -> T | None:
        """The next unit, which is no longer kept here; None: nothing waits that may go."""
        queue = self.peek()
        return self.take(queue) if queue is not None else None

    def _enter(self, queue: Queue[T]) -> None:
        flow = queue.flow
        flow.ready.append(queue)
        if not flow.waiting:
            flow.waiting = True
            flow.weight = max(1.0, self._weight(flow.tenant))
            flow.class_.turns.append(flow)

    def _leave(self, queue: Queue[T]) -> None:
        """A queue that is empty, or rests, has no turns; what has nothing at all is forgotten."""
        flow = queue.flow
        if flow.ready and flow.ready[0] is queue:
            flow.ready.popleft()
        if not queue.items and not queue.resting and len(flow.queues) > KEPT:
            flow.queues.pop(queue.key, None)
        if not flow.ready and flow.waiting:
            flow.waiting = False
            flow.deficit = 0.0
            flow.class_.turns.popleft()  # it was its turn
        flows = flow.class_.flows
        if (
            len(flows) > KEPT
            and not flow.waiting
            and not any(each.items or each.resting for each in flow.queues.values())
        ):
            flows.pop(flow.tenant, None)

    def _choose(self) -> Class[T] | None:
        """The highest priority that has something, or a lower one that has earned a turn."""
        top = None
        for class_ in self._order:
            if not class_.turns:
                continue
            if top is None:
                top = class_
            elif class_.credit >= 1.0:
                return class_
        return top

    def _earn(self, served: Class[T]) -> None:
        """A turn was taken: every lower priority that waits has earned its floor; who took it has paid."""
        if len(self._order) > 1:
            above = False
            for class_ in self._order:
                if above and class_.turns:
                    class_.credit += class_.floor
                above = above or bool(class_.turns) or class_ is served
        served.credit = max(0.0, served.credit - 1.0)


def jain(shares: Iterable[float]) -> float:
    """How evenly something is shared: 1 when all get the same, 1/n when one of n gets all.

    The shares of tenants with weights are to be divided by them. R. Jain, D. Chiu, W. Hawe, DEC-TR-301, 1984,
    https://www.cse.wustl.edu/~jain/papers/fairness.htm, read 2026-11-22.
    """
    values = list(shares)
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0
