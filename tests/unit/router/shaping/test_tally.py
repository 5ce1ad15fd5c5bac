"""Counts in fixed memory: close to the truth, the same whatever the order, never more than they may hold."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfleet_router.decisions.shaping.pace import OVER_SECONDS, Pace
from mailfleet_router.decisions.shaping.tally import LEAST_SECONDS, MOST_SECONDS, Pairs, Texts, Waits

seconds = st.floats(0, 1e7)


@given(st.lists(seconds, min_size=1, max_size=60), st.sampled_from([0.01, 0.5, 0.9, 0.99, 1.0]))
def test_a_percentile_is_at_most_a_fifth_above_the_exact_one_and_never_below(waits: list[float], share: float) -> None:
    kept = Waits()
    for wait in waits:
        kept.add(wait)
    ordered = sorted(waits)
    exact = next(wait for number, wait in enumerate(ordered, 1) if number >= share * len(ordered))
    if exact <= LEAST_SECONDS:
        assert kept.percentile(share) == 0.0
    else:
        assert exact * (1 - 1e-9) <= kept.percentile(share) <= exact * 1.19


def test_without_waits_percentiles_are_nothing_and_absurd_waits_are_bounded() -> None:
    waits = Waits()
    assert waits.percentile(0.99) == 0.0
    waits.add(float("inf"))
    assert waits.percentile(0.5) == pytest.approx(MOST_SECONDS, rel=0.19)


@given(st.lists(st.sampled_from("abcdefgh"), max_size=80))
def test_texts_that_are_few_are_counted_exactly_and_the_commonest_comes_first(texts: list[str]) -> None:
    kept = Texts(8)
    for text in texts:
        kept.add(text, 1)
    assert kept.commonest() == sorted(Counter(texts).items(), key=lambda item: (-item[1], item[0]))


@given(st.lists(st.integers(0, 60), max_size=200))
def test_many_texts_are_forgotten_but_never_uncounted_nor_overcounted(numbers: list[int]) -> None:
    kept, exact = Texts(5), Counter(str(number) for number in numbers)
    for number in numbers:
        kept.add(str(number), 1)
        assert len(kept.commonest()) <= 10
    assert all(count <= exact[text] for text, count in kept.commonest())
    assert sum(count for _, count in kept.commonest()) + kept.forgotten == len(numbers)


@given(st.lists(st.tuples(st.integers(0, 300), st.booleans()), max_size=300))
def test_the_table_of_pairs_never_holds_more_than_it_may_and_its_answers_are_true(
    steps: list[tuple[int, bool]],
) -> None:
    pairs, begun = Pairs(16), dict[bytes, float]()
    for at, (number, ends) in enumerate(steps):
        name = b"%d" % number
        if ends:
            waited = pairs.end(name, at)
            assert waited is None or waited == at - begun[name]
            begun.pop(name, None)
        else:
            pairs.begin(name, at)
            begun.setdefault(name, at)
        assert len(pairs) <= 16


def test_while_they_are_few_all_pairs_are_kept() -> None:
    pairs = Pairs(100)
    for number in range(100):
        pairs.begin(b"%d" % number, number)
    assert [pairs.end(b"%d" % number, 1000.0) for number in range(100)] == [1000.0 - number for number in range(100)]
    assert pairs.end(b"0", 1001.0) is None


@pytest.mark.parametrize("per_second", [1, 20])
def test_a_steady_pace_is_measured_after_some_minutes(per_second: int) -> None:
    pace = Pace()
    for number in range(int(10 * OVER_SECONDS) * per_second):
        pace.count(number / per_second)
    assert pace.per_second(10 * OVER_SECONDS) == pytest.approx(per_second, rel=0.05)
    assert pace.per_second(20 * OVER_SECONDS) < per_second * 0.001
