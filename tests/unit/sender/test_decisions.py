"""Throttle, settle, order of hosts, lanes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfleet_core.model import wire
from mailfleet_core.model.reply import Answer, Reply
from mailfleet_sender.decisions.hosts import addresses_in_order, hosts_in_order
from mailfleet_sender.decisions.lane import LEFT, TAKEN, Epochs, Found, Memory, Position, inherit, left
from mailfleet_sender.decisions.settle import outcome, settle
from mailfleet_sender.decisions.throttle import NO_LIMIT, Rate, changed, empty, left_at, rate_of, take, wait

rates = st.builds(Rate, st.floats(min_value=0.01, max_value=5000), st.floats(min_value=1, max_value=50))
gaps = st.lists(st.floats(min_value=0, max_value=2), min_size=1, max_size=60)
turns = st.lists(st.tuples(st.floats(0, 2), st.integers(1, 4), st.floats(0, 0.5)), min_size=1, max_size=40)
"""Turns of a loop: the pause before each, how many are tried in it, and how long it lasts until they are written."""


@given(rates, turns)
def test_any_window_admits_at_most_the_burst_and_the_rate_times_its_length(
    rate: Rate, work: list[tuple[float, int, float]]
) -> None:
    now, paid_at = 1000.0, empty(rate, 1000.0)
    left: list[float] = []
    for pause, tries, lasting in work:
        now += pause
        count = 0
        for _ in range(tries):
            paid_at, refused = take(paid_at, rate, now)
            count += not refused
        now += lasting
        left += [now] * count
        paid_at = left_at(paid_at, rate, count, now)
    for first in range(len(left)):
        for last in range(first, len(left)):
            window = left[last] - left[first]
            assert last - first + 1 <= rate.burst + rate.per_second * window + 0.001 * (last - first + 1)


@given(rates, gaps)
def test_waiting_the_returned_time_succeeds_and_a_denied_call_changes_nothing(rate: Rate, waits: list[float]) -> None:
    now, paid_at = 1000.0, 1000.0
    for each in waits:
        now += each
        after, refused = take(paid_at, rate, now)
        assert refused == wait(paid_at, rate, now)
        if refused:
            assert after == paid_at
            assert take(paid_at, rate, now + refused)[1] == 0.0
        paid_at = after


@given(rates, rates, st.integers(0, 60), st.floats(0, 2))
def test_a_changed_rate_refills_nothing(old: Rate, new: Rate, count: int, pause: float) -> None:
    now = 1000.0
    paid_at = 1000.0
    for _ in range(count):
        paid_at, _ = take(paid_at, old, now)
    owed = (paid_at - now) * old.per_second
    after = changed(paid_at, old, new, now)
    assert (after - now) * new.per_second == pytest.approx(owed, abs=1e-6)
    again = changed(after, new, old, now)
    assert again == pytest.approx(paid_at, abs=1e-6)


@given(rates, st.floats(0, 10))
def test_who_does_not_know_what_was_sent_starts_with_an_empty_bucket(rate: Rate, pause: float) -> None:
    paid_at = changed(500.0, NO_LIMIT, rate, 1000.0)
    assert paid_at == empty(rate, 1000.0)
    taken, refused = 0, 0.0
    while not refused:
        paid_at, refused = take(paid_at, rate, 1000.0 + pause)
        taken += not refused
    assert taken <= rate.per_second * pause + 1e-3


def test_a_clock_that_goes_back_gives_nothing_away() -> None:
    rate = Rate(1.0)
    paid_at, _ = take(100.0, rate, 100.0)
    _, seconds = take(paid_at, rate, 50.0)
    assert seconds >= 51.0 - 1e-6


def test_no_rate_is_no_limit_and_sharers_share() -> None:
    unlimited = rate_of(0.0, 3)
    assert take(empty(unlimited, 0.0), unlimited, 0.0)[1] == 0.0
    assert rate_of(100.0, 4) == Rate(25.0, 2.5)


answers = st.builds(
    Answer,
    st.builds(
        Reply, st.integers(0, 700), st.sampled_from(["", "2.1.5", "4.0.0", "5.1.1", "x"]), st.text(max_size=2000)
    ),
    st.sampled_from(["dns", "connect", "greeting", "ehlo", "starttls", "auth", "mail", "rcpt", "data", "dot"]),
)


@given(st.lists(st.none() | answers, max_size=8))
def test_settle_gives_one_outcome_per_recipient_whose_class_is_its_verdict(given_: list[Answer | None]) -> None:
    recipients = [wire.Recipient(index * 3, "a@x") for index in range(len(given_))]
    outcomes = settle(recipients, given_)
    assert [each.index for each in outcomes] == [each.index for each in recipients]
    assert outcomes == settle(recipients, given_)
    for each, answer in zip(outcomes, given_, strict=True):
        assert each.enhanced[0] == {"delivered": "2", "deferred": "4", "bounced": "5"}[each.verdict]
        assert len(each.text) <= 1000
        if each.verdict == "delivered":
            assert answer is not None
            assert answer.phase == "dot"
            assert 200 <= answer.reply.code < 300


def test_a_refusal_of_the_connection_is_never_a_bounce_of_the_mail() -> None:
    for phase in ("greeting", "ehlo", "starttls", "auth"):
        assert outcome(0, Answer(Reply(554, "5.7.1", "no"), phase)).verdict == "deferred"


def test_hosts_go_by_preference_and_equal_ones_by_chance() -> None:
    hosts = [(20, "c"), (10, "a"), (10, "b")]
    assert hosts_in_order(hosts, iter([0.1, 0.9, 0.2]).__next__) == ["b", "a", "c"]
    assert hosts_in_order(hosts, iter([0.1, 0.2, 0.9]).__next__) == ["a", "b", "c"]


def test_addresses_follow_the_family_and_those_that_failed_come_last() -> None:
    mixed = ["192.0.2.1", "2001:db8::1", "192.0.2.2"]
    assert addresses_in_order(mixed, "ipv6_first", lambda a: False)[0] == "2001:db8::1"
    assert addresses_in_order(mixed, "ipv4_first", lambda a: a == "192.0.2.1") == [
        "192.0.2.2",
        "2001:db8::1",
        "192.0.2.1",
    ]
    assert addresses_in_order(mixed, "ipv4_only", lambda a: False) == ["192.0.2.1", "192.0.2.2"]
    assert addresses_in_order(mixed, "ipv6_only", lambda a: False) == ["2001:db8::1"]


@given(st.lists(st.integers(0, 30), max_size=40), st.randoms(use_true_random=False))
def test_a_position_never_passes_a_dispatch_without_a_durable_result(order: list[int], chance: object) -> None:
    position = Position(0)
    unanswered: set[int] = set()
    for step, number in enumerate(order):
        offset = step * 2 + 1
        position.met(offset)
        unanswered.add(offset)
        if number % 2:
            done = sorted(unanswered)[number % len(unanswered)]
            position.answered(done)
            position.answered(done)
            unanswered.discard(done)
        assert position.value == min(unanswered, default=offset + 1)
        assert position.settled == (not unanswered)


def test_the_last_answers_are_remembered_and_older_ones_forgotten() -> None:
    memory = Memory(size=3)
    for number in range(5):
        memory.remember((b"u", number), b"%d" % number)
    assert [memory.recall((b"u", number)) for number in range(5)] == [None, None, b"2", b"3", b"4"]


def test_an_older_epoch_of_the_same_partition_is_stale() -> None:
    epochs = Epochs()
    epochs.heard(1, 5)
    assert [epochs.stale(1, 4), epochs.stale(1, 5), epochs.stale(1, 9), epochs.stale(1, 5), epochs.stale(2, 1)] == [
        True, False, False, True, False,
    ]  # fmt: skip


def offsets(found: list[Found]) -> list[int]:
    return [record.offset for record in found]


def test_what_an_owner_did_not_answer_for_is_lost_unless_it_left_as_planned() -> None:
    one, two, three = Found(5, b"", b""), Found(7, b"", b""), Found(9, b"", b"")
    assert offsets(inherit(0, [one, two]).untouched) == [5, 7]
    assert offsets(inherit(3, [one, two]).lost) == [5, 7]
    assert offsets(inherit(0, [Found(1, TAKEN, b""), one]).lost) == [5]
    parted = inherit(3, [one, two, Found(8, LEFT, left(2, 6)), three])
    assert (offsets(parted.lost), offsets(parted.untouched)) == ([5], [7, 9])
    again = inherit(3, [one, Found(6, LEFT, left(2, 6)), Found(7, TAKEN, b""), three])
    assert offsets(again.lost) == [5, 9]
    late = inherit(3, [one, Found(6, TAKEN, b""), two, Found(8, LEFT, left(2, 6)), three])
    assert offsets(late.lost) == [5, 7, 9]
