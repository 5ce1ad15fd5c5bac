"""Maps of hot sites: every source in one shard, few moves, and units that find the way whatever a process has read."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mailfleet_core.model.shards import (
    SLOTS,
    Numbered,
    Shard,
    home,
    shard_name,
    shard_of,
    site_of,
    sources_of,
)
from mailfleet_core.model.site import partition_of, site_name
from mailfleet_core.model.wire import ShardMap
from mailfleet_router.decisions.shaping.sharding import plan

names = [f"ip-{n:02}" for n in range(30)]
worlds = st.tuples(
    st.integers(1, 9),
    st.sets(st.sampled_from(names), min_size=1, max_size=30),
    st.dictionaries(
        st.sampled_from(("bulk", "fast", "odd")),
        st.lists(st.tuples(st.sampled_from([*names, "gone"]), st.integers(0, 5)), max_size=12),
    ),
)


@settings(deadline=None)
@given(st.lists(worlds, min_size=1, max_size=6))
def test_every_source_is_in_one_shard_in_equal_parts_and_slots_only_where_a_pool_has_sources(
    history: list[tuple[int, set[str], dict[str, list[tuple[str, int]]]]],
) -> None:
    known: ShardMap | None = None
    for count, sources, pools in history:
        known = plan(known, count, sources, pools)
        assert sorted(name for group in known.sources for name in group) == sorted(sources)
        sizes = [len(group) for group in known.sources]
        assert len(sizes) == min(count, len(sources))
        assert max(sizes) - min(sizes) <= 1
        for pool, slots in known.pools:
            assert len(slots) == SLOTS
            has = {index for index, group in enumerate(known.sources) for name in group
                   if not pool or name in {member for member, weight in pools[pool] if weight}}  # fmt: skip
            assert set(slots) == has
        assert plan(known, count, sources, pools) == known


def test_a_source_more_moves_nothing_and_a_shard_more_takes_only_its_part() -> None:
    first = plan(None, 4, names[:16], {})
    more = plan(first, 4, names[:17], {})
    assert sum(a != b for a, b in zip(first.sources, more.sources, strict=True)) == 1
    fifth = plan(first, 5, names[:16], {})
    where = {name: index for index, group in enumerate(first.sources) for name in group}
    assert sum(where[name] != index for index, group in enumerate(fifth.sources) for name in group) <= 4
    before, after = dict(first.pools)[""], dict(fifth.pools)[""]
    assert sum(a != b for a, b in zip(before, after, strict=True)) <= SLOTS / 5 + 4


def test_units_fall_into_shards_as_the_weights_of_their_pools_sources() -> None:
    known = Numbered(7, plan(None, 2, ["a", "b"], {"p": [("a", 3), ("b", 1)]}))
    homes = [home("google", "google", known, b"%016d" % n, "p") for n in range(4000)]
    shards = [shard_of(name) for name in homes]
    part = sum(1 for shard in shards if shard and "a" in known.map.sources[shard.place]) / len(homes)
    assert 0.7 < part < 0.8


# --- names -----------------------------------------------------------------------------------------------------------
@given(st.text(min_size=1, max_size=12), st.integers(0, 63), st.integers(1, 64), st.integers(0, 2**60))
def test_a_name_says_which_shard_it_is(site: str, index: int, count: int, number: int) -> None:
    name = shard_name(Shard(site, index, count, number))
    assert shard_of(name) == (site, index, count, number)
    assert site_of(name) == site


def test_no_mx_host_can_look_like_a_shard() -> None:
    assert shard_of(site_name(["google#0/4.1"])) is None
    for name in ("mx.example.org", "google", "a#b", "a#1/x.3", "#", "a#1/2"):
        assert shard_of(name) is None
        assert site_of(name) == name


@given(st.integers(1, 64), st.integers(1, 64))
def test_shards_lie_in_partitions_of_their_own_as_far_as_there_are_partitions(count: int, partitions: int) -> None:
    found = {partition_of(shard_name(Shard("google", index, count, 9)), partitions) for index in range(count)}
    assert len(found) == min(count, partitions)
    assert partition_of("google#0/4.9", partitions) == partition_of("google", partitions)


# --- units find the way ----------------------------------------------------------------------------------------------
@settings(deadline=None)
@given(
    st.lists(worlds, min_size=1, max_size=5),
    st.lists(st.tuples(st.integers(-1, 4), st.booleans()), max_size=30),
    st.binary(min_size=16, max_size=16),
)
def test_a_unit_moves_at_most_once_for_each_map_whatever_those_it_meets_have_read(
    history: list[tuple[int, set[str], dict[str, list[tuple[str, int]]]]],
    readers: list[tuple[int, bool]],
    message: bytes,
) -> None:
    maps: list[Numbered] = []
    for count, sources, pools in history:
        maps.append(Numbered(10 + len(maps), plan(maps[-1].map if maps else None, count, sources, pools)))
    name, moves = "google", 0
    for read, _ in readers:
        known = maps[min(read, len(maps) - 1)] if read >= 0 else None
        new = home(name, "google", known, message, "bulk")
        moves += new != name
        name = new
    assert moves <= len(maps)
    name = home(name, "google", maps[-1], message, "bulk")
    assert home(name, "google", maps[-1], message, "bulk") == name
    shard = shard_of(name)
    assert shard is not None
    assert shard.number == maps[-1].number
    assert sources_of(name, maps[-1]) == frozenset(maps[-1].map.sources[shard.place])


def test_only_a_shard_of_the_newest_map_has_sources() -> None:
    known = Numbered(8, plan(None, 2, ["a", "b"], {}))
    assert sources_of("google#0/2.8", known) == {"a"}
    assert sources_of("google#0/2.7", known) == sources_of("google#0/2.9", known) == frozenset()
    assert sources_of("google", known) == sources_of("google#0/2.8", None) == frozenset()
    assert sources_of("google", None) is None
    assert home("yahoo#0/2.3", "google", None, b"", "p") == "google"
