"""Reports to the sender (RFC 3461 to 3464): delivered like any mail, and read the same by three parsers."""

from __future__ import annotations

import json
import time
from email.message import Message
from typing import cast

import pytest

from support import needs, processes
from support.clients import node_environment
from support.mailboxes import Stored
from support.town import until

from .conftest import World
from .test_end_to_end import hand_in, message, token

pytestmark = [pytest.mark.real, pytest.mark.slow]

PERL = """
use Mail::DeliveryStatus::BounceParser; local $/;
my $bounce = Mail::DeliveryStatus::BounceParser->new(<STDIN>);
my @said = map { $_->get("email") . " " . $_->get("std_reason") } $bounce->reports;
print join("\\n", $bounce->is_bounce ? "bounce" : "none", @said);
"""
NODE = """
require("mailparser").simpleParser(process.stdin).then((mail) => console.log(JSON.stringify({
  to: mail.to.value.map((address) => address.address), text: mail.text,
  parts: mail.attachments.map((part) => [part.contentType, part.content.toString()]) })));
"""


def reports(world: World, word: str) -> list[Stored]:
    """The reports that came back to the sender of the message `word`."""
    return world.town.received(f"{word}@reports.test")


def fields(report: Stored) -> tuple[Message, list[Message]]:
    """The fields about the message and those about each recipient, as Python's email package reads them."""
    parsed = report.parsed()
    assert parsed.get_content_type() == "multipart/report"
    assert parsed.get_param("report-type") == "delivery-status"
    human, status = list(parsed.iter_parts())[:2]
    assert human.get_content_type() == "text/plain"
    assert status.get_content_type() == "message/delivery-status"
    groups = cast(list[Message], status.get_payload())
    return groups[0], groups[1:]


def test_a_refusal_is_reported_once_with_the_sites_words(world: World) -> None:
    word = token()
    recipients = ["nobody@postfix.test", f"{word}.there@exim.test"]
    hand_in(world, recipients, message(word), ["ENVID=order+2B77", "RET=HDRS"], reverse_path=f"{word}@reports.test")
    until(lambda: reports(world, word), 30, world.why)
    time.sleep(2)
    (report,) = reports(world, word)
    about, (recipient,) = fields(report)
    assert about["Reporting-MTA"] == "dns; reports.mailfleet.test"
    assert report.reverse_path == ""
    assert about["Original-Envelope-Id"] == "order+77"
    assert recipient["Final-Recipient"].replace(" ", "") == "rfc822;nobody@postfix.test"
    assert (recipient["Action"], recipient["Status"]) == ("failed", "5.1.1")
    assert "There is no such person here" in recipient["Diagnostic-Code"]
    assert "mx.postfix.test" in recipient["Remote-MTA"]
    returned = list(report.parsed().iter_parts())[2]
    assert returned.get_content_type() == "text/rfc822-headers"
    assert word in returned.get_payload()


def test_a_refusal_is_understood_by_other_parsers(world: World) -> None:
    needs.need("perl", "node", "nodemailer")
    word = token()
    hand_in(world, ["nobody@postfix.test"], message(word), reverse_path=f"{word}@reports.test")
    until(lambda: reports(world, word), 30, world.why)
    content = reports(world, word)[0].content
    said = processes.run(["perl", "-e", PERL], input=content).stdout.decode().splitlines()
    assert said == ["bounce", "nobody@postfix.test user_unknown"]
    read = json.loads(processes.run(["node", "-e", NODE], input=content, env=node_environment()).stdout)
    assert read["to"] == [f"{word}@reports.test"]
    assert "Final-Recipient: rfc822;nobody@postfix.test" in read["text"]
    assert "Status: 5.1.1" in read["text"]
    assert [kind for kind, text in read["parts"] if word in text] == ["message/rfc822"]


