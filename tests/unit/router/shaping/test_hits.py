"""Thresholds count hits in a window, once each, in bounded memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mailfleet_router.decisions.shaping.hits import SHARED_HITS, Hits, HitTable, Threshold, observe

thresholds = st.builds(Threshold, st.integers(1, 8), st.floats(1, 100), st.just(0.0))
events = st.lists(st.tuples(st.integers(0, 200).map(float), st.integers(0, 3)), max_size=40)


def fold(threshold: Threshold, hits: list[tuple[float, int]]) -> tuple[Hits, list[bool]]:
    state, answers = Hits(), []
    for at, event in hits:
        state, reached = observe(state, threshold, at, event)
        answers.append(reached)
    return state, answers


@given(thresholds, events)
def test_in_order_the_threshold_is_reached_exactly_when_the_window_holds_so_many(
    threshold: Threshold, hits: list[tuple[float, int]]
) -> None:
    ordered = sorted(set(hits))
    _, answers = fold(threshold, ordered)
    for index, (at, _) in enumerate(ordered):
        within = [hit for hit in ordered[: index + 1] if hit[0] > at - threshold.window_seconds]
        assert answers[index] == (len(within) >= threshold.hits)


@given(thresholds, events, st.data())
def test_hits_seen_again_change_nothing(
    threshold: Threshold, hits: list[tuple[float, int]], data: st.DataObject
) -> None:
    state, _ = fold(threshold, sorted(hits))
    for at, event in data.draw(st.lists(st.sampled_from(hits)) if hits else st.just([])):
        assert observe(state, threshold, at, event)[0] == state


@given(thresholds, events)
def test_order_does_not_matter_to_what_is_kept_within_the_window(
    threshold: Threshold, hits: list[tuple[float, int]]
) -> None:
    assert fold(threshold, hits)[0] == fold(threshold, sorted(hits))[0]


@given(thresholds, events)
def test_memory_is_bounded_by_the_threshold(threshold: Threshold, hits: list[tuple[float, int]]) -> None:
    assert len(fold(threshold, hits)[0].newest) <= threshold.hits


def test_hits_of_another_rule_or_scope_do_not_count() -> None:
    table, twice = HitTable(), Threshold(2, 60.0)
    asked = [("a", "x"), ("b", "x"), ("a", "y"), ("a", "x")]
    answers = [table.observe(rule, key, twice, 10.0 + n, n) for n, (rule, key) in enumerate(asked)]
    assert answers == [False, False, False, True]


def test_the_table_forgets_what_was_quiet_longest() -> None:
    table, twice = HitTable(max_keys=2), Threshold(2, 60.0)
    for n, key in enumerate(("x", "y", "x", "z")):
        table.observe("r", key, twice, float(n), n)
    assert len(table) == 2
    assert not table.observe("r", "y", twice, 5.0, 9)
    assert table.observe("r", "z", twice, 6.0, 10)


def test_a_threshold_of_one_needs_no_memory() -> None:
    table = HitTable()
    assert table.observe("r", "x", Threshold(), 1.0, 1)
    assert len(table) == 0


def test_a_share_counts_the_hits_against_what_was_sent_since_the_first_of_them() -> None:
    threshold, state = Threshold(5, 3600.0, 0.01), Hits()
    answers = []
    for number in range(1, 8):  # a hit in each 200 attempts: half of the share
        state, reached = observe(state, threshold, 10.0 * number, number, attempts=200 * number)
        answers.append(reached)
    assert not any(answers)
    for number in range(8, 16):  # and then nothing but hits
        state, reached = observe(state, threshold, 10.0 * number, number, attempts=1400 + number)
    assert reached


@given(st.integers(1, 400), st.floats(0.001, 0.5))
def test_a_steady_share_of_hits_reaches_the_threshold_exactly_when_it_is_large_enough(every: int, share: float) -> None:
    threshold, state = Threshold(5, 1e9, share), Hits()
    for number in range(150):
        state, reached = observe(state, threshold, float(number), number, attempts=every * number)
    kept = len(state.newest)
    assert kept == SHARED_HITS
    assert reached == (kept >= share * every * (kept - 1))


@given(st.lists(st.tuples(st.integers(0, 5000).map(float), st.integers(0, 10_000)), max_size=250))
def test_memory_of_a_share_is_bounded(hits: list[tuple[float, int]]) -> None:
    state = Hits()
    for number, (at, attempts) in enumerate(hits):
        state, _ = observe(state, Threshold(3, 600.0, 0.01), at, number, attempts)
    assert len(state.newest) <= SHARED_HITS
