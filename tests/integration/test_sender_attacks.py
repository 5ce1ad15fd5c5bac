"""Hostile sites and networks on the way out. Each attack is run against ours, where it fails, and where it succeeds: against
stock aiosmtplib, or against ours with the guard opened by its setting."""

from __future__ import annotations

import asyncio
import email
import email.policy
import json
import logging
import socket
import ssl
from pathlib import Path
from typing import Any

import aiosmtplib
import msgspec
import pytest

from mailfleet_cli.story import as_json
from mailfleet_core.bus import topics
from mailfleet_core.dns.guard import InsideGuard
from mailfleet_core.logs import Formatter
from mailfleet_core.model import wire
from support import certificates, fleet
from support.scripted_mx import KEYWORDS, ScriptedMx
from support.sending import CONTENT, Sending, route, settings
from support.static_resolver import StaticResolver


async def stock(mx: ScriptedMx, content: bytes = CONTENT, to: str = "b@example.net", host: str = "127.0.0.1") -> None:
    """A mail by aiosmtplib as it comes."""
    await aiosmtplib.send(
        content, sender="a@example.com", recipients=[to], hostname=host, port=mx.port,
        tls_context=ssl._create_unverified_context(),
    )  # fmt: skip


# --- 2 plain text behind STARTTLS
async def test_what_a_site_says_in_clear_behind_its_220_to_starttls_is_not_believed(tmp_path: Path) -> None:
    files = certificates.make(tmp_path, "mx.test")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    injected = b"220 go on\r\n250-mx.test\r\n250 SIZE 1"
    async with ScriptedMx(replies={"STARTTLS": injected}, tls=context) as mx:
        result = await Sending().send(route(mx.port, tls="required"))
    assert result.outcomes[0].enhanced != "5.3.4"
    assert all(mail.tls for mail in mx.mails)


async def test_the_same_words_inside_of_tls_are_believed(tmp_path: Path) -> None:
    files = certificates.make(tmp_path, "mx.test")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    says: list[Any] = [b"250-mx.test\r\n250 STARTTLS", b"250-mx.test\r\n250 SIZE 1"]
    async with ScriptedMx(replies={"EHLO": says}, tls=context) as mx:
        result = await Sending().send(route(mx.port, tls="required"))
    assert result.outcomes[0].enhanced == "5.3.4"


# --- 3 STARTTLS stripping
STRIPPED = [KEYWORDS, ("PIPELINING", "XXXXXXXA")]
"""Nothing is offered any more, or what a box in between writes over it."""


@pytest.mark.parametrize("keywords", STRIPPED)
@pytest.mark.parametrize("tls", ["required", "verify"])
async def test_stripping_starttls_stops_mail_whose_route_requires_tls(tls: str, keywords: tuple[str, ...]) -> None:
    async with ScriptedMx(keywords=keywords) as mx:
        result = await Sending().send(route(mx.port, tls=tls))
    (outcome,) = result.outcomes
    assert (outcome.verdict, outcome.enhanced, outcome.phase) == ("deferred", "4.7.4", "starttls")
    assert not any(command.startswith((b"MAIL", b"AUTH")) for command in mx.commands)


async def test_stripping_starttls_makes_mail_of_an_opportunistic_route_clear_and_the_result_says_so() -> None:
    async with ScriptedMx() as mx:
        result = await Sending().send(route(mx.port, tls="opportunistic"))
    assert (result.outcomes[0].verdict, result.tls, mx.mails[0].tls) == ("delivered", "", False)


async def test_stripping_starttls_is_not_noticed_by_the_stock_client() -> None:
    async with ScriptedMx() as mx:
        await stock(mx)
    assert [mail.tls for mail in mx.mails] == [False]


# --- 4 envelope injection
ODD = [
    "a:b@e.example",
    "(c)a@e.example",
    "a@e.example(c)",
    "a;b@e.example",
    "a@b.example,d@e.example",
    '"x> NOTIFY=NEVER"@e.example',
]


@pytest.mark.parametrize("address", ODD)
async def test_an_address_is_said_byte_for_byte(address: str) -> None:
    async with ScriptedMx() as mx:
        await Sending().send(route(mx.port), to=(address,))
    assert mx.mails[0].rcpt == [f"RCPT TO:<{address}>".encode()]


