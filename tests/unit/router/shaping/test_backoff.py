"""Back-off: halved at most once a minute, paused within bounds, probed, raised while clean, never above the limits."""

from __future__ import annotations

import itertools
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfleet_router.decisions.shaping import backoff
from mailfleet_router.decisions.shaping.backoff import (
    MIN_PAUSE_SECONDS,
    BackOff,
    Change,
    Configured,
    Hit,
    Limits,
    clean,
    decode,
    encode,
    hit,
    is_over,
    limits_now,
    restored,
    tick,
)

MINUTE = 60.0
POLICY = Configured(10.0, 20)


class Clean(msgspec.Struct, frozen=True):
    """A success, as the tests write it."""

    at: float
    started_at: float


Event = Hit | Clean | float
"""A number is a tick."""

gaps = st.sampled_from((0.0, 1.0, 30.0, 61.0, 300.0, 601.0, 2000.0, 9000.0, 90_000.0))
kinds = st.sampled_from(("slow", "pause", "clean", "tick", "capped"))
steps = st.tuples(gaps, kinds, st.sampled_from((0.0, 5.0, 400.0)), st.sampled_from((0.0, 600.0, 90_000.0)))


def in_order(given_steps: list[tuple[float, str, float, float]]) -> list[Event]:
    at, events = 1_000_000.0, list[Event]()
    for gap, kind, took, ttl in given_steps:
        at += gap
        if kind == "tick":
            events.append(at)
        elif kind == "clean":
            events.append(Clean(at, at - took))
        else:
            to = (0.05, 2) if kind == "capped" else (0.0, 0)
            events.append(Hit(at, at - took, kind == "pause", "rule", "421 busy", 5.0, ttl, *to))
    return events


histories = st.lists(steps, max_size=25).map(in_order)
policies = st.sampled_from((POLICY, Configured(), Configured(0.001, 1), Configured(0.0, 3), Configured(1000.0, 0)))


def moment(event: Event) -> float:
    return event if isinstance(event, float) else event.at


def apply(state: BackOff, event: Event) -> tuple[BackOff, Change | None]:
    if isinstance(event, float):
        return tick(state, event)
    return hit(state, event) if isinstance(event, Hit) else clean(state, event.started_at, event.at)


def fold(events: list[Event], state: BackOff | None = None) -> BackOff:
    state = state or BackOff()
    for event in events:
        state, _ = apply(state, event)
    return state


def speed(limits: Limits) -> tuple[float, float]:
    """Rate and connections as numbers that compare: unlimited is infinite, paused nothing."""
    if limits.paused_until:
        return 0.0, 0.0
    return limits.rate_per_second or math.inf, limits.connections or math.inf


def slow(at: float, **more: object) -> Hit:
    return Hit(at, at - 1.0, False, "r", "421 busy", **more)  # type: ignore[arg-type]


def pause(at: float, started_at: float | None = None, **more: object) -> Hit:
    return Hit(at, at - 1.0 if started_at is None else started_at, True, "r", "421 no", **more)  # type: ignore[arg-type]


# --- Properties -------------------------------------------------------------------------------------------------------
@given(histories, policies)
def test_limits_are_never_above_the_ceiling_and_never_below_a_probe(events: list[Event], policy: Configured) -> None:
    state = BackOff()
    for event in events:
        state, _ = apply(state, event)
        limits = limits_now(state, policy, moment(event))
        assert 0 <= state.factor <= backoff.WHOLE
        rate, connections = speed(limits)
        assert rate <= (policy.rate_per_second or math.inf)
        assert connections <= (policy.connections or math.inf)
        if not limits.paused_until:
            assert rate >= min(backoff.FLOOR_PER_SECOND, policy.rate_per_second or math.inf)
            assert connections >= 1
        if (
            state.factor < backoff.WHOLE
            and not policy.rate_per_second
            and backoff._grown(state, moment(event)).factor < 1000
        ):
            assert rate <= max(state.observed_per_second, backoff.FLOOR_PER_SECOND)


