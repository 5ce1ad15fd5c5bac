"""Who should hold which partitions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mailfleet_core.bus.sharing import shares

HELD = st.dictionaries(st.integers(1, 6), st.sets(st.integers(0, 11)), min_size=1)
ONLY = st.dictionaries(st.integers(1, 6), st.frozensets(st.integers(0, 13)))


@given(HELD, st.integers(1, 12))
def test_shares_are_even_and_complete(held: dict[int, set[int]], partitions: int) -> None:
    shared = shares(held, partitions)
    assert sorted(partition for share in shared.values() for partition in share) == list(range(partitions))
    assert max(map(len, shared.values())) - min(map(len, shared.values())) <= 1


@given(HELD, st.integers(1, 12), ONLY)
def test_each_partition_that_somebody_takes_has_one_holder_who_takes_it(
    held: dict[int, set[int]], partitions: int, only: dict[int, frozenset[int]]
) -> None:
    everything = frozenset(range(partitions))
    taken = frozenset[int]().union(*(only.get(member, everything) for member in held)) & everything
    shared = shares(held, partitions, only)
    assert sorted(partition for share in shared.values() for partition in share) == sorted(taken)
    assert all(share <= only.get(member, everything) for member, share in shared.items())


@given(HELD, st.integers(1, 12), ONLY)
def test_no_partition_could_go_to_a_member_with_two_fewer(
    held: dict[int, set[int]], partitions: int, only: dict[int, frozenset[int]]
) -> None:
    shared = shares(held, partitions, only)
    for giver, share in shared.items():
        for taker, theirs in shared.items():
            if not share.isdisjoint(only.get(taker, share)):
                assert len(theirs) + 1 >= len(share), (giver, taker)


@given(HELD, st.integers(1, 12), ONLY)
def test_what_is_shared_out_stays_as_it_is(
    held: dict[int, set[int]], partitions: int, only: dict[int, frozenset[int]]
) -> None:
    shared = shares(held, partitions, only)
    assert shares(shared, partitions, only) == shared


@given(st.integers(1, 5), st.integers(1, 12))
def test_an_arrival_moves_no_more_than_its_share(members: int, partitions: int) -> None:
    before = shares(dict.fromkeys(range(members), ()), partitions)
    after = shares({**before, members: frozenset()}, partitions)
    assert all(after[member] <= before[member] for member in before)
    assert len(after[members]) == partitions // (members + 1)
