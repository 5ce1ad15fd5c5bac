"""One partition's shaping as a whole: what it lets go, for any order of mail, answers, takeovers and policies."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import count, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailfleet_core.model import ids, wire
from mailfleet_core.model.wire import BOUNCED, DEFERRED, DELIVERED, RecipientOutcome, Result, Route
from mailfleet_router.decisions.policy import Policy
from mailfleet_router.decisions.shaping import policy_file, telling
from mailfleet_router.decisions.shaping.backoff import MIN_PAUSE_SECONDS
from mailfleet_router.decisions.shaping.gate import RAMP_BURST_SECONDS
from mailfleet_router.decisions.shaping.rules import Rules
from mailfleet_router.decisions.shaping.shaper import Shaper, Wait
from mailfleet_router.decisions.shaping.states import States
from mailfleet_router.decisions.shaping.values import Facts
from mailfleet_router.decisions.shaping.ways import Go

SOURCES = ("ip-1", "ip-2")
LIMITS = """
version: 1
base: none
providers: [{name: big, mx: ["*.big.example"]}]
limits:
  - name: receivers
    per: [source, site]
    cases: [{message_rate: "%d/10s", burst: %d, concurrency: 3, messages_per_connection: 20}]
  - name: tenants
    per: [tenant, site]
    cases: [{message_rate: 4/10s, burst: 2}]
  - name: everything
    per: [site]
    cases: [{window: 5}]
rules:
  - {name: blocked, text: blocked, class: reputation_block, blame: sender_ip, effect: pause, threshold: 2/1h}
  - {name: busy, text: busy, class: rate_limited, effect: slow}