@given(histories)
def test_there_is_at_most_one_halving_a_minute(events: list[Event]) -> None:
    state, halvings = BackOff(), list[float]()
    for event in events:
        before = backoff._grown(state, moment(event)).factor
        state, _ = apply(state, event)
        if isinstance(event, Hit) and not event.pause and state.factor < before:
            assert state.factor == before // 2
            halvings.append(event.at)
    assert all(later - earlier >= backoff.HALVE_SECONDS for earlier, later in itertools.pairwise(halvings))


@given(histories)
def test_a_pause_is_5_to_240_minutes_and_is_never_shortened(events: list[Event]) -> None:
    state = BackOff()
    for event in events:
        before = state.paused_until
        state, _ = apply(state, event)
        assert state.paused_until >= before
        if state.paused_until > before:
            assert isinstance(event, Hit)
            assert backoff.MIN_PAUSE_SECONDS <= state.paused_until - event.at <= backoff.MAX_PAUSE_SECONDS


@given(histories, policies, st.lists(st.floats(0, 100_000), min_size=2, max_size=6))
def test_without_hits_it_only_becomes_faster(events: list[Event], policy: Configured, later: list[float]) -> None:
    state, end = fold(events), moment(events[-1]) if events else 0.0
    speeds = [speed(limits_now(state, policy, end + after)) for after in sorted(later)]
    for earlier, after in itertools.pairwise(speeds):
        assert earlier[0] <= after[0]
        assert earlier[1] <= after[1]


@given(histories, policies, st.floats(0, 100_000), st.floats(0, 100_000))
def test_ticks_tell_and_change_no_limit(events: list[Event], policy: Configured, one: float, other: float) -> None:
    state, end = fold(events), moment(events[-1]) if events else 0.0
    first, then = sorted((end + one, end + other))
    assert limits_now(tick(state, first)[0], policy, then) == limits_now(state, policy, then)


@given(histories, st.data())
def test_events_seen_twice_change_nothing_more(events: list[Event], data: st.DataObject) -> None:
    state = fold(events)
    seen = [event for event in events if not isinstance(event, float)]
    again = data.draw(st.lists(st.sampled_from(seen), max_size=10)) if seen else []
    for event in (*again, *seen):
        state_after, change = apply(state, event)
        assert state_after == state
        assert change is None


@given(histories, histories, policies, st.floats(0, 20_000), st.lists(st.floats(0, 50_000), max_size=4))
def test_a_restored_state_is_never_faster_than_the_one_it_was(
    events: list[Event], more: list[Event], policy: Configured, idle: float, later: list[float]
) -> None:
    state, now = fold(events), (moment(events[-1]) if events else 1_000_000.0) + idle
    again = restored(decode(encode(state)), now)
    shift = now - 1_000_000.0
    for event in more:
        moved = event + shift if isinstance(event, float) else _moved(event, shift)
        state, again = fold([moved], state), fold([moved], again)
        for after in (0.0, *later):
            assert_not_faster(again, state, policy, moment(moved) + after)
    assert_not_faster(again, state, policy, now)


def _moved(event: Hit | Clean, shift: float) -> Hit | Clean:
    if isinstance(event, Hit):
        return event._replace(at=event.at + shift, started_at=event.started_at + shift)
    return Clean(event.at + shift, event.started_at + shift)


def assert_not_faster(one: BackOff, other: BackOff, policy: Configured, now: float) -> None:
    slower, faster = speed(limits_now(one, policy, now)), speed(limits_now(other, policy, now))
    assert slower[0] <= faster[0]
    assert slower[1] <= faster[1]


@given(histories)
def test_every_change_of_an_event_is_explained_and_nothing_else_is(events: list[Event]) -> None:
    state = BackOff()
    for event in events:
        after, change = apply(state, event)
        said = (after.paused_until, after.probing, after.factor) != (state.paused_until, state.probing, state.factor)
        if isinstance(event, Hit) and not event.pause and change is None:
            said = after.factor < backoff._grown(state, event.at).factor
        assert not said or change is not None
        if change:
            assert change.what
            assert change.why == "rule: 421 busy"
        state = after


