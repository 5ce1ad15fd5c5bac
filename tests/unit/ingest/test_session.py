"""The SMTP server's state machine."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfleet_core.model import wire
from mailfleet_ingest.decisions import reply
from mailfleet_ingest.decisions.dialogue import Authenticate, Block, Close, Complete, StartTls
from mailfleet_ingest.decisions.policy import Identity, Limits, Policy
from mailfleet_ingest.decisions.session import Session

TRUSTED = Identity("", "acme", null_sender=True)
ENVELOPE = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n"


class Client:
    """A session with a shell that says yes to everything and remembers what it was given."""

    def __init__(self, policy=None, *, step=0, session=None):
        self.session = session or Session(policy or Policy("mx.example", TRUSTED), "192.0.2.1")
        self.step = step
        self.messages = []
        self.events = []
        self.replies = b""
        self._blocks = []

    def greeted(self):
        self.say(b"EHLO client.example\r\n")
        self.replies = b""
        return self

    def say(self, data):
        """Feed `data`, whole or `step` bytes at a time; the replies to it."""
        before = len(self.replies)
        for start in range(0, len(data), self.step or len(data) or 1):
            self._take(self.session.receive(data[start : start + (self.step or len(data))]))
        return self.replies[before:]

    def _take(self, events):
        self.replies += self.session.output()
        for event in events:
            self.events.append(event)
            if isinstance(event, Block):
                self._blocks.append(event.data)
            elif isinstance(event, Complete):
                self.messages.append((event.transaction, b"".join([*self._blocks, event.data])))
                self._blocks = []
                self.session.stored(reply.reply("250 2.0.0 Accepted"))
                self._take(self.session.receive(b""))

    @property
    def closed(self):
        return any(isinstance(event, Close) for event in self.events)


def codes(replies):
    """The codes of all replies, continuation lines left out."""
    return [line[:3].decode() for line in replies.split(b"\r\n") if line and line[3:4] == b" "]


def test_a_pipelined_mail_is_answered_in_one_piece_and_in_order():
    client = Client().greeted()
    events = client.session.receive(ENVELOPE + b"DATA\r\nSubject: x\r\n\r\nhello\r\n.\r\nQUIT\r\n")
    assert codes(client.session.output()) == ["250", "250", "354"]
    assert isinstance(events[0], Complete)
    client.session.stored(reply.accepted("ID"))
    assert client.session.receive(b"") == [Close()]
    assert client.session.output() == b"250 2.0.0 Accepted ID\r\n221 2.0.0 Bye\r\n"


def test_nothing_is_read_while_an_answer_is_due():
    client = Client().greeted()
    client.session.receive(ENVELOPE + b"DATA\r\nSubject: x\r\n\r\nhello\r\n.\r\n")
    client.session.output()
    assert client.session.receive(b"NOOP\r\n") == []
    assert client.session.output() == b""


contents = st.lists(
    st.sampled_from([b"", b".", b"..", b".x", b"text", b"Subject: x", b"-", b"QUIT", "é".encode()]), max_size=12
).map(lambda lines: b"".join(line + b"\r\n" for line in lines))
commands = st.sampled_from(
    [
        b"NOOP\r\n",
        b"RSET\r\n",
        b"VRFY x\r\n",
        b"MAIL FROM:<a@b.example> SIZE=1\r\n",
        b"MAIL FROM:<>\r\n",
        b"MAIL\r\n",
        b"RCPT TO:<c@d.example> NOTIFY=NEVER\r\n",
        b"RCPT TO:<>\r\n",
        b"BDAT 3\r\nabc",
        b"BDAT 2 LAST\r\n\r\n",
        b"nonsense\r\n",
        b"DATA\r\nSubject: x\r\n\r\n..\r\n.\r\n",
    ]
)


def stuffed(content):
    return (
        content.replace(b"\r\n.", b"\r\n..")
        if not content.startswith(b".")
        else b"." + content.replace(b"\r\n.", b"\r\n..")
    )


@given(st.lists(contents, min_size=1, max_size=3), st.integers(1, 7))
def test_fed_in_pieces_it_does_what_it_does_fed_whole(mails, step):
    script = b"".join(ENVELOPE + b"DATA\r\n" + stuffed(content) + b".\r\n" for content in mails)
    whole, pieces = Client().greeted(), Client(step=step).greeted()
    whole.say(script)
    pieces.say(script)
    assert pieces.replies == whole.replies
    assert [content for _, content in pieces.messages] == [content for _, content in whole.messages] == mails


@given(st.lists(commands, max_size=12))
def test_any_order_of_commands_gives_the_same_replies_byte_by_byte(script):
    # A DATA that is refused ends a session that pipelined content behind it; sent alone it does not.
    whole, pieces = Client().greeted(), Client(step=1).greeted()
    for command in script:
        if command.startswith(b"DATA") and whole.session._state.name != "RCPT":
            continue
        assert pieces.say(command) == whole.say(command)
    assert len(pieces.messages) == len(whole.messages)


@given(st.binary(max_size=300))
def test_no_bytes_lead_to_an_undefined_state_or_a_broken_reply(data):
    client = Client().greeted()
    client.say(data)
    assert client.replies == b"" or client.replies.endswith(b"\r\n")
    assert client.replies.count(b"\n") == client.replies.count(b"\r\n")


@pytest.mark.parametrize("size", [0, 1, 255 << 10, 256 << 10, 700 << 10])
def test_content_of_any_length_arrives_whole(size):
    line = b"x" * 70 + b"\r\n"
    content = b"Subject: x\r\n\r\n" + line * (size // len(line))
    client = Client(step=65_536).greeted()
    client.say(ENVELOPE + b"DATA\r\n")
    client.say(content + b".\r\n")
    assert client.messages[0][1] == content


def test_a_dot_and_a_block_boundary_in_the_same_place_lose_nothing():
    for padding in range(8):
        content = b"S: x\r\n\r\n" + b"y" * padding + b"\r\n" + (b"z" * 62 + b"\r\n") * 5000 + b".dot\r\n"
        client = Client(step=4096).greeted()
        client.say(ENVELOPE + b"DATA\r\n")
        client.say(stuffed(content) + b".\r\n")
        assert client.messages[0][1] == content


SMUGGLING = {
    "lf_dot_lf": b"\n.\n",
    "lf_dot_crlf": b"\n.\r\n",
    "crlf_dot_lf": b"\r\n.\n",
    "cr_dot_cr": b"\r.\r",
    "cr_dot_crlf": b"\r.\r\n",
    "crlf_dot_cr": b"\r\n.\r",
    "lf_dot_cr": b"\n.\r",
    "cr_dot_lf": b"\r.\n",
    "nul_before_dot": b"\r\n\0.\r\n",
    "nul_after_dot": b"\r\n.\0\r\n",
    "crlf_dot_cr_crlf": b"\r\n.\r\r\n",
    "cr_crlf_dot_crlf": b"\r\r\n.\r\n"[:-2] + b"\n",
    "lf_lf_dot": b"\n\n.\r\n",
    "crlf_lf_dot_crlf": b"\r\n\n.\r\n",
    "vertical_tab": b"\r\n\x0b.\r\n",
}


@pytest.mark.parametrize("variant", SMUGGLING)
@pytest.mark.parametrize("step", [0, 1])
def test_only_crlf_dot_crlf_ends_content(variant, step):
    """The hidden mail behind a false end is never a mail of its own."""
    client = Client(step=step).greeted()
    hidden = b"MAIL FROM:<evil@b.example>\r\nRCPT TO:<victim@d.example>\r\nDATA\r\nhidden\r\n"
    client.say(ENVELOPE + b"DATA\r\nSubject: x\r\n\r\nhello" + SMUGGLING[variant] + hidden)
    answers = codes(client.say(b"\r\n.\r\nNOOP\r\n"))
    assert answers == (["250", "250"] if variant == "vertical_tab" else ["550", "250"])
    assert len(client.messages) == (1 if variant == "vertical_tab" else 0)


@pytest.mark.parametrize("line", [b"NOOP\n", b"NOOP\r", b"NO\0OP\r\n", b"NOOP\rNOOP\r\n", b"\n"])
def test_a_command_with_a_bare_newline_or_nul_ends_the_session(line):
    client = Client().greeted()
    client.say(line + b"\r\n")
    assert codes(client.replies) == ["500"]
    assert client.closed


def test_a_listener_that_repairs_makes_bare_lf_crlf():
    client = Client(Policy("mx.example", TRUSTED, repair_bare_lf=True)).greeted()
    client.say(ENVELOPE + b"DATA\r\nSubject: x\n\nhello\n.\nmore\r\n.\r\n")
    assert client.messages[0][1].count(b"\n") == client.messages[0][1].count(b"\r\n") == 5


@pytest.mark.parametrize(("octets", "code"), [(998, "250"), (999, "550")])
def test_a_content_line_may_have_998_octets_and_no_more(octets, code):
    client = Client().greeted()
    client.say(ENVELOPE + b"DATA\r\n")
    assert codes(client.say(b"Subject: x\r\n\r\n" + b"x" * octets + b"\r\n.\r\n")) == [code]


def test_an_endless_line_is_not_kept_in_memory():
    client = Client().greeted()
    client.say(ENVELOPE + b"DATA\r\n")
    for _ in range(200):
        client.say(b"x" * 65_536)
        assert client.session.held_bytes <= 512 << 10


def test_a_message_over_the_limit_is_refused_at_its_end_and_the_session_goes_on():
    client = Client(Policy("mx.example", TRUSTED, limits=Limits(message_bytes=1000))).greeted()
    assert codes(client.say(b"MAIL FROM:<a@b.example> SIZE=1001\r\n")) == ["552"]
    client.say(ENVELOPE + b"DATA\r\n")
    assert codes(client.say(b"S: x\r\n\r\n" + b"x\r\n" * 400 + b".\r\nNOOP\r\n")) == ["552", "250"]


def test_a_client_that_never_stops_sending_is_cut_off():
    client = Client(Policy("mx.example", TRUSTED, limits=Limits(message_bytes=1000))).greeted()
    client.say(ENVELOPE + b"DATA\r\n")
    for _ in range(200):
        client.say((b"x" * 70 + b"\r\n") * 1000)
    assert client.closed


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (b"RCPT TO:<a@b.example>", "503"),
        (b"DATA", "503"),
        (b"MAIL FROM:a@b.example", "553"),
        (b"MAIL FROM:<a@b.example> X=1", "555"),
        (b"MAIL FROM:<a@b.example> BODY=BINARYMIME", "501"),
        (b"MAIL FROM:<a@b.example> SIZE=x", "501"),
        (b"MAIL FROM:<a@b.example> RET=ALL", "501"),
        (b"MAIL FROM:<a@b.example> SIZE=1 SIZE=2", "501"),
        (b"MAIL FROM:<\xc3\xa9@b.example>", "553"),
        (b"MAIL FROM:<a@b.example>X", "553"),
        (b"MAIL TO:<a@b.example>", "501"),
        (b"VRFY a", "252"),
        (b"HELP", "214"),
        (b"NOOP anything", "250"),
        (b"EXPN list", "500"),
        (b"STARTTLS", "503"),
        (b"EHLO", "501"),
        (b"X" * 600, "500"),
        (b"NOOP " + b"x" * 600, "500"),
    ],
)
def test_what_a_command_is_answered_after_ehlo(command, code):
    assert codes(Client().greeted().say(command + b"\r\n")) == [code]


def test_mail_before_ehlo_is_a_bad_sequence():
    assert codes(Client().say(b"MAIL FROM:<a@b.example>\r\n")) == ["503"]


def test_dsn_and_auth_parameters_are_kept_exactly():
    client = Client().greeted()
    client.say(b"MAIL FROM:<a@b.example> RET=hdrs ENVID=QQ+2B3aB= AUTH=<>\r\n".replace(b"aB=", b"aB"))
    client.say(b"RCPT TO:<c@d.example> NOTIFY=success,FAILURE ORCPT=rfc822;Some+2BOne@D.example\r\n")
    client.say(b"RCPT TO:<e@d.example> NOTIFY=NEVER\r\nDATA\r\n\r\n.\r\n")
    transaction, _ = client.messages[0]
    assert (transaction.mail.ret, transaction.mail.envid) == ("HDRS", "QQ+2B3aB")
    assert transaction.recipients == [
        wire.Recipient(0, "c@d.example", wire.NOTIFY_SUCCESS | wire.NOTIFY_FAILURE, "rfc822;Some+2BOne@D.example"),
        wire.Recipient(1, "e@d.example", wire.NOTIFY_NEVER),
    ]


@pytest.mark.parametrize(
    "parameter", [b"NOTIFY=NEVER,FAILURE", b"NOTIFY=", b"NOTIFY=X", b"ORCPT=c@d", b"ORCPT=rfc822;a=b"]
)
def test_malformed_dsn_parameters_are_refused(parameter):
    client = Client().greeted()
    client.say(b"MAIL FROM:<a@b.example>\r\n")
    assert codes(client.say(b"RCPT TO:<c@d.example> " + parameter + b"\r\n")) == ["501"]


def test_utf8_addresses_need_smtputf8_and_pass_unchanged_with_it():
    client = Client().greeted()
    client.say("MAIL FROM:<é@b.example> SMTPUTF8\r\nRCPT TO:<用户@例え.example>\r\nDATA\r\n\r\n.\r\n".encode())
    transaction, _ = client.messages[0]
    assert transaction.mail.reverse_path == "é@b.example"
    assert transaction.recipients[0].address == "用户@例え.example"


def test_recipients_after_the_limit_get_452_and_the_others_their_mail():
    client = Client(Policy("mx.example", TRUSTED, limits=Limits(recipients=2))).greeted()
    client.say(b"MAIL FROM:<a@b.example>\r\n")
    assert codes(client.say(b"RCPT TO:<c@d.example>\r\n" * 3)) == ["250", "250", "452"]
    client.say(b"DATA\r\n\r\n.\r\n")
    assert len(client.messages[0][0].recipients) == 2


def test_the_size_of_chunks_decides_and_not_what_is_in_them():
    client = Client().greeted()
    first, last = b"Subject: x\r\n\r\n.\r\n", b"\r\n.\r\nQUIT\r\nend"
    client.say(ENVELOPE + b"BDAT %d\r\n" % len(first) + first + b"BDAT %d LAST\r\n" % len(last) + last + b"NOOP\r\n")
    assert codes(client.replies) == ["250"] * 5
    assert client.messages[0][1] == first + last + b"\r\n"


def test_a_chunk_without_recipients_is_read_past_and_refused():
    client = Client().greeted()
    assert codes(client.say(b"BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n")) == ["503", "250"]


@pytest.mark.parametrize("argument", [b"", b"-1", b"99999999999", b"x", b"5 FIRST", b"5 LAST LAST"])
def test_a_chunk_of_unknown_size_ends_the_session(argument):
    client = Client().greeted()
    client.say(ENVELOPE + b"BDAT " + argument + b"\r\nhello\r\n")
    assert codes(client.replies)[-1] == "501"
    assert client.closed


def test_data_that_is_refused_takes_the_content_behind_it_along():
    client = Client().greeted()
    client.say(b"MAIL FROM:<a@b.example>\r\nDATA\r\nMAIL FROM:<x@b.example>\r\n.\r\n")
    assert codes(client.replies) == ["250", "503"]
    assert client.closed


def test_commands_behind_ehlo_in_one_packet_are_refused():
    client = Client()
    client.say(b"EHLO x\r\nMAIL FROM:<a@b.example>\r\n")
    assert codes(client.replies) == ["554"]
    assert client.closed


# --- TLS and AUTH

SUBMISSION = Policy("mx.example", None, starttls=True, auth=True)
OWNER = Identity("app", "acme", domains=frozenset({"b.example", "*.c.example"}))


def in_tls(policy=SUBMISSION):
    client = Client(policy).greeted()
    client.say(b"STARTTLS\r\n")
    client.session.tls_started()
    return client.greeted()


def test_starttls_forgets_what_was_said_before():
    client = Client(SUBMISSION).greeted()
    client.say(b"STARTTLS\r\n")
    assert isinstance(client.events[-1], StartTls)
    client.session.tls_started()
    assert codes(client.say(b"MAIL FROM:<a@b.example>\r\n")) == ["503"]
    assert codes(client.greeted().say(b"STARTTLS\r\n")) == ["503"]


class Unguarded(Session):
    """Without the check for plain text behind STARTTLS."""

    def _starttls(self, argument):
        self._go(b"STARTTLS", reply.TLS_GO)

    handlers = {**Session.handlers, b"STARTTLS": _starttls}  # noqa: RUF012


def test_plain_text_behind_starttls_ends_the_session_and_would_be_obeyed_without_the_guard():
    client = Client(SUBMISSION).greeted()
    assert client.say(b"STARTTLS\r\nRSET\r\n") == b""
    assert client.events == [Close(abort=True)]
    unguarded = Client(session=Unguarded(SUBMISSION, "192.0.2.1")).greeted()
    assert codes(unguarded.say(b"STARTTLS\r\nRSET\r\n")) == ["220", "250"]


def test_auth_is_offered_and_taken_only_under_tls():
    client = Client(SUBMISSION)
    assert b"AUTH" not in client.say(b"EHLO x\r\n")
    assert codes(client.say(b"AUTH PLAIN AGEAYg==\r\n")) == ["538"]
    assert b"AUTH PLAIN LOGIN" in in_tls().say(b"EHLO x\r\n")


def test_without_auth_nobody_relays():
    assert codes(Client(SUBMISSION).greeted().say(b"MAIL FROM:<a@b.example>\r\n")) == ["530"]
    assert codes(in_tls().say(b"MAIL FROM:<a@b.example>\r\n")) == ["530"]


@pytest.mark.parametrize(
    "script",
    [
        [b"AUTH PLAIN " + base64.b64encode(b"\0app\0secret")],
        [b"auth plain", base64.b64encode(b"app\0app\0secret")],
        [b"AUTH LOGIN", base64.b64encode(b"app"), base64.b64encode(b"secret")],
        [b"AUTH login " + base64.b64encode(b"app"), base64.b64encode(b"secret")],
    ],
)
def test_each_mechanism_says_user_and_password(script):
    client = in_tls()
    client.say(b"".join(line + b"\r\n" for line in script))
    said = client.events[-1]
    assert isinstance(said, Authenticate)
    assert (said.user, said.password) == (b"app", b"secret")


def test_a_response_may_be_12_kilobytes_and_no_more():
    response = base64.b64encode(b"\0app\0" + b"x" * 9000)
    client = in_tls()
    client.say(b"AUTH PLAIN\r\n" + response + b"\r\n")
    assert isinstance(client.events[-1], Authenticate)
    client = in_tls()
    client.say(b"AUTH PLAIN\r\n" + b"A" * 13_000)
    assert codes(client.replies)[-1] == "500"


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (b"AUTH CRAM-MD5\r\n", "504"),
        (b"AUTH PLAIN\r\n*\r\n", "501"),
        (b"AUTH PLAIN !!\r\n", "501"),
        (b"AUTH PLAIN AGEA\r\n".replace(b"AGEA", base64.b64encode(b"other\0app\0x")), "501"),
    ],
)
def test_what_auth_refuses(script, code):
    assert codes(in_tls().say(script))[-1] == code


def test_three_wrong_passwords_end_the_session():
    client = in_tls()
    for _ in range(3):
        client.say(b"AUTH PLAIN " + base64.b64encode(b"\0app\0wrong") + b"\r\n")
        client.session.authentication_refused(reply.AUTH_REFUSED)
        client._take(client.session.receive(b""))
    assert codes(client.replies) == ["535", "535", "421"]
    assert client.closed


@pytest.mark.parametrize(
    ("sender", "code"),
    [
        (b"a@b.example", "250"),
        (b"a@B.Example", "250"),
        (b"a@x.c.example", "250"),
        (b"a@c.example", "550"),
        (b"a@d.example", "550"),
        (b"", "550"),
    ],
)
def test_a_tenant_may_only_use_its_own_sender_domains(sender, code):
    client = in_tls()
    client.say(b"AUTH PLAIN " + base64.b64encode(b"\0app\0secret") + b"\r\n")
    client.session.authenticated(OWNER)
    client.session.receive(b"")
    client.session.output()
    assert codes(client.say(b"MAIL FROM:<" + sender + b">\r\n")) == [code]


def test_overload_is_said_at_mail_and_shutdown_ends_the_session():
    client = Client(session=Session(Policy("mx.example", TRUSTED), "::1", refusal=lambda: reply.OVERLOADED)).greeted()
    assert codes(client.say(b"MAIL FROM:<a@b.example>\r\n")) == ["452"]
    client = Client(session=Session(Policy("mx.example", TRUSTED), "::1", refusal=lambda: reply.SHUTDOWN)).greeted()
    assert codes(client.say(b"MAIL FROM:<a@b.example>\r\n")) == ["421"]
    assert client.closed


@pytest.mark.parametrize("command", [b"NOOP\r\n", b"RSET\r\n", b"EHLO x\r\n"])
def test_commands_without_mail_are_numbered(command):
    client = Client(Policy("mx.example", TRUSTED, limits=Limits(commands_without_mail=5)))
    for _ in range(6):
        client.say(command)
    assert codes(client.replies)[-1] == "421"
    assert client.closed


def test_errors_are_numbered():
    client = Client().greeted()
    client.say(b"nonsense\r\n" * 30)
    assert codes(client.replies) == ["500"] * 20 + ["421"]
