"""Token buckets as one instant."""

import math
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailfleet_router.decisions.shaping import gcra
from mailfleet_sender.decisions import throttle

rates = st.floats(1e-3, 5e3)
bursts = st.floats(0.0, 50.0)
gaps = st.lists(st.floats(0.0, 3.0), min_size=1, max_size=40)
instants = st.floats(0.0, 1e6)


def admitted(state, rate, burst, times):
    taken = []
    for now in times:
        state, wait = gcra.take(state, rate, burst, now)
        if not wait:
            taken.append(now)
    return taken


def instants_after(start, gaps_between):
    times = [start]
    for gap in gaps_between:
        times.append(times[-1] + gap)
    return times


@given(rates, bursts, instants, gaps, st.integers(1, 5))
@example(1.0, 1.0, 0.0, [0.5] * 20, 3)
def test_no_window_of_any_length_admits_more_than_its_rate_and_the_burst(rate, burst, start, between, tries):
    times = [now for now in instants_after(start, between) for _ in range(tries)]
    taken = admitted(0.0, rate, burst, times)
    allowance = max(1.0, burst)
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            window = taken[last] - taken[first]
            assert last - first + 1 <= rate * (window + 1e-5) + allowance + 1e-6


@given(rates, bursts, instants, st.integers(0, 200))
def test_waiting_the_returned_time_suffices(rate, burst, now, before):
    state = 0.0
    for _ in range(before):
        state, wait = gcra.take(state, rate, burst, now)
    if wait := gcra.peek(state, rate, burst, now):
        assert gcra.take(state, rate, burst, now + wait)[1] == 0.0


@given(rates, bursts, instants, st.floats(0, 100))
def test_a_refused_take_changes_nothing(rate, burst, now, debt_seconds):
    state = now + debt_seconds
    after, wait = gcra.take(state, rate, burst, now)
    assert (after == state) == (wait > 0)


@given(rates, bursts, instants, st.floats(0, 1e4), st.floats(0, 1e5))
def test_a_clock_that_goes_back_gives_nothing(rate, burst, now, debt_seconds, back):
    state = now + debt_seconds
    assert gcra.peek(state, rate, burst, now - back) >= gcra.peek(state, rate, burst, now)


@given(st.lists(st.tuples(st.one_of(st.just(0.0), rates), bursts, st.floats(0, 2), st.integers(1, 6)), max_size=60))
@example([(1.0, 10.0, 0.0, 6), (100.0, 10.0, 0.0, 6), (1.0, 10.0, 0.0, 6)])
def test_no_sequence_of_rate_changes_admits_more_than_the_integral_of_the_rate_and_the_largest_burst(steps):
    state, now, integral, count, largest, before = 0.0, 10.0, 0.0, 0, 1.0, 1.0
    for rate, burst, seconds, tries in steps:
        state, before = gcra.changed(state, before, rate, now), rate
        now += seconds
        integral += rate * seconds
        largest = max(largest, burst)
        for _ in range(tries):
            state, wait = gcra.take(state, rate, burst, now)
            count += not wait
        assert count <= integral + largest + 1e-3 + 5e3 * 1e-6


@given(rates, rates, instants, st.floats(0, 1000))
def test_a_changed_rate_keeps_the_debt_in_messages(old, new, now, debt):
    state = gcra.changed(now + debt / old, old, new, now)
    assert (state - now) * new == pytest.approx(debt, abs=1e-4 + debt * 1e-6 + new * 1e-9)


@given(st.floats(1, 100), instants)
def test_a_rate_of_zero_admits_nothing_and_forgets_no_debt(burst, now):
    state = gcra.empty(10.0, burst, now)
    stopped = gcra.changed(state, 10.0, 0.0, now)
    assert gcra.take(0.0, 0.0, burst, now) == (0.0, math.inf)
    resumed = gcra.changed(stopped, 0.0, 10.0, now + 3600)
    assert gcra.peek(resumed, 10.0, burst, now + 3600) > 0


@given(rates, bursts, instants)
def test_a_new_owner_starts_empty_and_has_its_first_message_after_one_interval(rate, burst, now):
    assert gcra.peek(gcra.empty(rate, burst, now), rate, burst, now) == pytest.approx(1 / rate, rel=1e-3, abs=1e-6)


@given(rates, bursts, instants, st.floats(0, 10))
def test_a_message_that_is_given_back_may_be_taken_again_at_once(rate, burst, now, debt_seconds):
    state, wait = gcra.take(now + debt_seconds, rate, burst, now)
    if not wait:
        # What was just in time may be a rounding late.
        assert gcra.peek(gcra.give_back(state, rate), rate, burst, now) <= 2 * gcra.SLACK_SECONDS


@given(rates, bursts, instants, st.integers(1, 20), st.floats(0, 100))
def test_giving_back_never_makes_a_bucket_fuller_than_full(rate, burst, now, times, later):
    state = 0.0
    for _ in range(times):
        state = gcra.give_back(state, rate)
    taken = admitted(state, rate, burst, [now + later] * 80)
    assert len(taken) <= max(1.0, burst) + rate * 1e-5 + 1e-6


@given(rates, bursts, instants, st.integers(1, 30))
def test_reservations_may_go_one_interval_after_another(rate, burst, now, count):
    state, waits = 0.0, []
    for _ in range(count):
        state, wait = gcra.reserve(state, rate, burst, now)
        waits.append(wait)
    assert waits == sorted(waits)
    beyond = count - max(1.0, burst)
    assert waits[-1] == pytest.approx(max(0.0, beyond / rate), rel=1e-3, abs=1e-5)


def test_without_a_burst_a_tenth_of_a_second_goes_at_once_and_at_least_one_message():
    assert gcra.default_burst(1000.0) == 100.0
    assert gcra.default_burst(0.5) == 1.0


@pytest.mark.parametrize(
    "take", [lambda at, rate: gcra.take(at, rate, 1.0, at), lambda at, rate: throttle.take(at, throttle.Rate(rate), at)]
)
@given(rate=st.floats(0.01, 10_000.0))
def test_rounding_does_not_add_up_to_a_message_however_many_there_were(take, rate):
    begin = at = 1_795_000_000.0
    for _ in range(300):
        at, wait = take(at, rate)
        assert not wait
    assert Fraction(at) - Fraction(begin) >= 300 / Fraction(rate) * (1 - Fraction(1, 10**12))
