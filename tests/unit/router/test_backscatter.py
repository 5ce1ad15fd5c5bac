"""Reports must not become a nuisance to whose address was forged: never a report of a report, never much of anything."""

from __future__ import annotations

import email.errors
import email.message
import email.policy
from typing import Any

import pytest

from mailfleet_core.bus import topics
from mailfleet_core.model import ids, wire
from mailfleet_core.model.wire import BodyRef, Entry, Envelope, Recipient, RecipientOutcome, Unit
from mailfleet_router.decisions import dsn
from mailfleet_router.decisions.settle import Ending
from support.fleet import delivered

MESSAGE = bytes(range(16))
LONG_HEADER = b"Subject: x\r\n" + b"X-Filler: %s\r\n" % (b"y" * 70) * 1100
"""Nearly the 100 kB of header section that ingest takes."""


async def reports_of_reports(fleet: Any, return_path: str) -> int:
    """How many reports are made of one that comes back from `return_path` and cannot be delivered either."""
    fleet.answer = lambda work: delivered(work, wire.BOUNCED, 550, "no such user")
    unit = await fleet.put(reverse_path=return_path)
    await fleet.until(lambda: fleet.tags(unit)[-1:] == ["D"])
    units = [record for p in range(4) for record in fleet.memory.records(topics.QUEUE, p) if record.tag[:1] == b"P"]
    return len({record.key for record in units}) - 1


async def test_a_report_is_never_reported(fleet: Any) -> None:
    assert await reports_of_reports(fleet, "") == 0


async def test_a_report_with_a_return_path_would_be_reported(fleet: Any) -> None:
    assert await reports_of_reports(fleet, "mailer-daemon@ours.example") >= 1


async def test_a_report_itself_goes_out_with_the_null_reverse_path_and_wants_no_report(fleet: Any) -> None:
    fleet.answer = lambda work: delivered(work, wire.BOUNCED, 550, "no such user")
    unit = await fleet.put(reverse_path="forged@victim.example")
    await fleet.until(lambda: fleet.tags(unit)[-1:] == ["D"] and len(fleet.dispatches) == 2)
    report = fleet.dispatches[1].unit
    await fleet.until(lambda: fleet.tags(report.unit_id)[-1:] == ["D"])
    assert (report.envelope.reverse_path, report.recipients[0].notify) == ("", wire.NOTIFY_NEVER)
    assert len(fleet.dispatches) == 2


def report(original: bytes, text: str = "no such user", **limit: int) -> bytes:
    body = BodyRef(0, (8,), len(original))
    envelope = Envelope(MESSAGE, "s@a.example", "t", "s", "p", body, 1.7e9, 1.8e9)
    recipient = Recipient(0, "r@b.example")
    entry = Entry(Unit(ids.unit_id(MESSAGE, 0), "site", envelope, (recipient,)), attempts=1, attempted_at=1.7e9)
    ending = Ending(wire.BOUNCED, RecipientOutcome(0, wire.BOUNCED, 550, "5.1.1", text, "rcpt"), (recipient,))
    return dsn.build(entry, "1/ended", (ending,), 1.7e9, original, "mx.ours.example", "mx.b.example", **limit).content


ORIGINALS = {"body": b"Subject: x\r\n\r\n" + b"x" * 70_000, "header": LONG_HEADER + b"\r\nbody\r\n"}


@pytest.mark.parametrize("original", ORIGINALS.values(), ids=ORIGINALS)
def test_a_report_returns_at_most_50_kb(original: bytes) -> None:
    made = report(original)
    assert len(made) < 53_000
    assert b"\r\nSubject: x\r\n" in made
    assert all(line in (b"", original[:12].rstrip()) or len(line) == 80 for line in returned(made).split(b"\r\n"))


def returned(made: bytes) -> bytes:
    return made.partition(b"text/rfc822-headers\r\n")[2].partition(b"\r\n\r\n")[2].rpartition(b"\r\n--=_")[0]


@pytest.mark.parametrize("original", ORIGINALS.values(), ids=ORIGINALS)
def test_without_the_limit_a_report_is_as_long_as_the_mail(original: bytes) -> None:
    assert len(report(original, most=10**9)) > len(original)


HOSTILE = "\x1b[2J\x00 bad\r\nAction: delivered\r\n\r\nX: \udcff\u202e"


def test_hostile_words_of_a_site_make_a_legal_report_that_says_failed() -> None:
    made = report(ORIGINALS["body"], HOSTILE)
    parsed = email.message_from_bytes(made, policy=email.policy.default)
    assert not parsed.defects
    about = parsed.get_payload()[1].get_payload()  # type: ignore[index,union-attr]
    assert len(about) == 2
    assert about[1]["Action"] == "failed"
    assert about[1]["Diagnostic-Code"].startswith("smtp; 550 5.1.1 ?[2J? bad")
    assert all(32 <= byte < 127 or byte in b"\r\n" for byte in made)


def test_hostile_words_of_a_site_are_no_report_at_all_or_hidden_in_one_by_the_stock_library() -> None:
    field = email.message.Message()
    field["Diagnostic-Code"] = f"smtp; 550 {HOSTILE}"
    with pytest.raises((email.errors.HeaderParseError, UnicodeEncodeError)):
        field.as_bytes()
    field = email.message.Message()
    field["Diagnostic-Code"] = "smtp; 550 \x1b[2J\x00\xff"
    assert b"smtp;" not in field.as_bytes()
