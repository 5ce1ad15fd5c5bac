"""The life of an address: what drains it at once, what it comes back by, and that it never goes up and down in a hurry."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfleet_operator.decisions import life
from mailfleet_operator.decisions.conditions import FALSE, TRUE, UNKNOWN, Verdict
from mailfleet_operator.decisions.life import (
    ACTIVE,
    DRAINING,
    IN_USE,
    PENDING,
    PREFLIGHT,
    QUARANTINED,
    RETIRED,
    SENDING,
    SLOW,
    WARMING,
    Borders,
    Health,
    Life,
    Wish,
    live,
    ready,
)  # fmt: skip

RIGHT = {kind: Verdict(TRUE, "Verified") for kind in life.CHECKS}
NO_PTR = RIGHT | {life.PTR: Verdict(FALSE, "NoPTR", "192.0.2.1 has no PTR")}
LISTED = RIGHT | {life.NOT_LISTED: Verdict(FALSE, "Listed", "listed by bl.example")}
DNS_AWAY = RIGHT | {life.PTR: Verdict(UNKNOWN, "DNSUnavailable")}
MINE = Wish(pool="tx")
BORDERS = Borders()


def through(*steps: tuple[float, Wish, Health]) -> Life:
    now_life = Life()
    for at, wish, health in steps:
        now_life = live(now_life, wish, health, BORDERS, at)
    return now_life


def test_an_address_sends_only_after_its_preflight() -> None:
    unknown = Health({})
    assert through((1, MINE, unknown), (2, MINE, unknown)).state == PREFLIGHT
    assert through((1, MINE, unknown), (2, MINE, Health(RIGHT))).state == ACTIVE
    assert through((1, MINE, unknown), (2, MINE, Health(NO_PTR))) == Life(
        PREFLIGHT, "NoPTR", 1, 0, "192.0.2.1 has no PTR"
    )


def test_one_with_a_plan_warms_up_until_the_plan_is_through_and_the_routers_say_so() -> None:
    wish = Wish(pool="tx", plan_until=100)
    warm = through((1, wish, Health(RIGHT)), (2, wish, Health(RIGHT)))
    assert warm.state == WARMING
    assert live(warm, wish, Health(RIGHT, 100, True), BORDERS, 500).state == WARMING
    assert live(warm, wish, Health(RIGHT, 100, False), BORDERS, 50).state == WARMING
    assert live(warm, wish, Health(RIGHT, 100, False), BORDERS, 500).state == ACTIVE


def test_a_lost_ptr_and_a_listing_drain_at_once_and_an_outage_of_the_dns_does_not() -> None:
    for checks, cause in ((NO_PTR, "NoPTR"), (LISTED, "Listed")):
        drained = live(Life(ACTIVE, "", 1, 999), MINE, Health(checks, 100), BORDERS, 1000)
        assert (drained.state, drained.cause) == (DRAINING, cause)
    assert live(Life(ACTIVE, "", 1, 0), MINE, Health(DNS_AWAY, 100), BORDERS, 1000).state == ACTIVE


def test_a_drained_one_comes_back_through_preflight_after_the_cool_down() -> None:
    drained = Life(DRAINING, "NoPTR", 1000)
    assert live(drained, MINE, Health(RIGHT), BORDERS, 1299).state == DRAINING
    again = live(drained, MINE, Health(RIGHT), BORDERS, 1300)
    assert again.state == PREFLIGHT
    assert live(again, MINE, Health(RIGHT), BORDERS, 1301).state == ACTIVE


def test_what_was_drained_by_wish_comes_back_by_wish() -> None:
    drained = live(Life(ACTIVE, "", 1), Wish("Drained", "tx"), Health(RIGHT), BORDERS, 1000)
    assert (drained.state, drained.cause) == (DRAINING, "Drained")
    assert live(drained, MINE, Health(RIGHT), BORDERS, 1001).state == PREFLIGHT


def test_a_retired_one_ends_only_when_nothing_is_under_way_and_for_good() -> None:
    wish = Wish("Retired", "tx")
    going = live(Life(ACTIVE, "", 1), wish, Health(RIGHT, empty=False), BORDERS, 10)
    assert going.state == DRAINING
    ended = live(going, wish, Health(RIGHT, empty=True), BORDERS, 11)
    assert ended.state == RETIRED
    assert live(ended, MINE, Health(RIGHT), BORDERS, 10_000).state == RETIRED


def test_a_spare_that_passed_preflight_says_so() -> None:
    spare = live(Life(), Wish(), Health(RIGHT), BORDERS, 1)
    assert (spare.state, spare.cause) == (PENDING, "Spare")
    assert live(Life(), Wish(), Health(NO_PTR), BORDERS, 1).cause == "NoPTR"
    assert live(Life(), Wish(), Health({}), BORDERS, 1).cause == "Checking"


@pytest.mark.parametrize(
    ("wish", "health", "verdict"),
    [
        (MINE, Health(RIGHT), ("True", "Active")),
        (Wish(), Health(RIGHT), ("True", "Spare")),
        (Wish("Drained", "tx"), Health(RIGHT), ("True", "Drained")),
        (Wish("Retired", "tx"), Health(RIGHT), ("True", "Retired")),
        (Wish("Retired", "tx"), Health(RIGHT, empty=False), ("False", "Retiring")),
        (Wish(), Health({}), ("False", "Checking")),
        (MINE, Health(LISTED), ("False", "Listed")),
    ],
)
def test_it_is_ready_when_it_is_what_it_is_wished_to_be(wish: Wish, health: Health, verdict: tuple[str, str]) -> None:
    found = ready(live(Life(), wish, health, BORDERS, 1))
    assert (found.status, found.reason) == verdict


def test_the_score_leads_down_at_once_and_up_step_by_step() -> None:
    low = live(Life(ACTIVE, "", 1), MINE, Health(RIGHT, 30), BORDERS, 1000)
    assert low.state == QUARANTINED
    assert live(low, MINE, Health(RIGHT, 100), BORDERS, 1299).state == QUARANTINED
    first = live(low, MINE, Health(RIGHT, 100), BORDERS, 1300)
    assert first.state == SLOW
    assert live(first, MINE, Health(RIGHT, 100), BORDERS, 1599).state == SLOW
    assert live(first, MINE, Health(RIGHT, 100), BORDERS, 1600).state == ACTIVE


def test_a_border_is_left_only_so_far_above_it() -> None:
    slow = Life(SLOW, "", 1)
    assert live(slow, MINE, Health(RIGHT, 65), BORDERS, 10_000).state == SLOW
    assert live(slow, MINE, Health(RIGHT, 71), BORDERS, 10_000).state == ACTIVE


def test_without_statistics_and_in_a_paused_pool_a_score_changes_nothing() -> None:
    active = Life(ACTIVE, "", 1)
    assert live(active, MINE, Health(RIGHT, None), BORDERS, 1000).state == ACTIVE
    assert live(active, Wish(pool="tx", paused=True), Health(RIGHT, 0), BORDERS, 1000).state == ACTIVE
    assert live(active, Wish(pool="tx", paused=True), Health(LISTED, 0), BORDERS, 1000).state == DRAINING


CHECKS = st.sampled_from([RIGHT, NO_PTR, LISTED, DNS_AWAY, {}])
WISHES = st.builds(
    Wish,
    state=st.sampled_from(["Active", "Active", "Active", "Drained"]),
    pool=st.sampled_from(["tx", "tx", "tx", ""]),
    paused=st.booleans(),
    plan_until=st.sampled_from([0.0, 500.0]),
    requires_ptr=st.just(True),
)
HEALTH = st.builds(Health, CHECKS, st.none() | st.floats(0, 100), st.none() | st.booleans(), st.booleans())
STEPS = st.lists(st.tuples(st.floats(0.1, 200), WISHES, HEALTH), max_size=60)
RANK = {QUARANTINED: 2, SLOW: 3, WARMING: 4, ACTIVE: 4}


@given(STEPS)
def test_whatever_happens_a_score_moves_nothing_up_and_down_within_a_cool_down(
    steps: list[tuple[float, Wish, Health]],
) -> None:
    now, before, last_up, last_change = 0.0, Life(ACTIVE, "", 0), -1e9, -1e9
    for gap, wish, health in steps:
        now += gap
        after = live(before, wish, health, BORDERS, now)
        if before.state in IN_USE and after.state in IN_USE and RANK[before.state] != RANK[after.state]:
            up = RANK[after.state] > RANK[before.state]
            assert now - (last_change if up else last_up) >= BORDERS.cooldown_seconds
            last_change, last_up = now, now if up else last_up
        elif before.state != after.state:
            last_change = now
            last_up = now if after.state in SENDING else last_up
        before = after


SCORES = st.lists(st.tuples(st.floats(1, 200), st.sampled_from([0.0, 50.0, 100.0, None])), max_size=40)


@given(SCORES)
def test_whatever_the_score_does_no_state_goes_up_and_down_within_a_cool_down(
    scores: list[tuple[float, float | None]],
) -> None:
    now, before, last_up, last_change = 1000.0, Life(QUARANTINED, "", 0), -1e9, -1e9
    for gap, score in scores:
        now += gap
        after = live(before, MINE, Health(RIGHT, score, False), BORDERS, now)
        if RANK[before.state] != RANK[after.state]:
            up = RANK[after.state] > RANK[before.state]
            assert now - (last_change if up else last_up) >= BORDERS.cooldown_seconds
            last_change, last_up = now, now if up else last_up
        before = after


@given(STEPS)
def test_whatever_happens_nothing_sends_whose_address_is_known_to_be_wrong(
    steps: list[tuple[float, Wish, Health]],
) -> None:
    now, present = 0.0, Life()
    for gap, wish, health in steps:
        now += gap
        present = live(present, wish, health, BORDERS, now)
        assert present.state in life.STATES
        if life.fault(health.checks) is not None or not wish.pool or wish.state != "Active":
            assert present.state not in SENDING
