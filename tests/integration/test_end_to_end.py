"""From a client's 250 to the recipient's mailbox, with the clients and the receivers that people use, on both logs."""

from __future__ import annotations

import hashlib
import itertools
import random
import smtplib
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from support import clients, mailboxes, needs
from support.mailboxes import Stored
from support.town import IDN, until

from .conftest import World

pytestmark = [pytest.mark.real, pytest.mark.slow]
SENDER = "orders@reports.test"
EVERYWHERE = ("postfix.test", "exim.test", "opensmtpd.test", "lmtp-tcp.test", "lmtp-unix.test")
_numbers = itertools.count(1)


def token() -> str:
    """A word that is in one message only."""
    return f"t{time.time_ns():x}{next(_numbers)}"


def message(word: str, body: bytes = b"Hello.\r\n", extra: str = "") -> bytes:
    """A complete message with `word` in its header."""
    return (
        f"From: <{SENDER}>\r\nTo: <somebody@reports.test>\r\nSubject: a test\r\nMessage-ID: <{word}@reports.test>\r\n"
        f"Date: Sat, 21 Nov 2026 23:00:00 +0000\r\nX-Test: {word}\r\n{extra}\r\n"
    ).encode() + body


def arrived(world: World, recipients: Sequence[str], word: str, seconds: float = 40.0) -> list[Stored]:
    """The copies of a message in the mailboxes of `recipients`, once each has one and a moment later."""
    until(lambda: all(world.town.received(to, word) for to in recipients), seconds, world.why)
    time.sleep(0.5)
    return [stored for to in recipients for stored in world.town.received(to, word)]


def hand_in(
    world: World,
    recipients: Sequence[str],
    content: bytes,
    mail_options: Sequence[str] = (),
    rcpt_options: Sequence[str] = (),
    port: int = 0,
    reverse_path: str = SENDER,
) -> str:
    """Hand in one message on a trusted port; its id from the 250."""
    with smtplib.SMTP("127.0.0.1", port or world.door.trusted_port, timeout=60) as client:
        client.ehlo()
        client.command_encoding = "utf-8"
        assert client.mail(reverse_path, mail_options)[0] == 250
        for recipient in recipients:
            assert client.rcpt(recipient, rcpt_options)[0] == 250
        code, text = client.data(content)
    assert code == 250, text
    return text.split()[-1].decode()


@pytest.mark.parametrize("name", list(clients.CLIENTS))
def test_a_mail_to_many_sites_arrives_once_at_each_and_unchanged(world: World, name: str, tmp_path: Path) -> None:
    needs.need(*({"swaks": ("swaks",), "curl": ("curl",), "nodemailer": ("node", "nodemailer")}.get(name, ())))
    word = token()
    content = message(word, b"first line\r\n.\r\n..\r\n.dotted\r\n\r\nlast line\r\n")
    recipients = [f"{word}@{domain}" for domain in EVERYWHERE]
    clients.CLIENTS[name](world.door, SENDER, recipients, content, tmp_path)
    stored = arrived(world, recipients, word)
    assert sorted(copy.recipient for copy in stored) == sorted(recipients)
    assert {copy.bare for copy in stored} == {content}
    assert {copy.reverse_path for copy in stored} == {SENDER}


@pytest.mark.parametrize("domain", EVERYWHERE)
def test_all_mail_of_a_generator_arrives_once(world: World, domain: str) -> None:
    needs.need("smtp-source")
    recipient = f"{token()}@{domain}"
    clients.by_smtp_source(world.door, SENDER, recipient, count=40, size=3000)
    until(lambda: len(world.town.received(recipient)) >= 40, 60, world.why)
    time.sleep(1)
    stored = world.town.received(recipient)
    assert len(stored) == 40
    assert all(len(copy.content) > 3000 for copy in stored)


def test_eight_bit_content_is_not_changed(world: World) -> None:
    word = token()
    body = "Grüße aus Köln, ½ €\r\n".encode() + bytes(range(128, 256)) + b"\r\n"
    content = message(
        word, body, "MIME-Version: 1.0\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: 8bit\r\n"
    )
    recipients = [f"{word}@{domain}" for domain in EVERYWHERE]
    hand_in(world, recipients, content, ["BODY=8BITMIME"])
    assert {copy.bare for copy in arrived(world, recipients, word)} == {content}


def test_an_address_in_unicode_is_reached_where_the_site_can(world: World) -> None:
    word = token()
    recipients = [f"jürgen.{word}@postfix.test", f"ελένη.{word}@exim.test"]
    hand_in(world, recipients, message(word, "Grüß Gott\r\n".encode()), ["SMTPUTF8", "BODY=8BITMIME"])
    stored = arrived(world, recipients, word)
    assert sorted(copy.recipient for copy in stored) == sorted(recipients)


def test_an_address_in_unicode_bounces_with_its_code_where_the_site_cannot(world: World) -> None:
    word = token()
    hand_in(world, [f"jürgen.{word}@opensmtpd.test"], message(word), ["SMTPUTF8"], reverse_path=f"{word}@reports.test")
    until(lambda: world.town.received(f"{word}@reports.test"), 30, world.why)
    assert b"5.6.7" in world.town.received(f"{word}@reports.test")[0].content


