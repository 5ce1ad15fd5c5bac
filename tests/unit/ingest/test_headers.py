"""The header section: what is judged, what is added."""

from __future__ import annotations

import email.policy
from email.parser import BytesParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfleet_ingest.decisions import headers, reply
from mailfleet_ingest.decisions.headers import Header
from mailfleet_ingest.decisions.policy import Limits

TRACE = headers.trace("client.example", "192.0.2.1", "mx.example", "ESMTPSA")
NOW = 1_795_305_411.5


def added(header, recipient="c@d.example"):
    return headers.additions(header, TRACE, "ID", recipient, NOW)


def test_received_says_from_by_with_id_for_and_when():
    assert added(Header(True, "<x@y>")) == (
        b"Received: from client.example ([192.0.2.1])\r\n\tby mx.example with ESMTPSA id ID\r\n"
        b"\tfor <c@d.example>; Sat, 21 Nov 2026 23:56:51 +0000\r\n"
    )


def test_date_and_message_id_are_added_only_when_missing():
    assert b"\r\nDate: Sat, 21 Nov 2026 23:56:51 +0000\r\nMessage-ID: <ID@mx.example>\r\n" in added(Header(False, ""))
    assert b"Date:" not in added(Header(True, "<x@y>"))


@pytest.mark.parametrize("recipient", ["", "用户@d.example"])
def test_received_names_no_recipient_when_there_are_several_or_it_is_not_ascii(recipient):
    assert b"for <" not in added(Header(True, "<x@y>"), recipient)


@given(st.text(max_size=300), st.sampled_from(["192.0.2.1", "2001:db8::1"]))
def test_no_greeting_can_inject_a_line_into_received(greeted, client):
    trace = headers.trace(greeted, client, "mx.example", "ESMTP")
    message = headers.additions(Header(True, "<x@y>"), trace, "ID", "", NOW) + b"Subject: x\r\n\r\nhello\r\n"
    parsed = BytesParser(policy=email.policy.compat32).parsebytes(message)
    assert parsed.keys() == ["Received", "Subject"]


@pytest.mark.parametrize(
    ("block", "header"),
    [
        (b"Date: x\r\nMessage-ID: <a@b>\r\n\r\nbody\r\n", Header(True, "<a@b>")),
        (b"DATE: x\r\nmessage-id:\r\n <a@b>\r\n\r\nbody\r\n", Header(True, "<a@b>")),
        (b"Subject: x\r\n\r\nDate: in the body\r\n", Header(False, "")),
        (b"\r\nDate: in the body\r\n", Header(False, "")),
        (b"just text\r\n", Header(False, "", has_fields=False)),
        (b"", Header(False, "", has_fields=False)),
        (b"Date: x\r\n", Header(True, "")),
    ],
)
def test_what_a_header_section_says(block, header):
    assert headers.scan(block, Limits()) == header


@pytest.mark.parametrize(
    ("field", "campaign"),
    [
        (b"X-Campaign: spring\r\n", "spring"),
        (b"x-CAMPAIGN:\r\n  spring\r\n\tsale \r\n", "spring sale"),
        (b"X-Campaign: " + b"a" * 200 + b"\r\n", "a" * headers.MAX_CAMPAIGN_OCTETS),
        (b"X-Campaign: a\x1b[31mb\r\n", "a\\x1b[31mb"),
        (b"X-Campaign: fr\xc3\xbchling\r\n", "frühling"),
        (b"X-Campaigns: x\r\nSubject: X-Campaign: no\r\n", ""),
        (b"X-Campaign:\r\n", ""),
    ],
)
@pytest.mark.parametrize("before", [b"", b"Date: x\r\n"])
def test_the_campaign_is_read_from_its_field(before, field, campaign):
    header = headers.scan(before + field + b"\r\nX-Campaign: body\r\n", Limits(), headers.campaign_mark("X-Campaign"))
    assert isinstance(header, Header)
    assert header.campaign == campaign


def test_no_field_names_the_campaign_when_the_settings_name_none():
    header = headers.scan(b"X-Campaign: spring\r\n\r\n", Limits(), headers.campaign_mark(""))
    assert isinstance(header, Header)
    assert not header.campaign


@pytest.mark.parametrize("name", ["X Campaign", "X-Campaign:", "é", "x" * 71])
def test_what_is_no_field_name_is_refused(name):
    with pytest.raises(ValueError, match="not the name of a header field"):
        headers.campaign_mark(name)


def test_text_without_a_header_section_gets_an_empty_line_before_it():
    assert added(Header(False, "", has_fields=False)).endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("block", "answer"),
    [
        (b"Received: x\r\n" * 51 + b"\r\n", reply.LOOP),
        (b"X: y\r\n" * 1001 + b"\r\n", reply.HEADER_TOO_BIG),
        (b"X: y\r\n" + b" z" * 60_000 + b"\r\n\r\n", reply.HEADER_TOO_BIG),
    ],
)
def test_limits_of_a_header_section(block, answer):
    assert headers.scan(block, Limits()) == answer


def test_a_folded_field_is_one_field():
    assert isinstance(headers.scan(b"X: y\r\n" + b"\tz\r\n" * 2000 + b"\r\n", Limits()), Header)


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        ((False, False, False, False), "SMTP"),
        ((True, False, False, False), "ESMTP"),
        ((True, True, False, False), "ESMTPS"),
        ((True, True, True, False), "ESMTPSA"),
        ((True, True, True, True), "UTF8SMTPSA"),
    ],
)
def test_the_protocol_is_named_as_rfc_3848_does(facts, word):
    assert headers.protocol(*facts) == word
