"""Lanes: no two sources have the same one, and none changes hands while anything is under way in it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mailfleet_operator.decisions.lanes import NOTHING, Held, allot, freed, together


def test_the_lowest_free_lanes_are_given() -> None:
    held = {"a": Held((0, 2)), "b": Held((), ((1, 5.0),))}
    assert allot(held, "c", 2, frozenset(), 8, 10, 30).held.lanes == (3, 4)


def test_what_is_missing_is_told() -> None:
    assert allot({"a": Held((0, 1))}, "b", 3, frozenset(), 3, 10, 30) == (Held((2,)), 2)


def test_a_lane_that_was_given_up_is_kept_until_it_is_empty_and_everybody_has_heard() -> None:
    given_up = allot({"a": Held((3, 4))}, "a", 1, frozenset(), 8, 100, 30).held
    assert given_up == Held((3,), ((4, 100),))
    assert freed(given_up, frozenset({4}), 129, 30) == given_up
    assert freed(given_up, frozenset(), 1000, 30) == given_up
    assert freed(given_up, frozenset({4}), 130, 30) == Held((3,))


def test_a_source_takes_its_own_lane_back_first() -> None:
    held = {"a": Held((3,), ((4, 100),))}
    assert allot(held, "a", 2, frozenset(), 8, 101, 30).held == Held((3, 4))


def test_a_lane_that_either_the_status_or_the_log_knows_is_held() -> None:
    assert together(Held((1,), ((2, 5.0),)), (2, 7)) == Held((1, 7), ((2, 5.0),))


NAMES = ("a", "b", "c")
WISHES = st.lists(
    st.tuples(st.sampled_from(NAMES), st.integers(0, 5), st.frozensets(st.integers(0, 7)), st.floats(0, 40)),
    max_size=60,
)


@given(WISHES)
def test_whatever_is_wanted_no_lane_has_two_holders_and_none_leaves_one_full(
    wishes: list[tuple[str, int, frozenset[int], float]],
) -> None:
    held: dict[str, Held] = {}
    now = 0.0
    for name, wanted, empty, gap in wishes:
        now += gap
        before = held.get(name, NOTHING)
        after = allot(held, name, wanted, empty, 8, now, 30.0)
        held[name] = after.held
        every = [lane for each in held.values() for lane in each.all]
        assert len(every) == len(set(every))
        assert all(len(each.all) == len(each.lanes) + len(each.releasing) for each in held.values())
        assert len(after.held.lanes) + after.missing == wanted
        since = dict(before.releasing)
        for lane in before.all - after.held.all:
            assert lane in empty
            assert now - since[lane] >= 30.0
        again = allot(held, name, len(after.held.lanes), frozenset(), 8, now, 30.0)
        assert again.held == after.held