streams: [{name: otp, priority: 0}, {name: bulk, priority: 1, floor: 0.1}]
"""

LOOSE = LIMITS.replace("4/10s", "1000/s").replace("burst: 2}]", "burst: 100}]")


def policy(rate: int = 10, burst: int = 2, text: str = LIMITS) -> Policy:
    rules = Rules(policy_file.read(text % (rate, burst) if "%d" in text else text, "test"))
    lanes = {source: (number, number + 10) for number, source in enumerate(SOURCES)}
    return Policy(pools={"default": tuple((source, 1) for source in SOURCES)}, lanes=lanes, shaping=rules)


@dataclass
class Office:
    """An owner's shaping, what went through it, and what is in senders' hands."""

    policy: Policy
    now: float = 1_000_000.0
    went: list[tuple[float, str, str]] = field(default_factory=list)
    """(when, tenant, source)."""
    out: dict[bytes, tuple[Go, Facts, wire.Entry]] = field(default_factory=dict)
    kept: dict[bytes, tuple[int, bytes | None]] = field(default_factory=dict)
    epoch: int = 0
    numbers: count[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        self.take_over()

    def take_over(self) -> None:
        """Another owner, who knows the log and nothing else."""
        self.epoch += 1
        self.shaper = Shaper(self.policy.shaping, self.policy)
        states = States(self.shaper)
        for key, (epoch, value) in self.kept.items():
            states.read(key, epoch, value, self.epoch)
        self.shaper.since = self.now
        states.restore(self.now)
        self.site = self.shaper.site("big", ("mx.big.example",), "big.example", Route("mx", ()))
        for unit, (go, facts, _) in self.out.items():
            self.shaper.took(unit, self.site, facts, go.path.facts.source)

    def obey(self, policy: Policy) -> None:
        self.policy = policy
        self.shaper.obey(policy.shaping, policy, self.now)

    def offer(self, tenant: str = "a", stream: str = "bulk") -> Go | Wait:
        facts = self.shaper.facts(self.site, tenant, stream, "default", "big.example")
        go = self.shaper.admit(self.site, facts, Route("mx", ((0, "mx.big.example"),)), self.now)
        if isinstance(go, Go):
            message = ids.message_id(next(self.numbers), bytes(10))
            unit = ids.unit_id(message, 0)
            self.shaper.take(unit, go, facts, self.site, self.now)
            source = go.path.facts.source
            self.went.append((self.now, tenant, source))
            envelope = wire.Envelope(
                message, "", tenant, stream, "default", wire.BodyRef(0, (), 1), self.now, self.now + 9e5
            )
            entry = wire.Entry(wire.Unit(unit, "big", envelope, (wire.Recipient(0, "r@big.example"),)), 1)
            self.out[unit] = (go, facts, _from(entry, source))
        return go

    def answer(self, verdict: str = DELIVERED, text: str = "ok", code: int = 250) -> str:
        """The oldest unit that is out comes back."""
        unit = next(iter(self.out))
        _, _, entry = self.out.pop(unit)
        outcome = RecipientOutcome(0, verdict, code, "", text, "rcpt")
        result = Result(unit, 0, 1, "settled", entry.source, self.now - 1, self.now, (outcome,))
        self.shaper.freed(unit)
        self.shaper.answered(entry, result, self.site, "big.example", ("mx.big.example",), self.now)
        self.write()
        return entry.source

    def write(self) -> None:
        for key, value in self.shaper.learned.changed():
            self.kept[key.encode()] = (self.epoch, value)


def settled(policy: Policy) -> Office:
    """An owner for whom it does not matter any more what the one before has sent."""
    office = Office(policy)
    office.now += 60
    return office


def _from(entry: wire.Entry, source: str) -> wire.Entry:
    fields = {name: getattr(entry, name) for name in entry.__struct_fields__}
    return wire.Entry(**{**fields, "source": source})


def most_in(instants: list[float], rate: float, burst: float) -> None:
    """No window of any length holds more than rate x length + burst."""
    for first, begin in enumerate(instants):
        for last in range(first, len(instants)):
            assert last - first + 1 <= rate * (instants[last] - begin) + burst + 1e-3


steps = st.lists(
    st.one_of(
        st.tuples(st.just("offer"), st.sampled_from("ab")),
        st.tuples(st.just("offer"), st.sampled_from("ab")),
        st.tuples(st.just("answer"), st.sampled_from(("ok", "ok", "ok", "busy", "gone"))),
        st.tuples(st.just("time"), st.sampled_from(("0.05", "0.4", "3", "40", "700"))),
        st.tuples(st.just("take over"), st.just("")),
        st.tuples(st.just("policy"), st.sampled_from(("same", "slower"))),
    ),
    max_size=150,
)


@settings(deadline=None)
@given(steps)
def test_no_window_of_any_length_admits_more_than_its_limits(script: list[tuple[str, str]]) -> None:
    office = Office(policy())
    slower_from = None
    for what, which in script:
        if what == "offer":
            office.offer(which)
        elif what == "answer" and office.out:
            office.answer(
                *{"ok": (DELIVERED, "ok", 250), "busy": (DEFERRED, "busy", 421)}.get(which, (BOUNCED, "no", 550))
            )
        elif what == "time":
            office.now += float(which)
        elif what == "take over":
            office.take_over()
        elif what == "policy" and which == "slower" and slower_from is None:
            slower_from = len(office.went)
            office.obey(policy(5, 1))
        elif what == "policy":
            office.obey(office.policy)
        assert len(office.out) <= 5
        by_source = Counter(go.path.facts.source for go, _, _ in office.out.values())
        assert all(number <= 12 for number in by_source.values())
    lowered = len(office.went) if slower_from is None else slower_from
    for tenant in "ab":
        most_in([at for at, whose, _ in office.went if whose == tenant], 0.4, 2)
    for source in SOURCES:
        most_in([at for at, _, by in office.went[:lowered] if by == source], 1.0, 2)
        most_in([at for at, _, by in office.went[lowered:] if by == source], 0.5, 1)


@settings(deadline=None)
@given(st.integers(1, 5), st.booleans())
def test_a_source_that_is_blocked_pauses_is_probed_by_one_unit_and_returns(more: int, taken_over: bool) -> None:
    office = settled(policy(100, 10, LOOSE))
    blocked = office.answer(BOUNCED, "blocked", 550) if isinstance(office.offer(), Go) else ""
    while not office.shaper.learned.sites:
        assert isinstance(office.offer(), Go)
        if office.answer(*_say(office, blocked)) != blocked:
            office.now += 10
    paused_at = office.now
    for _ in range(20):
        office.now += MIN_PAUSE_SECONDS / 30
        if taken_over:
            office.take_over()
            office.now += 1
        office.offer()
        while office.out:
            office.answer()
    during = [source for at, _, source in office.went if at > paused_at]
    assert blocked not in during
    assert during
    office.now = paused_at + MIN_PAUSE_SECONDS + 1
    first = office.offer()
    assert isinstance(first, Go)
    assert first.path.facts.source == blocked, "the pause is over: one unit is to try it"
    assert first.route.max_connections == 1
    for _ in range(more):
        office.now += 5
        other = office.offer("b")
        assert not isinstance(other, Go) or other.path.facts.source != blocked
    office.answer()
    office.now += 61
    sources = set()
    for _ in range(120):
        office.now += 60
        if isinstance(office.offer(), Go):
            sources.add(office.answer())
    assert blocked in sources


def _say(office: Office, blocked: str) -> tuple[str, str, int]:
    _, _, entry = next(iter(office.out.values()))
    return (BOUNCED, "blocked", 550) if entry.source == blocked else (DELIVERED, "ok", 250)


SPAM = (LOOSE % (1000, 100)).replace(
    "streams:",
    """  - {name: spam, text: spam, effect: slow, scope: tenant_site, threshold: 5/1h, share: 1%}