def test_full_returns_the_whole_message(world: World) -> None:
    word = token()
    hand_in(world, ["nobody@postfix.test"], message(word, b"the very words\r\n"), ["RET=FULL"],
            reverse_path=f"{word}@reports.test")  # fmt: skip
    until(lambda: reports(world, word), 30, world.why)
    returned = list(reports(world, word)[0].parsed().iter_parts())[2]
    assert returned.get_content_type() == "message/rfc822"
    assert b"the very words" in returned.as_bytes()


def test_a_delay_is_reported_once_and_then_the_end(world: World) -> None:
    word = token()
    recipient = "full@postfix.test"
    hand_in(world, [recipient], message(word), rcpt_options=["NOTIFY=DELAY,FAILURE", "ORCPT=rfc822;Full+2Bx@Shop.test"],
            port=world.short_port, reverse_path=f"{word}@reports.test")  # fmt: skip
    until(lambda: len(reports(world, word)) >= 2, 90, world.why)
    time.sleep(3)
    told = [fields(report)[1][0] for report in reports(world, word)]
    assert sorted(fields["Action"] for fields in told) == ["delayed", "failed"]
    for recipient_fields in told:
        assert recipient_fields["Original-Recipient"].replace(" ", "") == "rfc822;Full+x@Shop.test"
    ended = next(fields for fields in told if fields["Action"] == "failed")
    assert ended["Status"] == "4.4.7" or ended["Status"] == "5.4.7"
    delayed = next(fields for fields in told if fields["Action"] == "delayed")
    assert delayed["Status"].startswith("4.")


def test_an_unreachable_site_is_reported_as_expired(world: World) -> None:
    word = token()
    hand_in(world, ["a@nobody.test"], message(word), port=world.short_port, reverse_path=f"{word}@reports.test")
    until(lambda: any(fields(report)[1][0]["Action"] == "failed" for report in reports(world, word)), 90, world.why)
    failed = [fields(report)[1][0] for report in reports(world, word) if fields(report)[1][0]["Action"] == "failed"]
    assert failed[0]["Status"].endswith(".4.7")


def test_success_is_reported_where_asked_and_the_site_does_not_report_itself(world: World) -> None:
    word = token()
    hand_in(world, [f"{word}@lmtp-tcp.test"], message(word), rcpt_options=["NOTIFY=SUCCESS"],
            reverse_path=f"{word}@reports.test")  # fmt: skip
    until(lambda: reports(world, word), 30, world.why)
    (recipient,) = fields(reports(world, word)[0])[1]
    assert recipient["Action"] == "delivered"  # LMTP ends in the mailbox
    assert recipient["Status"].startswith("2.")


def test_a_site_that_reports_itself_is_asked_to(world: World) -> None:
    word = token()
    hand_in(world, [f"{word}.there@postfix.test"], message(word), rcpt_options=["NOTIFY=SUCCESS"],
            reverse_path=f"{word}@reports.test")  # fmt: skip
    until(lambda: reports(world, word), 30, world.why)
    time.sleep(2)
    (report,) = reports(world, word)
    assert b"Reporting-MTA: dns; mx.postfix.test" in report.content


def test_nothing_is_reported_where_the_sender_wants_none(world: World) -> None:
    word, control = token(), token()
    hand_in(
        world,
        ["nobody@postfix.test"],
        message(word),
        rcpt_options=["NOTIFY=NEVER"],
        reverse_path=f"{word}@reports.test",
    )
    hand_in(world, ["nobody@postfix.test"], message(control), reverse_path=f"{control}@reports.test")
    until(lambda: reports(world, control), 30, world.why)
    time.sleep(2)
    assert not reports(world, word)


def test_the_null_sender_gets_no_report(world: World) -> None:
    word = token()
    mail = hand_in(world, ["nobody@postfix.test"], message(word), reverse_path="")
    until(lambda: any(e.message_id == mail and e.kind == "bounced" for e in world.fleet.events()), 30, world.why)
    time.sleep(2)
    addresses = {address for event in world.fleet.events() for _, address in event.recipients}
    assert "nobody@postfix.test" in addresses
    assert "" not in addresses
