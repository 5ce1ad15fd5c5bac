"""The lease: two operators never act at once, however late their requests are answered."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from mailfleet_operator.decisions.election import (
    CREATE,
    RENEW,
    TAKE,
    WAIT,
    Seen,
    Terms,
    Watch,
    leads,
    left,
    look,
    wrote,
)  # fmt: skip

TERMS = Terms(15, 10, 2)


def test_a_lease_that_nobody_renews_is_taken_after_its_whole_time() -> None:
    watch, step = look(Watch(), Seen("7", "other"), "me", TERMS, 100)
    assert step == WAIT
    assert look(watch, Seen("7", "other"), "me", TERMS, 114.9)[1] == WAIT
    assert look(watch, Seen("8", "other"), "me", TERMS, 116)[1] == WAIT
    assert look(watch, Seen("7", "other"), "me", TERMS, 115)[1] == TAKE


def test_a_lease_that_was_given_back_is_taken_at_once() -> None:
    assert look(Watch(), Seen("7", ""), "me", TERMS, 100)[1] == TAKE
    assert look(Watch(), Seen("", ""), "me", TERMS, 100)[1] == CREATE
    assert look(Watch(), Seen("7", "me"), "me", TERMS, 100)[1] == RENEW


def test_a_leader_acts_from_the_moment_it_sent_its_renewal() -> None:
    watch = wrote(Watch("7", 0.0), sent=100)
    assert leads(watch, TERMS, 109.9)
    assert left(watch, TERMS, 104) == 6
    assert not leads(watch, TERMS, 110)
    assert not leads(look(watch, Seen("9", "other"), "me", TERMS, 101)[0], TERMS, 101)


@dataclass
class Store:
    """The apiserver: one object, conditional writes."""

    version: int = 0
    holder: str = ""

    def write(self, version: str, holder: str) -> bool:
        if version != (str(self.version) if self.version else ""):
            return False
        self.version, self.holder = self.version + 1, holder
        return True


@dataclass
class Candidate:
    """One operator. Its clock has an offset; its steps take any time."""

    name: str
    offset: float
    watch: Watch = field(default_factory=Watch)
    pending: tuple[str, float] | None = None
    """A write on its way: the version that it rests on, and when it was sent."""
    answer: tuple[float, str] | None = None
    """A write that succeeded, of which it has not heard yet: when it was sent, and the version that came of it."""
    ours: str = ""
    """The version that it wrote last: that one it renews without reading it again."""

    def step(self, store: Store, now: float) -> None:
        mine = now + self.offset
        if self.answer is not None:
            sent, self.ours = self.answer
            self.watch, self.answer = wrote(self.watch, sent), None
        elif self.pending is not None:
            version, sent = self.pending
            self.pending = None
            if store.write(version, self.name):
                self.answer = sent, str(store.version)
        else:
            there = Seen(str(store.version) if store.version else "", store.holder)
            seen, self.ours = Seen(self.ours, self.name) if self.ours else there, ""
            self.watch, what = look(self.watch, seen, self.name, TERMS, mine)
            if what != WAIT:
                self.pending = (seen.version, mine)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.floats(0, 12), st.booleans()), max_size=150),
    st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)),
)
def test_two_never_lead_at_once_whatever_their_clocks_and_delays(
    steps: list[tuple[int, float, bool]], offsets: tuple[float, float, float]
) -> None:
    store, now = Store(), 0.0
    all_of_them = [Candidate(f"operator-{number}", offset) for number, offset in enumerate(offsets)]
    for who, gap, restarts in steps:
        now += gap
        if restarts and gap > 11:
            # A new process under the old name: it knows nothing, and its old writes are gone with its connection.
            all_of_them[who] = Candidate(all_of_them[who].name, offsets[who])
        all_of_them[who].step(store, now)
        acting = [each.name for each in all_of_them if leads(each.watch, TERMS, now + each.offset)]
        assert len(acting) <= 1