streams:""",
)


@pytest.mark.parametrize(("every", "slowed"), [(300, False), (50, True)])
def test_a_few_refusals_among_thousands_of_mails_do_not_slow_their_tenant(every: int, slowed: bool) -> None:
    office = settled(policy(text=SPAM))
    for number in range(4000):
        office.now += 0.01
        if isinstance(office.offer(), Go):
            office.answer(*((BOUNCED, "spam", 550) if number % every == 0 else ()))
    at = office.shaper.learned.at("big")
    assert (at is not None and "a" in at.tenants) == slowed


def test_what_a_limit_holds_of_one_tenant_does_not_hold_the_site() -> None:
    office = settled(policy(100, 10))
    while isinstance(held := office.offer("a"), Go):
        office.answer()
    assert held.until < office.now + 10
    assert isinstance(office.offer("b"), Go)


def test_a_full_window_waits_for_a_unit_to_come_back_and_for_nothing_else() -> None:
    office = settled(policy(1000, 100, LOOSE))
    for tenant in "abcde":
        assert isinstance(office.offer(tenant), Go)
    held = office.offer("f")
    assert isinstance(held, Wait)
    assert held.until == float("inf")
    office.answer()
    assert isinstance(office.offer("f"), Go)


WARMING = (
    LOOSE
    + """
warmup: [{name: launch, sources: [ip-2], day_caps: [1], hour_share: 1.0}]
"""
)


def used_up() -> Office:
    """An owner with a source that has nothing left of its warm-up, and another one with a unit in a sender's hands."""
    office = settled(policy(1, 1, WARMING))
    office.offer()
    for warm in office.shaper.wanting.values():
        warm.reserve(office.now)
        warm.durable()
    office.offer()
    office.now += 11
    office.answer()
    office.offer()
    office.answer()
    assert [go.path.facts.source for go, _, _ in office.out.values()] == ["ip-1"]
    return office


def test_a_source_without_allowance_is_not_asked_again_at_once_while_another_waits_for_its_limits() -> None:
    office = used_up()
    office.answer()
    held = office.offer()
    assert isinstance(held, Wait)
    assert office.now < held.until < office.now + 11


def test_who_waits_for_a_unit_to_come_back_does_not_wait_for_a_source_that_opens_much_later() -> None:
    office = used_up()
    office.now += 11
    held = office.offer()
    assert isinstance(held, Wait)
    assert held.until == float("inf")
    office.answer()
    assert isinstance(office.offer(), Go)


def test_the_sender_gets_the_limits_that_it_keeps() -> None:
    office = settled(policy(10, 2))
    go = office.offer()
    assert isinstance(go, Go)
    assert (go.route.max_connections, go.route.messages_per_connection) == (3, 20)
    # A message a second is too little for two lanes, so one has it all; the sender divides by both.
    assert go.route.messages_per_second == 2.0
    assert go.lane in (0, 1)


def test_a_new_owner_of_a_scope_that_is_probed_does_not_probe_at_once() -> None:
    office = settled(policy(100, 10, LOOSE))
    office.offer()
    blocked = office.answer(BOUNCED, "blocked", 550)
    while not office.shaper.learned.sites:
        office.offer()
        if office.answer(*_say(office, blocked)) != blocked:
            office.now += 10
    office.now += MIN_PAUSE_SECONDS + 1
    probe = office.offer()
    assert isinstance(probe, Go)
    assert probe.path.facts.source == blocked
    office.answer()
    office.write()
    office.take_over()
    taken_over_at = office.now
    while office.now < taken_over_at + 59:
        office.now += 1
        office.offer()
        while office.out:
            assert office.answer() != blocked


WARM = """
version: 1
base: none
warmup: [{name: new, sources: [ip-1], day_caps: [CAPS], hour_share: 0.25}]
""".replace("CAPS", ", ".join(["40"] * 30))
# "big" is none of the four that take the whole of a plan.
WARM_DAY, WARM_HOUR = 20, 5
warm_steps = st.lists(
    st.one_of(
        st.tuples(st.just("offer"), st.integers(1, 30)),
        st.tuples(st.just("written"), st.just(0)),
        st.tuples(st.just("written"), st.just(0)),
        st.tuples(st.just("answer"), st.integers(1, 20)),
        st.tuples(st.just("time"), st.sampled_from((1, 600, 3600, 86400))),
        st.tuples(st.just("take over"), st.integers(0, 1)),
    ),
    min_size=10,
    max_size=120,
)


