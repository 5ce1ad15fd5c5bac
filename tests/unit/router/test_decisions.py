"""Properties of the router's decisions."""

from __future__ import annotations

from collections import Counter

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from mailfleet_core.model import wire
from mailfleet_core.model.ids import unit_id
from mailfleet_core.model.wire import Accepted, BodyRef, Entry, Envelope, Recipient, RecipientOutcome, Result, Unit
from mailfleet_router.decisions.bucket import Bucket, fill, wait
from mailfleet_router.decisions.policy import LAST_RESORT, Ladder, Policy, Rule
from mailfleet_router.decisions.progress import Progress
from mailfleet_router.decisions.retry import next_attempt, spread
from mailfleet_router.decisions.routing import HOPELESS, KNOWN, TEMPORARY, UNKNOWN, Routing
from mailfleet_router.decisions.settle import settle
from mailfleet_router.decisions.splitting import divide, split

instants = st.floats(1e9, 2e9)
waits = st.lists(st.floats(0, 1e6), max_size=6).map(tuple)
shares = st.floats(0, 1, exclude_max=True)
MESSAGE = bytes(range(16))


def envelope(expires_at: float = 2e9) -> Envelope:
    return Envelope(MESSAGE, "s@a.example", "t", "s", "default", BodyRef(0, (8,), 100), 1e9, expires_at)


@given(waits, st.floats(-1, 5), st.integers(-3, 40), instants, instants, shares)
def test_a_retry_is_in_the_future_and_before_the_expiry(
    ladder: tuple[float, ...], jitter: float, rung: int, ended_at: float, expires_at: float, share: float
) -> None:
    due = next_attempt(Ladder(ladder, jitter), rung, ended_at, expires_at, share)
    assert due is None or ended_at < due < expires_at


@given(st.lists(st.floats(60, 1e5), min_size=1, max_size=6), st.integers(1, 20), shares)
def test_gaps_never_shrink_on_a_ladder_that_grows(ladder: list[float], rung: int, share: float) -> None:
    grown = Ladder(tuple(sorted(ladder)), 0.2)
    first, second = (next_attempt(grown, step, 0.0, 1e12, share) for step in (rung, rung + 1))
    assert first is not None
    assert second is not None
    assert second >= first


@given(st.binary(max_size=18), st.integers(0, 2**31))
def test_jitter_is_the_same_for_whoever_asks_and_in_range(key: bytes, attempt: int) -> None:
    assert spread(key, attempt) == spread(key, attempt)
    assert 0 <= spread(key, attempt) < 1


verdicts = st.sampled_from((wire.DELIVERED, wire.DEFERRED, wire.BOUNCED, "of another version"))


@given(st.dictionaries(st.integers(0, 8), verdicts, max_size=9), st.integers(1, 6), instants, st.integers(0, 9))
def test_settling_gives_every_recipient_one_ending_and_lets_exactly_the_deferred_wait(
    answers: dict[int, str], count: int, expires_at: float, rung: int
) -> None:
    unit = Unit(unit_id(MESSAGE, 0), "site", envelope(expires_at), tuple(Recipient(n, f"u{n}@d") for n in range(count)))
    entry = Entry(unit, attempts=1, rung=rung)
    outcomes = tuple(RecipientOutcome(n, verdict, 1, "2.0.0", str(n % 2), "dot") for n, verdict in answers.items())
    result = Result(unit.unit_id, 0, 1, wire.SETTLED, "a", 1.4e9, 1.5e9, outcomes)
    settled = settle(entry, result, Ladder((300.0,)))
    told = Counter(r.index for ending in settled.endings for r in ending.recipients)
    assert told == Counter(range(count))
    kinds = {r.index: ending.kind for ending in settled.endings for r in ending.recipients}
    for index, kind in kinds.items():
        said = answers.get(index)
        assert kind == said or (said not in (wire.DELIVERED, wire.BOUNCED) and kind in (wire.DEFERRED, "expired"))
    waiting = {index for index, kind in kinds.items() if kind == wire.DEFERRED}
    left = set() if settled.entry is None else {r.index for r in settled.entry.unit.recipients}
    assert left == waiting
    assert settle(entry, result, Ladder((300.0,))) == settled


def test_what_would_be_tried_after_its_expiry_expires_now() -> None:
    unit = Unit(unit_id(MESSAGE, 0), "site", envelope(1000.0), (Recipient(0, "a@b"),))
    outcome = RecipientOutcome(0, wire.DEFERRED, 451, "4.2.1", "later", "rcpt")
    result = Result(unit.unit_id, 0, 1, wire.SETTLED, "a", 900.0, 901.0, (outcome,))
    (ending,) = settle(Entry(unit, attempts=1), result, Ladder((300.0,))).endings
    assert (ending.kind, ending.outcome.enhanced, ending.outcome.code) == ("expired", "4.4.7", 451)
    assert "later" in ending.outcome.text


addresses = st.builds(lambda n, d: f"u{n}@d{d}.example", st.integers(0, 99), st.integers(0, 4))
ROUTED = Rule(("d0.example", "d1.example"), wire.Route("smart_host", ((0, "hub"),)), site="hub")


