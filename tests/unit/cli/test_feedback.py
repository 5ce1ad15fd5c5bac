"""Reports of complaints: what they say, and which mail and recipient they are about."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfleet_cli import arf
from mailfleet_cli.arf import NotAReport, Report
from mailfleet_cli.complaining import Mails, Unfound, complaints
from mailfleet_cli.story import tell
from mailfleet_core.model import complaint, ids, wire
from mailfleet_core.model.shards import Numbered, shard_of
from mailfleet_core.model.site import partition_of
from mailfleet_core.model.wire import Event, ShardMap

REPORTS = Path(__file__).parent / "reports"
MESSAGE = ids.parse("01ARZ3NDEKTSV4RRFFQ69G5FAV")
UNIT = ids.unit_id(MESSAGE, 0)
AT = datetime(2026, 11, 22, 7, 0, 40, tzinfo=UTC).timestamp()
NOW = AT + 86_400


def report(name: str) -> Report:
    return arf.parse((REPORTS / f"{name}.eml").read_bytes())


def story(*addresses: str, header: str = "<8787KJKJ3K4J3K4J3K4J3.mail@sender.example>") -> list[Event]:
    """A mail that was delivered to all of these."""
    told = tuple(enumerate(addresses))
    accepted = Event(UNIT, "accepted", AT - 5, told, tenant="shop", stream="bulk", header_message_id=header)
    delivered = Event(
        UNIT, wire.DELIVERED, AT, told, 1, tenant="shop", stream="bulk", site="mailbox", source="ip-1", code=250,
        mx="mx.mailbox.example",
    )  # fmt: skip
    return [accepted, delivered]


# --- what a report says -----------------------------------------------------------------------------------------------
def test_a_report_after_the_example_of_the_rfc_is_read() -> None:
    assert report("abuse") == Report(
        "abuse",
        ("01ARZ3NDEKTSV4RRFFQ69G5FAV",),
        "8787KJKJ3K4J3K4J3K4J3.mail@sender.example",
        ("user@mailbox.example",),
        datetime(2026, 11, 22, 9, 17, 41, tzinfo=UTC).timestamp(),
        "mailbox.example",
    )
    assert report("abuse").complains


def test_a_report_with_headers_only_in_base64_and_a_folded_message_id_is_read() -> None:
    said = report("redacted-headers")
    assert (said.kind, said.header_message_id) == ("fraud", "folded-2@sender.example")
    assert said.recipients == ("b2s=YmFzZTY0@isp.example",)
    assert said.reported_at == datetime(2026, 11, 22, 10, 0, tzinfo=UTC).timestamp()


def test_a_report_whose_fields_are_coded_and_name_two_recipients_is_read() -> None:
    said = report("coded-report")
    assert said.recipients == ("a@other.example", "b@other.example")
    assert said.reported_at == 0.0


def test_who_says_that_it_was_no_spam_does_not_complain() -> None:
    assert not report("not-spam").complains


@pytest.mark.parametrize("data", [b"", b"no mail", (REPORTS / "no-report.eml").read_bytes()])
def test_other_mail_is_no_report(data: bytes) -> None:
    with pytest.raises(NotAReport):
        arf.parse(data)


@given(st.data())
def test_whatever_is_fed_it_is_a_report_or_it_is_said_that_it_is_none(data: st.DataObject) -> None:
    whole = (REPORTS / f"{data.draw(st.sampled_from(('abuse', 'coded-report', 'redacted-headers')))}.eml").read_bytes()
    begin = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(begin, min(len(whole), begin + 200)))
    broken = whole[:begin] + data.draw(st.binary(max_size=40)) + whole[end:]
    try:
        said = arf.parse(broken)
    except NotAReport:
        return
    assert said.kind
    assert said.kind.isprintable()


# --- which mail -------------------------------------------------------------------------------------------------------
def test_the_mail_of_a_report_is_found_by_our_id_or_by_its_message_id_in_any_order_of_events() -> None:
    for said in (
        report("abuse"),
        Report("abuse", header_message_id="8787kjkj3k4j3k4j3k4j3.MAIL@sender.example"),
        Report("abuse", ("01ARZ3NDEKTSV4RRFFQ69G5FAV",)),
    ):
        mails = Mails([said])
        for _ in range(2):
            for event in reversed(story("user@mailbox.example")):
                data = wire.tell([event]).lower()
                if any(mark in data for mark in mails.marks()):
                    mails.take(event)
        assert {event.kind for event in mails.of(said)} == {"accepted", "delivered"}


def test_events_of_other_mails_are_not_taken() -> None:
    mails = Mails([report("abuse")])
    mails.take(Event(ids.unit_id(bytes(16), 0), wire.DELIVERED, AT, ((0, "user@mailbox.example"),)))
    mails.take(Event(b"", "shaping", AT))
    assert mails.of(report("abuse")) == []


def test_a_complaint_says_what_the_delivery_was() -> None:
    (found,) = complaints(report("abuse"), story("user@mailbox.example"), NOW)
    assert found.key == b"complaint|01ARZ3NDEKTSV4RRFFQ69G5FAV/0"
    assert complaint.decode(complaint.encode(found.complaint)) == found.complaint
    said = found.complaint
    assert (said.tenant, said.stream, said.source, said.site) == ("shop", "bulk", "ip-1", "mailbox")
    assert (said.delivered_at, said.kind, said.domain, said.by) == (AT, "abuse", "mailbox.example", "mailbox.example")
    assert AT < said.at < NOW
    assert found.event.recipients == ((0, "user@mailbox.example"),)
    assert tell(found.event).startswith("user@mailbox.example, abuse, reported by mailbox.example, source ip-1")
    assert not found.known


@pytest.mark.parametrize("reported_at", [0.0, 1.0, NOW + 1e9])
def test_a_complaint_is_made_between_the_delivery_and_now_whatever_a_report_says(reported_at: float) -> None:
    said = Report("abuse", ("01ARZ3NDEKTSV4RRFFQ69G5FAV",), reported_at=reported_at)
    (found,) = complaints(said, story("user@mailbox.example"), NOW)
    assert AT <= found.complaint.at <= NOW


def test_a_complaint_that_was_told_is_known() -> None:
    events = story("user@mailbox.example")
    (first,) = complaints(report("abuse"), events, NOW)
    (again,) = complaints(report("abuse"), [*events, first.event], NOW + 60)
    assert again.known
    assert again.key == first.key


def test_of_several_recipients_the_one_that_is_named_complains() -> None:
    events = story("first@mailbox.example", "User@Mailbox.example", "third@other.example")
    assert [found.key[-2:] for found in complaints(report("abuse"), events, NOW)] == [b"/1"]


def test_a_recipient_that_was_made_unreadable_is_known_by_its_domain_when_there_is_only_one() -> None:
    said = report("redacted-headers")
    assert [found.key[-2:] for found in complaints(said, story("a@other.example", "u@isp.example"), NOW)] == [b"/1"]
    with pytest.raises(Unfound, match="not delivered to"):
        complaints(said, story("v@isp.example", "u@isp.example"), NOW)


def test_each_recipient_that_is_named_complains_once() -> None:
    found = complaints(report("coded-report"), story("b@other.example", "a@other.example"), NOW)
    assert sorted(each.key[-2:] for each in found) == [b"/0", b"/1"]


def test_nobody_is_guessed() -> None:
    nobody = Report("abuse", ("01ARZ3NDEKTSV4RRFFQ69G5FAV",))
    with pytest.raises(Unfound, match="2 recipients"):
        complaints(nobody, story("a@x.example", "b@x.example"), NOW)
    with pytest.raises(Unfound, match="no mail is known"):
        complaints(nobody, [], NOW)
    with pytest.raises(Unfound, match="delivered to nobody"):
        complaints(nobody, story("a@x.example")[:1], NOW)


# --- where it is written ----------------------------------------------------------------------------------------------
def test_a_complaint_goes_to_the_owner_that_judges_its_source_also_at_a_hot_site() -> None:
    (found,) = complaints(report("abuse"), story("user@mailbox.example"), NOW)
    assert complaint.partition(found.complaint, {}, 24) == partition_of("mailbox", 24)
    shards = {"mailbox": Numbered(7, ShardMap((("ip-2",), ("ip-1",)), ()))}
    assert shard_of("mailbox#1/2.7") is not None
    assert complaint.partition(found.complaint, shards, 24) == partition_of("mailbox#1/2.7", 24)
