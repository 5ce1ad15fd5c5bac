"""A source that cannot get out leaves every site for a while, and nobody else pays for it."""

from __future__ import annotations

import pytest

from mailfleet_core.model import reply as phases
from mailfleet_core.model import wire
from mailfleet_core.model.wire import BOUNCED, DEFERRED, DELIVERED, NOT_ATTEMPTED, RecipientOutcome, Result, Route
from mailfleet_router.decisions.policy import Policy
from mailfleet_router.decisions.shaping.backoff import BackOff, Hit, clean, hit
from mailfleet_router.decisions.shaping.rules import Rules
from mailfleet_router.decisions.shaping.shaper import Shaper, Wait
from mailfleet_router.decisions.shaping.values import Facts
from mailfleet_router.decisions.shaping.ways import Go
from mailfleet_router.shell.traffic import shipped

RULES = Rules(shipped())
UNPLUMBED = RecipientOutcome(0, DEFERRED, 0, "4.3.5", "the address 203.0.113.7 is not on this machine", phases.EGRESS)
PROXY = RecipientOutcome(0, DEFERRED, 0, "4.3.0", "the egress proxy p:1080: connection refused", phases.EGRESS)
MINUTE = 60.0


class Office:
    """An owner's shaping, and one unit at a time that is out."""

    def __init__(self, sources: tuple[str, ...] = ("here", "gone")) -> None:
        lanes = {source: (number,) for number, source in enumerate(sources)}
        policy = Policy(pools={"default": tuple((source, 1) for source in sources)}, lanes=lanes, shaping=RULES)
        self.now = 1_000_000.0
        self.shaper = Shaper(RULES, policy)
        self.shaper.since = self.now - 3600
        self.tenants = 0

    def site(self, name: str = "mx.one.example") -> Facts:
        self.shape = self.shaper.site(name, (name,), "one.example", Route("mx", ()))
        self.tenants += 1
        return self.shaper.facts(self.shape, f"tenant-{self.tenants}", "transactional", "default", "one.example")

    def offer(self, name: str = "mx.one.example") -> str:
        """The source by which a unit of another tenant goes; empty: it waits. `answer` is to follow."""
        facts = self.site(name)
        go = self.shaper.admit(self.shape, facts, Route("mx", ((0, name),)), self.now)
        if isinstance(go, Wait):
            self.waits = go
            return ""
        self._take(go, facts)
        return go.path.facts.source

    def _take(self, go: Go, facts: Facts) -> None:
        self.unit = self.tenants.to_bytes(20, "big")
        self.shaper.take(self.unit, go, facts, self.shape, self.now)
        envelope = wire.Envelope(
            self.unit, "", facts.tenant, facts.stream, "default", wire.BodyRef(0, (), 1), self.now, self.now + 9e5
        )
        recipients = (wire.Recipient(0, "r@one.example"),)
        self.entry = wire.Entry(
            wire.Unit(self.unit, self.shape.name, envelope, recipients), 1, source=go.path.facts.source
        )

    def answer(self, outcome: RecipientOutcome) -> None:
        """The unit comes back."""
        kind = NOT_ATTEMPTED if outcome.phase == phases.EGRESS else wire.SETTLED
        result = Result(self.unit, 0, 1, kind, self.entry.source, self.now - 0.1, self.now, (outcome,))
        known = self.shaper.freed(self.unit)
        if kind == NOT_ATTEMPTED:
            self.shaper.not_out(self.entry, result, self.shape, "one.example", self.now)
        elif outcome.verdict != DELIVERED or not self.shaper.delivered(known):
            self.shaper.answered(self.entry, result, self.shape, "one.example", ("mx.one.example",), self.now)

    def play(self, times: int, gap: float, trouble: RecipientOutcome, name: str = "mx.one.example") -> None:
        """So many units; the source `gone` does not get out."""
        for _ in range(times):
            self.now += gap
            if source := self.offer(name):
                self.answer(trouble if source == "gone" else RecipientOutcome(0, DELIVERED, 250, "2.0.0", "ok", "dot"))

    def sources(self, times: int, gap: float, name: str = "mx.one.example") -> set[str]:
        """Where the next units go, all of which are delivered."""
        found = set()
        for _ in range(times):
            self.now += gap
            if source := self.offer(name):
                found.add(source)
                self.answer(RecipientOutcome(0, DELIVERED, 250, "2.0.0", "ok", "dot"))
        return found


