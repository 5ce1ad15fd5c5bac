"""Properties of a source's reputation, and the table that its formula was chosen by."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailfleet_core.model import wire
from mailfleet_router.decisions.shaping import reputation as rep
from mailfleet_router.decisions.shaping.reputation import (
    BLOCKED,
    BOUNCED,
    COMPLAINED,
    DAY,
    DEFERRED,
    DELIVERED,
    GOOD,
    OTHER,
    QUARANTINE,
    SLOW,
    WATCH,
    Counts,
    Day,
    Standing,
)

NOON = 20_000 * DAY
HOUR = 3600.0


def counted(n: int = 10_000, **bad: float) -> Counts:
    """`n` answers in the first second of a day; the rates are given by kind."""
    parts = [0.0] * 6
    for name, rate in bad.items():
        parts[getattr(rep, name.upper())] = rate * n
    parts[DELIVERED] = n - parts[DEFERRED] - parts[BOUNCED] - parts[BLOCKED]
    parts[COMPLAINED] = bad.get("complained", 0.0) * parts[DELIVERED]
    return Counts((Day(20_000, tuple(parts), tuple(round(part) for part in parts)),))


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (counted(), 100),
        (counted(bounced=0.02), 87),
        (counted(bounced=0.05), 58),
        (counted(bounced=0.10), 29),
        (counted(complained=0.001), 74),
        (counted(complained=0.002), 51),
        (counted(complained=0.003), 35),
        (counted(deferred=0.10), 73),
        (counted(deferred=0.30), 29),
        (counted(blocked=0.02), 63),
        (counted(blocked=0.05), 30),
        (counted(bounced=0.03, complained=0.0012, deferred=0.08), 42),
        (counted(10, complained=0.1), 80),
        (counted(50, bounced=0.1), 78),
    ],
)
def test_the_published_lines_fall_where_the_formula_was_checked(counts: Counts, expected: int) -> None:
    assert rep.score(counts, NOON).score == pytest.approx(expected, abs=0.6)


kinds = st.sampled_from((DELIVERED, DELIVERED, DEFERRED, BOUNCED, OTHER, BLOCKED, COMPLAINED))
gaps = st.floats(0, 1.5 * DAY)
histories = st.lists(st.tuples(kinds, gaps, st.integers(1, 40)), max_size=12)


def lived(
    history: list[tuple[int, float, int]], counts: Counts | None = None, now: float = NOON
) -> tuple[Counts, float]:
    counts = counts or Counts()
    for kind, gap, times in history:
        now += gap
        for _ in range(times):
            counts = rep.observe(counts, kind, now)
    return counts, now


days = st.builds(
    lambda weights, seen: (tuple(weights), tuple(seen)),
    st.lists(st.floats(0, 20_000), min_size=6, max_size=6),
    st.lists(st.integers(0, 20_000), min_size=6, max_size=6),
)
big = st.dictionaries(st.integers(19_990, 20_003), days, max_size=5).map(
    lambda found: Counts(tuple(Day(number, *found[number]) for number in sorted(found)))
)
"""Counts as no history of a test's length gets them, days to come (a clock that went back) among them."""
instants = st.floats(NOON - 3 * DAY, NOON + 3 * DAY)


@settings(deadline=None)
@given(big, instants)
def test_a_score_is_between_0_and_100_and_what_is_acted_upon_never_below_it(counts: Counts, now: float) -> None:
    reading = rep.score(counts, now)
    assert 0.0 <= reading.score <= reading.acting <= 100.0


@settings(deadline=None)
@given(big, instants, st.sampled_from((BLOCKED, COMPLAINED)))
def test_a_complaint_or_a_block_reply_never_raises_the_score(counts: Counts, now: float, kind: int) -> None:
    before, after = rep.score(counts, now), rep.score(rep.observe(counts, kind, now), now)
    assert after.score <= before.score + 1e-9
    assert after.acting <= before.acting + 1e-9


@settings(deadline=None)
@given(histories, st.floats(0, 10 * DAY), st.floats(0, 10 * DAY))
def test_silence_moves_a_score_towards_neutral_and_never_away(
    history: list[tuple[int, float, int]], one: float, more: float
) -> None:
    counts, now = lived(history)
    assert rep.score(counts, now + one).score <= rep.score(counts, now + one + more).score + 1e-9


@settings(deadline=None)
@given(histories)
def test_nothing_is_left_of_what_is_older_than_a_week(history: list[tuple[int, float, int]]) -> None:
    counts, now = lived(history)
    assert rep.score(counts, now + 7 * DAY).score == 100.0
    fresh = rep.observe(Counts(), BOUNCED, now + 8 * DAY)
    assert rep.score(rep.observe(counts, BOUNCED, now + 8 * DAY), now + 8 * DAY) == rep.score(fresh, now + 8 * DAY)


