"""Where the sender connects to, and how: MX order, addresses, the guard, TLS, LMTP, smart hosts, extensions."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from mailfleet_core.model import wire
from mailfleet_core.settings import RouteSettings, SourceSettings
from support import certificates
from support.scripted_mx import DROP, ScriptedMx
from support.sending import CONTENT, Sending, route, settings, with_routes


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> certificates.Certificate:
    return certificates.make(tmp_path_factory.mktemp("tls"), "mx.test")


@pytest.fixture
def tls(certificate: certificates.Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    return context


# --- hosts and addresses -----------------------------------------------------------------------------------------
async def test_hosts_are_tried_by_preference_and_the_next_one_takes_over() -> None:
    sending = Sending()
    sending.resolver.hosts |= {"dead.test": ("127.0.0.9",), "mx2.test": ("127.0.0.1",)}
    async with ScriptedMx() as mx:
        way = route(mx.port, hosts=((20, "mx2.test"), (10, "dead.test"), (5, "nowhere.test")))
        result = await sending.send(way)
    assert (result.outcomes[0].verdict, result.mx, result.address) == ("delivered", "mx2.test", "127.0.0.1")


async def test_a_host_that_refuses_in_its_greeting_is_passed_by() -> None:
    sending = Sending()
    sending.resolver.hosts |= {"full.test": ("127.0.0.2",), "mx2.test": ("127.0.0.1",)}
    async with (
        ScriptedMx(replies={"GREETING": b"554 5.3.2 no"}, host="127.0.0.2") as full,
        ScriptedMx(port=full.port) as mx,
    ):
        result = await sending.send(route(mx.port, hosts=((10, "full.test"), (20, "mx2.test"))))
    assert (result.outcomes[0].verdict, result.mx) == ("delivered", "mx2.test")
    assert full.connections == 1


@pytest.mark.parametrize(
    ("order", "expected"), [("ipv6_first", "::1"), ("ipv4_first", "127.0.0.1"), ("ipv4_only", "127.0.0.1")]
)
async def test_the_address_family_follows_the_setting(order: str, expected: str) -> None:
    sending = Sending()
    sending.resolver.hosts["mx.test"] = ("127.0.0.1", "::1")
    async with ScriptedMx() as four, ScriptedMx(host="::1", port=four.port):
        result = await sending.send(route(four.port), changed=settings(ip_order=order))
    assert (result.outcomes[0].verdict, result.address) == ("delivered", expected)


async def test_the_address_and_the_name_of_the_source_are_used() -> None:
    source = SourceSettings(name="default", address="127.0.0.77", ehlo_name="out7.example.com")
    sending = Sending(egress=with_routes(sources=(source,)))
    async with ScriptedMx() as mx:
        await sending.send(route(mx.port))
    assert mx.peers[0][0] == "127.0.0.77"
    assert mx.commands[0] == b"EHLO out7.example.com"


async def test_an_mx_that_is_localhost_or_an_address_is_judged_by_its_address() -> None:
    sending = Sending()
    sending.resolver.hosts |= {"localhost": ("127.0.0.1",), "127.0.0.1": ("127.0.0.1",)}
    async with ScriptedMx() as mx:
        for host in ("localhost", "127.0.0.1"):
            result = await sending.send(route(mx.port, hosts=((0, host),)), changed=settings(allowed_inside=()))
            assert result.outcomes[0].verdict == "bounced"
    assert mx.connections == 0


async def test_a_dns_failure_defers_and_a_host_without_address_bounces() -> None:
    sending = Sending()
    sending.resolver.failing.add("mx.test")
    result = await sending.send(route(25))
    assert [(o.verdict, o.enhanced, o.phase) for o in result.outcomes] == [("deferred", "4.4.3", "dns")]
    result = await sending.send(route(25, hosts=((0, "nowhere.test"),)))
    assert [(o.verdict, o.enhanced, o.phase) for o in result.outcomes] == [("bounced", "5.4.4", "dns")]


# --- TLS ---------------------------------------------------------------------------------------------------------
async def test_tls_is_used_where_it_is_offered_and_told(tls: ssl.SSLContext) -> None:
    async with ScriptedMx(tls=tls) as mx:
        result = await Sending().send(route(mx.port))
    assert mx.mails[0].tls
    assert result.tls.startswith("TLSv1.")
    assert [command[:4] for command in mx.commands[:3]] == [b"EHLO", b"STAR", b"EHLO"]


async def test_a_large_mail_arrives_through_tls(tls: ssl.SSLContext) -> None:
    content = (b"x" * 76 + b"\r\n") * 40_000
    async with ScriptedMx(tls=tls) as mx:
        result = await Sending().send(route(mx.port), content=content, changed=settings(dot_seconds=5.0))
    assert result.outcomes[0].verdict == "delivered"
    assert mx.mails[0].content == content


@pytest.mark.parametrize("said", [b"454 4.7.0 not now", b"501 no", b"220 go on", DROP])
async def test_tls_that_breaks_is_left_out_once_and_said(said: bytes) -> None:
    # "220 go on" without a context: the server then reads our handshake as a command and answers nonsense.
    async with ScriptedMx(replies={"STARTTLS": said}, keywords=("PIPELINING", "STARTTLS")) as mx:
        result = await Sending().send(route(mx.port))
    assert result.outcomes[0].verdict == "delivered"
    assert result.tls.startswith("clear (")
    assert mx.connections == (1 if said != DROP and said[:1] in b"45" else 2)


@pytest.mark.parametrize("said", [b"454 4.7.0 not now", b"220 go on", DROP, None])
@pytest.mark.parametrize("tls_mode", ["required", "verify"])
async def test_required_tls_never_falls_back(said: bytes | None, tls_mode: str) -> None:
    words = ("PIPELINING", "STARTTLS") if said else ("PIPELINING",)
    async with ScriptedMx(replies={"STARTTLS": said} if said else {}, keywords=words) as mx:
        result = await Sending().send(route(mx.port, tls=tls_mode))
    (outcome,) = result.outcomes
    assert (outcome.verdict, outcome.phase, outcome.enhanced[0]) == ("deferred", "starttls", "4")
    assert not any(command.startswith(b"MAIL") for command in mx.commands)


async def test_a_certificate_is_checked_where_the_route_says_so(
    tls: ssl.SSLContext, certificate: certificates.Certificate
) -> None:
    async with ScriptedMx(tls=tls) as mx:
        trusting = settings(ca_file=str(certificate.certificate))
        sending = Sending()
        sending.resolver.hosts["other.test"] = ("127.0.0.1",)
        good = await sending.send(route(mx.port, tls="verify"), changed=trusting)
        unknown = await sending.send(route(mx.port, tls="verify"))
        misnamed = await sending.send(route(mx.port, hosts=((0, "other.test"),), tls="verify"), changed=trusting)
    assert good.outcomes[0].verdict == "delivered"
    for refused in (unknown, misnamed):
        outcome = refused.outcomes[0]
        assert (outcome.verdict, outcome.enhanced, outcome.phase) == ("deferred", "4.7.5", "starttls")
    assert len(mx.mails) == 1


async def test_tls_is_not_tried_where_it_is_off(tls: ssl.SSLContext) -> None:
    async with ScriptedMx(tls=tls) as mx:
        result = await Sending().send(route(mx.port, tls="off"))
    assert (result.outcomes[0].verdict, result.tls) == ("delivered", "")


# --- LMTP and smart hosts ----------------------------------------------------------------------------------------
async def test_lmtp_answers_for_every_recipient(tmp_path: Path) -> None:
    path = str(tmp_path / "lmtp")
    rule = RouteSettings(name="box", kind="lmtp", hosts=(f"unix:{path}",))
    sending = Sending(egress=with_routes(rule))
    dots: list[bytes] = [b"250 2.0.0 a", b"452 4.2.2 full", b"550 5.2.1 off"]
    async with ScriptedMx(lmtp=True, path=path, replies={"DOT": list(dots)}) as mx:
        way = route(hosts=((0, f"unix:{path}"),), kind="lmtp", name="box")
        result = await sending.send(way, to=("a@x.test", "b@x.test", "c@x.test"))
    assert [(o.verdict, o.code) for o in result.outcomes] == [("delivered", 250), ("deferred", 452), ("bounced", 550)]
    assert mx.commands[0].startswith(b"LHLO ")
    assert result.mx == f"unix:{path}"


async def test_lmtp_over_tcp_to_an_address_that_the_settings_name_needs_no_permission() -> None:
    sending = Sending(egress=with_routes(RouteSettings(name="box", kind="lmtp", hosts=("127.0.0.1",))))
    sending.resolver.hosts["127.0.0.1"] = ("127.0.0.1",)
    closed = settings(allowed_inside=())
    async with ScriptedMx(lmtp=True) as mx:
        named = await sending.send(route(mx.port, hosts=((0, "127.0.0.1"),), kind="lmtp", name="box"), changed=closed)
        other = await sending.send(route(mx.port, hosts=((0, "127.0.0.1"),), kind="lmtp", name="x"), changed=closed)
    assert named.outcomes[0].verdict == "delivered"
    assert other.outcomes[0].verdict == "bounced"


async def test_a_lost_lmtp_connection_defers_exactly_the_unanswered() -> None:
    sending = Sending(egress=with_routes(RouteSettings(name="box", kind="lmtp", hosts=("127.0.0.1",))))
    sending.resolver.hosts["127.0.0.1"] = ("127.0.0.1",)
    async with ScriptedMx(lmtp=True, replies={"DOT": [b"250 2.0.0 a", DROP]}) as mx:
        way = route(mx.port, hosts=((0, "127.0.0.1"),), kind="lmtp", name="box")
        result = await sending.send(way, to=("a@x.test", "b@x.test", "c@x.test"))
    assert [o.verdict for o in result.outcomes] == ["delivered", "deferred", "deferred"]
    assert {o.phase for o in result.outcomes} == {"dot"}


def smart_host(tmp_path: Path, tls_mode: str) -> tuple[Sending, dict[str, object]]:
    secret = tmp_path / "secret"
    secret.write_text("pass word\n")
    rule = RouteSettings(
        name="relay", kind="smart_host", hosts=("mx.test",), tls=tls_mode, username="user", password_file=str(secret)
    )
    return Sending(egress=with_routes(rule)), {
        "kind": "smart_host", "name": "relay", "username": "user", "tls": tls_mode,
    }  # fmt: skip


async def test_a_smart_host_is_given_user_and_password_under_tls(tmp_path: Path, tls: ssl.SSLContext) -> None:
    sending, way = smart_host(tmp_path, "required")
    async with ScriptedMx(tls=tls, keywords=("PIPELINING", "AUTH PLAIN")) as mx:
        result = await sending.send(route(mx.port, **way))
    assert result.outcomes[0].verdict == "delivered"
    assert b"AUTH PLAIN AHVzZXIAcGFzcyB3b3Jk" in mx.commands


async def test_the_password_is_not_sent_in_clear(tmp_path: Path) -> None:
    sending, way = smart_host(tmp_path, "opportunistic")
    async with ScriptedMx(keywords=("PIPELINING", "AUTH PLAIN")) as mx:
        result = await sending.send(route(mx.port, **way))
    assert (result.outcomes[0].verdict, result.outcomes[0].phase) == ("deferred", "auth")
    assert not any(command.startswith(b"AUTH") for command in mx.commands)


async def test_a_refused_password_defers(tmp_path: Path, tls: ssl.SSLContext) -> None:
    sending, way = smart_host(tmp_path, "required")
    async with ScriptedMx(tls=tls, keywords=("AUTH PLAIN",), replies={"AUTH": b"535 5.7.8 no"}) as mx:
        result = await sending.send(route(mx.port, **way))
    (outcome,) = result.outcomes
    assert (outcome.verdict, outcome.code, outcome.enhanced, outcome.phase) == ("deferred", 535, "4.7.8", "auth")


# --- extensions --------------------------------------------------------------------------------------------------
async def test_dsn_options_are_passed_on_exactly_where_dsn_is_offered() -> None:
    to = (
        wire.Recipient(0, "a@x.test", wire.NOTIFY_SUCCESS | wire.NOTIFY_DELAY, "rfc822;A+2Bb@X.test"),
        wire.Recipient(1, "b@x.test", wire.NOTIFY_NEVER),
        wire.Recipient(2, "c@x.test"),
    )
    async with ScriptedMx() as mx:
        result = await Sending().send(route(mx.port), to=to, ret="HDRS", envid="Q+2BQ")
    assert mx.mails[0].mail == b"MAIL FROM:<a@example.com> SIZE=%d RET=HDRS ENVID=Q+2BQ" % len(CONTENT)
    assert mx.mails[0].rcpt == [
        b"RCPT TO:<a@x.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;A+2Bb@X.test",
        b"RCPT TO:<b@x.test> NOTIFY=NEVER",
        b"RCPT TO:<c@x.test>",
    ]
    assert result.dsn_passed_on
    async with ScriptedMx(keywords=("PIPELINING",)) as mx:
        result = await Sending().send(route(mx.port), to=to, ret="HDRS", envid="Q+2BQ")
    assert mx.mails[0].rcpt[0] == b"RCPT TO:<a@x.test>"
    assert not result.dsn_passed_on


EIGHT_BIT = "Subject: x\r\n\r\nGrüße\r\n".encode()
EAI = {"content": "Subject: Grüße\r\n\r\nx\r\n".encode(), "eight_bit": True, "smtputf8": True}


@pytest.mark.parametrize(
    ("keywords", "of_unit", "outcome", "parameters"),
    [
        (("8BITMIME",), {"content": EIGHT_BIT, "eight_bit": True}, "delivered", b" BODY=8BITMIME"),
        ((), {"content": EIGHT_BIT, "eight_bit": True}, "5.6.3", None),
        ((), {"content": CONTENT, "eight_bit": True}, "delivered", b""),
        (("SMTPUTF8", "8BITMIME"), EAI, "delivered", b" BODY=8BITMIME SMTPUTF8"),
        (("8BITMIME",), EAI, "5.6.7", None),
        (("8BITMIME",), {"content": CONTENT, "smtputf8": True}, "delivered", b""),
        (("SMTPUTF8",), {"to": ("ü@x.test",)}, "delivered", b" SMTPUTF8"),
        ((), {"to": ("ü@x.test",)}, "5.6.7", None),
        ((), {"reverse_path": "ü@x.test"}, "5.6.7", None),
        (("SIZE 10",), {}, "5.3.4", None),
        (("SIZE 0",), {}, "delivered", b" SIZE=43"),
        (("SIZE",), {}, "delivered", b" SIZE=43"),
        ((), {"to": ("a@x.test>\r\nRCPT TO:<b@y.test",)}, "5.1.3", None),
        ((), {"reverse_path": "a@x.test>\r\nRSET"}, "5.1.7", None),
    ],
)  # fmt: skip
async def test_what_a_site_does_not_offer_is_not_used_and_what_needs_it_is_bounced(
    keywords: tuple[str, ...], of_unit: dict[str, object], outcome: str, parameters: bytes | None
) -> None:
    async with ScriptedMx(keywords=keywords) as mx:
        result = await Sending().send(route(mx.port), **of_unit)  # type: ignore[arg-type]
    told = result.outcomes[0]
    assert outcome == ("delivered" if told.verdict == "delivered" else told.enhanced)
    assert bool(mx.mails) == (outcome == "delivered")
    if parameters is not None:
        assert mx.mails[0].mail == b"MAIL FROM:<a@example.com>" + parameters
    else:
        assert told.verdict == "bounced"


async def test_only_the_recipients_that_cannot_be_said_are_bounced() -> None:
    async with ScriptedMx(keywords=("PIPELINING",)) as mx:
        result = await Sending().send(route(mx.port), to=("a@x.test", "ü@x.test", "c@x.test"))
    assert [o.verdict for o in result.outcomes] == ["delivered", "bounced", "delivered"]
    assert len(mx.mails[0].rcpt) == 2


async def test_a_server_without_ehlo_is_spoken_to_with_helo() -> None:
    async with ScriptedMx(replies={"EHLO": b"502 5.5.1 what?"}) as mx:
        result = await Sending().send(route(mx.port))
    assert result.outcomes[0].verdict == "delivered"
    assert mx.mails[0].mail == b"MAIL FROM:<a@example.com>"