@pytest.fixture
def gone() -> Office:
    """The source `gone` has just left."""
    office = Office()
    office.play(12, 4.0, UNPLUMBED)
    assert office.shaper.wide.sources
    return office


def test_many_failures_at_once_are_one() -> None:
    office = Office()
    office.now += 1.0
    office.play(200, 0.005, UNPLUMBED)
    assert office.sources(10, 1.0) == {"here", "gone"}


def test_failures_that_go_on_take_the_source_from_every_site(gone: Office) -> None:
    assert gone.sources(20, 20.0) == {"here"}
    assert gone.sources(10, 10.0, "mx.two.example") == {"here"}


@pytest.mark.parametrize(("trouble", "spells"), [(UNPLUMBED, 3), (PROXY, 6)])
def test_a_missing_address_is_believed_sooner_than_a_proxy_that_may_only_restart(
    trouble: RecipientOutcome, spells: int
) -> None:
    office = Office(("gone",))
    for number in range(1, spells + 1):
        office.now += 6.0
        assert office.offer() == "gone"
        office.answer(trouble)
        assert bool(office.offer()) == (number < spells)
        if number < spells:
            office.answer(trouble)
    assert office.waits.by == "excluded"
    assert office.waits.until > office.now


def test_neither_site_nor_reputation_nor_warm_up_hears_of_it(gone: Office) -> None:
    learned = gone.shaper.learned
    assert not learned.sites
    assert not [stand for stand in learned.standings.stands.values() if stand.counts.days]
    assert all(not any(stand.pending[kind] for kind in (1, 2, 4, 5)) for stand in learned.standings.stands.values())
    assert not learned.standings.replies


def test_all_routers_are_told(gone: Office) -> None:
    assert [source for source, _ in gone.shaper.learned.changed_everywhere()] == ["gone"]
    (event,) = gone.shaper.learned.events
    assert (event.kind, event.source, event.site, event.by) == ("shaping", "gone", "", "unplumbed")
    assert "paused for 10 minutes" in event.text


@pytest.mark.parametrize(
    "answer",
    [
        RecipientOutcome(0, DELIVERED, 250, "2.0.0", "ok", "dot"),
        RecipientOutcome(0, BOUNCED, 550, "5.1.1", "no such user", "rcpt"),
        RecipientOutcome(0, DEFERRED, 451, "4.7.1", "greylisted", "rcpt"),
        RecipientOutcome(0, DEFERRED, 0, "4.4.1", "mx [203.0.113.9]: connection refused", "connect"),
    ],
)
def test_after_ten_minutes_one_unit_tries_it_and_any_answer_of_a_site_brings_it_back_whole(
    gone: Office, answer: RecipientOutcome
) -> None:
    gone.now += 10 * MINUTE + 1
    assert gone.offer() == "gone", "one unit is to try it"
    gone.answer(answer)
    scope = gone.shaper.wide.sources["gone"]
    limits = scope.limits(gone.now + 2.0)
    assert (limits.rate_per_second, limits.paused_until, limits.probing) == (0.0, 0.0, False)
    gone.now += 2.0
    assert "gone" in gone.sources(20, 0.1)


def test_probes_that_do_not_get_out_double_the_pause(gone: Office) -> None:
    gone.now += 10 * MINUTE + 1
    for _ in range(3):
        assert gone.offer() == "gone"
        gone.answer(UNPLUMBED)
        gone.now += MINUTE + 1
    assert gone.sources(18, MINUTE) == {"here"}
    gone.now += 2 * MINUTE
    assert gone.offer() == "gone"


@pytest.mark.parametrize("shown", [RecipientOutcome(0, DEFERRED, 0, "4.4.3", "no answer", "dns")])
def test_what_shows_nothing_of_the_way_out_does_not_bring_it_back(gone: Office, shown: RecipientOutcome) -> None:
    gone.now += 10 * MINUTE + 1
    assert gone.offer() == "gone"
    gone.answer(shown)
    assert gone.shaper.wide.sources["gone"].state.probing


def test_a_way_that_was_slowed_before_does_not_come_back_faster_than_it_was() -> None:
    slowed, _ = hit(BackOff(), Hit(1000.0, 999.0, False, "busy", "421", 10.0))
    paused, _ = hit(slowed, Hit(1100.0, 1099.0, True, "unplumbed", "egress", 10.0, whole=True))
    back, _ = clean(paused, 1500.0, 1501.0)
    assert back.factor == 0