@pytest.mark.parametrize("address", ODD[:3])  # The others only with some versions of Python's parser.
async def test_an_address_becomes_another_in_the_stock_client(address: str) -> None:
    async with ScriptedMx() as mx:
        await stock(mx, to=address)
    assert mx.mails[0].rcpt != [f"RCPT TO:<{address}>".encode()]


# --- 17 SMTPUTF8 where it is not offered
EAI = "Subject: Grüße\r\n\r\nx\r\n".encode()


@pytest.mark.parametrize(
    "of_unit",
    [{"content": EAI, "eight_bit": True, "smtputf8": True}, {"to": ("ü@x.test",)}, {"reverse_path": "ü@x.test"}],
    ids=["header", "recipient", "reverse path"],
)
async def test_mail_that_needs_smtputf8_is_bounced_and_never_downgraded(of_unit: dict[str, Any]) -> None:
    async with ScriptedMx(keywords=("8BITMIME", "DSN")) as mx:
        result = await Sending().send(route(mx.port), **of_unit)
    (outcome,) = result.outcomes
    assert (outcome.verdict, outcome.enhanced) == ("bounced", "5.6.7")
    assert not any(command.startswith((b"MAIL", b"RCPT")) for command in mx.commands)


async def test_mail_that_needs_smtputf8_is_sent_without_it_by_the_stock_client() -> None:
    async with ScriptedMx(keywords=("8BITMIME", "DSN")) as mx:
        await stock(mx, EAI)
    assert mx.mails[0].content == EAI
    assert b"SMTPUTF8" not in mx.mails[0].mail.upper()


# --- 20 inside addresses
async def knock(address: str, allowed: tuple[str, ...]) -> tuple[wire.RecipientOutcome, int]:
    """A mail to a domain whose MX is at `address`; what it comes to, and how many connections this machine got."""
    sending = Sending()
    sending.resolver.hosts["mx.test"] = (address,)
    async with ScriptedMx() as four, ScriptedMx(host="::1", port=four.port) as six:
        changed = settings(allowed_inside=allowed, connect_seconds=0.2)
        result = await sending.send(route(four.port), changed=changed)
    return result.outcomes[0], four.connections + six.connections


HERE = ["127.0.0.1", "127.9.9.9", "0.0.0.0", "::1", "::ffff:127.0.0.1"]
ELSEWHERE = ["10.0.0.1", "169.254.169.254", "100.64.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1"]
ELSEWHERE += ["2002:7f00:1::1", "fe80::1", "fd00::1", "224.0.0.1", "255.255.255.255"]


@pytest.mark.parametrize("address", HERE + ELSEWHERE)
async def test_an_mx_inside_gets_no_connection_and_the_mail_bounces(address: str) -> None:
    outcome, connections = await knock(address, ())
    assert (outcome.verdict, outcome.enhanced, outcome.phase) == ("bounced", "5.4.4", "connect")
    assert connections == 0


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::1", "::ffff:127.0.0.1"])
async def test_an_mx_inside_is_connected_to_where_the_settings_allow_everything(address: str) -> None:
    outcome, connections = await knock(address, ("0.0.0.0/0", "::/0"))
    assert (outcome.verdict, connections) == ("delivered", 1)


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::ffff:127.0.0.1"])
async def test_an_mx_inside_is_connected_to_by_the_stock_client(address: str) -> None:
    async with ScriptedMx() as mx:
        await stock(mx, host=address)
    assert mx.connections == 1


PERMITTED, FORBIDDEN = "127.0.0.2", "127.0.0.1"


class Rebinding(StaticResolver):
    """A name that is where it may be when it is asked for first, and inside from then on."""

    async def addresses(self, host: str) -> tuple[str, ...]:
        self.asked[host] += 1
        return (PERMITTED if self.asked[host] == 1 else FORBIDDEN,)


async def test_the_address_connected_to_is_the_one_that_was_checked() -> None:
    sending = Sending(resolver=Rebinding())
    async with ScriptedMx(host=PERMITTED) as outside, ScriptedMx(host=FORBIDDEN, port=outside.port) as inside:
        way, changed = route(outside.port), settings(allowed_inside=(PERMITTED,))
        first = await sending.send(way, changed=changed)
        second = await sending.send(way, changed=changed)
    assert (first.outcomes[0].verdict, first.address) == ("delivered", PERMITTED)
    assert (second.outcomes[0].verdict, second.outcomes[0].enhanced) == ("bounced", "5.4.4")
    assert (outside.connections, inside.connections) == (1, 0)


