"""Holders and granters over one log: takeovers, zombies, lost and late records, clocks that have nothing in common."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailfleet_core.model.wire import Malformed
from mailfleet_router.decisions.shaping import leases, leasing
from mailfleet_router.decisions.shaping.granting import Granting
from mailfleet_router.decisions.shaping.leases import PERIOD_SECONDS, TERM_SECONDS, Limit
from mailfleet_router.decisions.shaping.leasing import Holding, Record

DAYS = 86_400.0


@dataclass
class Process:
    """A router: its clock, what it hands to the log, how far it has read, its holders, and whether it grants."""

    name: str
    clock: float
    holding: Holding
    granting: Granting | None = None
    place: int = 0
    granter_place: int = 0
    fifo: deque[Record] = field(default_factory=deque)
    holders: list[str] = field(default_factory=list)
    asleep_until: float = 0.0


class World:
    """One log, processes, and what they admit."""

    def __init__(
        self, rng: Random, limit: Limit, quiet: bool = False,
        makes: tuple[type[Holding], type[Granting]] = (Holding, Granting),
    ) -> None:  # fmt: skip
        self.rng, self.limit, self.quiet, self.makes = rng, limit, quiet, makes
        self.now = 0.0
        self.log: list[Record] = []
        self.processes = [Process(f"r{n}", 0.0 if quiet else rng.uniform(-3, 3) * DAYS, makes[0]()) for n in range(3)]
        self.epoch = 0
        self.incarnation = 0
        self.admitted: list[float] = []
        self.starving: set[str] = set()

    def new_holder(self, process: Process) -> str:
        self.incarnation += 1
        holder = f"{self.incarnation}"
        process.holders.append(holder)
        return holder

    def takeover(self, process: Process) -> None:
        """The old granter hears of it only by reading."""
        self.epoch += 1
        process.granting = self.makes[1](self.epoch)
        process.granter_place = 0
        process.fifo.append(leasing.claim(self.epoch, process.name))

    def land(self, process: Process, everything: bool = False) -> None:
        count = len(process.fifo)
        for _ in range(count if everything else self.rng.randrange(count + 1)):
            self.log.append(process.fifo.popleft())

    def read(self, process: Process) -> None:
        now = self.now + process.clock
        for record in self.log[process.place :]:
            process.holding.heard(leasing.read(*record), now)
        process.place = len(self.log)

    def read_as_granter(self, process: Process) -> None:
        granting, now = process.granting, self.now + process.clock
        if granting is None:
            return
        # A granter may decide by what it knew some time ago.
        if self.quiet or self.rng.random() < 0.7:
            for record in self.log[process.granter_place :]:
                granting.heard(leasing.read(*record), now)
            process.granter_place = len(self.log)
        if not granting.over:
            process.fifo.extend(leasing.grants(granting.epoch, granting.grant(now)))

    def use(self, process: Process) -> None:
        """Every holder sends as much as it may, without end."""
        now = self.now + process.clock
        for holder in process.holders:
            if holder in self.starving:
                continue
            waiting = 1000 if self.quiet else self.rng.choice((1, 1000))
            demand = process.holding.demand("k", holder, waiting, now)
            process.holding.want("k", holder, self.limit, demand, now)
            while process.holding.wait("k", holder, now) == 0:
                process.holding.take("k", holder, now)
                self.admitted.append(self.now)

    def check(self) -> None:
        shares = [
            process.holding.usable("k", holder, self.now + process.clock)
            for process in self.processes
            for holder in process.holders
        ]
        assert sum(shares) <= self.limit.total * (1 + 1e-9), shares

    def fault(self) -> None:
        rng = self.rng
        process = rng.choice(self.processes)
        what = rng.randrange(8)
        if what == 0:
            self.takeover(process)
        elif what == 1:
            process.asleep_until = self.now + rng.choice((1.0, 6.0, 15.0))
        elif what == 2:
            # What it handed over is lost.
            for _ in range(rng.randrange(len(process.fifo) + 1)):
                del process.fifo[rng.randrange(len(process.fifo))]
        elif what == 3 and process.holders:
            holder = process.holders.pop(rng.randrange(len(process.holders)))
            process.holding.left(holder)
        elif what == 4 and process.holders:
            # The partition moves; the old owner is a zombie for ever, and its name is nobody else's.
            self.new_holder(rng.choice(self.processes))
        elif what == 5 and len(process.holders) < 3:
            self.new_holder(process)
        elif what == 6 and process.holders:
            process.holding.release("k", rng.choice(process.holders))
        elif process.holders:
            holder = rng.choice(process.holders)
            (self.starving.discard if holder in self.starving else self.starving.add)(holder)

    def step(self) -> None:
        rng = self.rng
        for process in rng.sample(self.processes, len(self.processes)):
            now = self.now + process.clock
            if process.asleep_until > self.now:
                # It may still send by what it knows: it only reads and writes nothing.
                self.use(process)
                continue
            if self.quiet or rng.random() < 0.8:
                self.read(process)
            if self.quiet or rng.random() < 0.8:
                self.read_as_granter(process)
            self.use(process)
            process.fifo.extend(process.holding.ask(now))
            self.land(process, everything=self.quiet or rng.random() < 0.5)
        self.check()
        self.now += 0.1 if self.quiet else rng.choice((0.05, 0.2, 0.2, 1.0))


def lived(seed: int, limit: Limit, makes: tuple[type[Holding], type[Granting]] = (Holding, Granting)) -> World:
    rng = Random(seed)
    world = World(rng, limit, makes=makes)
    share = rng.choice((0.01, 0.05, 0.2, 0.4))
    for process in world.processes:
        world.new_holder(process)
    world.takeover(world.processes[0])
    for _ in range(400):
        if rng.random() < share:
            world.fault()
        world.step()
    return world


def judge(world: World) -> None:
    """No window, of any length: as a bucket of the whole limit sees it."""
    limit = world.limit
    # One message for each holder that there ever was: more than there can be at once, and never many.
    most = (limit.burst or limit.total * leases.BURST_SECONDS) + world.incarnation + 1
    debt, before = 0.0, 0.0
    for at in world.admitted:
        debt = max(0.0, debt - limit.total * (at - before)) + 1.0
        before = at
        assert debt <= most + 1e-6


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from((Limit(2.0), Limit(60.0), Limit(60.0, burst=30.0))))
def test_no_window_admits_more_than_rate_and_burst_whatever_happens(seed: int, limit: Limit) -> None:
    judge(lived(seed, limit))


@pytest.mark.parametrize("limit", [Limit(60.0), Limit(2.0)])
def test_the_worlds_of_these_tests_admit_something(limit: Limit) -> None:
    assert sum(len(lived(seed, limit).admitted) > 20 for seed in range(20)) >= 15


# --- the worlds find what somebody might do wrong ------------------------------------------------------------------
class BelievesZombies(Holding):
    """Takes every lease that it reads."""

    def heard(self, record: object, now: float) -> set[str]:
        if isinstance(record, leasing.Granted):
            self._read = (record.epoch, -1)
        return super().heard(record, now)  # type: ignore[arg-type]


class CountsFromReading(Holding):
    """Takes a lease to begin when it hears of it."""

    def _given(self, epoch: int, given: leasing.Given, now: float) -> bool:
        self._asked[given.asked] = now
        return super()._given(epoch, given, now)


class KeepsItsShareFor(Holding):
    """Uses its last lease on and on."""

    def usable(self, counter: str, holder: str, now: float) -> float:
        part = self._parts.get(holder, {}).get(counter)
        return part.held.lease.share if part is not None and part.held.lease is not None else 0.0


class StartsAnew(Granting):
    """A new granter that does not look at what the old one gave."""

    def _given(self, epoch: int, given: leasing.Given, now: float) -> None:
        if epoch == self.epoch:
            super()._given(epoch, given, now)


class RenewsWhatMayBeOver(Granting):
    """Listens to holders that may still read an older granter's leases."""

    def _wanted(self, wanted: leasing.Wanted, now: float) -> None:
        super()._wanted(msgspec.structs.replace(wanted, epoch=max(wanted.epoch, self.epoch)), now)


