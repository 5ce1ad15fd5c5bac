"""Mail that waits for a slowed scope: as fast as its limits at each instant allow, by an independent count."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailfleet_router.decisions.shaping.backoff import BackOff, Configured, Hit, hit, is_over, limits_now
from mailfleet_router.decisions.shaping.slowed import AT_ONCE, Slowed, limits_anything, slow_until

NOW = 1_800_000_000.0
POLICY = Configured(1.0)


def hits(*kinds: str) -> BackOff:
    state = BackOff()
    for number, kind in enumerate(kinds):
        at = NOW + 61 * number
        if state.paused_until:
            at = max(at, state.paused_until + 1)
        state, _ = hit(state, Hit(at, at, kind == "pause", "r", "421 busy", 1.0))
    return state


states = st.lists(st.sampled_from(["slow", "pause"]), max_size=3).map(lambda kinds: hits(*kinds))


@settings(deadline=None)
@given(states, st.integers(1, 60), st.floats(0, 4000))
def test_mail_goes_as_fast_as_the_limits_of_each_instant_allow(state: BackOff, count: int, after: float) -> None:
    slowed, now = Slowed(), NOW + after
    waits = [slowed.wait(state, POLICY, now) for _ in range(count)]
    at, sent = now, 0.0
    accepted = state if not state.probing else _probed(state)
    while sent < count and at < slowed.gone_at + 5:
        limits = limits_now(accepted, POLICY, at)
        sent += 0.0 if limits.paused_until else limits.rate_per_second or AT_ONCE
        at += 1.0
    assert slowed.gone_at == pytest.approx(at, abs=3.0) or slowed.gone_at - now < 3
    assert waits == sorted(waits)


def _probed(state: BackOff) -> BackOff:
    return msgspec.structs.replace(state, probing=False, since=max(state.since, state.probe_from))


def test_a_thousand_messages_at_one_a_second_wait_for_the_tenths_to_come_back() -> None:
    slowed = Slowed()
    for _ in range(1000):
        slowed.wait(hits("slow"), POLICY, NOW)
    # 300 in ten minutes at 50 %, 360 at 60 %, 340 at 70 %.
    assert slowed.gone_at - NOW == pytest.approx(1200 + 340 / 0.7)


def test_nothing_goes_in_a_pause() -> None:
    slowed, state = Slowed(), hits("pause")
    slowed.wait(state, POLICY, NOW + 10)
    assert slowed.gone_at == pytest.approx(state.paused_until + 60, abs=0.1)


def test_a_change_keeps_what_waits() -> None:
    slowed, first = Slowed(), hits("slow")
    for _ in range(100):
        slowed.wait(first, POLICY, NOW)
    second = hits("slow", "slow")
    wait = slowed.wait(second, POLICY, NOW + 61)
    assert wait == pytest.approx((100 - 61 * 0.5) / 0.25)


def test_a_hundred_times_slower_limit_never_sends_sooner() -> None:
    fast, slow = Slowed(), Slowed()
    for number in range(50):
        state = hits(*["slow"] * (number // 10))
        assert slow.wait(state, Configured(0.01), NOW + number) >= fast.wait(state, POLICY, NOW + number)


@given(states, st.floats(0, 40_000))
def test_a_scope_that_is_over_limits_nothing(state: BackOff, after: float) -> None:
    if is_over(state, NOW + after):
        assert not limits_anything(state, NOW + after)
    if NOW + after >= slow_until(state):
        assert limits_now(state, POLICY, NOW + after).rate_per_second == POLICY.rate_per_second
        assert not limits_anything(state, NOW + after)