class RebindingLoop(asyncio.SelectorEventLoop):
    """The same name, for who lets the system look it up."""

    asked = 0

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> Any:  # type: ignore[override]
        self.asked += 1
        address = PERMITTED if self.asked == 1 else FORBIDDEN
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]


def test_another_address_than_the_checked_one_is_connected_to_by_the_stock_client() -> None:
    async def checked_by_name() -> tuple[int, int]:
        async with ScriptedMx(host=PERMITTED) as outside, ScriptedMx(host=FORBIDDEN, port=outside.port) as inside:
            loop = asyncio.get_running_loop()
            loop.asked = 0  # type: ignore[attr-defined]
            found = await loop.getaddrinfo("mx.test", outside.port)
            assert InsideGuard([PERMITTED]).permits(found[0][4][0])
            await stock(outside, host="mx.test")
        return outside.connections, inside.connections

    with asyncio.Runner(loop_factory=RebindingLoop) as runner:
        assert runner.run(checked_by_name()) == (0, 1)


# --- 25 words of a site in events, logs and reports
HOSTILE = b"%d-5.1.1 \x1b[2J\x00\x9b1m bad\xff\xfe\r\n%d 5.1.1 \xe2\x80\xae\x07end\rAction: delivered"
PHASES = {"GREETING": 554, "EHLO": 421, "STARTTLS": 454, "MAIL": 550, "RCPT": 550, "DATA": 554, "DOT": 550}


@pytest.mark.parametrize("phase", PHASES)
async def test_any_bytes_of_a_site_end_as_a_clean_event_log_line_and_report(
    phase: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    code = PHASES[phase]
    replies: dict[str, Any] = {phase: HOSTILE % (code, code)}
    keywords = (*KEYWORDS, "STARTTLS") if phase == "STARTTLS" else KEYWORDS
    async with ScriptedMx(replies=replies, keywords=keywords) as mx:
        result = await Sending().send(route(mx.port, tls="required" if phase == "STARTTLS" else "off"))
    async with fleet.fleet({}) as router:
        report, events = await told_of(router, result)
    for event in events:
        line = msgspec.json.encode(as_json(event)).decode("utf-8")
        assert line.isprintable()
        assert json.loads(line)["kind"] == event.kind
    for form in (True, False):
        assert all(Formatter("sender", form).format(record).isprintable() for record in caplog.records)
    (outcome,) = result.outcomes
    assert "\\x1b[2J" in outcome.text
    assert bool(report) == (outcome.verdict == "bounced") == (phase in ("MAIL", "RCPT", "DATA", "DOT"))
    if report:
        parsed = email.message_from_bytes(report, policy=email.policy.default)
        assert not parsed.defects
        assert parsed.get_payload()[1].get_payload()[1]["Action"] == "failed"  # type: ignore[index,union-attr]
        assert all(32 <= byte < 127 or byte in b"\r\n\t" for byte in report)


async def told_of(router: fleet.Fleet, result: wire.Result) -> tuple[bytes, list[wire.Event]]:
    """What a router makes of `result`: the report (if any), and the events."""

    def answer(work: wire.Dispatch) -> wire.Result:
        if not work.unit.envelope.reverse_path:
            return fleet.delivered(work)
        unit = work.unit
        return msgspec.structs.replace(
            result, unit_id=unit.unit_id, hop=unit.hop, attempt=work.attempt, source=work.source
        )

    router.answer = answer
    unit = await router.put()
    await router.until(lambda: not {"bounced", "deferred"}.isdisjoint(router.kinds(unit)))
    await router.until(lambda: router.tags(unit)[-1:] in (["D"], ["R"]))
    if "deferred" in router.kinds(unit):
        return b"", router.events(unit)
    await router.until(lambda: len(router.dispatches) == 2)
    body = router.dispatches[1].unit.envelope.body
    return await router.bus.read(topics.BODY, body.partition, body.offsets[0], body.length), router.events(unit)


async def test_any_bytes_of_a_site_come_out_of_the_stock_client_as_they_went_in() -> None:
    async with ScriptedMx(replies={"RCPT": HOSTILE % (550, 550)}) as mx:
        with pytest.raises(aiosmtplib.SMTPRecipientsRefused) as refused:
            await stock(mx)
    text = refused.value.recipients[0].message
    assert "\x1b[2J\x00" in text
    with pytest.raises(UnicodeEncodeError):
        text.encode()
