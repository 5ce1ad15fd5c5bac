"""Deferred units, against a list."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mailfleet_core.model.ids import UNIT_ID_BYTES
from mailfleet_router.decisions.site_queue import DEFERRED, READY, Held
from mailfleet_router.decisions.spill.later import LEAD_SECONDS, SLOT_SECONDS, Later
from mailfleet_router.decisions.spill.space import Room, Spill, nowhere
from mailfleet_router.decisions.spill.store import Store
from support.spaces import DictSpace
from unit.router.spill.test_backlog import FINDER, unit

steps = st.lists(
    st.tuples(
        st.sampled_from(["defer", "defer", "defer", "due", "again", "leave"]),
        st.floats(-1000.0, 1000.0),
        st.integers(0, 40),
    )
)


@given(steps, st.integers(1, 5), st.sampled_from([2, 1000]))
def test_every_unit_comes_once_when_it_is_due_and_never_before(
    history: list[tuple[str, float, int]], most: int, room: int
) -> None:
    units: dict[bytes, Held] = {}
    store = Store(units, Spill(Room(room, 1), DictSpace()), FINDER)
    later, now, due_at, number = Later(store), 0.0, dict[bytes, float](), 0

    def defer(held: Held, seconds: float) -> None:
        held.state, held.due_at = DEFERRED, now + abs(seconds)
        due_at[held.key] = held.due_at
        later.add(held, now)

    for step, seconds, which in history:
        key = which.to_bytes(UNIT_ID_BYTES, "big")
        if step == "defer":
            number += 1
            held = unit(number)
            units[held.key] = held
            store.count()
            defer(held, seconds)
        elif step == "due":
            now += seconds
            came = drained(later, now, most)
            assert sorted(held.key for held in came) == sorted(k for k, at in due_at.items() if at <= now)
            for held in came:
                assert units.pop(held.key) is held
                del due_at[held.key]
        elif key in due_at and (held := units.get(key) or store.take(key)):  # type: ignore[assignment]
            if step == "again":
                defer(held, seconds)
            else:
                held.state = READY
                del due_at[key], units[key]
    assert sorted(held.key for held in drained(later, 1e9, most)) == sorted(due_at)
    assert later.next_at() == float("inf")
    assert not len(store)


def drained(later: Later, now: float, most: int) -> list[Held]:
    came = []
    while later.next_at() <= now:
        for held in later.due(now, most):
            held.state = READY
            came.append(held)
    return came


def test_it_wakes_no_later_than_the_first_unit_is_due() -> None:
    units: dict[bytes, Held] = {}
    later = Later(Store(units, nowhere(), FINDER))
    held = units[b"k"] = Held(b"k", b"", b"P", 0, DEFERRED, due_at=1000.0)
    later.add(held, 0.0)
    assert 1000.0 - SLOT_SECONDS - LEAD_SECONDS < later.next_at() <= 1000.0 - LEAD_SECONDS
    assert not list(later.due(999.0, 10))
    assert later.next_at() == 1000.0
    assert list(later.due(1000.0, 10)) == [held]


def test_a_unit_that_never_comes_due_is_kept() -> None:
    units: dict[bytes, Held] = {}
    later = Later(Store(units, nowhere(), FINDER))
    held = units[b"k"] = Held(b"k", b"", b"P", 0, DEFERRED, due_at=float("inf"))
    later.add(held, 0.0)
    assert not list(later.due(1e12, 10))