FAULTS = (
    (BelievesZombies, Granting), (CountsFromReading, Granting), (KeepsItsShareFor, Granting), (Holding, StartsAnew),
    (Holding, RenewsWhatMayBeOver),
)  # fmt: skip


@pytest.mark.parametrize("makes", FAULTS, ids=lambda makes: "-".join(each.__name__ for each in makes))
def test_a_planted_fault_is_caught(makes: tuple[type[Holding], type[Granting]]) -> None:
    def caught(seed: int) -> bool:
        try:
            judge(lived(seed, Limit(60.0), makes))
        except AssertionError:
            return True
        return False

    assert any(caught(seed) for seed in range(50, 200))


# --- in peace ------------------------------------------------------------------------------------------------------
def peaceful(holders: int, limit: Limit, seconds: float, since: float = 0.0) -> World:
    world = World(Random(1), limit, quiet=True)
    world.takeover(world.processes[0])
    for _ in range(10):
        world.step()
    for n in range(holders):
        world.new_holder(world.processes[n % 3])
    while world.now < seconds:
        world.step()
    return world


def test_a_limit_that_nobody_else_wants_starts_within_a_second() -> None:
    world = World(Random(1), Limit(50.0), quiet=True)
    world.takeover(world.processes[0])
    for _ in range(33):
        world.step()
    began = world.now
    world.new_holder(world.processes[1])
    while not world.admitted:
        world.step()
    assert world.now - began <= 1.0


