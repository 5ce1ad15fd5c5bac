"""The proxy's handshake as a machine: what it answers, what it refuses, and that chunks do not matter."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfleet_core.socks import wire
from mailfleet_core.socks.wire import Code
from mailfleet_egress.decisions.session import Authenticate, Bind, Connect, Event, Refused, Session, State

GREETING, WITH_PASSWORD = b"\x05\x01\x00", b"\x05\x01\x02"
BIND = wire.message(wire.BIND, "203.0.113.7")
CONNECT = wire.message(wire.CONNECT, "198.51.100.25", 25)
OK = wire.message(Code.DONE, "203.0.113.7")
JOINED = wire.message(Code.DONE, "203.0.113.7", 4711)


def played(session: Session, chunks: list[bytes], known: bool = True) -> tuple[list[Event], bytes, bytes, State]:
    """Everything that comes of `chunks` when the answers come at once: events, octets sent, octets ahead, state."""
    told: list[Event] = []
    out = b""

    def act(events: list[Event]) -> None:
        nonlocal out
        for event in events:
            told.append(event)
            if isinstance(event, Authenticate):
                act(session.authenticated(known))
            elif isinstance(event, Bind):
                act(session.bound(Code.DONE, "", event.address))
            elif isinstance(event, Connect):
                act(session.connected(Code.DONE, "", "203.0.113.7", 4711))
        out += session.output()

    for chunk in chunks:
        act(session.receive(chunk))
    state = session.state
    return told, out, session.rest(), state


def test_a_source_and_a_destination_make_a_connection() -> None:
    told, out, rest, state = played(Session(users=False), [GREETING, BIND, CONNECT, b"EHLO x\r\n"])
    assert told == [Bind("203.0.113.7"), Connect("198.51.100.25", 25)]
    assert (out, rest, state) == (b"\x05\x00" + OK + JOINED, b"EHLO x\r\n", State.OPEN)


def test_where_there_are_users_a_password_is_asked_for() -> None:
    said = wire.password_message("sender", "söcret")
    told, out, _, _ = played(Session(users=True), [b"\x05\x02\x00\x02" + said + BIND])
    assert told == [Authenticate("sender", "söcret"), Bind("203.0.113.7")]
    assert out == b"\x05\x02\x01\x00" + OK


def test_a_wrong_password_ends_it_before_anything_is_asked_for() -> None:
    said = WITH_PASSWORD + wire.password_message("sender", "x") + BIND + CONNECT
    told, out, rest, state = played(Session(users=True), [said], known=False)
    assert told == [Authenticate("sender", "x"), Refused("password")]
    assert (out, rest, state) == (b"\x05\x02\x01\x01", b"", State.OVER)


IPV6 = wire.message(wire.BIND, "2001:db8::7")


@pytest.mark.parametrize(
    ("said", "users", "reason", "answer"),
    [
        (b"GET / HTTP/1.1\r\n", False, "not_socks", b""),
        (b"\x04\x01\x00\x19\xc6\x33\x64\x19\x00", False, "not_socks", b""),
        (b"\x16\x03\x01\x02\x00", False, "not_socks", b""),
        (b"\x05\x00", False, "method", b"\x05\xff"),
        (b"\x05\x01\x01", False, "method", b"\x05\xff"),
        (b"\x05\x01\x00", True, "method", b"\x05\xff"),
        (WITH_PASSWORD + b"\x05\x01a\x01b", True, "malformed", b"\x05\x02\x01\x01"),
        (GREETING + b"\x04\x02", False, "malformed", b"\x05\x00" + wire.message(Code.FAILED)),
        (GREETING + CONNECT, False, "unbound", b"\x05\x00" + wire.message(Code.FORBIDDEN)),
        (GREETING + b"\x05\x03\x00", False, "command", b"\x05\x00" + wire.message(Code.NO_SUCH_COMMAND)),
        (GREETING + b"\x05\xff\x00", False, "command", b"\x05\x00" + wire.message(Code.NO_SUCH_COMMAND)),
        (GREETING + BIND[:-2] + b"\x00\x19", False, "source_port", b"\x05\x00" + wire.message(Code.FORBIDDEN)),
        (GREETING + BIND + BIND, False, "bound_twice", b"\x05\x00" + OK + wire.message(Code.FORBIDDEN)),
        (
            GREETING + BIND + b"\x05\x01\x00\x03\xff" + b"a" * 255 + b"\x00\x19", False, "address_type",
            b"\x05\x00" + OK + wire.message(Code.NO_SUCH_ADDRESS_TYPE),
        ),
        (GREETING + b"\x05\x02\x00\x02\x00", False, "address_type", b"\x05\x00" + wire.message(Code.NO_SUCH_ADDRESS_TYPE)),
    ],
)  # fmt: skip
def test_what_is_not_meant_for_us_is_refused_with_the_reason(
    said: bytes, users: bool, reason: str, answer: bytes
) -> None:
    told, out, rest, state = played(Session(users), [said, b"more"])
    assert told[-1] == Refused(reason)
    assert (out, rest, state) == (answer, b"", State.OVER)


def test_ipv6_is_spelled_as_the_settings_spell_it() -> None:
    told, out, _, _ = played(Session(users=False), [GREETING, IPV6])
    assert told == [Bind("2001:db8::7")]
    assert out.endswith(wire.message(Code.DONE, "2001:db8::7"))


def test_nothing_is_read_on_while_it_is_our_turn() -> None:
    session = Session(users=False)
    assert session.receive(GREETING + BIND + CONNECT) == [Bind("203.0.113.7")]
    assert session.waiting
    assert session.receive(b"") == []
    assert session.bound(Code.DONE) == [Connect("198.51.100.25", 25)]


messages = st.sampled_from(
    [
        GREETING, WITH_PASSWORD, BIND, IPV6, CONNECT, wire.password_message("a", "b" * 255), b"\x05\xff", b"\x05\x02\x00\x03",
        b"\x01\xff" + b"u" * 255, b"\x05\x01\x00\x04" + b"\xff" * 18, b"220 mx ESMTP\r\n", b"\x00",
    ]
)  # fmt: skip
texts = st.lists(st.one_of(messages, st.binary(max_size=40)), max_size=8).map(b"".join)


@given(said=texts, cuts=st.lists(st.integers(0, 2000), max_size=20), users=st.booleans(), known=st.booleans())
def test_the_same_octets_come_to_the_same_however_they_are_divided(
    said: bytes, cuts: list[int], users: bool, known: bool
) -> None:
    at = sorted({0, len(said), *(cut % (len(said) + 1) for cut in cuts)})
    chunks = [said[start:end] for start, end in pairwise(at)]
    octets = [said[index : index + 1] for index in range(len(said))]
    whole = played(Session(users), [said], known)
    assert played(Session(users), chunks, known) == whole
    assert played(Session(users), octets, known) == whole


@given(said=texts, users=st.booleans())
def test_a_client_that_is_not_known_never_gets_beyond_the_password(said: bytes, users: bool) -> None:
    told, _, _, state = played(Session(users=True), [said], known=False)
    assert state is not State.OPEN
    assert not [event for event in told if isinstance(event, Bind | Connect)]


@given(said=texts)
def test_it_never_holds_more_than_one_message(said: bytes) -> None:
    session = Session(users=True)
    for octet in said:
        events = session.receive(bytes((octet,)))
        if session.state is State.OVER or any(isinstance(event, Authenticate) for event in events):
            break
        assert len(session._buffer) <= 3 + 255 + 255