numbers = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e12, max_value=1e12)
anything = st.one_of(
    numbers,
    st.builds(Clean, numbers, numbers),
    st.builds(
        Hit,
        numbers,
        numbers,
        st.booleans(),
        st.text(max_size=3),
        st.text(),
        numbers,
        numbers,
        numbers,
        st.integers(0, 10_000),
    ),
)


@given(st.lists(anything, max_size=20), policies, numbers)
def test_no_sequence_of_events_raises(events: list[Event], policy: Configured, now: float) -> None:
    state = fold(events)
    limits_now(state, policy, now)
    is_over(state, now)
    assert decode(encode(state)) == state
    restored(state, now)


# --- Examples ---------------------------------------------------------------------------------------------------------
def test_it_halves_and_comes_back_in_tenths_of_the_ceiling() -> None:
    state, change = hit(BackOff(), slow(1000.0))
    assert limits_now(state, POLICY, 1000.0) == Limits(5.0, 10, 0.0, False)
    assert change == Change("slowed to 50 %", "r: 421 busy", 1600.0, "a tenth more after 10 minutes without a hit")
    rates = [limits_now(state, POLICY, 1000.0 + minutes * MINUTE).rate_per_second for minutes in (9, 10, 20, 49, 50)]
    assert rates == [5.0, 6.0, 7.0, 9.0, 10.0]


def test_a_hit_within_the_minute_does_not_halve_but_ends_clean_time() -> None:
    state = fold([slow(1000.0), slow(1059.0)])
    assert limits_now(state, POLICY, 1601.0).rate_per_second == 5.0
    assert limits_now(state, POLICY, 1659.0).rate_per_second == 6.0
    assert limits_now(fold([slow(1060.0)], state), POLICY, 1060.0).rate_per_second == 2.5


def test_where_no_rate_is_configured_the_observed_one_is_the_ceiling_until_it_is_recovered() -> None:
    state = fold([slow(1000.0, rate_per_second=8.0), slow(1100.0, rate_per_second=4.0)])
    assert limits_now(state, Configured(), 1100.0) == Limits(2.0, 5, 0.0, False)
    assert limits_now(state, Configured(), 1100.0 + 80 * MINUTE) == Limits(0.0, 0, 0.0, False)


def test_it_never_becomes_slower_than_a_probe() -> None:
    state = fold([slow(1000.0 + 100 * n) for n in range(40)])
    assert limits_now(state, POLICY, 4900.0) == Limits(1 / 60, 1, 0.0, False)


def test_pauses_double_when_each_probe_meets_the_same_answer() -> None:
    state, at, lengths = BackOff(), 1000.0, []
    for _ in range(8):
        state, _ = hit(state, pause(at, at))
        lengths.append((state.paused_until - at) / MINUTE)
        at = state.paused_until + 1
    assert lengths == [5, 10, 20, 40, 80, 160, 240, 240]


def test_replies_to_what_was_under_way_do_not_lengthen_a_pause() -> None:
    state = fold([pause(1000.0)])
    assert hit(state, pause(1001.0, 999.0)) == (msgspec.structs.replace(state, hit_at=1001.0), None)


@pytest.mark.parametrize(("clean_minutes", "minutes"), [(59, 20), (61, 5)])
def test_pauses_start_again_after_an_hour_without_a_hit(clean_minutes: int, minutes: int) -> None:
    state = fold([pause(0.0), pause(310.0)])
    at = state.paused_until + clean_minutes * MINUTE
    assert fold([pause(at)], state).pause_seconds == minutes * MINUTE


def test_after_a_long_pause_the_clean_time_must_be_as_long() -> None:
    state = fold([pause(0.0, ttl_seconds=4 * 3600.0)])
    assert fold([pause(state.paused_until + 3 * 3600.0)], state).pause_seconds == 4 * 3600.0
    assert fold([pause(state.paused_until + 5 * 3600.0)], state).pause_seconds == 300.0


