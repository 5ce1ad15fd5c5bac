"""The client's side of SOCKS5, the names of proxies, and what servers say of our address."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfleet_core.socks import seen, wire
from mailfleet_core.socks.client import Client, ProxyFailed, Stage
from mailfleet_core.socks.proxy import Proxy, proxy_of, users
from mailfleet_core.socks.wire import Code

DONE = wire.message(Code.DONE)
BANNER = b"220 mx.example ESMTP\r\n"


def talk(client: Client, answers: list[bytes]) -> bytes:
    """All that the client sends, when the proxy answers with exactly what may be read."""
    sent = client.greeting
    said = b"".join(answers)
    while said and client.stage < Stage.OPEN:
        chunk, said = said[: client.needs], said[client.needs :]
        sent += client.receive(chunk)
        if client.bound:
            sent += client.connect("198.51.100.25", 25)
    assert client.rest == b""
    return sent


def test_the_source_is_named_before_the_destination() -> None:
    client = Client("203.0.113.7")
    sent = talk(client, [b"\x05\x00", DONE, DONE])
    bind, connect = wire.message(wire.BIND, "203.0.113.7"), wire.message(wire.CONNECT, "198.51.100.25", 25)
    assert sent == b"\x05\x01\x00" + bind + connect
    assert client.stage is Stage.OPEN


def test_a_user_proves_who_it_is_first() -> None:
    client = Client("203.0.113.7", "sender", "secret")
    sent = talk(client, [b"\x05\x02", b"\x01\x00", DONE, DONE])
    assert sent.startswith(b"\x05\x01\x02\x01\x06sender\x06secret\x05\x02")


@pytest.mark.parametrize(
    ("answers", "stage", "code"),
    [
        ([b"HT"], Stage.REACH, Code.DONE),
        ([b"\x05\xff"], Stage.PASSWORD, Code.DONE),
        ([b"\x05\x02"], Stage.PASSWORD, Code.DONE),
        ([b"\x05\x00", wire.message(Code.FAILED)], Stage.BIND, Code.FAILED),
        ([b"\x05\x00", wire.message(Code.FORBIDDEN)], Stage.BIND, Code.FORBIDDEN),
        ([b"\x05\x00", b"\x04" + DONE[1:]], Stage.BIND, Code.DONE),
        ([b"\x05\x00", DONE[:3] + b"\x09" + DONE[4:]], Stage.BIND, Code.DONE),
        ([b"\x05\x00", DONE, wire.message(Code.REFUSED)], Stage.CONNECT, Code.REFUSED),
        ([b"\x05\x00", DONE, wire.message(0x99)], Stage.CONNECT, 0x99),
    ],
)
def test_a_failure_tells_how_far_it_came(answers: list[bytes], stage: Stage, code: int) -> None:
    with pytest.raises(ProxyFailed) as failed:
        talk(Client("203.0.113.7"), answers)
    assert (failed.value.stage, failed.value.code) == (stage, code)


@given(st.lists(st.integers(1, 40), max_size=30), st.sampled_from([DONE, wire.message(0, "2001:db8::1", 9)]))
def test_what_is_read_in_one_go_is_never_lost(sizes: list[int], last: bytes) -> None:
    client = Client("203.0.113.7", "a", "b")
    said = b"\x05\x02\x01\x00" + DONE + last + BANNER
    for size in [*sizes, len(said)]:
        chunk, said = said[:size], said[size:]
        client.receive(chunk)
        if client.bound:
            client.connect("198.51.100.25", 25)
            client.receive(b"")
    assert client.rest == BANNER


@given(st.binary(max_size=60))
def test_whatever_a_proxy_says_it_is_an_answer_or_a_failure(said: bytes) -> None:
    client = Client("203.0.113.7")
    try:
        talk(client, [said])
    except ProxyFailed:
        return
    assert client.stage is not Stage.OPEN or said.startswith(b"\x05\x00\x05\x00")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("socks5://proxy", Proxy("proxy")),
        ("socks5://proxy:1081", Proxy("proxy", 1081)),
        ("socks5s://a%40b@proxy.mail-egress:1", Proxy("proxy.mail-egress", 1, "a@b", True)),
        ("socks5://[2001:db8::1]:1080", Proxy("2001:db8::1", 1080)),
    ],
)
def test_a_proxy_has_a_name(text: str, expected: Proxy) -> None:
    assert proxy_of(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "proxy:1080", "http://proxy", "socks5://", "socks5://a:b@proxy", "socks5://proxy:99999", "socks5://a/b"],
)
def test_what_is_no_proxy_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="proxy"):
        proxy_of(text)


def test_users_are_lines_of_name_and_password() -> None:
    assert users("# us\n\nsender: a:b\nother:scrypt$00$11\n") == {"sender": " a:b", "other": "scrypt$00$11"}
    for broken in ("sender", "sender:", ":x", "a:b\na:c"):
        with pytest.raises(ValueError, match="line"):
            users(broken)


@pytest.mark.parametrize(
    ("reply", "greeting", "expected"),
    [
        ("220 egress-check [203.0.113.7]", True, "203.0.113.7"),
        ("220 egress-check [::ffff:203.0.113.7]", True, "203.0.113.7"),
        ("220 mx [198.51.100.1] ESMTP", True, ""),
        ("250-mx.google.com at your service, [203.0.113.7] 250 SIZE", False, "203.0.113.7"),
        ("250 mx Hello host [IPv6:2001:DB8::7]", False, "2001:db8::7"),
        ("250 mx [not.an.address] [1.2.3]", False, ""),
        ("250 mx", False, ""),
    ],
)
def test_servers_say_what_they_see(reply: str, greeting: bool, expected: str) -> None:
    assert seen.told(reply, greeting) == expected


def test_only_another_address_is_a_mismatch() -> None:
    assert seen.told(seen.answer("::ffff:203.0.113.7").decode(), greeting=True) == "203.0.113.7"
    assert seen.Seen("203.0.113.7", "").mismatches("203.0.113.8")
    assert not seen.Seen("203.0.113.7", "").mismatches("203.0.113.8", "203.0.113.7")
    assert not seen.Seen("2001:db8::7", "").mismatches("2001:DB8:0::7")
    assert not seen.Seen("", "no answer").mismatches("203.0.113.8")