def test_an_answer_counts_half_a_day_later() -> None:
    counts = rep.observe(Counts(), BOUNCED, NOON + 5000.0)
    assert rep.score(counts, NOON + 5000.0).weights[BOUNCED] == pytest.approx(1.0)
    assert rep.score(counts, NOON + 5000.0 + DAY).weights[BOUNCED] == pytest.approx(0.5)


def test_ten_thousand_answers_push_out_what_was_before_them() -> None:
    counts = counted(10_000, bounced=1.0)
    for _ in range(30_000):
        counts = rep.observe(counts, DELIVERED, NOON)
    reading = rep.score(counts, NOON)
    assert sum(reading.weights[:BLOCKED]) <= 10_000.001
    assert reading.rates[1] == pytest.approx(math.exp(-3), abs=0.005)


@settings(deadline=None)
@given(histories, st.sampled_from((-3 * DAY, -HOUR, HOUR, 3 * DAY)))
def test_a_clock_that_is_wrong_for_one_answer_and_right_again_changes_nothing_else(
    history: list[tuple[int, float, int]], jump: float
) -> None:
    short = [(kind, gap / 4, times) for kind, gap, times in history]  # within three days
    counts, now = lived(short)
    straight = rep.score(rep.observe(counts, DELIVERED, now), now)
    jumped = rep.score(rep.observe(counts, DELIVERED, now + jump), now)
    assert jumped.score == pytest.approx(straight.score, abs=2.0)
    for kind in (DEFERRED, BOUNCED, BLOCKED, COMPLAINED):
        assert jumped.weights[kind] == pytest.approx(straight.weights[kind])


@settings(deadline=None)
@given(big, instants, instants)
def test_a_clock_that_goes_back_does_not_improve_a_score(counts: Counts, one: float, other: float) -> None:
    now, back = max(one, other), min(one, other)
    past = Counts(tuple(day for day in counts.days if day.day <= back // DAY and day.day > now // DAY - 7))
    if any(any(day.seen[:BLOCKED]) for day in past.days):
        assert rep.score(past, back).score <= rep.score(past, now).score + 1e-9


def test_what_was_seen_while_the_clock_was_ahead_weighs_no_more_for_it() -> None:
    counts = rep.observe(Counts(), BLOCKED, NOON + 3 * DAY)
    assert rep.score(counts, NOON).weights[BLOCKED] == pytest.approx(1.0)
    assert rep.score(counts, NOON + 5 * DAY).weights[BLOCKED] == pytest.approx(0.25)


@settings(deadline=None)
@given(st.lists(kinds, max_size=9))
def test_nine_answers_or_two_complaints_change_no_state(some: list[int]) -> None:
    counts, now = lived([(kind, 0.0, 1) for kind in some if kind != COMPLAINED])
    counts, _ = lived([(COMPLAINED, 0.0, 2)], counts)
    standing, decision = rep.judge(Standing(), counts, now)
    assert standing.state == GOOD
    assert decision.reading.acting == 100.0


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), kinds, gaps), max_size=30))
def test_counting_one_key_does_not_touch_another_however_they_are_interleaved(
    events: list[tuple[bool, int, float]],
) -> None:
    book: dict[bool, Counts] = {True: Counts(), False: Counts()}
    alone: dict[bool, list[tuple[int, float]]] = {True: [], False: []}
    now = NOON
    for key, kind, gap in events:
        now += gap
        book[key] = rep.observe(book[key], kind, now)
        alone[key].append((kind, now))
    for key, own in alone.items():
        counts = Counts()
        for kind, at in own:
            counts = rep.observe(counts, kind, at)
        assert book[key] == counts


@settings(deadline=None)
@given(big, big, big, instants)
def test_merging_is_commutative_and_associative(one: Counts, two: Counts, three: Counts, now: float) -> None:
    assert rep.merge(one, two) == rep.merge(two, one)
    left, right = rep.merge(rep.merge(one, two), three), rep.merge(one, rep.merge(two, three))
    assert rep.score(left, now).score == pytest.approx(rep.score(right, now).score)
    assert rep.merge(one, Counts()) == one == rep.total((one,))


@settings(deadline=None)
@given(histories, st.integers(0, 12))
def test_partitions_that_share_a_history_count_what_one_would(history: list[tuple[int, float, int]], cut: int) -> None:
    whole, now = lived(history)
    first: Counts = Counts()
    second: Counts = Counts()
    at = NOON
    for index, (kind, gap, times) in enumerate(history):
        at += gap
        for _ in range(times):
            if index < cut:
                first = rep.observe(first, kind, at)
            else:
                second = rep.observe(second, kind, at)
    assert rep.score(rep.merge(first, second), now).score == pytest.approx(rep.score(whole, now).score)


@settings(deadline=None)
@given(big, instants)
def test_counts_standing_and_decision_survive_the_topic(counts: Counts, now: float) -> None:
    standing, decision = rep.judge(Standing(), counts, now)
    assert rep.decode_counts(rep.encode(counts)) == counts
    assert rep.decode_standing(rep.encode(standing)) == standing
    assert rep.decode_decision(rep.encode(decision)) == decision


