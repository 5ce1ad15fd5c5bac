"""How the sender gets out: from an address of its machine, or through an egress proxy; and what it makes of failures."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from pathlib import Path

import pytest

from mailfleet_core import metrics
from mailfleet_core.model import wire
from mailfleet_core.settings import SourceSettings
from support import certificates
from support.egress_proxy import HERE, UNPLUMBED, egress_proxy, server
from support.scripted_mx import ScriptedMx
from support.sending import Sending, route, settings, with_routes
from support.static_resolver import StaticResolver


def sending(addresses: Sequence[str] = ("127.0.0.1",), **source: str) -> Sending:
    """A sender with one source, and a site at `addresses`."""
    egress = with_routes(sources=(SourceSettings(name="default", **source),))  # type: ignore[arg-type]
    return Sending(egress=egress, resolver=StaticResolver(hosts={"mx.test": tuple(addresses)}))


def read(result: wire.Result) -> tuple[str, str, int, str, str]:
    (outcome,) = result.outcomes
    return (result.kind, outcome.verdict, outcome.code, outcome.enhanced, outcome.phase)


NOT_OUT = ("not_attempted", "deferred", 0)
DEFERRED = ("settled", "deferred", 0)


def failures(reason: str) -> float:
    return float(metrics.EGRESS_FAILURES.labels("default", reason)._value.get())


async def test_mail_comes_from_the_address_of_the_source() -> None:
    async with ScriptedMx() as mx:
        result = await sending(address="127.0.0.9").send(route(mx.port))
    assert result.outcomes[0].verdict == "delivered"
    assert mx.peers[0][0] == "127.0.0.9"


async def test_through_a_proxy_mail_comes_from_the_address_of_the_source() -> None:
    async with ScriptedMx() as mx, egress_proxy(ports=(mx.port,)) as proxy:
        result = await sending(address=HERE, proxy=f"socks5://127.0.0.1:{proxy.port}").send(route(mx.port))
    assert result.outcomes[0].verdict == "delivered"
    assert [mail.content for mail in mx.mails]
    assert mx.peers[0][0] == HERE


async def test_through_a_proxy_with_tls_and_password_starttls_still_reaches_the_site(tmp_path: Path) -> None:
    made = certificates.make(tmp_path, "127.0.0.1")
    users = tmp_path / "users"
    users.write_text("sender:secret\n")
    secure = {"certificate_file": str(made.certificate), "key_file": str(made.key), "users_file": str(users)}
    mine = settings(proxy_users_file=str(users), proxy_ca_file=str(made.certificate))
    async with ScriptedMx(tls=certificates_context(made)) as mx, egress_proxy(ports=(mx.port,), **secure) as proxy:
        out = sending(address=HERE, proxy=f"socks5s://sender@127.0.0.1:{proxy.port}")
        content = b"Subject: x\r\n\r\n" + b"y" * 78 + b"\r\n"
        result = await out.send(route(mx.port), mine, content=content * 20_000)
    assert result.outcomes[0].verdict == "delivered"
    assert (mx.mails[0].tls, mx.peers[0][0]) == (True, HERE)
    assert len(mx.mails[0].content) == len(content) * 20_000


def certificates_context(made: certificates.Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)
    return context


async def test_an_address_that_is_not_here_is_our_own_trouble() -> None:
    before = failures("unplumbed")
    async with ScriptedMx() as mx:
        result = await sending(address=UNPLUMBED).send(route(mx.port))
        assert mx.connections == 0
    assert read(result) == (*NOT_OUT, "4.3.5", "egress")
    assert UNPLUMBED in result.outcomes[0].text
    assert failures("unplumbed") == before + 1


async def test_an_address_that_the_proxy_does_not_have_is_our_own_trouble() -> None:
    async with ScriptedMx() as mx, egress_proxy(ports=(mx.port,)) as proxy:
        url = f"socks5://127.0.0.1:{proxy.port}"
        unplumbed = await sending(address=UNPLUMBED, proxy=url).send(route(mx.port))
        not_listed = await sending(address="127.0.0.8", proxy=url).send(route(mx.port))
    assert read(unplumbed) == read(not_listed) == (*NOT_OUT, "4.3.5", "egress")
    assert "does not have the address" in unplumbed.outcomes[0].text
    assert "does not allow the source" in not_listed.outcomes[0].text


async def test_a_proxy_that_is_gone_is_our_own_trouble() -> None:
    async with egress_proxy() as proxy:
        url = f"socks5://127.0.0.1:{proxy.port}"
    result = await sending(address=HERE, proxy=url).send(route(25))
    assert read(result) == (*NOT_OUT, "4.3.0", "egress")


@pytest.mark.parametrize(
    ("proxy", "said"),
    [
        ("http://proxy", "write socks5://"),
        ("socks5://nobody@127.0.0.1:1080", "proxy_users_file"),
        ("socks5://no-such-name.invalid", "egress proxy"),
    ],
)
async def test_a_proxy_that_cannot_be_meant_is_our_own_trouble(proxy: str, said: str) -> None:
    result = await sending(address=HERE, proxy=proxy).send(route(25))
    assert read(result) == (*NOT_OUT, "4.3.0", "egress")
    assert said in result.outcomes[0].text


async def test_a_wrong_password_is_our_own_trouble(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    theirs.write_text("sender:secret\n")
    ours.write_text("sender:other\n")
    async with egress_proxy(users_file=str(theirs)) as proxy:
        out = sending(address=HERE, proxy=f"socks5://sender@127.0.0.1:{proxy.port}")
        result = await out.send(route(25), settings(proxy_users_file=str(ours)))
    assert read(result) == (*NOT_OUT, "4.3.0", "egress")


async def test_a_site_that_refuses_through_a_proxy_is_told_as_it_is_without_one() -> None:
    async with ScriptedMx() as mx:
        pass
    async with egress_proxy(ports=(mx.port,)) as proxy:
        through = await sending(address=HERE, proxy=f"socks5://127.0.0.1:{proxy.port}").send(route(mx.port))
    directly = await sending(address=HERE).send(route(mx.port))
    assert read(through) == read(directly) == (*DEFERRED, "4.4.1", "connect")
    assert through.outcomes[0].text == directly.outcomes[0].text


async def test_a_destination_that_the_proxy_does_not_allow_costs_only_its_own_mail() -> None:
    async with ScriptedMx() as mx, egress_proxy(ports=(25,)) as proxy:
        result = await sending(address=HERE, proxy=f"socks5://127.0.0.1:{proxy.port}").send(route(mx.port))
    assert read(result) == (*DEFERRED, "4.4.4", "connect")


async def test_a_site_without_an_address_of_the_sources_family_is_deferred_and_never_bounced() -> None:
    async with egress_proxy() as proxy:
        out = sending(["2001:db8::25"], address=HERE, proxy=f"socks5://127.0.0.1:{proxy.port}")
        result = await out.send(route(25))
    assert read(result) == (*DEFERRED, "4.4.4", "connect")


async def test_when_one_family_cannot_get_out_the_other_does() -> None:
    async with ScriptedMx() as mx:
        out = sending(["::1", "127.0.0.1"], address="127.0.0.9", address6="2001:db8::7")
        result = await out.send(route(mx.port))
    assert result.outcomes[0].verdict == "delivered"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (b"", (*NOT_OUT, "4.3.0", "egress")),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", (*NOT_OUT, "4.3.0", "egress")),
        (b"\x05\xff", (*NOT_OUT, "4.3.0", "egress")),
        (b"\x05\x00\x05\x01\x00\x01\x00\x00\x00\x00\x00\x00", (*NOT_OUT, "4.3.5", "egress")),
        (b"\x05\x00\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00", (*NOT_OUT, "4.3.0", "egress")),
        (b"\x05\x00" + b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00" * 2, (*DEFERRED, "4.4.2", "greeting")),
        (
            b"\x05\x00\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00\x05\x01\x00\x01\x00\x00\x00\x00\x00\x00",
            (*DEFERRED, "4.4.5", "connect"),
        ),
    ],
)
async def test_whatever_a_proxy_does_no_mail_bounces_and_no_site_is_dead(
    said: bytes, expected: tuple[str, str, int, str, str]
) -> None:
    async def odd(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        if b"\x05\x00\x05\x00" not in said:
            await reader.read(100)
            return
        await asyncio.sleep(0.2)

    async with server(odd) as port:
        result = await sending(address=HERE, proxy=f"socks5://127.0.0.1:{port}").send(route(25))
    assert read(result) == expected
    assert (result.outcomes[0].enhanced, result.outcomes[0].phase) != ("4.4.1", "connect")


async def test_a_proxy_that_says_nothing_is_not_waited_for_long_and_takes_nobody_away_but_itself() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def stuck(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x05\x00\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
        await asyncio.sleep(3)

    quick = settings(proxy_seconds=0.3, connect_seconds=0.3)
    async with server(silent) as port:
        result = await sending(address=HERE, proxy=f"socks5://127.0.0.1:{port}").send(route(25), quick)
        assert read(result) == (*NOT_OUT, "4.3.0", "egress")
    async with server(stuck) as port:
        result = await sending(address=HERE, proxy=f"socks5://127.0.0.1:{port}").send(route(25), quick)
        assert read(result) == (*DEFERRED, "4.4.5", "connect")


@pytest.mark.parametrize(
    ("answer", "mismatches"),
    [
        (b"220 egress-check [127.0.0.7]\r\n", 0),
        (b"220 egress-check [203.0.113.50]\r\n", 0),
        (b"220 egress-check [203.0.113.77]\r\n", 1),
        (b"220 mx ESMTP\r\n", 0),
    ],
)
async def test_an_address_that_is_seen_and_is_not_ours_is_counted(answer: bytes, mismatches: int) -> None:
    asked: list[str] = []

    async def tell(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(writer.get_extra_info("peername")[0])
        writer.write(answer)

    async with server(tell) as port:
        out = sending(address=HERE, ehlo_name="nat.test")
        out.resolver.hosts["nat.test"] = ("203.0.113.50",)
        labels = ("default", HERE, "203.0.113.77")
        before = metrics.IP_MISMATCHES.labels(*labels)._value.get()
        async with out.running(settings(egress_check=f"127.0.0.1:{port}", egress_check_seconds=3600.0)) as sender:
            async with asyncio.timeout(10):
                while not asked:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            assert sender.ready
        assert asked == [HERE]
        assert metrics.IP_MISMATCHES.labels(*labels)._value.get() - before == mismatches