@given(st.lists(st.tuples(addresses, st.sampled_from(("x", "y"))), min_size=1, max_size=30), st.integers(1, 5))
def test_splitting_puts_every_recipient_into_exactly_one_unit(envelope_of: list[tuple[str, str]], most: int) -> None:
    policy = Policy(rules=(ROUTED, LAST_RESORT), recipients_per_unit=most)
    recipients = tuple(Recipient(n, address) for n, (address, _) in enumerate(envelope_of))
    accepted = Accepted(envelope(), recipients, tuple(site for _, site in envelope_of))
    units = split(accepted, policy)
    assert Counter(r for unit in units for r in unit.recipients) == Counter(recipients)
    assert len({unit.unit_id for unit in units}) == len(units)
    assert all(len(unit.recipients) <= most for unit in units)
    assert split(accepted, policy) == units
    for unit in units:
        assert all(accepted.sites[r.index] == unit.site for r in unit.recipients)
        assert divide(unit, policy) == (unit, [])


@given(st.lists(addresses, min_size=1, max_size=20), st.integers(1, 5))
def test_dividing_a_unit_loses_nobody_and_is_the_same_each_time(to: list[str], most: int) -> None:
    policy = Policy(rules=(ROUTED, LAST_RESORT), recipients_per_unit=most)
    unit = Unit(unit_id(MESSAGE, 0), "x", envelope(), tuple(Recipient(n, address) for n, address in enumerate(to)))
    kept, cut = divide(unit, policy)
    parts = [kept, *cut]
    assert kept.unit_id == unit.unit_id
    assert Counter(r for part in parts for r in part.recipients) == Counter(unit.recipients)
    assert len({part.unit_id for part in parts}) == len(parts)
    assert divide(unit, policy) == (kept, cut)


@given(st.floats(0.1, 1000), st.lists(st.floats(0, 2), min_size=1, max_size=60))
def test_a_window_admits_at_most_the_burst_and_the_rate(rate: float, gaps: list[float]) -> None:
    bucket, now, sent = Bucket(0.0, 0.0), 0.0, 0
    for gap in gaps:
        now += gap
        bucket = fill(bucket, rate, now)
        while bucket.tokens >= 1.0:
            bucket, sent = Bucket(bucket.tokens - 1.0, now), sent + 1
        later = fill(bucket, rate, now + wait(bucket, rate) * 1.0001 + 1e-6)
        assert later.tokens >= 0.999
    assert sent <= max(1.0, rate * 0.2) + rate * now + 1e-6


def test_a_new_owner_of_a_limited_site_starts_with_an_empty_bucket() -> None:
    assert fill(Bucket(0.0, 100.0), 5.0, 100.0).tokens == 0


@given(st.floats(0.1, 10), st.floats(0, 100), st.floats(0, 100))
def test_a_clock_that_goes_back_gives_no_tokens(rate: float, at: float, back: float) -> None:
    assert fill(Bucket(0.0, at), rate, at - back).tokens == 0


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=60))
def test_progress_never_passes_a_result_that_is_open(steps: list[tuple[bool, int]]) -> None:
    progress, offset, still = Progress(0), 10, []
    for read, which in steps:
        if read:
            offset += 3
            still.append((offset, progress.begin(offset)))
        elif still:
            _, item = still.pop(which % len(still))
            progress.done(item)
        assert progress.position <= min((at for at, _ in still), default=offset + 1)
    for _, item in still:
        progress.done(item)
    assert progress.position in (0, offset + 1)


def test_the_first_route_that_matches_wins_and_the_last_resort_is_mx() -> None:
    policy = Policy(rules=(Rule(("*.below.example",), wire.Route("lmtp", ((0, "x"),)), "below"), ROUTED, LAST_RESORT))
    assert policy.rule("a.below.example").site == "below"
    assert policy.rule("below.example").route.kind == "mx"
    assert policy.rule("d1.example").site == "hub"


def test_a_known_domain_stays_usable_while_the_dns_is_away_and_not_for_ever() -> None:
    routing = Routing(Policy())
    domain = routing.domain("a@x.example")
    assert domain.look(0.0) == UNKNOWN
    routing.answered("x.example", "mx", ((5, "mx.x.example"),), 0.0)
    routing.answered("x.example", "temporary", (), 310.0)
    assert domain.look(320.0) == KNOWN
    assert domain.look(99_999.0) == UNKNOWN
    routing.answered("x.example", "temporary", (), 99_999.0)
    assert domain.look(100_000.0) == TEMPORARY
    routing.answered("x.example", "missing", (), 200_000.0)
    assert domain.look(200_001.0) == HOPELESS


def test_entries_of_older_versions_are_understood() -> None:
    entry = Entry(Unit(unit_id(MESSAGE, 0), "x", envelope(), (Recipient(0, "a@b"),)))
    shorter = msgspec.msgpack.encode(msgspec.msgpack.decode(wire.encode(entry))[:8])
    assert wire.decode(Entry, shorter) == entry