def test_a_second_holder_gets_its_part_of_a_busy_limit_within_two_seconds() -> None:
    world = World(Random(1), Limit(50.0), quiet=True)
    world.takeover(world.processes[0])
    first = world.new_holder(world.processes[1])
    while world.now < 20:
        world.step()
    second, began = world.new_holder(world.processes[2]), world.now
    while not world.processes[2].holding.usable("k", second, world.now) > 20:
        world.step()
    assert world.now - began <= 2.0
    assert world.processes[1].holding.usable("k", first, world.now) <= 25.0 + 1e-6


def test_three_busy_holders_use_the_whole_limit_without_a_pause() -> None:
    world = peaceful(3, Limit(60.0), 60.0)
    late = [at for at in world.admitted if at > 10]
    assert len(late) == pytest.approx(60 * 50, rel=0.02)
    assert max(b - a for a, b in pairwise(late)) < 0.25


def test_after_a_granters_death_the_old_shares_go_on_and_the_new_one_loses_nothing() -> None:
    world = peaceful(3, Limit(60.0), 30.0)
    began = world.now
    world.processes[0].granting = None
    while world.now < began + 1:
        world.step()
    world.takeover(world.processes[2])
    while world.now < began + 30:
        world.step()
    late = [at for at in world.admitted if at > began]
    assert len(late) == pytest.approx(60 * 30, rel=0.03)


def test_without_a_granter_everybody_stops_when_the_leases_end() -> None:
    world = peaceful(3, Limit(60.0), 30.0)
    world.processes[0].granting = None
    began = world.now
    while world.now < began + 2 * TERM_SECONDS:
        world.step()
    assert max(world.admitted) <= began + TERM_SECONDS
    assert world.processes[0].holding.wait("k", world.processes[0].holders[0], world.now) == math.inf


def test_who_leaves_gives_back_at_once() -> None:
    world = peaceful(2, Limit(60.0), 20.0)
    world.processes[0].holding.left(world.processes[0].holders.pop())
    began, other = world.now, world.processes[1]
    while other.holding.usable("k", other.holders[0], world.now) < 59:
        world.step()
    assert world.now - began <= PERIOD_SECONDS + 1


def test_an_idle_holder_keeps_little_and_what_it_had_is_used() -> None:
    world = peaceful(2, Limit(60.0), 20.0)
    world.starving.add(world.processes[0].holders[0])
    while world.now < 40:
        world.step()
    other = world.processes[1]
    assert other.holding.usable("k", other.holders[0], world.now) > 56
    assert 0 < world.processes[0].holding.usable("k", world.processes[0].holders[0], world.now) < 4