def test_after_a_pause_one_message_a_minute_goes_out_until_one_is_accepted() -> None:
    state = fold([pause(1000.0)])
    assert limits_now(state, POLICY, 1100.0) == Limits(1 / 60, 0, 1300.0, True)
    assert limits_now(state, POLICY, 1300.0) == Limits(1 / 60, 1, 0.0, True)
    assert limits_now(state, POLICY, 99_999.0).probing
    assert clean(state, 1299.0, 1301.0) == (state, None)
    state, change = clean(state, 1310.0, 1320.0)
    assert change is not None
    assert limits_now(state, POLICY, 1320.0) == Limits(1 / 60, 1, 0.0, False)
    assert limits_now(state, POLICY, 1320.0 + 10 * MINUTE) == Limits(1.0, 2, 0.0, False)
    assert limits_now(state, POLICY, 1320.0 + 100 * MINUTE) == Limits(10.0, 20, 0.0, False)


def test_the_end_of_a_pause_is_told_once() -> None:
    state = fold([pause(1000.0)])
    state, change = tick(state, 1299.0)
    assert change is None
    state, change = tick(state, 1300.0)
    assert change == Change("probing", "r: 421 no", 0.0, "one message a minute until one is accepted")
    assert tick(state, 1400.0) == (state, None)


def test_a_rule_may_fix_the_rate_for_its_time() -> None:
    state = fold([slow(1000.0, ttl_seconds=600.0, to_per_second=0.1, to_connections=1)])
    assert limits_now(state, POLICY, 1599.0) == Limits(0.1, 1, 0.0, False)
    assert limits_now(state, POLICY, 1600.0) == Limits(6.0, 12, 0.0, False)


def test_a_restored_pause_goes_on_and_a_restored_slow_scope_is_probed() -> None:
    paused = restored(fold([pause(1000.0)]), 1100.0)
    assert limits_now(paused, POLICY, 1200.0).paused_until == 1300.0
    slowed = restored(fold([slow(1000.0)]), 1100.0)
    assert limits_now(slowed, POLICY, 1200.0) == Limits(1 / 60, 1, 0.0, True)
    slowed, _ = clean(slowed, 1150.0, 1160.0)
    assert limits_now(slowed, POLICY, 1200.0) == Limits(5.0, 10, 0.0, False)
    assert restored(BackOff(), 1100.0) == BackOff()


def test_a_state_is_forgotten_only_when_it_means_nothing_any_more() -> None:
    assert is_over(BackOff(), 10_000.0)
    assert not is_over(fold([pause(1000.0)]), 100_000.0)
    slowed = fold([slow(1000.0)])
    assert [is_over(slowed, 1000.0 + minutes * MINUTE) for minutes in (49, 59, 60)] == [False, False, True]
    accepted = fold([pause(0.0, ttl_seconds=14_400.0), Clean(14_500.0, 14_450.0)])
    assert [is_over(accepted, 14_500.0 + minutes * MINUTE) for minutes in (99, 100)] == [False, True]


def test_bytes_of_an_older_version_are_read() -> None:
    assert decode(msgspec.msgpack.encode([500, 1000.0])) == BackOff(factor=500, since=1000.0)
    assert decode(msgspec.msgpack.encode([*msgspec.structs.astuple(BackOff()), "of a newer version"])) == BackOff()


def test_what_a_clock_of_days_ahead_has_written_pauses_no_longer_than_a_pause() -> None:
    ahead = 3 * 86400.0
    state, _ = hit(BackOff(), Hit(ahead, ahead, True, "rule", "421 no"))
    taken_up = restored(state, 0.0)
    assert limits_now(taken_up, Configured(10.0), 1.0).paused_until == MIN_PAUSE_SECONDS
    assert limits_now(taken_up, Configured(10.0), MIN_PAUSE_SECONDS + 1).paused_until == 0.0
