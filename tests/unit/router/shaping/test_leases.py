"""Properties of leases: takeovers, zombies, lost and late records, clocks that differ."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import pytest
from hypothesis import given, settings
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

    def read(self, log: list[int | Lease], now: float) -> None:
        self.fill(now)
        for record in log[self.place :]:
            self.held = leases.heard(self.held, record, self.name)
        self.place = len(log)
        self.level = min(self.level, leases.burst(self.share(now)))

    def use(self, now: float) -> int:
        self.fill(now)
        sent = int(self.level + 1e-9) if self.share(now) > 0 else 0
        self.level -= sent
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
    admitted: list[tuple[float, int]] = field(default_factory=list)

    def takeover(self, clock: float, reads: bool) -> None:
        epoch = len(self.log)
        before = leases.valid(self.log)
        self.log.append(epoch)
        new = leases.adopt(epoch, before) if reads else leases.cautious(epoch, self.now + clock)
        self.granters.append((new, clock))

    def grant(self, index: int, demands: dict[str, float], fate: str) -> None:
        """One granter's grant at the present time; what it writes comes into the log now, later or never."""
        if -len(self.granters) <= index < len(self.granters):
            granter, clock = self.granters[index]
            granter, given = leases.grant(granter, self.limit, demands, self.now + clock)
            self.granters[index] = (granter, clock)
            if fate != "lost":
                (self.late if fate == "late" else self.log).extend(given)

    def use_all(self) -> None:
        """Everybody sends what he may; the shares in use are never more than the limit."""
        shares = [holder.share(self.now) for holder in self.holders.values()]
        assert sum(shares) <= self.limit.total * (1 + 1e-9)
        self.admitted.append((self.now, sum(holder.use(self.now) for holder in self.holders.values())))


class Round(NamedTuple):
    """What happens until the newest granter grants again."""

    seconds: float
    busy: int
    """Bits: which holders want all they can get; the others are idle."""
    alive: int
    """Bits: whose demands arrive."""
    reads: int
    """Bits: who reads the log."""
    fate: str
    """Of what the newest granter wrote: `lands`, `late` or `lost`."""
    takeover: str
    """`no`, or a new granter that `reads` or is `cautious`."""
    zombie: int
    """An older granter that grants as well, counted from the newest; 0: none."""
    clock: float
    """The new granter's."""


half = CLOCK_SECONDS / 2
clocks = st.sampled_from((-half, 0.0, half))
rounds = st.builds(
    Round,
    st.sampled_from((PERIOD_SECONDS, PERIOD_SECONDS, 1.0, 3.0, TERM_SECONDS)),
    st.sampled_from((1, 2, 4, 8, 12, 15, 0)),
    st.sampled_from((15, 15, 7, 9, 0)),
    st.sampled_from((15, 15, 3, 12, 5, 10, 14)),
    st.sampled_from(("lands", "lands", "lands", "late", "lost")),
    st.sampled_from(("no", "no", "reads", "cautious")),
    st.sampled_from((0, 0, 1, 2)),
    clocks,
)
stories = st.tuples(st.tuples(clocks, clocks, clocks, clocks), st.lists(rounds, min_size=1, max_size=9))


def demanded(story: Round) -> dict[str, float]:
    return {name: 1e9 * (story.busy >> n & 1) for n, name in enumerate(HOLDERS) if story.alive >> n & 1}


def lived(limit: Limit, offsets: tuple[float, ...], script: list[Round]) -> World:
    world = World(limit)
    world.holders = {name: Holder(name, offset, at=NOW) for name, offset in zip(HOLDERS, offsets, strict=True)}
    world.takeover(0.0, True)
    for story in script:
        if story.takeover != "no":
            world.takeover(story.clock, story.takeover == "reads")
        world.log += world.late
        world.late = []
        world.grant(len(world.granters) - 1, demanded(story), story.fate)
        if story.zombie:
            world.grant(-1 - story.zombie, demanded(story), "lands")
        for n, holder in enumerate(world.holders.values()):
            if story.reads >> n & 1:
                holder.read(world.log, world.now)
        for _ in range(4):
            world.use_all()
            world.now += story.seconds / 4
        world.use_all()
    return world


@settings(max_examples=150, deadline=None)
@given(stories, st.sampled_from((0.7, 40.0)))
def test_no_window_admits_more_than_rate_and_burst_whatever_happens_to_granters_and_records(
    story: tuple[tuple[float, ...], list[Round]], rate: float
) -> None:
    world = lived(Limit(rate), *story)
    most = len(HOLDERS) + rate * leases.BURST_SECONDS
    for first in range(len(world.admitted)):
        inside = 0
        for at, count in world.admitted[first:]:
            inside += count
            assert inside <= rate * (at - world.admitted[first][0]) + most + 1e-6


@settings(max_examples=100, deadline=None)
@given(stories, st.sampled_from((2.0, 3.0, 20.0)))
def test_a_concurrency_in_force_is_never_more_than_its_limit_and_whole(
    story: tuple[tuple[float, ...], list[Round]], units: float
) -> None:
    world = lived(Limit(units, whole=True), *story)
    assert all(record.share == int(record.share) for record in world.log if isinstance(record, Lease))


demand = st.dictionaries(st.sampled_from(HOLDERS), st.sampled_from((0.0, 1.0, 3.0, math.inf)), max_size=4)


def seen_by(granter: Granter) -> float:
    return sum(leases.in_force(granter).values())


@settings(deadline=None)
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


@settings(deadline=None)
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


@settings(deadline=None)
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


def test_of_a_holders_leases_the_largest_counts_until_it_has_ended() -> None:
    many = (Lease("a", 9.0, NOW + 5, 1, 1), Lease("a", 1.0, NOW + 10, 1, 2))
    granter = leases.adopt(2, many)
    assert sum(lease.share for lease in leases.grant(granter, Limit(10.0), {"b": 99.0}, NOW + 4.9)[1]) <= 1.0
    assert sum(lease.share for lease in leases.grant(granter, Limit(10.0), {"b": 99.0}, NOW + 5)[1]) > 8.9


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