def test_a_lowered_limit_holds_as_soon_as_one_holder_knows_it() -> None:
    world = peaceful(2, Limit(60.0), 20.0)
    holding, holder = world.processes[1].holding, world.processes[1].holders[0]
    world.limit = Limit(6.0)
    for process in world.processes:
        process.holding.want("k", process.holders[0], Limit(6.0), 100.0, world.now) if process.holders else None
    began = world.now
    world.check = lambda: None  # type: ignore[method-assign]
    while world.now < began + TERM_SECONDS + PERIOD_SECONDS:
        world.step()
    assert holding.usable("k", holder, world.now) == pytest.approx(3.0)


def test_units_in_use_count_as_the_share_of_their_holder_until_they_come_back() -> None:
    granting, holding = Granting(1), Holding()

    def written(records: list[Record], now: float) -> None:
        for record in records:
            granting.heard(leasing.read(*record), now)
            holding.heard(leasing.read(*record), now)

    def turn(now: float) -> None:
        written(holding.ask(now), now)
        written(leasing.grants(1, granting.grant(now)), now)

    written([leasing.claim(1, "me")], 0.0)

    limit = Limit(10.0, whole=True)
    for step in range(40):
        holding.want("w", "a", limit, 10.0, step / 2, used=9)
        turn(step / 2)
    for step in range(40, 80):
        holding.want("w", "a", limit, 9.0, step / 2, used=9)
        holding.want("w", "b", limit, 10.0, step / 2, used=1)
        turn(step / 2)
    assert holding.usable("w", "a", 39.5) + holding.usable("w", "b", 39.5) <= 10
    assert holding.usable("w", "b", 39.5) == 1
    for step in range(80, 120):
        holding.want("w", "a", limit, 0.0, step / 2, used=0)
        holding.want("w", "b", limit, 10.0, step / 2, used=1)
        turn(step / 2)
    assert holding.usable("w", "b", 59.5) >= 9


def test_a_lease_that_never_got_into_the_log_frees_nothing() -> None:
    granting = Granting(1)
    granting.heard(leasing.read(*leasing.claim(1, "me")), 0.0)

    def asks(number: int, last: int, now: float) -> list[leasing.Given]:
        want = leasing.Want("k", 60.0, False, 99.0, 60.0, 0.0)
        granting.heard(leasing.Wanted("a", number, 1, last, (want,)), now)
        if number == 1:
            return granting.grant(now)
        granting.heard(leasing.Wanted("b", number, 1, last, (msgspec.structs.replace(want, share=0.0),)), now)
        return granting.grant(now)

    first = asks(1, -1, 0.0)
    granting.heard(leasing.Granted(1, tuple(first)), 0.1)
    lost = asks(2, 1, 1.0)
    assert [(given.holder, given.share) for given in lost] == [("a", 30.0)]
    other = leasing.Given("other", "c", 1.0, lost[0].number + 1, 0)
    granting.heard(leasing.Granted(1, (other,)), 1.1)
    assert [given.holder for given in asks(3, other.number, 2.0)] == ["a"]
    granting.heard(leasing.Granted(1, tuple(lost)), 2.1)
    assert {given.holder: given.share for given in asks(4, other.number, 6.0)} == {"a": 30.0, "b": pytest.approx(30.0)}


def test_many_demands_go_in_records_of_bounded_size() -> None:
    holding = Holding()
    for n in range(5000):
        holding.want(f"tenant|t{n}", "3@17", Limit(1.0), 1.0, 0.0)
    records = holding.ask(0.0)
    assert len(records) == 3
    assert max(len(record.value) for record in records) < 500_000


def test_what_is_no_record_of_ours_is_refused_and_a_tombstone_says_nothing() -> None:
    with pytest.raises(Malformed):
        leasing.read(b"want|a", b"P" + bytes(8), b"\xff\x00")
    assert leasing.read(b"want|a", b"P" + bytes(8), None) is None
