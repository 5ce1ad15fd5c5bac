"""Delivery reports, read by Python's email package, field by field."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage, Message
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfleet_core.model import wire
from mailfleet_core.model.ids import text, unit_id
from mailfleet_core.model.wire import (
    NOTIFY_DELAY,
    NOTIFY_FAILURE,
    NOTIFY_NEVER,
    NOTIFY_SUCCESS,
    BodyRef,
    Entry,
    Envelope,
    Recipient,
    RecipientOutcome,
    Unit,
)  # fmt: skip
from mailfleet_router.decisions import dsn
from mailfleet_router.decisions.settle import EXPIRED, Ending

AT = 1_800_000_000.0
MESSAGE = bytes(range(16))
ORIGINAL = b"From: s@a.example\r\nSubject: hello\r\nMessage-ID: <1@a.example>\r\n\r\nsecret body\r\n"


def envelope(**fields: Any) -> Envelope:
    given_fields = {
        "message_id": MESSAGE, "reverse_path": "s@a.example", "tenant": "t", "stream": "s", "pool": "p",
        "body": BodyRef(0, (8,), len(ORIGINAL)), "accepted_at": AT - 60, "expires_at": AT + 600, **fields,
    }  # fmt: skip
    return Envelope(**given_fields)


def made(
    kind: str = wire.BOUNCED, outcome: RecipientOutcome | None = None, recipient: Recipient | None = None,
    original: bytes = ORIGINAL, mx: str = "mx.b.example", **fields: Any,
) -> tuple[dsn.Dsn, EmailMessage]:  # fmt: skip
    recipient = recipient or Recipient(0, "r@b.example")
    outcome = outcome or RecipientOutcome(0, wire.BOUNCED, 550, "5.1.1", "no such user", "rcpt")
    entry = Entry(Unit(unit_id(MESSAGE, 0), "site", envelope(**fields), (recipient,)), attempts=1, attempted_at=AT - 1)
    report = dsn.build(entry, "1/ended", (Ending(kind, outcome, (recipient,)),), AT, original, "mx.ours.example", mx)
    parsed = email.message_from_bytes(report.content, policy=email.policy.default)
    assert isinstance(parsed, EmailMessage)
    return report, parsed


def parts(message: EmailMessage) -> tuple[Message, list[Message], Message]:
    """(explanation, groups of fields, what is returned)."""
    assert message.get_content_type() == "multipart/report"
    explanation, status, returned = message.get_payload()  # type: ignore[misc]
    groups = status.get_payload()  # type: ignore[union-attr]
    assert isinstance(groups, list)
    return explanation, groups, returned  # type: ignore[return-value]


def test_a_failure_is_reported_with_everything_that_is_known() -> None:
    recipient = Recipient(0, "r@b.example", NOTIFY_FAILURE, "rfc822;Rick+2B1@B.example")
    report, message = made(recipient=recipient, envid="QQ+2B314159")
    _, (about, one), returned = parts(message)
    assert message["To"] == "s@a.example"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message.get_param("report-type") == "delivery-status"
    assert (about["Original-Envelope-Id"], about["Reporting-MTA"]) == ("QQ+314159", "dns; mx.ours.example")
    assert about["Arrival-Date"]
    assert one["Original-Recipient"] == "rfc822;Rick+1@B.example"
    assert (one["Final-Recipient"], one["Action"], one["Status"]) == ("rfc822;r@b.example", "failed", "5.1.1")
    assert one["Remote-MTA"] == "dns; mx.b.example"
    assert one["Diagnostic-Code"] == "smtp; 550 5.1.1 no such user"
    assert one["Final-Log-ID"] == text(unit_id(MESSAGE, 0))
    assert returned.get_content_type() == "message/rfc822"
    assert b"secret body" in report.content


@pytest.mark.parametrize(
    ("kind", "action", "status"),
    [
        (EXPIRED, "failed", "4.4.7"),
        (dsn.DELAYED, "delayed", "4.4.7"),
        (wire.DELIVERED, "relayed", "2.4.7"),
        (dsn.STORED, "delivered", "2.4.7"),
    ],
)
def test_the_action_and_the_class_of_the_status_follow_from_what_happened(kind: str, action: str, status: str) -> None:
    _, message = made(kind, RecipientOutcome(0, wire.DEFERRED, 451, "4.4.7", "later", "rcpt"))
    _, (_, one), returned = parts(message)
    assert (one["Action"], one["Status"]) == (action, status)
    assert bool(one["Will-Retry-Until"]) == (action == "delayed")
    whole = action == "failed"
    assert returned.get_content_type() == ("message/rfc822" if whole else "text/rfc822-headers")


@pytest.mark.parametrize("fields", [{"ret": "HDRS"}, {"body": BodyRef(0, (8,), 60_000)}])
def test_the_body_is_not_returned_when_it_is_not_wanted_or_too_long(fields: dict[str, Any]) -> None:
    report, message = made(**fields)
    assert parts(message)[2].get_content_type() == "text/rfc822-headers"
    assert b"secret body" not in report.content
    assert b"Subject: hello" in report.content


def test_addresses_beyond_ascii_make_a_global_report() -> None:
    report, message = made(recipient=Recipient(0, "пользователь@b.example", 0, "utf-8;\\x{43F}@b.example"))
    assert report.smtputf8
    assert report.eight_bit
    assert message.get_param("report-type") == "global-delivery-status"
    content = report.content.decode()
    assert "Final-Recipient: utf-8;пользователь@b.example\r\n" in content
    assert "Original-Recipient: utf-8;п@b.example\r\n" in content
    assert "Content-Type: message/global\r\n" in content


def test_content_with_eight_bits_says_so() -> None:
    report, message = made(original=ORIGINAL + "grüße\r\n".encode())
    assert report.eight_bit
    assert message["Content-Transfer-Encoding"] == "8bit"


@given(st.text(max_size=300), st.text(max_size=60), st.text(max_size=60))
def test_no_reply_of_a_stranger_writes_a_field_of_ours(reply: str, mx: str, enhanced: str) -> None:
    outcome = RecipientOutcome(0, wire.BOUNCED, 550, enhanced, reply + "\r\nAction: delivered\r\n\r\nX: y", "rcpt")
    report, message = made(outcome=outcome, mx=mx)
    _, groups, _ = parts(message)
    assert len(groups) == 2
    assert groups[1]["Action"] == "failed"
    assert groups[1]["Status"][0] == "5"
    assert all(len(line) <= 998 for line in report.content.split(b"\r\n"))
    assert report.content.replace(b"\r\n", b"").count(b"\n") == 0


def test_the_same_report_has_the_same_id_and_another_one_another() -> None:
    assert made()[0].message_id == made()[0].message_id
    entry = Entry(Unit(unit_id(MESSAGE, 0), "site", envelope(), (Recipient(0, "r@b"),)))
    ending = Ending(wire.BOUNCED, RecipientOutcome(0, wire.BOUNCED, 550, "5.0.0", "x", "dot"), (Recipient(0, "r@b"),))
    ids = {dsn.build(entry, purpose, (ending,), AT, b"", "h", "").message_id for purpose in ("1/ended", "delayed")}
    assert len(ids) == 2


@pytest.mark.parametrize(
    ("notify", "told_of"),
    [
        (0, {wire.BOUNCED, EXPIRED, dsn.DELAYED}),
        (NOTIFY_NEVER, set()),
        (NOTIFY_SUCCESS, {wire.DELIVERED}),
        (NOTIFY_FAILURE, {wire.BOUNCED, EXPIRED}),
        (NOTIFY_DELAY, {dsn.DELAYED}),
        (NOTIFY_SUCCESS | NOTIFY_FAILURE, {wire.DELIVERED, wire.BOUNCED, EXPIRED}),
    ],
)
def test_notify_says_what_is_reported(notify: int, told_of: set[str]) -> None:
    outcome = RecipientOutcome(0, "", 250, "2.0.0", "", "dot")
    kinds = (wire.DELIVERED, wire.DEFERRED, wire.BOUNCED, EXPIRED, dsn.DELAYED)
    endings = tuple(Ending(kind, outcome, (Recipient(0, "r@b", notify),)) for kind in kinds)
    assert {ending.kind for ending in dsn.reportable(endings, envelope())} == told_of
    assert dsn.reportable(endings, envelope(reverse_path="")) == ()


def test_success_is_left_to_a_server_that_tells_of_it_itself() -> None:
    outcome = RecipientOutcome(0, "", 250, "2.0.0", "", "dot")
    ending = Ending(wire.DELIVERED, outcome, (Recipient(0, "r@b", NOTIFY_SUCCESS),))
    assert dsn.reportable((ending,), envelope(), passed_on=True) == ()


@given(st.text(max_size=50))
def test_xtext_of_any_kind_is_decoded_without_an_error(value: str) -> None:
    dsn.unxtext(value)
    dsn.un_utf8_xtext(value)
