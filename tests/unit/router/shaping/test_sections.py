"""Warm-up plans and reputation as the policy file sets them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfleet_router.decisions.shaping import reputation, sections, warmup
from mailfleet_router.decisions.shaping.policy_file import read
from mailfleet_router.decisions.shaping.reputation import GOOD, QUARANTINE, SLOW, USUAL, WATCH, Counts, Standing
from mailfleet_router.decisions.shaping.schema import Reputation, Term, Warmup

NOW = 20_000 * reputation.DAY + 43_200.0
HOUR = 3600.0


def traffic(text):
    return read("version: 1\n" + text, "f").traffic


def answers(**many):
    counts = Counts()
    for kind, number in many.items():
        for _ in range(number):
            counts = reputation.observe(counts, getattr(reputation, kind), NOW)
    return counts


def test_a_shipped_plan_is_meant_by_its_name_and_may_be_changed_key_by_key():
    assert sections.plan(Warmup(name="conservative")) == warmup.CONSERVATIVE
    steady = sections.plan(Warmup(name="geometric-1.4", hour_share=0.5))
    assert (steady.day_caps, steady.hour_share) == (warmup.GEOMETRIC.day_caps, 0.5)
    own = sections.plan(Warmup(name="linear-45", day_caps=(1, 2)))
    assert (own.day_caps, own.citation) == ((1, 2), None)


def test_a_source_goes_through_the_plan_that_names_it_and_others_through_none():
    found = traffic("warmup: [{name: conservative, sources: ['new-*']}, {name: mine, sources: [ip-1], day_caps: [5]}]")
    assert sections.plan_of(found, "new-7").name == "conservative"
    assert sections.plan_of(found, "ip-1").day_caps == (5,)
    assert sections.plan_of(found, "ip-2") is None


def test_nothing_said_about_reputation_leaves_it_as_shipped():
    assert sections.tuning(traffic("").reputation) == USUAL


def test_what_is_said_about_reputation_and_nothing_else_is_changed():
    found = sections.tuning(
        traffic("reputation: {hard_bounces: {limit: 0.2, least: 5}, slow_below: 50, clean: 2h}").reputation
    )
    changed = tuple(t._replace(limit=0.2, least=5) if t.name == "hard bounces" else t for t in USUAL.terms)
    assert found == USUAL._replace(terms=changed, borders=(80.0, 50.0, 40.0), clean_seconds=2 * HOUR)


def test_a_stricter_limit_gives_a_worse_state_at_once():
    counts = answers(DELIVERED=3000, COMPLAINED=4)
    strict = sections.tuning(Reputation(complaints=Term(limit=0.0005)))
    assert reputation.judge(Standing(), counts, NOW)[0].state == WATCH
    assert reputation.judge(Standing(), counts, NOW, tuning=strict)[0].state == QUARANTINE


def test_fewer_answers_than_the_least_that_is_set_change_no_state():
    counts = answers(DELIVERED=3000, COMPLAINED=4)
    patient = sections.tuning(Reputation(complaints=Term(limit=0.0005, least=5)))
    assert reputation.judge(Standing(), counts, NOW, tuning=patient)[0].state == GOOD


@pytest.mark.parametrize(("clean", "state"), [("1h", GOOD), ("2h", SLOW)])
def test_a_state_is_left_after_the_clean_time_that_is_set(clean, state):
    standing, now = Standing(state=SLOW, judged_at=NOW), NOW
    while now < NOW + 1.1 * HOUR:
        now += 600
        standing, decision = reputation.judge(standing, Counts(), now, tuning=sections.tuning(Reputation(clean=clean)))
    assert standing.state == state
    assert "clean for" in decision.reason or "nothing against it; stays good" in decision.reason


scores = st.floats(0, 100)


@given(scores, scores, scores, scores)
def test_borders_that_are_taken_are_in_order_and_every_state_can_be_left(watch, slow, quarantine, margin):
    section = Reputation(watch_below=watch, slow_below=slow, quarantine_below=quarantine, margin=margin)
    if sections.reputation_refusal(section) is None:
        judged = sections.tuning(section)
        standing, now = Standing(state=QUARANTINE, judged_at=NOW), NOW
        for _ in range(26):
            now += reputation.STEP_SECONDS
            standing, _ = reputation.judge(standing, Counts(), now, tuning=judged)
        assert standing.state == GOOD
        assert judged.upper(WATCH) >= judged.upper(SLOW) >= judged.upper(QUARANTINE)
