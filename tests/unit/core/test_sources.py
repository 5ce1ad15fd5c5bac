"""Sources and pools as the log tells of them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfleet_core.model import wire
from mailfleet_core.model.sources import POOL_KEY, SOURCE_KEY, Table, why_closed
from mailfleet_core.model.wire import ACTIVE, DRAINING, QUARANTINED, SOURCE_STATES, Pool, Source

LANES = 6
names = st.sampled_from(["a", "b", "c"])
pools = st.sampled_from(["default", "warm", "bulk"])
sources = st.builds(
    Source,
    name=names,
    pool=pools,
    weight=st.integers(0, 3),
    lanes=st.lists(st.integers(-1, LANES + 1), max_size=3).map(tuple),
    state=st.sampled_from([*SOURCE_STATES, "unheard-of"]),
)
records = st.one_of(
    sources.map(lambda source: (SOURCE_KEY + source.name.encode(), wire.encode(source))),
    st.builds(Pool, name=pools, overflow=pools).map(lambda pool: (POOL_KEY + pool.name.encode(), wire.encode(pool))),
    names.map(lambda name: (SOURCE_KEY + name.encode(), None)),
    pools.map(lambda name: (POOL_KEY + name.encode(), None)),
)
histories = st.lists(records, max_size=12)


def folded(history: list[tuple[bytes, bytes | None]]) -> Table:
    table = Table(LANES)
    for key, value in history:
        table.read(key, value)
    return table


def said(table: Table) -> object:
    lanes = {name: table.lanes(name) for name in table.sources}
    return table.sources, table.named_pools, table.pools(), table.overflow(), table.closed(), lanes, table.mistakes()


@given(histories, st.randoms(use_true_random=False))
def test_only_the_newest_records_count_and_not_their_order(
    history: list[tuple[bytes, bytes | None]], chance: random.Random
) -> None:
    newest = list(dict(history).items())
    chance.shuffle(newest)
    assert said(folded(newest)) == said(folded(history))


@given(histories)
def test_a_lane_is_one_sources_own(history: list[tuple[bytes, bytes | None]]) -> None:
    table = folded(history)
    owned = [lane for name in table.sources for lane in table.lanes(name)]
    assert len(owned) == len(set(owned))
    assert all(
        0 <= lane < LANES and lane in table.sources[name].lanes for name in table.sources for lane in table.lanes(name)
    )
    claimed = {lane for source in table.sources.values() for lane in source.lanes if 0 <= lane < LANES}
    assert set(owned) == claimed


@given(histories)
def test_mail_goes_by_active_sources_that_senders_begin_for(history: list[tuple[bytes, bytes | None]]) -> None:
    table = folded(history)
    for pool, members in table.pools().items():
        for name, weight in members:
            assert table.sources[name].state == ACTIVE
            assert weight > 0
            assert pool in (table.sources[name].pool, "default")
            assert all(table.takes(name, lane) for lane in table.lanes(name))
    for name, source in table.sources.items():
        if source.state != ACTIVE:
            assert not any(table.takes(name, lane) for lane in range(LANES))
            assert source in table.closed()[source.pool]


def test_reading_says_whether_something_has_changed() -> None:
    table = Table(LANES)
    record = (b"source|a", wire.encode(Source("a", "warm", lanes=(1,))))
    assert table.read(*record)
    assert not table.read(*record)
    assert table.read(b"pool|warm", wire.encode(Pool("warm", "default")))
    assert table.read(b"source|a", None)
    assert not table.read(b"source|a", None)
    assert not table.read(b"site|example.org", b"google")
    with pytest.raises(wire.Malformed):
        table.read(b"source|a", b"\x93\x01")


def test_who_names_no_pool_may_use_every_source_unless_there_is_a_pool_default() -> None:
    table = folded([(b"source|a", wire.encode(Source("a", "warm", lanes=(1,))))])
    assert table.pools() == {"warm": (("a", 1),), "default": (("a", 1),)}
    table.read(b"pool|default", wire.encode(Pool("default")))
    assert table.pools() == {"warm": (("a", 1),), "default": ()}


def test_a_pool_is_known_while_all_its_sources_drain() -> None:
    table = folded([(b"source|a", wire.encode(Source("a", "warm", lanes=(1,), state=DRAINING)))])
    assert table.pools()["warm"] == ()


def test_an_active_source_has_a_lane_before_one_that_is_not() -> None:
    table = folded([
        (b"source|a", wire.encode(Source("a", "warm", lanes=(1,), state=DRAINING))),
        (b"source|b", wire.encode(Source("b", "warm", lanes=(1, 99)))),
    ])  # fmt: skip
    assert (table.lanes("a"), table.lanes("b")) == ((), (1,))
    assert table.mistakes() == [
        "source a claims lane 1, which is b's", "source b claims lane 99, which is not there: there are 6",
    ]  # fmt: skip


def test_why_a_source_takes_nothing_is_said_with_who_says_so() -> None:
    source = Source("ip-1", "warm", state=QUARANTINED, reason="listed by zen", by="ann")
    assert why_closed(source) == "ip-1 is quarantined: listed by zen (ann)"
    assert why_closed(Source("ip-1", "warm", state=DRAINING)) == "ip-1 is draining"
