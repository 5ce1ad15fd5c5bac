"""The audit: an independent count of who has no end yet, and of the bodies that are still needed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mailfleet_core.model import ids, wire
from mailfleet_core.model.tags import DONE, PUT, RETRY, tag
from mailfleet_router.decisions.audit import Audit

EXPIRES = 1000.0


def message(number: int) -> bytes:
    return ids.message_id(number, bytes(10))


def unit(number: int, recipients: tuple[int, ...] = (0,), offset: int = 7) -> wire.Unit:
    envelope = wire.Envelope(
        message(number), "a@a.example", "t", "bulk", "default", wire.BodyRef(0, (offset,), 3), 0.0, EXPIRES
    )
    listed = tuple(wire.Recipient(index, f"{index}@b.example") for index in recipients)
    return wire.Unit(ids.unit_id(message(number), recipients[0]), "b.example", envelope, listed)


def told(kind: str, number: int, *recipients: int) -> bytes:
    listed = tuple((index, f"{index}@b.example") for index in recipients)
    return wire.tell([wire.Event(ids.unit_id(message(number), 0), kind, 0.0, listed)])


def live(recent: int = 100) -> Audit:
    audit = Audit(recent)
    audit.begin()
    return audit


def put(audit: Audit, of: wire.Unit, partition: int = 0) -> None:
    audit.queue(partition, [(1, of.unit_id, tag(PUT), wire.encode(wire.Entry(of)))])


def test_a_recipient_is_open_until_a_terminal_event_and_overdue_after_its_expiry() -> None:
    audit = live()
    put(audit, unit(1, (0, 1)))
    audit.events(told(wire.DELIVERED, 1, 0))
    assert (audit.open, audit.overdue(EXPIRES, 10)) == (1, 0)
    assert audit.overdue(EXPIRES + 11, 10) == 1
    audit.events(told("expired", 1, 1))
    assert (audit.open, audit.overdue(EXPIRES + 11, 10)) == (0, 0)


def test_a_deferral_ends_nothing() -> None:
    audit = live()
    put(audit, unit(1))
    audit.events(told(wire.DEFERRED, 1, 0))
    assert audit.open == 1


def test_everything_may_be_told_twice_and_the_end_before_the_beginning() -> None:
    audit = live()
    audit.events(told(wire.DELIVERED, 1, 0))
    put(audit, unit(1))
    put(audit, unit(1))
    audit.events(told(wire.DELIVERED, 1, 0))
    assert audit.open == 0
    assert audit.bodies_free_before({0: 100}) == {0: 100}


def test_a_unit_that_moved_is_open_although_it_is_done_where_it_was() -> None:
    audit = Audit()
    put(audit, unit(1), partition=2)
    put(audit, unit(1), partition=0)
    audit.queue(0, [(2, unit(1).unit_id, tag(DONE, 5), None)])
    audit.begin()
    assert audit.open == 1
    assert audit.bodies_free_before({0: 100}) == {0: 7}


def test_what_waits_for_a_retry_when_the_audit_begins_is_open() -> None:
    audit = Audit()
    waiting = unit(1, offset=5)
    audit.queue(0, [(1, waiting.unit_id, tag(RETRY, 3), wire.encode(wire.Entry(waiting, 2, 50.0)))])
    audit.begin()
    assert audit.open == 1
    assert audit.bodies_free_before({0: 100}) == {0: 5}


def test_of_what_has_ended_only_the_newest_is_remembered() -> None:
    audit = live(recent=100)
    for number in range(1000):
        put(audit, unit(number))
        audit.events(told(wire.DELIVERED, number, 0))
    assert audit.open == 0
    assert not audit._messages
    assert not audit._minutes
    assert 100 <= len(audit._ended) + len(audit._ended_before) <= 202


def test_a_record_of_a_message_that_is_read_after_all_its_ends_opens_nobody_again() -> None:
    audit = live()
    put(audit, unit(1, (0, 1)))
    for index in (0, 1):
        audit.events(told(wire.DELIVERED, 1, index))
    put(audit, unit(1, (0,)), partition=3)
    assert audit.open == 0
    assert audit.bodies_free_before({0: 100}) == {0: 100}


def test_a_repetition_opens_nobody_again_who_ended_while_others_of_the_message_wait() -> None:
    audit = live()
    put(audit, unit(1, (0, 1)))
    audit.events(told(wire.DELIVERED, 1, 0))
    put(audit, unit(1, (0, 1)))
    assert audit.open == 1


def test_overdue_recipients_are_named() -> None:
    audit = live()
    put(audit, unit(1, (0, 3)))
    assert audit.examples(EXPIRES + 9, 10) == []
    assert audit.examples(EXPIRES + 10, 10) == [f"{ids.text(message(1))}/3"]


def test_events_that_an_older_version_wrote_count() -> None:
    audit = live()
    put(audit, unit(1, (0, 1)))
    older = {"id": "i", "kind": "bounced", "at": 1.0, "message_id": ids.text(message(1)), "recipients": [(1, "b")]}
    audit.events(wire.encode([older, {**older, "kind": "deferred", "recipients": [(0, "a")]}]))
    assert audit.open == 1


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 3), st.integers(0, 3)), max_size=40))
def test_no_needed_body_is_ever_free(steps: list[tuple[int, int, int]]) -> None:
    """(which message, how many recipients come, how many end): as many end as were open, never more."""
    audit = live()
    came: dict[int, int] = dict.fromkeys(range(6), 0)
    left: dict[int, list[int]] = {number: [] for number in range(6)}
    for number, come, end in steps:
        fresh = tuple(range(came[number], came[number] + come))
        put(audit, unit(number, fresh, 10 * number + 1))
        came[number] += come
        left[number] += fresh
        gone = [left[number].pop(0) for _ in range(min(end, len(left[number])))]
        audit.events(told(wire.DELIVERED, number, *gone))
    newest = dict(audit.newest_bodies)
    free = audit.bodies_free_before(newest).get(0, 0)
    needed = [10 * number + 1 for number, indexes in left.items() if indexes]
    assert all(offset >= free for offset in needed)
    assert needed or free == newest.get(0, 0)
    assert audit.open == sum(len(indexes) for indexes in left.values())
