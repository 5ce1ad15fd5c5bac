"""The short way through the state machine says what the long way says."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailfleet_core.smtp import address
from mailfleet_ingest.decisions import reply
from mailfleet_ingest.decisions.dialogue import Complete, StartTls
from mailfleet_ingest.decisions.policy import Identity, Limits, Policy
from mailfleet_ingest.decisions.session import Session

OWNER = Identity("", "acme", domains=frozenset({"b.example"}))
LIMITS = Limits(message_bytes=2000, recipients=3, commands_without_mail=12, errors=6)
ADDRESSES = [
    b"a@b.example", b"A.b+c@b.example", b"c@d.example", b"", b"a@b", b"a@1", b"a@[192.0.2.1]", b'"a b"@b.example',
    b"a..b@b.example", b".a@b.example", b"a@-b.example", b"a@b.example.", b"@b.example", b"a@b@c", b"x" * 64 + b"@b.example",
    b"x" * 65 + b"@b.example", b"a@" + b"b" * 63 + b".example", b"a@" + b"b" * 64 + b".example", b"a@" + b"b.c" * 84 + b".de",
    b"a@b\0.example", b"a\r@b.example", b"a@b.example>\r\nDATA", "\u00e4@b.example".encode(), b"\xff@b.example", b"a@\xff",
]  # fmt: skip
COMMANDS = [
    b"DATA\r\n", b"data\r\n", b"DATA \r\n", b"RSET\r\n", b"NOOP\r\n", b"QUIT\r\n", b"EHLO x\r\n", b"STARTTLS\r\n", b"BDAT 0\r\n",
    b"BDAT 5 LAST\r\nhello", b"BDAT 0 LAST\r\n", b"DATA\n", b"DATA\r\n\r\n", b"", b"\r\n", b".\r\n", b"\r\n.\r\n",
    b"Subject: x\r\n\r\nhello\r\n.\r\n", b"hello\r\n", b".hello\r\n.\r\n", b"a\r\n..b\r\n.\r\n", b"bare\nnewline\r\n.\r\n",
    b"x" * 990 + b"\r\n" + b"y" * 990 + b"\r\nz" * 9 + b"\r\n.\r\n", b"one\r\n.\r\nRSET\r\n", b"nul\0\r\n.\r\n",
]  # fmt: skip
PATHS = st.builds(
    bytes.__add__,
    st.sampled_from([b"MAIL FROM:<", b"RCPT TO:<", b"mail from:<", b"Rcpt To:<", b"RCPT TO: <", b"MAIL FROM: <"]),
    st.builds(
        bytes.__add__,
        st.sampled_from(ADDRESSES) | st.binary(max_size=12),
        st.sampled_from(
            [b">\r\n", b">\r\n", b">\r\n", b"> SIZE=10\r\n", b"> SIZE=9999\r\n", b" >\r\n", b">\n", b"\r\n"]
        ),
    ),
)
READS = st.lists(st.sampled_from(COMMANDS) | PATHS | st.binary(max_size=20), max_size=30)
GOOD = [b"EHLO x\r\n", b"MAIL FROM:<a@b.example>\r\n", b"RCPT TO:<c@d.example>\r\n", b"DATA\r\n"]
MESSAGE = b"Subject: x\r\n\r\nhello\r\n.\r\n"


class Heard:
    """A session whose every effect is noted, read by read."""

    def __init__(self, *, at_once, identity=OWNER, refusals=()):
        self.session = Session(
            Policy("mx.example", identity, starttls=True, limits=LIMITS), "192.0.2.1", refusal=self._refusal
        )
        self.at_once = at_once
        self.refusals = refusals
        self.reads = self.short = 0
        self.seen = []

    def _refusal(self):
        return reply.OVERLOADED if self.reads in self.refusals else None

    def read(self, data):
        self.reads += 1
        answer = self.session.at_once(data) if self.at_once else None
        if answer is not None:
            self.short += 1
            self._note(answer, [])
        elif data:
            self._go_on(data)

    def _go_on(self, data):
        events = self.session.receive(data)
        self._note(self.session.output(), events)
        for event in events:
            if isinstance(event, Complete):
                self.session.stored(reply.accepted("ID"))
                self._go_on(b"")
            elif isinstance(event, StartTls):
                self.session.tls_started()

    def _note(self, output, events):
        session, transaction = self.session, self.session._transaction
        said = [(type(event), getattr(event, "data", None)) for event in events]
        envelope = transaction and (transaction.mail, list(transaction.recipients))
        refused = list(session.rejections)
        self.seen.append((output, said, envelope, session._state, session.in_content, session.waiting, session.held_bytes,
                          session.commands, session._idle_commands, session._errors, refused))  # fmt: skip


@given(READS, st.sets(st.integers(1, 30), max_size=3))
@example([*GOOD, MESSAGE, *GOOD[1:], MESSAGE], set())
@example([*GOOD, MESSAGE, *GOOD[1:], MESSAGE], {7})
@example([*GOOD[:3], b"NO", *GOOD[3:]], set())
@example([*GOOD, *GOOD[1:], MESSAGE], set())
@example([*GOOD[:3], *GOOD[2:3] * 3, *GOOD[3:], MESSAGE], set())
@example([*GOOD[:3], b"BDAT 3\r\nx\r\n", b"DATA\r\n", b"RCPT TO:<c@d.example>\r\n"], set())
@example([GOOD[0], GOOD[1], b"DATA\r\n", b"RCPT TO:<c@d.example>\r\nDATA\r\n", MESSAGE], set())
@example([*GOOD, MESSAGE, b"STARTTLS\r\n", *GOOD, MESSAGE], set())
def test_a_command_answered_at_once_is_answered_as_any_other(reads, refusals):
    short, long = Heard(at_once=True, refusals=refusals), Heard(at_once=False, refusals=refusals)
    for data in [*GOOD[:1], *reads]:
        short.read(data)
        long.read(data)
    assert short.seen == long.seen


def test_the_second_mail_of_a_session_is_answered_at_once():
    heard = Heard(at_once=True)
    for data in [*GOOD, MESSAGE, *GOOD[1:], MESSAGE]:
        heard.read(data)
    assert heard.short == 5  # RCPT and DATA of the first mail, all of the second


def test_a_sender_that_was_known_is_judged_anew_after_authentication():
    heard = Heard(at_once=True)
    for data in [*GOOD, MESSAGE]:
        heard.read(data)
    heard.session.authenticated(Identity("other", "other", domains=frozenset({"other.example"})))
    heard.session.output()
    assert heard.session.at_once(GOOD[1]) is None
    heard.session.receive(GOOD[1])
    assert heard.session.output() == reply.NOT_YOURS.wire


def test_a_session_remembers_few_senders():
    heard = Heard(at_once=True)
    heard.read(GOOD[0])
    for number in range(100):
        heard.read(b"MAIL FROM:<a%d@b.example>\r\n" % number)
        heard.read(b"RSET\r\n" if number % 8 else b"EHLO x\r\n")
    assert len(heard.session._known_senders) <= 8


@given(st.sampled_from(ADDRESSES) | st.from_regex(rb"[ab.+@1-]{0,12}", fullmatch=True) | st.binary(max_size=20))
def test_a_plain_mailbox_is_a_mailbox_and_means_itself(data):
    found = address.plain(data)
    if found:
        assert found.encode() == data
        assert address._careful(data, False) == found
    elif data.isascii() and b'"' not in data and len(data) <= address.MAX_ADDRESS_OCTETS:
        with pytest.raises(address.BadAddress):
            address._careful(data, False)
