"""What `mailfleet trace` makes of events."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfleet_cli.story import as_json, from_json, open_units, question, stories, tell
from mailfleet_core.model import ids
from mailfleet_core.model.ids import parse, unit_id
from mailfleet_core.model.wire import EVENT_KINDS, Event
from mailfleet_core.model.wire import tell as tell_all

MAIL = ids.text(ids.message_id(1_700_000_000.0, bytes(10)))
OTHER = ids.text(ids.message_id(1_700_000_001.0, bytes(10)))


def event(kind: str, at: float = 1.0, mail: str = MAIL, to: str = "a@example.org", **more: object) -> Event:
    fields = {"recipients": ((0, to),), **more}
    return Event(unit_id(parse(mail), 0), kind, at, **fields)  # type: ignore[arg-type]


def test_a_message_id_a_unit_id_an_address_and_a_header_are_all_understood() -> None:
    assert question(MAIL.lower()).message_id == MAIL
    assert question(f"{MAIL}-3").message_id == MAIL
    assert question("<x@y.example>").text == "x@y.example"


def test_what_is_no_question_is_refused() -> None:
    with pytest.raises(ValueError, match="not a message id"):
        question("hello")


def test_a_step_told_twice_is_told_once() -> None:
    again = [event("accepted"), event("delivered", 2), event("delivered", 2)]
    assert [e.kind for e in stories(again, question(MAIL))[MAIL]] == ["accepted", "delivered"]


def test_a_story_is_in_the_order_of_time_and_accepted_comes_before_what_follows_in_the_same_instant() -> None:
    mixed = [event("delivered", 3), event("attempted", 1), event("queued", 1), event("accepted", 1)]
    assert [e.kind for e in stories(mixed, question(MAIL))[MAIL]] == ["accepted", "queued", "attempted", "delivered"]


def test_a_recipient_is_found_whatever_its_case_and_others_of_the_mail_are_left_out() -> None:
    asked = question("B@Example.ORG")
    events = [event("delivered", to="a@example.org"), event("bounced", to="b@example.org")]
    assert [e.kind for e in stories(events, asked)[MAIL]] == ["bounced"]


def test_a_mail_is_found_by_its_header() -> None:
    assert question("<X@client.example>").means(event("accepted", header_message_id="<x@client.example>"))


def test_mails_are_told_apart() -> None:
    assert list(stories([event("accepted", mail=OTHER), event("accepted")], question("a@example.org"))) == [MAIL, OTHER]


def test_a_unit_whose_recipients_all_ended_is_not_asked_for_at_the_routers() -> None:
    assert open_units([event("queued"), event("deferred", 2)]) == [f"{MAIL}-0"]
    assert open_units([event("queued"), event("delivered", 2)]) == []


def test_scripts_see_ids_as_text_and_only_what_an_event_says() -> None:
    delivered = event("delivered", 2.0, tenant="acme", attempt=1, code=250, seconds=0.5)
    assert list(as_json(delivered).items()) == [
        ("id", f"{MAIL}-0/1/delivered/0"), ("kind", "delivered"), ("at", 2.0), ("message_id", MAIL),
        ("unit_id", f"{MAIL}-0"), ("recipients", ["a@example.org"]), ("tenant", "acme"), ("attempt", 1), ("code", 250),
        ("seconds", 0.5),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("told", "end"),
    [
        (event("accepted", attempt=3, hop=2), "-0/0/accepted/0"),
        (event("queued", attempt=3, hop=2), "-0/2/queued/0"),
        (event("attempted", attempt=3, hop=2), "-0/3/attempted/0"),
        (event("held", attempt=3, by="window"), "-0/3/held/window"),
        (event("bounced", attempt=3, recipients=((4, "a@b.example"), (7, "c@b.example"))), "-0/3/bounced/4"),
    ],
)
def test_a_step_has_the_id_that_it_always_had(told: Event, end: str) -> None:
    assert told.id == MAIL + end


@given(st.sampled_from(EVENT_KINDS), st.text("abc@.é", min_size=1))
def test_every_record_about_a_recipient_contains_its_needle(kind: str, to: str) -> None:
    asked = question(f"{to}@example.org")
    assert asked.may_be_in(tell_all([event(kind, to=f"{to}@example.org")])) or not asked.text.isascii()


@given(st.sampled_from(EVENT_KINDS))
def test_every_record_about_a_message_may_be_about_it(kind: str) -> None:
    assert question(MAIL).may_be_in(tell_all([event(kind, mail=OTHER), event(kind)]))
    assert not question(MAIL).may_be_in(tell_all([event(kind, mail=OTHER)]))


@given(st.sampled_from(EVENT_KINDS), st.text(), st.text(), st.integers(0, 999))
def test_every_event_can_be_told(kind: str, text: str, phase: str, code: int) -> None:
    assert isinstance(tell(event(kind, text=text, phase=phase, code=code, mx=text, address=text)), str)


def test_an_event_shown_for_scripts_is_read_back() -> None:
    known = event("deferred", 7.5, code=421, text="busy [x]", source="ip-1", site="mx", attempt=2, seconds=0.25)
    assert from_json(as_json(known)) == known


@pytest.mark.parametrize("wrong", [{"unit_id": "x"}, {"at": "soon"}, {"recipients": [3]}])
def test_what_is_no_event_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises((ValueError, TypeError)):
        from_json(as_json(event("queued")) | wrong)
