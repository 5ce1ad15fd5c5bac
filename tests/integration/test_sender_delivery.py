"""The sender on the memory log against a scripted server: what happens to mail, in every phase."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from mailfleet_core.model import wire
from mailfleet_core.settings import SourceSettings
from support.scripted_mx import DROP, HANG, KEYWORDS, RESET, ScriptedMx
from support.sending import CONTENT, Sending, route, settings, with_routes
from support.static_resolver import StaticResolver


async def test_a_dispatch_becomes_a_mail_and_a_result_that_tells_all() -> None:
    sending = Sending()
    async with ScriptedMx() as mx:
        result = await sending.send(route(mx.port))
    (mail,) = mx.mails
    assert mail.content == CONTENT
    assert mail.mail == b"MAIL FROM:<a@example.com> SIZE=%d" % len(CONTENT)
    assert mail.rcpt == [b"RCPT TO:<b@example.net>"]
    assert (result.kind, result.attempt, result.source, result.mx, result.address) == (
        "settled", 1, "default", "mx.test", "127.0.0.1",
    )  # fmt: skip
    (outcome,) = result.outcomes
    assert (outcome.verdict, outcome.code, outcome.enhanced, outcome.text, outcome.phase) == (
        "delivered", 250, "2.0.0", "queued as 1", "dot",
    )  # fmt: skip


def verdicts(result: wire.Result) -> list[tuple[str, int, str, str]]:
    return [(outcome.verdict, outcome.code, outcome.enhanced, outcome.phase) for outcome in result.outcomes]


@pytest.mark.parametrize(
    ("phase", "said", "expected"),
    [
        ("GREETING", b"421 4.3.2 busy", ("deferred", 421, "4.3.2", "greeting")),
        ("GREETING", b"554 5.7.1 no", ("deferred", 554, "4.3.2", "greeting")),
        ("EHLO", b"421 busy", ("deferred", 421, "4.3.2", "ehlo")),
        ("EHLO", b"450 later", ("deferred", 450, "4.3.2", "ehlo")),
        ("MAIL", b"451 4.7.1 greylisted", ("deferred", 451, "4.7.1", "mail")),
        ("MAIL", b"550 5.7.1 not you", ("bounced", 550, "5.7.1", "mail")),
        ("MAIL", b"421 4.7.0 go away", ("deferred", 421, "4.7.0", "mail")),
        ("RCPT", b"450 4.2.1 busy mailbox", ("deferred", 450, "4.2.1", "rcpt")),
        ("RCPT", b"550 no such user", ("bounced", 550, "5.0.0", "rcpt")),
        ("RCPT", b"421 4.3.2 shutdown", ("deferred", 421, "4.3.2", "rcpt")),
        ("DATA", b"451 4.3.0 disk", ("deferred", 451, "4.3.0", "data")),
        ("DATA", b"554 5.6.0 no", ("bounced", 554, "5.6.0", "data")),
        ("DOT", b"452 4.3.1 full", ("deferred", 452, "4.3.1", "dot")),
        ("DOT", b"550 5.7.1 spam", ("bounced", 550, "5.7.1", "dot")),
        ("DOT", b"421 4.3.2 shutdown", ("deferred", 421, "4.3.2", "dot")),
        ("DOT", b"251 will forward", ("delivered", 251, "2.0.0", "dot")),
        ("DOT", b"252 perhaps", ("delivered", 252, "2.0.0", "dot")),
        ("DOT", b"354 what", ("deferred", 0, "4.5.0", "dot")),
        ("MAIL", b"354 what", ("deferred", 0, "4.5.0", "mail")),
        ("RCPT", b"999 what", ("deferred", 0, "4.5.0", "rcpt")),
        ("DATA", b"250 what", ("deferred", 0, "4.5.0", "data")),
        ("DOT", b"hello\x00\x1b[31m\xff", ("deferred", 0, "4.5.0", "dot")),
        ("DOT", b"2_5 odd", ("deferred", 0, "4.5.0", "dot")),
    ],
)
@pytest.mark.parametrize("pipelining", [True, False])
async def test_every_reply_in_every_phase_has_its_outcome(
    phase: str, said: bytes, expected: tuple[str, int, str, str], pipelining: bool
) -> None:
    sending = Sending()
    keywords = KEYWORDS if pipelining else KEYWORDS[1:]
    async with ScriptedMx(replies={phase: said}, keywords=keywords) as mx:
        result = await sending.send(route(mx.port))
    assert verdicts(result) == [expected]
    assert bool(mx.mails) == (expected[0] == "delivered")


@pytest.mark.parametrize(
    ("phase", "action", "expected"),
    [
        ("GREETING", DROP, "greeting"), ("GREETING", HANG, "greeting"), ("EHLO", DROP, "ehlo"), ("EHLO", HANG, "ehlo"),
        ("MAIL", DROP, "mail"), ("MAIL", HANG, "mail"), ("RCPT", DROP, "rcpt"), ("RCPT", HANG, "rcpt"),
        ("DATA", RESET, "data"), ("DATA", HANG, "data"), ("DOT", DROP, "dot"), ("DOT", HANG, "dot"),
        ("DOT", RESET, "dot"),
    ],
)  # fmt: skip
async def test_a_site_that_falls_silent_defers_in_the_phase_where_it_did(
    phase: str, action: str, expected: str
) -> None:
    sending = Sending()
    async with ScriptedMx(replies={phase: action}) as mx:
        result = await sending.send(route(mx.port))
    ((verdict, code, enhanced, where),) = verdicts(result)
    assert (verdict, code, where) == ("deferred", 0, expected)
    assert enhanced == "4.4.2"
    assert result.outcomes[0].text


async def test_nobody_listening_defers_with_the_reason() -> None:
    async with ScriptedMx() as mx:
        port = mx.port
    result = await Sending().send(route(port))
    assert verdicts(result) == [("deferred", 0, "4.4.1", "connect")]
    assert "refused" in result.outcomes[0].text.lower()


async def test_every_recipient_has_its_own_outcome() -> None:
    sending = Sending()

    def judge(command: bytes) -> bytes:
        if b"nobody" in command:
            return b"550 5.1.1 no such user"
        return b"450 4.2.0 later" if b"busy" in command else b"250 ok"

    async with ScriptedMx(replies={"RCPT": judge}) as mx:
        result = await sending.send(route(mx.port), to=("a@x.test", "nobody@x.test", "busy@x.test", "d@x.test"))
    assert [outcome.verdict for outcome in result.outcomes] == ["delivered", "bounced", "deferred", "delivered"]
    assert [outcome.index for outcome in result.outcomes] == [0, 1, 2, 3]
    assert mx.mails[0].rcpt == [b"RCPT TO:<a@x.test>", b"RCPT TO:<d@x.test>"]


async def test_an_empty_message_ends_a_data_that_a_server_let_through_for_nobody() -> None:
    sending = Sending()
    replies: dict[str, Any] = {"RCPT": [b"550 5.1.1 no", b"250 ok"], "DATA": b"354 go", "DOT": b"250 ok"}
    async with ScriptedMx(replies=replies) as mx, sending.running():
        for to in ("no@x.test", "yes@x.test"):
            await sending.dispatch(await sending.unit(to=(to,)), route(mx.port))
            await sending.result(sending.count)
    assert [verdicts(result)[0][0] for result in sending.results()] == ["bounced", "delivered"]
    assert [mail.content for mail in mx.mails] == [CONTENT]
    assert mx.connections == 1


async def test_a_refused_envelope_is_reset_before_the_next_mail() -> None:
    sending = Sending()
    async with ScriptedMx(replies={"RCPT": [b"550 5.1.1 no", b"250 ok"]}) as mx, sending.running():
        for to in ("no@x.test", "yes@x.test"):
            await sending.dispatch(await sending.unit(to=(to,)), route(mx.port))
            await sending.result(sending.count)
    assert mx.commands.count(b"RSET") == 1
    assert mx.mails[0].rcpt == [b"RCPT TO:<yes@x.test>"]


async def test_552_for_a_further_recipient_is_too_many_and_not_a_bounce() -> None:
    async with ScriptedMx(replies={"RCPT": [b"250 ok", b"552 too many recipients"]}) as mx:
        result = await Sending().send(route(mx.port), to=("a@x.test", "b@x.test"))
    assert [outcome.verdict for outcome in result.outcomes] == ["delivered", "deferred"]


@pytest.mark.parametrize(
    "content",
    [b".\r\n", b"..\r\n.\r\n", b"x\r\n.y\r\n..z\r\n", b"no end", b"", b"a\r\n" * 200_000 + b".\r\n" * 100_000],
    ids=["dot", "dots", "lines", "open", "empty", "long"],
)
async def test_content_arrives_byte_for_byte(content: bytes) -> None:
    async with ScriptedMx() as mx:
        result = await Sending().send(route(mx.port), content=content, changed=settings(dot_seconds=5.0))
    assert result.outcomes[0].verdict == "delivered"
    expected = content if content.endswith(b"\r\n") or not content else content + b"\r\n"
    assert mx.mails[0].content == expected or (not content and mx.mails[0].content in (b"", b"\r\n"))


async def test_connections_are_reused_and_closed_after_their_share_of_messages() -> None:
    sending = Sending()
    async with ScriptedMx() as mx:
        way = route(mx.port, max_connections=1, messages_per_connection=5)
        async with sending.running():
            for _ in range(12):
                await sending.dispatch(await sending.unit(), way)
            await sending.result(12)
    assert mx.connections == 3
    assert mx.most_open == 1
    assert [result.connection_reused for result in sending.results()].count(False) == 3


async def test_a_kept_connection_that_died_costs_no_attempt() -> None:
    sending = Sending()
    async with (
        ScriptedMx(replies={"MAIL": [b"250 ok", b"421 4.4.2 idle too long", b"250 ok"]}) as mx,
        sending.running(),
    ):
        for _ in range(2):
            await sending.dispatch(await sending.unit(), route(mx.port))
            await sending.result(sending.count)
    assert [verdicts(result)[0][0] for result in sending.results()] == ["delivered", "delivered"]
    assert mx.connections == 2


async def test_limits_of_connections_and_rates_hold_at_the_receiver() -> None:
    sending = Sending()
    async with ScriptedMx(delay=0.005) as mx:
        way = route(mx.port, max_connections=3, messages_per_second=40.0)
        async with sending.running():
            began = asyncio.get_running_loop().time()
            for _ in range(24):
                await sending.dispatch(await sending.unit(), way)
            await sending.result(24)
            took = asyncio.get_running_loop().time() - began
    assert mx.most_open <= 3
    assert took >= (24 - 4) / 40.0


async def test_a_changed_limit_refills_nothing_and_keeps_the_connection() -> None:
    sending = Sending()
    async with ScriptedMx() as mx, sending.running():
        began = asyncio.get_running_loop().time()
        for number in range(12):
            way = route(mx.port, max_connections=1, messages_per_second=20.0 + number % 2)
            await sending.dispatch(await sending.unit(), way)
        await sending.result(12)
        took = asyncio.get_running_loop().time() - began
    assert took >= 10 / 21.0
    assert mx.connections == 1


async def test_a_sender_that_takes_a_lane_counts_as_if_the_former_one_had_just_sent() -> None:
    sending = Sending()
    async with ScriptedMx() as mx:
        for _ in range(2):
            began = asyncio.get_running_loop().time()
            result = await sending.send(route(mx.port, messages_per_second=3.0))
            assert asyncio.get_running_loop().time() - began >= 0.3
            assert verdicts(result)[0][0] == "delivered"


async def test_a_lower_limit_of_connections_closes_those_above_it() -> None:
    sending = Sending()
    async with ScriptedMx(delay=0.02) as mx, sending.running(settings(idle_seconds=30.0)):
        for _ in range(12):
            await sending.dispatch(await sending.unit(), route(mx.port, max_connections=4))
        while mx.open < 4:
            await asyncio.sleep(0.005)
        for _ in range(6):
            await sending.dispatch(await sending.unit(), route(mx.port, max_connections=1))
        await sending.result(18)
        assert mx.open == 1


async def test_every_connection_counts_at_the_rate_also_those_that_are_refused() -> None:
    sending = Sending()
    sending.resolver.hosts["two.test"] = ("127.0.0.1", "127.0.0.2")
    met: list[float] = []

    def refuse(_: bytes) -> bytes:
        met.append(asyncio.get_running_loop().time())
        return b"421 4.3.2 Not now"

    async with (
        ScriptedMx(replies={"GREETING": refuse}) as mx,
        ScriptedMx(replies={"GREETING": refuse}, host="127.0.0.2", port=mx.port),
    ):
        for _ in range(2):
            await sending.dispatch(
                await sending.unit(), route(mx.port, ((10, "two.test"),), connections_per_second=5.0)
            )
        async with sending.running():
            await sending.result(2)
    assert len(met) >= 2
    assert all(later - earlier >= 0.19 for earlier, later in pairwise(met))


class SlowResolver(StaticResolver):
    """Takes so long for each answer; later ones come at once."""

    def __init__(self, seconds: list[float]) -> None:
        super().__init__(hosts={"mx.test": ("127.0.0.1",)})
        self.seconds = seconds

    async def addresses(self, host: str) -> tuple[str, ...]:
        await asyncio.sleep(self.seconds.pop(0) if self.seconds else 0.0)
        return await super().addresses(host)


async def test_a_slow_dns_does_not_bunch_connections() -> None:
    sending = Sending(resolver=SlowResolver([0.5, 0.3, 0.1]))
    met: list[float] = []

    def greet(_: bytes) -> bytes:
        met.append(asyncio.get_running_loop().time())
        return b"220 mx.test"

    async with ScriptedMx(replies={"GREETING": greet}, delay=0.05) as mx, sending.running():
        for _ in range(8):
            way = route(mx.port, connections_per_second=5.0, max_connections=4, messages_per_connection=1)
            await sending.dispatch(await sending.unit(), way)
        await sending.result(8)
    assert len(met) == 8
    assert all(later - earlier >= 0.19 for earlier, later in pairwise(met))


async def test_lanes_of_a_source_share_its_limits() -> None:
    source = SourceSettings(name="default", lanes=4)
    sending = Sending(egress=with_routes(sources=(source,)))
    async with ScriptedMx(delay=0.01) as mx, sending.running():
        for number in range(40):
            await sending.dispatch(await sending.unit(), route(mx.port, max_connections=8), lane=number % 4)
        await sending.result(40)
    assert mx.most_open <= 8


async def test_a_site_that_hangs_does_not_delay_another() -> None:
    sending = Sending()
    sending.resolver.hosts["slow.test"] = ("127.0.0.1",)
    slow = settings(dot_seconds=30.0, drain_seconds=0.2)
    async with ScriptedMx(replies={"DOT": HANG}) as hanging, ScriptedMx() as mx, sending.running(slow):
        for _ in range(50):
            unit = await sending.unit(site="slow.test")
            await sending.dispatch(unit, route(hanging.port, hosts=((1, "slow.test"),)))
        for _ in range(50):
            await sending.dispatch(await sending.unit(), route(mx.port))
        await sending.result(50)
        assert {result.outcomes[0].verdict for result in sending.results()} == {"delivered"}
    assert {result.kind for result in sending.results()} == {"settled", "lost", "not_attempted"}


async def test_when_all_hosts_of_a_site_fail_nobody_waits_for_the_same_time_out_again() -> None:
    sending = Sending()
    async with ScriptedMx(replies={"GREETING": HANG}) as mx, sending.running(settings(greeting_seconds=0.5)):
        began = asyncio.get_running_loop().time()
        for _ in range(100):
            await sending.dispatch(await sending.unit(), route(mx.port, max_connections=2))
        await sending.result(100)
        assert asyncio.get_running_loop().time() - began < 3
    assert {verdicts(result)[0][3] for result in sending.results()} == {"greeting"}
    assert mx.connections <= 4


async def test_a_slow_reader_that_makes_progress_is_not_cut_and_one_that_does_not_is() -> None:
    content = (b"x" * 76 + b"\r\n") * 100_000
    async with ScriptedMx(replies={"DATA": b"354 go"}) as mx:
        result = await Sending().send(route(mx.port), content=content, changed=settings(dot_seconds=5.0))
    assert verdicts(result)[0][0] == "delivered"
    assert len(mx.mails[0].content) == len(content)


@pytest.mark.parametrize("phase", ["GREETING", "HELO", "MAIL", "RCPT", "DATA", "DOT"])
@pytest.mark.parametrize(
    "said",
    [
        b"550 5.1.1 \xff\xfe\x00\x1b[2J bad\rsecond",
        b"550-" + b"x" * 200_000,
        b"550-a\r\n" * 20_000 + b"550 end",
        b"\x16\x03\x01\x00\x05hello",
        b"550 5.1.1 \r\n250 injected\r\n250 injected",
        b"",
        b"HTTP/1.1 400 Bad Request",
    ],
    ids=["bytes", "endless-line", "endless-reply", "tls", "desync", "empty", "http"],
)
async def test_hostile_replies_end_as_one_clean_outcome_and_never_as_a_delivery(phase: str, said: bytes) -> None:
    sending = Sending()
    async with ScriptedMx(replies={phase: said} | ({"EHLO": b"502 no"} if phase == "HELO" else {})) as mx:
        result = await sending.send(route(mx.port))
    (outcome,) = result.outcomes
    assert outcome.verdict in ("deferred", "bounced")
    assert outcome.text.isprintable()
    assert len(outcome.text) <= 1000
    assert outcome.text.encode() or said.startswith(b"550 5.1.1 \r\n")
