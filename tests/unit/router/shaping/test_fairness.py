"""Properties of the turns that tenants and streams have at one site."""

from __future__ import annotations

import tracemalloc
from collections import Counter, deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailfleet_router.decisions.shaping.fairness import Fair, Queue, jain

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
        st.tuples(st.just("look"), st.just(""), st.just(0)),
        st.tuples(st.just("rest"), st.just(""), st.just(0)),
        st.tuples(st.just("wake"), st.just(""), st.just(0)),
        st.tuples(st.just("kill"), st.sampled_from("abc"), st.integers(0, 2)),
    ),
    max_size=120,
)


@settings(deadline=None)
@given(operations)
def test_nothing_is_lost_repeated_or_overtaken_by_its_own_tenant(script: list[tuple[str, str, int]]) -> None:
    dead: set[Item] = set()
    fair: Fair[Item] = Fair(weight=lambda tenant: 1.0 + "abc".index(tenant), live=lambda item: item not in dead)
    waiting: dict[tuple[str, int, int], deque[Item]] = {
        (t, p, key): deque() for t in "abc" for p in range(2) for key in range(2)
    }

    def expect(item: Item | None, resting: list[Queue[Item]]) -> None:
        if item is None:
            rest = {(queue.flow.tenant, queue.items[0][1], queue.key) for queue in resting if queue.items}
            assert all(unit in dead for key, queue in waiting.items() if key not in rest for unit in queue)
            return
        queue = waiting[item[0], item[1], item[2] % 2]
        while queue[0] in dead:
            queue.popleft()
        assert queue.popleft() == item

    resting: list[Queue[Item]] = []
    for number, (what, tenant, priority) in enumerate(script):
        if what == "add":
            item = (tenant, priority, number)
            fair.add(item, tenant, priority, number % 2)
            waiting[tenant, priority, number % 2].append(item)
        elif what == "next":
            expect(fair.next(), resting)
        elif what == "look":
            before = len(fair)
            fair.peek()
            queue = fair.peek()
            assert queue is None or queue.items[0] not in dead
            assert len(fair) <= before
        elif what == "rest" and (queue := fair.peek()) is not None:
            fair.rest(queue)
            resting.append(queue)
        elif what == "wake" and resting:
            fair.wake(resting.pop(0))
        elif what == "kill" and (queue_ := waiting[tenant, min(priority, 1), number % 2]):
            dead.add(queue_[-1])
    while resting:
        fair.wake(resting.pop())
    while (item := fair.next()) is not None:
        expect(item, resting)
    expect(None, resting)
    assert len(fair) == 0


def test_a_tenant_that_cannot_go_saves_no_turns_and_holds_nobody_up() -> None:
    fair = backlogged({"stuck": 1.0, "fine": 1.0}, 200)
    queue = fair.peek()
    assert queue is not None
    assert queue.flow.tenant == "stuck"
    fair.rest(queue)
    assert {tenant for tenant, _, _ in taken(fair, 100)} == {"fine"}
    fair.wake(queue)
    got = Counter(tenant for tenant, _, _ in taken(fair, 20))
    assert got == {"stuck": 10, "fine": 10}


def test_what_rests_of_a_tenant_does_not_stop_the_rest_of_it() -> None:
    fair: Fair[int] = Fair()
    for number in range(10):
        fair.add(number, "t", 0, "paused" if number % 2 else "free")
    assert fair.next() == 0
    queue = fair.peek()
    assert queue is not None
    assert queue.key == "paused"
    fair.rest(queue)
    left = []
    while (item := fair.next()) is not None:
        left.append(item)
    assert left == [2, 4, 6, 8]
    assert len(fair) == 5


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