@settings(deadline=None)
@given(warm_steps)
def test_a_new_source_never_sends_more_than_its_plan_whoever_owns_it(script: list[tuple[str, int]]) -> None:
    office = Office(policy(text=WARM))
    office.policy.pools["default"] = (("ip-1", 1),)
    office.take_over()
    writing: dict[str, bytes] = {}
    for what, number in script:
        for key, warm in office.shaper.wanting.items():
            if (value := warm.reserve(office.now)) is not None:
                writing[key] = value
        office.shaper.wanting.clear()
        if what == "offer":
            for _ in range(number):
                office.offer()
        elif what == "written":
            for key, value in writing.items():
                office.kept[key.encode()] = (office.epoch, value)
                office.shaper.warms[key].durable()
            writing.clear()
        elif what == "answer":
            for _ in range(min(number, len(office.out))):
                office.answer()
        elif what == "time":
            office.now += number
        else:
            # What was on its way into the log may or may not have arrived.
            office.kept.update({key.encode(): (office.epoch, value) for key, value in writing.items() if number})
            writing.clear()
            office.take_over()
    assert max(Counter(int(at // 86400) for at, _, _ in office.went).values(), default=0) <= WARM_DAY
    assert max(Counter(int(at // 3600) for at, _, _ in office.went).values(), default=0) <= WARM_HOUR


def test_a_new_source_sends_all_that_its_plan_allows() -> None:
    office = Office(policy(text=WARM))
    office.policy.pools["default"] = (("ip-1", 1),)
    for _ in range(48):
        office.now += 1800
        for _ in range(10):
            if isinstance(office.offer(), Wait):
                for key, warm in office.shaper.wanting.items():
                    office.kept[key.encode()] = (office.epoch, warm.reserve(office.now))
                    warm.durable()
                office.shaper.wanting.clear()
            while office.out:
                office.answer()
    by_day = Counter(int(at // 86400) for at, _, _ in office.went)
    assert sorted(by_day.values())[-1] == WARM_DAY


CLOSED = """
version: 1
base: none
limits:
  - {name: closed, per: [source, site], cases: [{if: {source: [ip-1]}, suspend: true}, {message_rate: 1/m, burst: 1}]}
"""


def test_a_source_that_the_policy_closes_does_not_keep_the_others_from_being_asked() -> None:
    office = settled(policy(text=CLOSED))
    assert isinstance(office.offer(), Go)
    while office.out:
        office.answer()
    held = office.offer()
    assert isinstance(held, Wait)
    assert office.now < held.until <= office.now + 61, "nothing is out that could come back"
    office.now = held.until
    assert isinstance(office.offer(), Go)
    assert {source for _, _, source in office.went} == {"ip-2"}


RAMPED = """
version: 1
base: none
limits: [{name: receivers, per: [source, site], cases: [{ramp: 2/s}]}]
"""


def minutes_of(office: Office, minutes: int) -> list[int]:
    """How many go in each of them if as many want to go as can."""
    counts = []
    for _ in range(minutes):
        until, before = office.now + 60.0, len(office.went)
        while office.now < until:
            while isinstance(office.offer(), Go):
                office.answer()
            office.now += 0.1
        counts.append(len(office.went) - before)
    return counts


def test_where_nobody_says_what_a_receiver_bears_the_pace_begins_slowly_and_doubles() -> None:
    office = settled(policy(text=RAMPED))
    counts = minutes_of(office, 5)
    start = len(SOURCES) * (60 * 2.0 + RAMP_BURST_SECONDS * 2.0)
    assert counts[0] <= 2 * start
    assert all(1.5 * one <= other <= 4 * one for one, other in pairwise(counts))


def test_a_pace_that_was_left_for_a_while_begins_slowly_again() -> None:
    office = settled(policy(text=RAMPED))
    first = minutes_of(office, 3)
    office.now += 900.0
    assert minutes_of(office, 1)[0] <= first[0] * 1.1
    while isinstance(office.offer(), Go):
        office.answer()
    facts = office.shaper.facts(office.site, "a", "bulk", "default", "big.example")
    reasons = telling.why(office.shaper, office.site, facts, office.now)
    assert {reason.by for reason in reasons} == {"ramp"}
    assert all(reason.where.startswith("test") for reason in reasons)
