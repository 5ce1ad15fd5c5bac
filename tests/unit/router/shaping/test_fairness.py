"""Properties of the turns that tenants and streams have at one site."""

from __future__ import annotations

import tracemalloc
from collections import Counter, deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailfleet_router.decisions.shaping.fairness import Fair, jain

Item = tuple[str, int, int]
weights = st.lists(st.floats(1, 9), min_size=1, max_size=6).map(
    lambda found: {f"t{index}": weight for index, weight in enumerate(found)}
)
whole = st.lists(st.integers(1, 9), min_size=1, max_size=6).map(
    lambda found: {f"t{index}": float(weight) for index, weight in enumerate(found)}
)


def backlogged(weight: dict[str, float], deep: int) -> Fair[Item]:
    fair: Fair[Item] = Fair(weight=lambda tenant: weight.get(tenant, 1.0))
    for tenant in weight:
        for number in range(deep):
            fair.add((tenant, 0, number), tenant)
    return fair


def taken(fair: Fair[Item], count: int) -> list[Item]:
    return [item for item in (fair.next() for _ in range(count)) if item is not None]


@settings(deadline=None)
@given(whole, st.integers(0, 60), st.integers(1, 60))
def test_over_any_window_a_backlogged_tenant_gets_its_share_within_one_quantum(
    weight: dict[str, float], start: int, length: int
) -> None:
    fair = backlogged(weight, 130)
    taken(fair, start)
    got = Counter(tenant for tenant, _, _ in taken(fair, length))
    for tenant, own in weight.items():
        assert abs(got[tenant] - length * own / sum(weight.values())) <= own + 1e-9


@settings(deadline=None)
@given(weights)
def test_weights_that_are_no_whole_numbers_hold_in_the_long_run(weight: dict[str, float]) -> None:
    got = Counter(tenant for tenant, _, _ in taken(backlogged(weight, 700), 600))
    assert sum(got.values()) == 600
    for tenant, own in weight.items():
        assert abs(got[tenant] - 600 * own / sum(weight.values())) <= own + len(weight)


@settings(deadline=None)
@given(whole, st.integers(0, 50), st.sampled_from((20, 300)))
def test_a_newcomer_waits_at_most_one_round_however_deep_the_others_are(
    weight: dict[str, float], start: int, deep: int
) -> None:
    fair = backlogged(weight, 20 + deep)
    taken(fair, start)
    fair.add(("new", 0, 0), "new")
    before = taken(fair, int(sum(weight.values())) + 1)
    assert ("new", 0, 0) in before


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(1, 80), st.sampled_from((0.1, 0.25)))
def test_a_lower_priority_gets_its_floor_and_the_highest_the_rest(start: int, length: int, floor: float) -> None:
    fair: Fair[Item] = Fair(floor=lambda _: floor)
    for priority in range(3):
        for number in range(130):
            fair.add(("t", priority, number), "t", priority)
    taken(fair, start)
    got = Counter(priority for _, priority, _ in taken(fair, length))
    for priority in (1, 2):
        assert floor * length - 2 <= got[priority] <= floor * length + 2
    assert got[0] >= (1 - 2 * floor) * length - 4


def test_a_lower_priority_has_all_turns_when_the_higher_have_nothing_and_saves_none() -> None:
    fair: Fair[Item] = Fair()
    for number in range(50):
        fair.add(("bulk", 1, number), "bulk", 1)
    assert [priority for _, priority, _ in taken(fair, 30)] == [1] * 30
    for number in range(9):
        fair.add(("otp", 0, number), "otp", 0)
    assert [priority for _, priority, _ in taken(fair, 9)] == [0] * 9


operations = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from("aab"), st.integers(0, 1)),
        st.tuples(st.just("add"), st.just("a"), st.just(0)),
        st.tuples(st.just("next"), st.just(""), st.just(0)),
        st.tuples(st.just("next, put back"), st.just(""), st.just(0)),
        st.tuples(st.just("remove"), st.sampled_from("abc"), st.just(0)),
        st.tuples(st.just("kill"), st.sampled_from("abc"), st.integers(0, 2)),
    ),
    max_size=120,
)


@settings(deadline=None)
@given(operations)
def test_nothing_is_lost_repeated_or_overtaken_by_its_own_tenant(script: list[tuple[str, str, int]]) -> None:
    dead: set[Item] = set()
    fair: Fair[Item] = Fair(weight=lambda tenant: 1.0 + "abc".index(tenant), live=lambda item: item not in dead)
    waiting: dict[tuple[str, int], deque[Item]] = {(t, p): deque() for t in "abc" for p in range(3)}

    def expect(item: Item | None) -> None:
        if item is None:
            assert all(unit in dead for queue in waiting.values() for unit in queue)
            for queue in waiting.values():
                queue.clear()
            return
        queue = waiting[item[:2]]
        while queue[0] in dead:
            queue.popleft()
        assert queue.popleft() == item

    for number, (what, tenant, priority) in enumerate(script):
        if what == "add":
            item = (tenant, priority, number)
            fair.add(item, tenant, priority)
            waiting[tenant, priority].append(item)
        elif what == "next":
            expect(fair.next())
        elif what == "next, put back":
            expect(last := fair.next())
            if last is not None:
                fair.put_back(last, last[0], last[1])
                waiting[last[:2]].appendleft(last)
        elif what == "remove":
            removed = fair.remove(tenant)
            # Of the dead ones some may have been met already.
            assert [unit for unit in removed if unit not in dead] == [
                unit for p in range(3) for unit in waiting[tenant, p] if unit not in dead
            ]
            for p in range(3):
                waiting[tenant, p].clear()
        elif what == "kill" and waiting[tenant, priority]:
            dead.add(waiting[tenant, priority][-1])
    while (item := fair.next()) is not None:
        expect(item)
    expect(None)
    assert len(fair) == 0


def test_a_tenant_that_cannot_go_saves_no_turns() -> None:
    fair = backlogged({"stuck": 1.0, "fine": 1.0}, 200)
    for _ in range(100):
        item = fair.next()
        assert item is not None
        if item[0] == "stuck":
            fair.put_back(item, "stuck")
    got = Counter(tenant for tenant, _, _ in taken(fair, 20))
    assert got == {"stuck": 10, "fine": 10}


def test_a_queued_unit_costs_a_pointer() -> None:
    fair: Fair[object] = Fair()
    unit = object()
    fair.add(unit, "t")
    tracemalloc.start()
    for _ in range(100_000):
        fair.add(unit, "t")
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used / 100_000 < 9


@pytest.mark.parametrize(
    ("shares", "index"), [([], 1.0), ([0, 0], 1.0), ([5, 5, 5], 1.0), ([1, 0, 0, 0], 0.25), ([1, 1, 0, 0], 0.5)]
)
def test_jains_index_is_one_for_equal_shares_and_one_nth_for_a_monopoly(shares: list[float], index: float) -> None:
    assert jain(shares) == pytest.approx(index)


@settings(deadline=None)
@given(st.lists(st.floats(0.001, 1e6), min_size=1, max_size=20), st.floats(0.01, 100))
def test_jains_index_is_bounded_and_does_not_depend_on_the_unit(shares: list[float], unit: float) -> None:
    assert 1 / len(shares) - 1e-9 <= jain(shares) <= 1 + 1e-9
    assert jain([share * unit for share in shares]) == pytest.approx(jain(shares))
