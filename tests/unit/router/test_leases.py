"""Properties of leases: takeovers, zombies, lost and late records, clocks that differ."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfleet_router.decisions.shaping import leases
from mailfleet_router.decisions.shaping.leases import (
    CLOCK_SECONDS,
    PERIOD_SECONDS,
    TERM_SECONDS,
    Granter,
    Held,
    Lease,
    Limit,
)

NOW = 1e6
HOLDERS = ("h0", "h1", "h2", "h3")


@dataclass
class Holder:
    """One owner of a shard with its own clock, its place in the log and its bucket."""

    name: str
    clock: float
    held: Held = field(default_factory=Held)
    place: int = 0
    level: float = 0.0
    at: float = 0.0

    def share(self, now: float) -> float:
        return leases.usable(self.held.lease, now + self.clock)

    def fill(self, now: float) -> None:
        """Save what the lease gave since `at`; a lease that ended in between leaves one message at most."""
        lease = self.held.lease
        if lease is not None:
            end = lease.until - CLOCK_SECONDS - self.clock
            gained = max(0.0, min(now, end) - self.at) * lease.share
            self.level = min(self.level + gained, leases.burst(lease.share))
            if end <= now:
                self.level = min(self.level, leases.burst(0.0))
        self.at = now

    def read(self, log: list[int | Lease], count: int, now: float) -> None:
        self.fill(now)
        for record in log[self.place : self.place + count]:
            self.held = leases.heard(self.held, record, self.name)
        self.place = min(len(log), self.place + count)
        self.level = min(self.level, leases.burst(self.share(now)))

    def use(self, now: float, tries: int) -> int:
        self.fill(now)
        sent = 0
        while sent < tries and self.share(now) > 0 and self.level >= 1.0:
            self.level, sent = self.level - 1.0, sent + 1
        return sent


@dataclass
class World:
    """A log, granters of which all but the newest are zombies, and holders."""

    limit: Limit
    now: float = NOW
    log: list[int | Lease] = field(default_factory=list)
    late: list[Lease] = field(default_factory=list)
    granters: list[tuple[Granter, float]] = field(default_factory=list)
    holders: dict[str, Holder] = field(default_factory=dict)
    admitted: list[float] = field(default_factory=list)

    def takeover(self, clock: float, reads: bool) -> None:
        epoch = len(self.log)
        before = leases.valid(self.log)
        self.log.append(epoch)
        new = leases.adopt(epoch, before) if reads else leases.cautious(epoch, self.now + clock)
        self.granters.append((new, clock))

    def grant(self, index: int, demands: dict[str, float], delayed: bool) -> None:
        if not self.granters:
            return
        index = index % len(self.granters)
        granter, clock = self.granters[index]
        granter, given = leases.grant(granter, self.limit, demands, self.now + clock)
        self.granters[index] = (granter, clock)
        (self.late if delayed else self.log).extend(given)

    def in_use(self) -> float:
        return sum(holder.share(self.now) for holder in self.holders.values())


clocks = st.floats(-CLOCK_SECONDS / 2, CLOCK_SECONDS / 2)
demand = st.dictionaries(st.sampled_from(HOLDERS), st.sampled_from((0.0, 1.0, 3.0, 1e9, math.inf)), max_size=4)
events = st.one_of(
    st.tuples(st.just("time"), st.sampled_from((0.0, 0.3, 2.0, PERIOD_SECONDS, 9.1, TERM_SECONDS, 30.0))),
    st.tuples(st.just("takeover"), st.tuples(clocks, st.booleans())),
    st.tuples(st.just("grant"), st.tuples(st.integers(0, 3), demand, st.booleans())),
    st.tuples(st.just("newest grants"), demand),
    st.tuples(st.just("land"), st.integers(0, 3)),
    st.tuples(st.just("lose"), st.integers(0, 3)),
    st.tuples(st.just("read"), st.tuples(st.sampled_from(HOLDERS), st.integers(1, 20))),
    st.tuples(st.just("all read"), st.just(0)),
    st.tuples(st.just("use"), st.tuples(st.sampled_from(HOLDERS), st.integers(1, 40))),
    st.tuples(st.just("all use"), st.just(0)),
)
stories = st.tuples(st.lists(clocks, min_size=4, max_size=4), st.lists(events, max_size=60))


def lived(limit: Limit, offsets: list[float], script: list[tuple[str, object]]) -> World:
    world = World(limit)
    world.holders = {name: Holder(name, offset, at=NOW) for name, offset in zip(HOLDERS, offsets, strict=True)}
    world.takeover(0.0, True)
    for what, how in script:
        step(world, what, how)
        assert world.in_use() <= limit.total * (1 + 1e-9)
    return world


def step(world: World, what: str, how: object) -> None:
    if what == "time":
        assert isinstance(how, float)
        world.now += how
    elif what == "takeover":
        world.takeover(*how)  # type: ignore[misc]
    elif what == "grant":
        world.grant(*how)  # type: ignore[misc]
    elif what == "newest grants":
        world.grant(len(world.granters) - 1, how, False)  # type: ignore[arg-type]
    elif what in ("land", "lose") and world.late:
        assert isinstance(how, int)
        lease = world.late.pop(how % len(world.late))
        if what == "land":
            world.log.append(lease)
    elif what in ("read", "use"):
        name, count = how  # type: ignore[misc]
        if what == "read":
            world.holders[name].read(world.log, count, world.now)
        else:
            world.admitted += [world.now] * world.holders[name].use(world.now, count)
    elif what in ("all read", "all use"):
        for holder in world.holders.values():
            if what == "all read":
                holder.read(world.log, 10_000, world.now)
            else:
                world.admitted += [world.now] * holder.use(world.now, 100)


@given(stories, st.sampled_from((0.7, 4.0, 60.0)))
def test_no_window_admits_more_than_rate_and_burst_whatever_happens_to_granters_and_records(
    story: tuple[list[float], list[tuple[str, object]]], rate: float
) -> None:
    world = lived(Limit(rate), *story)
    most = len(HOLDERS) + rate * leases.BURST_SECONDS
    for first in range(len(world.admitted)):
        for last in range(first, len(world.admitted)):
            window = world.admitted[last] - world.admitted[first]
            assert last - first + 1 <= rate * window + most + 1e-6


@given(stories, st.sampled_from((1.0, 3.0, 20.0)))
def test_a_concurrency_in_force_is_never_more_than_its_limit_and_whole(
    story: tuple[list[float], list[tuple[str, object]]], units: float
) -> None:
    world = lived(Limit(units, whole=True), *story)
    assert all(record.share == int(record.share) for record in world.log if isinstance(record, Lease))


def seen_by(granter: Granter) -> float:
    return sum(leases.in_force(granter).values())


@given(st.lists(st.tuples(demand, st.sampled_from((1.0, 5.0, 6.0, 12.0)), st.sampled_from((2.0, 9.0))), max_size=12))
def test_a_limit_that_was_lowered_holds_after_one_term(
    script: list[tuple[dict[str, float], float, float]],
) -> None:
    granter, now, totals = leases.adopt(1, ()), NOW, []
    for demands, gap, total in script:
        now += gap
        granter, given = leases.grant(granter, Limit(total), demands, now)
        totals.append((now, total))
        assert seen_by(granter) <= max(t for at, t in totals if now - at <= TERM_SECONDS) * (1 + 1e-9)
        assert all(now < lease.until <= now + TERM_SECONDS for lease in given)


# --- who gets what -----------------------------------------------------------------------------------------------
positive = st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0, 50) | st.just(math.inf), min_size=1, max_size=8)


@given(positive, st.floats(0.01, 100))
def test_a_rate_is_divided_wholly_nobody_starves_and_nobody_is_short_while_another_has_more_than_he_asks_for(
    demands: dict[str, float], total: float
) -> None:
    shares = leases.divide(Limit(total), demands)
    assert sum(shares.values()) == pytest.approx(total)
    least = leases.MINIMUM_SHARE * total / len(demands)
    spare = max(share - max(demands[holder], least) for holder, share in shares.items())
    for holder, share in shares.items():
        assert share >= least * (1 - 1e-9)
        if share < min(demands[holder], total) * (1 - 1e-6):
            assert spare <= 1e-6 * total
            assert share >= max(shares.values()) * (1 - 1e-6)


@given(positive, st.integers(0, 40), st.integers(0, 9))
def test_units_are_divided_wholly_and_each_holder_has_one_if_there_are_enough(
    demands: dict[str, float], total: int, turn: int
) -> None:
    shares = leases.divide(Limit(float(total), whole=True), demands, turn)
    assert sum(shares.values()) == total
    if total >= len(demands):
        assert min(shares.values()) >= 1


def test_what_an_idle_holder_had_a_busy_one_has_within_two_periods() -> None:
    for limit, most in ((Limit(10.0), 9.0), (Limit(10.0, whole=True), 8.0)):
        granter, now = leases.adopt(1, ()), NOW
        for _ in range(4):
            granter, _ = leases.grant(granter, limit, {"a": 100.0, "b": 0.0}, now)
            now += PERIOD_SECONDS
        assert leases.in_force(granter)["a"] >= most
        for _ in range(3):  # now, and after one and two periods
            granter, given = leases.grant(granter, limit, {"a": 0.0, "b": 100.0}, now)
            now += PERIOD_SECONDS
        assert {lease.holder: lease.share >= most for lease in given} == {"a": False, "b": True}


def test_of_fewer_units_than_holders_everybody_gets_one_in_time() -> None:
    granter, now, seen = leases.adopt(1, ()), NOW, set()
    for _ in range(60):
        granter, given = leases.grant(granter, Limit(2.0, whole=True), dict.fromkeys("abcde", 9.0), now)
        seen |= {lease.holder for lease in given}
        now += PERIOD_SECONDS
    assert seen == set("abcde")


def test_new_holders_get_their_part_when_the_number_of_shards_changes() -> None:
    granter, now = leases.adopt(1, ()), NOW
    for count in (2, 4, 3):
        demands = {f"{count} shards, {index}": math.inf for index in range(count)}
        for _ in range(4):
            granter, given = leases.grant(granter, Limit(12.0), demands, now)
            now += PERIOD_SECONDS
        assert {lease.holder: round(lease.share, 6) for lease in given} == dict.fromkeys(demands, 12.0 / count)


# --- the edges ---------------------------------------------------------------------------------------------------
def test_a_granter_that_could_not_read_waits_until_all_that_may_be_in_force_has_ended() -> None:
    granter = leases.cautious(7, NOW)
    assert leases.grant(granter, Limit(5.0), {"a": 9.0}, NOW + TERM_SECONDS + CLOCK_SECONDS - 0.01)[1] == ()
    _, given = leases.grant(granter, Limit(5.0), {"a": 9.0}, NOW + TERM_SECONDS + CLOCK_SECONDS)
    assert given[0].share == pytest.approx(5.0)


def test_a_granter_that_read_everything_goes_on_at_once_with_what_is_left() -> None:
    old, given = leases.grant(leases.adopt(1, ()), Limit(6.0), {"a": 9.0, "b": 9.0}, NOW)
    new = leases.adopt(2, given)
    assert leases.in_force(new) == leases.in_force(old)
    _, more = leases.grant(new, Limit(6.0), {"c": 9.0}, NOW + 1)
    assert sum(lease.share for lease in more) < 1e-6
    _, more = leases.grant(new, Limit(6.0), {"a": 9.0, "b": 9.0}, NOW + 1)
    assert {lease.holder: round(lease.share, 6) for lease in more} == {"a": 3.0, "b": 3.0}


def test_a_lease_of_a_zombie_is_nobodys() -> None:
    zombie = Lease("a", 5.0, NOW + 10, epoch=3, number=9)
    held = leases.heard(Held(), 8, "a")
    assert leases.heard(held, zombie, "a") == held
    assert leases.valid([3, zombie, 8]) == [zombie]
    assert leases.valid([3, 8, zombie]) == []


def test_a_holder_stops_before_the_end_and_keeps_the_newest_lease_of_its_own() -> None:
    one, two = Lease("a", 5.0, NOW + 10, 3, 1), Lease("a", 2.0, NOW + 15, 3, 2)
    held = leases.heard(leases.heard(Held(), two, "a"), one, "a")
    assert held.lease == two
    assert leases.heard(held, Lease("b", 9.0, NOW + 99, 3, 3), "a") == held
    assert leases.heard(held, 4, "a").lease == two
    assert leases.usable(two, NOW + 15 - CLOCK_SECONDS - 0.01) == 2.0
    assert leases.usable(two, NOW + 15 - CLOCK_SECONDS) == 0.0
    assert leases.usable(None, NOW) == 0.0


def test_what_a_granter_keeps_does_not_grow() -> None:
    granter, now = leases.adopt(1, ()), NOW
    for _ in range(200):
        granter, _ = leases.grant(granter, Limit(5.0), dict.fromkeys(HOLDERS, 1.0), now)
        now += 1.0
    assert len(granter.leases) <= 2 * len(HOLDERS)
    assert leases.expire(granter, now + TERM_SECONDS).leases == ()
