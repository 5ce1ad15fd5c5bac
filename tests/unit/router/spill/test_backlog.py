"""A queue that lies in the store but for its ends, against a deque."""

from __future__ import annotations

from collections import deque

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfleet_core.model.ids import UNIT_ID_BYTES
from mailfleet_router.decisions.policy import LAST_RESORT
from mailfleet_router.decisions.routing import Domain
from mailfleet_router.decisions.site_queue import ENDING, READY, Held, SiteQueue
from mailfleet_router.decisions.spill.backlog import Backlog
from mailfleet_router.decisions.spill.row import SAME, pack, unpack
from mailfleet_router.decisions.spill.space import Room, Spill, SpillLost
from mailfleet_router.decisions.spill.store import Finder, Store
from support.spaces import DictSpace

SITE = SiteQueue("mx.b.example", 0.0)
DOMAIN = Domain("b.example", LAST_RESORT)
FINDER = Finder(lambda name: SITE, lambda name: DOMAIN)


def unit(number: int) -> Held:
    key = number.to_bytes(UNIT_ID_BYTES, "big")
    return Held(key, b"raw %d" % number, b"P", 0, READY, number, 5.0, 1.0, 9.0, SITE, DOMAIN, "t", "p", "s")


class Parts:
    """A store with next to no room."""

    def __init__(self, units: int = 2, smallest: int = 1) -> None:
        self.units: dict[bytes, Held] = {}
        self.space = DictSpace()
        self.room = Room(units, smallest)
        self.store = Store(self.units, Spill(self.room, self.space), FINDER)
        self.queue = Backlog(self.store, lambda held: held.state == READY)
        self.number = 0

    def add(self) -> Held:
        self.number += 1
        held = self.units[self.number.to_bytes(UNIT_ID_BYTES, "big")] = unit(self.number)
        self.store.count()
        return held


def same(one: Held, other: Held) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in (*SAME, "site", "domain"))


steps = st.lists(
    st.tuples(
        st.sampled_from(["append", "append", "append", "pop", "back", "forget", "full", "room", "end", "take"]),
        st.integers(0, 30),
    )
)


@given(steps, st.integers(1, 3))
def test_what_is_put_in_comes_out_in_its_order(history: list[tuple[str, int]], smallest: int) -> None:
    parts, model = Parts(smallest=smallest), deque[tuple[bytes, bool]]()
    for step, number in history:
        key = (number % (parts.number + 1)).to_bytes(UNIT_ID_BYTES, "big")
        if step == "append":
            held = parts.add()
            parts.queue.append(held)
            model.append((held.key, True))
        elif step == "pop" and model:
            came = parts.queue.popleft()
            check(parts, came, *model.popleft())
            if number % 2 and came.state == READY:
                parts.queue.appendleft(came)
                model.appendleft((came.key, True))
        elif step == "full":
            parts.space.full = not parts.space.full
        elif step == "room":
            parts.room.units = 2 if number % 2 else 1000
            parts.room.change(0, 0)
        elif step in ("forget", "end", "take") and leave(parts, step, key):
            model = deque((k, live and k != key) for k, live in model)
        assert len(parts.queue) == len(model)
        assert bool(parts.queue) == bool(model)
    while model:
        check(parts, parts.queue.popleft(), *model.popleft())
    with pytest.raises(IndexError):
        parts.queue.popleft()
    assert not parts.space.kept
    assert not len(parts.store)


def leave(parts: Parts, step: str, key: bytes) -> bool:
    """The unit does not wait any more, wherever it lies."""
    if step == "take":
        before = parts.store.peek(key)
        taken = parts.store.take(key)
        assert (before is None) == (taken is None)
        if taken is None or before is None:
            return False
        assert same(taken, before)
        assert parts.units.pop(key) is taken
        return True
    stored = parts.store.hop(key) >= 0
    assert parts.store.forget(key) is stored
    held = parts.units.get(key)
    if held is not None:
        held.state = ENDING
    return True


def check(parts: Parts, came: Held, key: bytes, live: bool) -> None:
    assert came.key == key
    assert (came.state == READY) == live
    if live:
        assert parts.units[key] is came
        assert same(came, unit(int.from_bytes(key, "big")))
    assert parts.store.hop(key) == -1


def test_what_is_beyond_the_room_lies_in_the_store() -> None:
    parts = Parts(100, 1)
    for _ in range(1000):
        parts.queue.append(parts.add())
    assert len(parts.units) <= 130
    assert len(parts.store) + len(parts.units) == 1000
    assert parts.room.used == len(parts.units)
    parts.store.close()
    assert parts.room.used == 0


def test_many_short_queues_do_not_stay_in_memory_either() -> None:
    parts = Parts(1000, 4)
    queues = [Backlog(parts.store, lambda held: held.state == READY) for _ in range(100)]
    for number in range(10_000):
        queues[number % 100].append(parts.add())
    assert len(parts.units) <= 1700
    assert len(parts.store) + len(parts.units) == 10_000


def test_all_fields_of_a_unit_lie_in_the_store() -> None:
    assert {field.name for field in msgspec.structs.fields(Held)} == {*SAME, "site", "domain", "entry"}
    held = unit(7)
    held.lane, held.since, held.reported, held.delay = 3, 4.0, "held", 2
    (back,) = unpack(pack([held]), FINDER.site, FINDER.domain)
    assert same(back, held)


def test_a_chunk_that_was_changed_by_somebody_else_is_lost() -> None:
    parts = Parts()
    for _ in range(9):
        parts.queue.append(parts.add())
    parts.space.kept = {address: data[:-1] + b"?" for address, data in parts.space.kept.items()}
    with pytest.raises(SpillLost):
        parts.queue.clear()


def test_units_in_the_store_are_looked_at_when_their_time_comes() -> None:
    parts = Parts()
    parts.store.look_at = lambda held: held.expires_at if not held.reported else 100.0
    for _ in range(9):
        parts.queue.append(parts.add())
    seen: list[bytes] = []

    def look(held: Held) -> None:
        assert parts.units[held.key] is held
        seen.append(held.key)
        held.reported = "waits"
        if held.attempts == 5:
            held.state = ENDING

    stored = len(parts.store)
    assert not list(parts.store.to_look_at(8.0))
    for number in parts.store.to_look_at(9.0):
        assert parts.store.examine(number, look)
    assert len(seen) == stored
    assert not list(parts.store.to_look_at(9.0))
    fifth = (5).to_bytes(UNIT_ID_BYTES, "big")
    assert parts.units[fifth].state == ENDING
    back = parts.queue.clear()
    assert [held.key for held in back if held.reported and held.state == READY] == [key for key in seen if key != fifth]
    assert parts.units[fifth] not in back
