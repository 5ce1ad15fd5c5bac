"""Properties of warming a source up, over whatever the clock and its owners do."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailfleet_router.decisions.shaping import warmup
from mailfleet_router.decisions.shaping.warmup import (
    CONSERVATIVE,
    DAY,
    GEOMETRIC,
    HOUR,
    LINEAR_45,
    PLANS,
    UNLIMITED,
    Plan,
    State,
)

MIDNIGHT = 20_000 * DAY
SMALL = Plan(name="small", day_caps=(10, 20, 40), hour_share=0.2)


def day_of(state: State, **told: int) -> State:
    return msgspec.structs.replace(state, **told)


# --- the cap -----------------------------------------------------------------------------------------------------
operations = st.one_of(
    st.tuples(st.just("send"), st.integers(1, 12)),
    st.tuples(st.just("send"), st.integers(1, 12)),
    st.tuples(st.just("reserve"), st.integers(1, 12)),
    st.tuples(st.sampled_from(("take", "give back", "release", "takeover")), st.integers(1, 12)),
    st.tuples(st.sampled_from(("delivered", "deferred", "complaints", "blocks")), st.integers(1, 40)),
)
gaps = st.sampled_from((0, 600, HOUR, HOUR, -HOUR, -HOUR, 6 * HOUR, DAY, 3 * DAY, -3 * DAY))


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(gaps, operations), max_size=50), st.integers(0, 3))
def test_no_day_and_no_hour_sees_more_than_its_share_whatever_happens(
    script: list[tuple[int, tuple[str, int]]], stage: int
) -> None:
    now = MIDNIGHT
    state = durable = State(stage, MIDNIGHT // DAY, MIDNIGHT // HOUR)
    block = warmup.Block(0, state.hour, state.day)
    days: Counter[int] = Counter()
    hours: Counter[int] = Counter()
    taken, granted = 0, stage
    for gap, (what, amount) in script:
        now += gap
        state, _ = warmup.turn(state, SMALL, now)
        if what in ("reserve", "send"):
            state = warmup.release(state, block)
            state, block = warmup.reserve(state, SMALL, now, amount)
            durable, taken, granted = state, 0, state.stage
        if what in ("take", "send"):
            for _ in range(amount):
                if less := warmup.take(block, now):
                    block, taken = less, taken + 1
                    days[int(now // DAY)] += 1
                    hours[int(now // HOUR)] += 1
                    assert days[int(now // DAY)] <= SMALL.cap(granted)
                    assert hours[int(now // HOUR)] <= SMALL.hour_cap(granted)
        elif what == "give back" and taken and int(now // HOUR) == block.hour:
            block, taken = warmup.give_back(block), taken - 1
            days[int(now // DAY)] -= 1
            hours[int(now // HOUR)] -= 1
        elif what == "release":
            state, block = warmup.release(state, block), block._replace(left=0)
            taken = 0
        elif what == "takeover":
            state, block, taken = durable, block._replace(left=0), 0
        elif what in ("delivered", "deferred", "complaints", "blocks"):
            state = warmup.settled(state, what, amount)
        assert 0 <= state.stage <= len(SMALL.day_caps)
        assert state.sent >= 0


@settings(deadline=None)
@given(st.sampled_from((-3.0 * DAY, -1.0, 3.0 * DAY)), st.integers(0, 23))
def test_a_clock_that_steps_by_three_days_and_back_grants_nothing_twice_and_stalls_no_longer_than_that(
    jump: float, hour: int
) -> None:
    true = MIDNIGHT + hour * HOUR + 1800.0
    state = warmup.start(true)
    sent: Counter[int] = Counter()
    for tick in range(10 * 24):
        now = true + tick * HOUR + (jump if 24 <= tick < 48 else 0.0)
        state, _ = warmup.turn(state, SMALL, now)
        state, block = warmup.reserve(state, SMALL, now, 100)
        sent[int(now // DAY)] += block.left
    caps = SMALL.cap(0)
    assert max(sent.values()) <= caps
    assert sent[int(true // DAY) + 8] == caps


def test_an_hour_gets_a_fifth_of_the_day_and_says_when_there_is_more() -> None:
    state = warmup.start(MIDNIGHT)
    state, block = warmup.reserve(state, CONSERVATIVE, MIDNIGHT, 1000)
    assert block.left == 40
    found = warmup.allowance(state, CONSERVATIVE, MIDNIGHT + 10)
    assert (found.messages, found.until) == (0, MIDNIGHT + HOUR)
    assert "of the hour" in found.reason
    for hour in range(1, 5):
        state, block = warmup.reserve(state, CONSERVATIVE, MIDNIGHT + hour * HOUR, 1000)
        assert block.left == 40
    found = warmup.allowance(state, CONSERVATIVE, MIDNIGHT + 6 * HOUR)
    assert (found.messages, found.until) == (0, MIDNIGHT + DAY)
    assert "of the day" in found.reason


def test_a_takeover_forfeits_the_rest_of_a_block_and_no_more() -> None:
    state = warmup.start(MIDNIGHT)
    size = warmup.block_size(day_of(state, stage=4), CONSERVATIVE)
    assert size == 50
    durable, _ = warmup.reserve(day_of(state, stage=4), CONSERVATIVE, MIDNIGHT, size)
    restored = warmup.decode_state(warmup.encode(durable))
    assert warmup.allowance(restored, CONSERVATIVE, MIDNIGHT).messages == 1000 - size


def test_what_an_hour_left_over_the_day_gets_back() -> None:
    state, block = warmup.reserve(warmup.start(MIDNIGHT), CONSERVATIVE, MIDNIGHT, 40)
    taken = warmup.take(block, MIDNIGHT + 1)
    assert taken is not None
    assert warmup.take(taken, MIDNIGHT + HOUR) is None
    assert warmup.release(state, taken).sent == 1
    assert warmup.give_back(taken) == block


def test_a_clock_that_went_back_an_hour_finds_nothing_until_it_is_there_again() -> None:
    state, _ = warmup.reserve(warmup.start(MIDNIGHT), CONSERVATIVE, MIDNIGHT + 2 * HOUR, 40)
    found = warmup.allowance(state, CONSERVATIVE, MIDNIGHT + HOUR)
    assert (found.messages, found.until) == (0, MIDNIGHT + 2 * HOUR)
    assert warmup.reserve(state, CONSERVATIVE, MIDNIGHT + HOUR, 5)[1].left == 0


def test_what_is_left_of_an_hour_is_not_given_to_another() -> None:
    state, first = warmup.reserve(warmup.start(MIDNIGHT), CONSERVATIVE, MIDNIGHT, 40)
    state, _ = warmup.reserve(state, CONSERVATIVE, MIDNIGHT + HOUR, 40)
    state = warmup.release(state, first)
    assert (state.sent, state.sent_hour) == (40, 40)


def test_before_its_turn_a_day_grants_nothing() -> None:
    assert warmup.allowance(warmup.start(MIDNIGHT), SMALL, MIDNIGHT + DAY).messages == 0


# --- the turn of a day -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("told", "slow", "action", "stage"),
    [
        ({"delivered": 5000}, False, "advance", 5),
        ({"delivered": 4500, "deferred": 200}, False, "advance", 5),
        ({"delivered": 4499}, False, "hold", 4),
        ({"delivered": 4700, "deferred": 300}, False, "hold", 4),
        ({"delivered": 4400, "deferred": 600}, False, "back", 2),
        ({"delivered": 4999, "blocks": 1}, False, "back", 2),
        ({"delivered": 5000, "complaints": 4}, False, "advance", 5),
        ({"delivered": 5000, "complaints": 5}, False, "hold", 4),
        ({"delivered": 5000}, True, "hold", 4),
        ({"delivered": 20, "deferred": 9}, False, "hold", 4),
    ],
)
def test_yesterday_decides_whether_a_stage_is_gained_held_or_lost(
    told: dict[str, int], slow: bool, action: str, stage: int
) -> None:
    state = day_of(State(4, 20_000, 20_000 * 24, sent=5000), **told)
    after, decision = warmup.turn(state, CONSERVATIVE, MIDNIGHT + DAY, slow)
    assert decision is not None
    assert (decision.action, after.stage, decision.after) == (action, stage, stage)
    assert (decision.day, decision.cap, decision.slow) == (state, 5000, slow)
    assert decision.reason
    assert (after.sent, after.delivered, after.blocks) == (0, 0, 0)
    assert warmup.turn(after, CONSERVATIVE, MIDNIGHT + DAY + 5, slow) == (after, None)
    assert warmup.decode_decision(warmup.encode(decision)) == decision


@pytest.mark.parametrize(("days", "stage"), [(1, 10), (3, 10), (4, 9), (7, 8), (10, 7), (30, 1), (31, 0), (400, 0)])
def test_three_idle_days_cost_a_stage_and_thirty_all(days: int, stage: int) -> None:
    state = State(10, 20_000, 20_000 * 24, sent=100_000)
    state, _ = warmup.turn(state, CONSERVATIVE, MIDNIGHT + days * DAY)
    assert state.stage == stage


@settings(deadline=None)
@given(st.lists(st.integers(1, 12), max_size=12))
def test_idle_days_cost_the_same_however_often_the_turn_is_made(gaps: list[int]) -> None:
    state = once = State(20, 20_000, 20_000 * 24, sent=10**7)
    now = MIDNIGHT
    for gap in gaps:
        now += gap * DAY
        state, _ = warmup.turn(state, CONSERVATIVE, now)
    once, _ = warmup.turn(once, CONSERVATIVE, now)
    assert state.stage == once.stage


def test_volume_that_fell_takes_a_source_back_to_the_stage_that_fits_it() -> None:
    state = State(len(CONSERVATIVE.day_caps), 20_000, 20_000 * 24)
    for day in range(1, 120):
        state = day_of(state, sent=4000, delivered=4000)
        state, _ = warmup.turn(state, CONSERVATIVE, MIDNIGHT + day * DAY)
    assert CONSERVATIVE.cap(state.stage) == 40_000


def test_a_source_with_enough_mail_is_through_in_as_many_days_as_the_plan_has() -> None:
    for plan in PLANS.values():
        state = warmup.start(MIDNIGHT)
        for day in range(1, len(plan.day_caps) + 1):
            cap = plan.cap(state.stage)
            state, decision = warmup.turn(day_of(state, sent=cap, delivered=cap), plan, MIDNIGHT + day * DAY)
            assert decision is not None
            assert decision.action == "advance"
        assert warmup.allowance(state, plan, MIDNIGHT + day * DAY).messages >= UNLIMITED // 2


def test_the_shipped_plans_are_what_their_pages_say() -> None:
    assert len(CONSERVATIVE.day_caps) == 29
    assert (CONSERVATIVE.day_caps[0], CONSERVATIVE.day_caps[-1]) == (200, 10_000_000)
    assert (len(LINEAR_45.day_caps), LINEAR_45.day_caps[-1]) == (45, 50_000)
    assert [GEOMETRIC.hour_cap(day) for day in (0, 1, 2, 3, 4, 5)] == [20, 28, 39, 55, 77, 108]
    for plan in PLANS.values():
        assert list(plan.day_caps) == sorted(plan.day_caps)
        assert plan.citation is not None


def test_providers_that_see_less_mail_get_half_of_a_plan() -> None:
    assert CONSERVATIVE.for_provider("google") == CONSERVATIVE
    assert CONSERVATIVE.for_provider("").day_caps[:2] == (100, 250)
    assert Plan(name="p", day_caps=(1,)).for_provider("").cap(0) == 1