def test_ten_megabytes_arrive_whole(world: World) -> None:
    word = token()
    dice = random.Random(1)
    lines = [dice.randbytes(38).hex().encode() for _ in range(1000)]
    body = b"".join(dice.choice(lines) + b"\r\n" for _ in range(10_000_000 // 78))
    content = message(word, body)
    recipients = [f"{word}@{domain}" for domain in EVERYWHERE]
    hand_in(world, recipients, content)
    digests = {hashlib.sha256(copy.bare).hexdigest() for copy in arrived(world, recipients, word, 90)}
    assert digests == {hashlib.sha256(content).hexdigest()}


def test_content_in_chunks_is_put_together(world: World) -> None:
    word = token()
    content = message(word, b"one\r\n.\r\ntwo\r\n" * 400)
    recipients = [f"{word}@postfix.test", f"{word}@exim.test"]
    pieces = [content[start : start + 1000] for start in range(0, len(content), 1000)]
    with smtplib.SMTP("127.0.0.1", world.door.trusted_port, timeout=30) as client:
        client.ehlo()
        assert "chunking" in client.esmtp_features
        client.mail(SENDER)
        for recipient in recipients:
            client.rcpt(recipient)
        for number, piece in enumerate(pieces, 1):
            client.send(f"BDAT {len(piece)}{' LAST' if number == len(pieces) else ''}\r\n".encode() + piece)
            assert client.getreply()[0] == 250
    assert {copy.bare for copy in arrived(world, recipients, word)} == {content}


def test_date_and_message_id_are_added_when_missing_and_only_then(world: World) -> None:
    word = token()
    hand_in(world, [f"{word}@lmtp-tcp.test"], f"From: <{SENDER}>\r\nX-Test: {word}\r\n\r\nHello.\r\n".encode())
    (stored,) = arrived(world, [f"{word}@lmtp-tcp.test"], word)
    parsed = stored.parsed()
    assert len(parsed.get_all("Date", [])) == len(parsed.get_all("Message-ID", [])) == 1
    assert mailboxes.header(stored.bare, "Message-ID").endswith("@ingest.mailfleet.test>")


@pytest.mark.parametrize("domain", ["implicit.test", "alias.test", IDN, "fallback.test"])
def test_dns_leads_to_the_mailbox(world: World, domain: str) -> None:
    word = token()
    name = domain.encode("idna").decode()
    hand_in(world, [f"{word}@{name}"], message(word))
    until(lambda: any(word.encode() in stored.content for stored in world.town.postfix.messages()), 40, world.why)
    found = [stored for stored in world.town.postfix.messages() if word.encode() in stored.content]
    assert [stored.recipient for stored in found] == [f"{word}@{name}"]


def test_a_domain_in_unicode_is_reached_by_its_ascii_name(world: World) -> None:
    word = token()
    hand_in(world, [f"{word}@{IDN}"], message(word), ["SMTPUTF8"])
    until(lambda: any(word.encode() in stored.content for stored in world.town.postfix.messages()), 40, world.why)


def kinds(world: World, message_id: str) -> list[str]:
    """The events told of a message, in order of time."""
    events = sorted((event for event in world.fleet.events() if event.message_id == message_id), key=lambda e: e.at)
    return [event.kind for event in events]


def test_servfail_defers_and_never_bounces(world: World) -> None:
    word = token()
    mail = hand_in(world, [f"{word}@servfail.test"], message(word), reverse_path=f"{word}@reports.test")
    until(lambda: "deferred" in kinds(world, mail), 30, world.why)
    time.sleep(4)
    assert "bounced" not in kinds(world, mail)
    assert not world.town.received(f"{word}@reports.test")


@pytest.mark.parametrize(("domain", "status"), [("null.test", b"5.1.10"), ("absent.test", b"5.1.2")])
def test_a_domain_that_takes_no_mail_bounces_at_once(world: World, domain: str, status: bytes) -> None:
    word = token()
    mail = hand_in(world, [f"{word}@{domain}"], message(word), reverse_path=f"{word}@reports.test")
    until(lambda: world.town.received(f"{word}@reports.test"), 30, world.why)
    assert status in world.town.received(f"{word}@reports.test")[0].content
    told = kinds(world, mail)
    assert "bounced" in told
    assert "deferred" not in told


@pytest.mark.parametrize("wrong", ["shop:another password", "nobody:correct horse battery"])
def test_a_wrong_credential_is_refused(world: World, wrong: str) -> None:
    user, _, password = wrong.partition(":")
    with smtplib.SMTP("127.0.0.1", world.door.port, timeout=30) as client:
        client.ehlo()
        client.starttls()
        with pytest.raises(smtplib.SMTPAuthenticationError):
            client.login(user, password)


def test_a_tenant_sends_as_its_own_domains_only(world: World, tmp_path: Path) -> None:
    with pytest.raises(smtplib.SMTPException):
        clients.by_smtplib(world.door, "ceo@another.test", ["a@postfix.test"], message(token()), tmp_path)


def test_the_story_of_a_mail_is_told(world: World) -> None:
    word = token()
    mail = hand_in(world, [f"{word}@postfix.test", f"nobody@{'exim.test'}"], message(word))
    arrived(world, [f"{word}@postfix.test"], word)
    until(lambda: kinds(world, mail).count("delivered") == 2, 30, world.why)
    told = kinds(world, mail)
    assert told[0] == "accepted"
    assert told.count("attempted") >= 2
