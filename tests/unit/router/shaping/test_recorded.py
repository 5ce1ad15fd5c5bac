"""Recorded events become attempts: as the router writes them, in order, each once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mailfleet_core.model.wire import (
    BOUNCED,
    DEFERRED,
    DELIVERED,
    SETTLED,
    BodyRef,
    Entry,
    Envelope,
    Event,
    Recipient,
    RecipientOutcome,
    Result,
    Unit,
)
from mailfleet_router.decisions import story
from mailfleet_router.decisions.policy import Ladder
from mailfleet_router.decisions.settle import settle
from mailfleet_router.decisions.shaping.recorded import Begun, Held, Queued, Recorded, attempts, steps
from mailfleet_router.decisions.shaping.values import Facts

NOW = 1_800_000_000.0
LADDER = Ladder((300.0,), 0.0, 432_000.0)
ENVELOPE = Envelope(b"m" * 16, "a@x.example", "shop", "bulk", "default", BodyRef(0, (1,), 9), NOW, NOW + 9000)
RECIPIENTS = (Recipient(0, "one@A.example"), Recipient(1, "two@b.example"), Recipient(2, "three@b.example"))
ENTRY = Entry(Unit(b"u" * 16, "yahoo", ENVELOPE, RECIPIENTS), 1, source="ip-1", attempted_at=NOW + 1)
ANSWERS = (
    RecipientOutcome(0, DELIVERED, 250, "2.0.0", "ok", "dot"),
    RecipientOutcome(1, DEFERRED, 421, "4.7.0", "[TSS04] later", "mail"),
    RecipientOutcome(2, BOUNCED, 550, "5.1.1", "no such user", "rcpt"),
)
RESULT = Result(b"u" * 16, 0, 1, SETTLED, "ip-1", NOW + 2, NOW + 5, ANSWERS, "mta5.yahoodns.net")


def written(entry: Entry = ENTRY, result: Result = RESULT) -> list[Event]:
    """What the router tells of an attempt."""
    endings = settle(entry, result, LADDER).endings
    return [story.ended(entry, ending, result, result.ended_at, 0.0) for ending in endings]


def test_an_attempt_is_read_as_the_router_wrote_it() -> None:
    events = [story.accepted(ENTRY), story.queued(Entry(ENTRY.unit), NOW), story.attempted(ENTRY), *written()]
    queued, begun, attempt = steps(events)
    assert queued == Queued(b"u" * 16, Facts("shop", "bulk", site="yahoo", domain="a.example"), NOW)
    assert begun == Begun(b"u" * 16, Facts("shop", "bulk", source="ip-1", site="yahoo", domain="a.example"), NOW + 1)
    assert isinstance(attempt, Recorded)
    assert (attempt.unit, attempt.attempt, attempt.mx) == (b"u" * 16, 1, "mta5.yahoodns.net")
    assert attempt.facts == Facts("shop", "bulk", "", "ip-1", "yahoo", "", attempt.facts.domain)
    assert (attempt.started_at, attempt.ended_at) == (NOW + 2, NOW + 5)
    said = {(answer.outcome, answer.recipients, answer.domain) for answer in attempt.answers}
    assert said == {(ANSWERS[0], 1, "a.example"), (ANSWERS[1], 1, "b.example"), (ANSWERS[2], 1, "b.example")}


def test_a_unit_that_is_moved_to_the_site_of_its_domain_arrives_there_and_once() -> None:
    first, moved = (
        Entry(Unit(b"u" * 16, site, ENVELOPE, RECIPIENTS, hop)) for hop, site in enumerate(("a.example", "yahoo"))
    )
    told = [story.queued(first, NOW), story.queued(moved, NOW + 0.5), story.attempted(ENTRY)]
    assert [(type(step), step.facts.site) for step in steps(told)] == [(Queued, "yahoo"), (Begun, "yahoo")]  # type: ignore[union-attr]


def test_a_unit_that_a_new_owner_tells_of_again_has_arrived_already() -> None:
    told = [story.queued(Entry(ENTRY.unit), NOW + seconds) for seconds in (0, 500, 1000)]
    assert [step.at for step in steps(told) if isinstance(step, Queued)] == [NOW]


def test_recipients_of_one_answer_are_counted_by_domain() -> None:
    same = [RecipientOutcome(index, DEFERRED, 450, "4.2.0", "later", "rcpt") for index in range(3)]
    result = Result(b"u" * 16, 0, 1, SETTLED, "ip-1", NOW + 2, NOW + 5, tuple(same))
    [attempt] = attempts(written(result=result))
    assert [(answer.domain, answer.recipients) for answer in attempt.answers] == [("a.example", 1), ("b.example", 2)]


def test_what_expired_with_an_attempt_has_the_sites_own_words_again() -> None:
    late = Result(b"u" * 16, 0, 1, SETTLED, "ip-1", NOW + 8998, NOW + 8999, ANSWERS[1:2])
    events = [event for event in written(result=late) if event.kind == "expired" and event.code]
    assert "not delivered before it expired" in events[0].text
    [attempt] = attempts(events)
    assert [answer.outcome.text for answer in attempt.answers] == ["[TSS04] later"]
    assert [answer.outcome.verdict for answer in attempt.answers] == [DEFERRED]


def test_what_ended_without_a_source_is_no_attempt() -> None:
    assert not list(attempts([Event(b"u", "expired", NOW, ((0, "a@b.c"),)), Event(b"u", "deferred", NOW)]))


def test_arrivals_are_units_that_were_not_tried_yet() -> None:
    fresh, again = Entry(ENTRY.unit), Entry(ENTRY.unit, 2)
    [step] = steps([story.queued(fresh, NOW), story.queued(again, NOW + 1)])
    assert isinstance(step, Queued)
    assert (step.unit, step.at) == (b"u" * 16, NOW)


def test_what_was_held_is_told_with_its_reason() -> None:
    [step] = steps([story.held(ENTRY, NOW, "site yahoo is suspended", NOW + 60, "me")])
    assert step == Held(Facts("shop", "bulk", site="yahoo", domain="a.example"), "site yahoo is suspended", NOW)


kinds = st.sampled_from(["queued", "attempted", "held", "delivered", "deferred", "bounced", "expired", "accepted"])
told = st.builds(
    Event,
    unit=st.sampled_from([b"u1", b"u2", b"u3"]),
    kind=kinds,
    at=st.integers(0, 20).map(lambda second: NOW + second),
    attempt=st.integers(0, 2),
    source=st.sampled_from(["", "ip-1"]),
    text=st.sampled_from(["", "busy", "blocked"]),
)


@given(st.lists(told, max_size=25), st.data())
def test_neither_order_within_the_lateness_nor_telling_twice_matters(events: list[Event], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(events))
    again = [event for event in shuffled for _ in range(data.draw(st.integers(1, 2)))]
    assert list(steps(again)) == list(steps(events))


@given(st.lists(told, max_size=25))
def test_steps_come_in_order_of_time(events: list[Event]) -> None:
    at = [step.ended_at if isinstance(step, Recorded) else step.at for step in steps(events)]
    assert at == sorted(at)
