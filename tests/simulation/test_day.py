"""The simulated day with 200,000 mails, and whether its own instruments are right."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfleet_router.decisions.shaping.responses import ReplyClass, Responses
from mailfleet_router.decisions.shaping.values import Facts
from mailfleet_router.shell.traffic import shipped
from simulation.day.receivers import Watch
from simulation.day.run import run
from simulation.day.scenario import MIDNIGHT, load
from simulation.day.tally import max_min, quantile

pytestmark = pytest.mark.timeout(900)
"""The day takes a minute on two idle cores."""

MAILS = 200_000
SMALL_MAILS = 20_000
SOURCES_SHARE = 0.25
OUTAGE_ENDS = MIDNIGHT + 14 * 3600.0


def day(mails: int, automation: bool) -> dict[str, Any]:
    return run(mails, SOURCES_SHARE, automation, 2, lambda at, ended, queued: None)


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    """The day with 200,000 mails."""
    return day(MAILS, True)


@pytest.fixture(scope="module")
def small() -> dict[str, Any]:
    """A day with a tenth of them."""
    return day(SMALL_MAILS, True)


@pytest.fixture(scope="module")
def plain() -> dict[str, Any]:
    """The same, with fixed limits and nothing else."""
    return day(SMALL_MAILS, False)


def assert_all_ended(figures: dict[str, Any]) -> None:
    counts = figures["counts"]
    assert figures["ended_twice"] == 0
    assert figures["without_end"] == figures["left"] == sum(figures["reasons"].values())
    assert counts["accepted"] == counts["delivered"] + counts["bounced"] + counts["expired"] + figures["left"]
    assert "NO REASON" not in figures["reasons"]


def assert_limits_kept(figures: dict[str, Any]) -> None:
    assert figures["watched"] > 20
    assert figures["violations"] == 0
    assert figures["connection_violations"] == 0


@pytest.mark.slow
def test_every_mail_of_the_day_has_one_end_or_waits_for_a_reason(whole: dict[str, Any]) -> None:
    assert_all_ended(whole)


@pytest.mark.slow
def test_no_configured_limit_is_exceeded_at_a_receiver(whole: dict[str, Any]) -> None:
    assert_limits_kept(whole)


@pytest.mark.slow
def test_without_automation_the_same_holds(plain: dict[str, Any]) -> None:
    assert_all_ended(plain)
    assert_limits_kept(plain)


@pytest.mark.slow
def test_automation_keeps_sources_from_being_blocked_and_good_mail_from_bouncing(
    small: dict[str, Any], plain: dict[str, Any]
) -> None:
    assert sum(small["blocks"].values()) < sum(plain["blocks"].values())
    assert small["counts"].get("bounced good", 0) < plain["counts"]["bounced good"] / 10
    assert small["counts"]["delivered"] > plain["counts"]["delivered"]
    assert small["counts"]["attempts"] < plain["counts"]["attempts"]


@pytest.mark.slow
def test_the_newsletter_does_not_hold_the_passwords_up(small: dict[str, Any]) -> None:
    assert sum(small["burst_waits"]) > 100
    assert quantile(small["burst_waits"], 0.99) < 5.0


@pytest.mark.slow
def test_what_an_outage_left_behind_is_gone_within_two_hours(small: dict[str, Any]) -> None:
    assert 0.0 < small["drained_at"]["microsoft"] - OUTAGE_ENDS < 2 * 3600.0


CLASSES = {
    "slow": {ReplyClass.RATE_LIMITED, ReplyClass.TOO_MANY_CONNECTIONS, ReplyClass.REPUTATION_BLOCK},
    "block": {ReplyClass.REPUTATION_BLOCK, ReplyClass.RATE_LIMITED},
    "connections": {ReplyClass.TOO_MANY_CONNECTIONS},
    "greylisted": {ReplyClass.GREYLISTED},
    "unknown": {ReplyClass.BAD_MAILBOX},
    "full": {ReplyClass.QUOTA},
    "busy_mailbox": {ReplyClass.RATE_LIMITED},
    "spam": {ReplyClass.SPAM_CONTENT},
    "refused": {ReplyClass.NETWORK},
}


def test_the_shipped_rules_understand_what_the_receivers_of_the_day_say() -> None:
    scenario = load()
    responses = Responses(*shipped().packs())
    for receiver in scenario.receivers:
        for what in scenario.says:
            reading = responses.classify(Facts(provider=receiver.name), scenario.reply(receiver, what))
            assert reading.reply_class in CLASSES[what], (receiver.name, what, reading)


@given(
    st.lists(st.floats(0.0, 5.0), min_size=1, max_size=40),
    st.sampled_from((0.5, 1.0, 3.0)),
    st.sampled_from((1.0, 2.5)),
)
def test_the_watch_sees_exactly_the_windows_with_too_many(gaps: list[float], rate: float, burst: float) -> None:
    watch, now, instants = Watch(rate, burst, 0.0), 0.0, []
    for gap in gaps:
        now += gap
        instants.append(now)
        watch.came(now)
    worst = max(
        last - first + 1 - rate * (instants[last] - instants[first]) - burst
        for last in range(len(instants))
        for first in range(last + 1)
    )
    assert abs(max(0.0, worst) - watch.worst) < 0.01 + 1e-3


def test_the_day_is_as_large_as_asked_for_and_its_rates_with_it() -> None:
    whole, small = load(), load(MAILS, SOURCES_SHARE)
    assert len(whole.all_sources()) == 40
    assert len(small.all_sources()) == 10
    assert small.rate_share == pytest.approx(MAILS / whole.mails * 40 / 10)
    assert small.new_sources() < set(small.all_sources())


def test_a_fair_share_is_never_more_than_asked_for() -> None:
    assert max_min({"a": 10, "b": 100, "c": 1000}, 210.0) == {"a": 10, "b": 100, "c": 100.0}