# --- states ------------------------------------------------------------------------------------------------------
def judged(counts: Counts, now: float, seconds: float, standing: Standing) -> Standing:
    """The state after judging every ten minutes."""
    until = now + seconds
    while now < until:
        now += 600.0
        standing, _ = rep.judge(standing, counts, now)
    return standing


@pytest.mark.parametrize(
    ("counts", "state"),
    [
        (counted(), GOOD),
        (counted(complained=0.001), WATCH),
        (counted(complained=0.002), SLOW),
        (counted(complained=0.003), QUARANTINE),
        (counted(bounced=0.05), SLOW),
        (counted(bounced=0.10), QUARANTINE),
    ],
)
def test_a_state_gets_worse_at_once_with_its_inputs_on_record(counts: Counts, state: int) -> None:
    standing, decision = rep.judge(Standing(), counts, NOON)
    assert (standing.state, decision.before, decision.after) == (state, GOOD, state)
    assert decision.reading == rep.score(counts, NOON)
    assert rep.STATES[state] in decision.reason


def test_a_quarantine_ends_only_after_six_clean_hours_and_well_above_its_border() -> None:
    sick = Standing(QUARANTINE, 0.0, NOON)
    assert judged(counted(bounced=0.05), NOON, 48 * HOUR, sick).state == SLOW  # 58 > 50
    assert judged(counted(bounced=0.07), NOON, 10 * HOUR, sick).state == QUARANTINE  # 44 < 50
    assert judged(Counts(), NOON, 5.8 * HOUR, sick).state == QUARANTINE
    assert judged(Counts(), NOON, 6.2 * HOUR, sick).state == GOOD


@pytest.mark.parametrize("kind", [BLOCKED, COMPLAINED])
def test_a_complaint_or_a_block_reply_starts_the_clean_time_anew(kind: int) -> None:
    sick = judged(Counts(), NOON, 5 * HOUR, Standing(QUARANTINE, 0.0, NOON))
    counts = rep.observe(Counts(), kind, NOON + 5 * HOUR)
    assert judged(counts, NOON + 5 * HOUR, 5 * HOUR, sick).state == QUARANTINE
    assert judged(counts, NOON + 5 * HOUR, 6.5 * HOUR, sick).state == GOOD


@settings(deadline=None)
@given(st.lists(st.sampled_from((-3 * DAY, 0.0, 60.0, 3 * DAY)), max_size=20))
def test_a_jumping_clock_ends_no_quarantine(jumps: list[float]) -> None:
    standing, now = Standing(QUARANTINE, 0.0, NOON), NOON
    for jump in jumps:
        now += jump
        standing, _ = rep.judge(standing, Counts(), now)
        assert standing.state == QUARANTINE


def test_a_listed_source_is_quarantined_whatever_its_score() -> None:
    standing, decision = rep.judge(Standing(), Counts(), NOON, listed=True)
    assert standing.state == QUARANTINE
    assert "block list" in decision.reason
    still, _ = rep.judge(Standing(QUARANTINE, 7 * HOUR, NOON), Counts(), NOON, listed=True)
    assert still.state == QUARANTINE


@settings(deadline=None)
@given(big, instants, st.integers(0, 3), st.floats(0, 8 * HOUR))
def test_no_state_is_left_for_a_better_one_without_its_margin(
    counts: Counts, now: float, state: int, clean: float
) -> None:
    standing, decision = rep.judge(Standing(state, clean, now, counts.troubles), counts, now)
    if standing.state < state:
        assert clean >= 6 * HOUR
        assert decision.reading.acting >= (math.inf, 90.0, 70.0, 50.0)[state]


def test_slow_halves_the_rate_and_holds_the_warm_up() -> None:
    assert [rep.rate_factor(state) for state in range(4)] == [1.0, 1.0, 0.5, 0.5]
    assert [rep.holds_warmup(state) for state in range(4)] == [False, False, True, True]


def test_only_what_the_site_says_of_the_source_is_counted() -> None:
    assert rep.outcome(wire.DELIVERED, "", False, True) == DELIVERED
    assert rep.outcome(wire.DELIVERED, "", False, False) == OTHER
    assert rep.outcome(wire.BOUNCED, "recipient", False, True) == BOUNCED
    assert rep.outcome(wire.BOUNCED, "content", False, True) == OTHER
    assert rep.outcome(wire.DEFERRED, "receiver", False, True) == DEFERRED
    assert rep.outcome(wire.DEFERRED, "sender_ip", True, True) == BLOCKED
    assert rep.outcome(wire.DEFERRED, "network", False, True) is None
    assert rep.outcome(wire.BOUNCED, "us", False, True) is None


def test_one_answer_is_counted_for_three_keys() -> None:
    assert rep.keys("t", "s", "a", "x") == (
        ("source|site", "a", "x"),
        ("tenant|site", "t", "x"),
        ("tenant|stream", "t", "s"),
    )
