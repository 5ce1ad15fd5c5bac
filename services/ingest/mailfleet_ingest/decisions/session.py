"""The SMTP server as a pure state machine: bytes in, events and replies out. No socket, no clock, no thread.

`receive` takes what came; `output` gives the replies to write, all of a pipelined burst in one piece. Some events need
an answer (`stored`, `authenticated`, `tls_started`); until it comes nothing more is read, so replies keep their order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from mailfleet_ingest.decisions import headers, parameters, reply
from mailfleet_ingest.decisions.authenticating import Authenticating
from mailfleet_ingest.decisions.content import CHUNK, MESSAGE, Chunk, Content, Dots
from mailfleet_ingest.decisions.dialogue import (
    LINE_OCTETS,
    NEXT,
    OTHER_LINE_OCTETS,
    Block,
    Complete,
    StartTls,
    State,
    Transaction,
)
from mailfleet_ingest.decisions.policy import Identity, Policy
from mailfleet_ingest.decisions.reading import WAIT
from mailfleet_ingest.decisions.reply import Reply

KNOWN_SENDERS = 8
"""MAIL commands a session remembers as good."""
READY, MAIL, RCPT = State.READY, State.MAIL, State.RCPT


class Session(Authenticating):
    """One connection's dialogue."""

    handlers: ClassVar[dict[bytes, Callable[[Session, bytes], None]]]

    def __init__(
        self, policy: Policy, client: str, *, tls: bool = False, refusal: Callable[[], Reply | None] = lambda: None
    ) -> None:
        super().__init__(policy, Session._read_command, tls=tls)
        self.client = client
        self.refusal = refusal
        """Asked at MAIL: the answer while no mail can be taken, or None."""
        self.identity = policy.identity
        self.messages = 0
        self.commands = 0
        self.greeted = ""
        self.extended = False
        self._known_senders: dict[bytes, parameters.Mail] = {}
        """MAIL commands, CRLF and all, that the policy let this identity say."""
        self._framing: Dots | Chunk | None = None
        self._idle_commands = 0
        self._traces: dict[bool, headers.Trace] = {}

    # --- what the shell calls

    def greet(self) -> None:
        """Say the banner."""
        self._say(reply.greeting(self.policy.hostname))

    def at_once(self, data: bytes) -> bytes | None:
        """The reply to `data` when it is one whole command in its turn, as nearly all are, and good; None: nothing was
        done, `receive` it. Never another reply than that of `receive`."""
        if self._read is not READ_COMMAND or self._buffer:
            return None
        state = self._state
        if state is READY:
            mail = self._known_senders.get(data)
            if mail is None or self.refusal() is not None:
                return None
            self._transaction = Transaction(mail)
            self._state = MAIL
            answer = reply.MAIL_OK.wire
        elif data == b"DATA\r\n" and state is RCPT:
            self._begin_data()
            answer = reply.DATA_GO.wire
        elif (state is MAIL or state is RCPT) and self._takes_recipient(data):
            self._state = RCPT
            answer = reply.RCPT_OK.wire
        else:
            return None
        # A transaction is under way now, so the limit of commands without one is not near.
        self.commands += 1
        self._idle_commands += 1
        return answer

    def _takes_recipient(self, line: bytes) -> bool:
        taken = self._current().recipients
        if len(taken) >= self.policy.limits.recipients:
            return False
        found = parameters.plain_recipient(line, len(taken))
        if found is None:
            return False
        taken.append(found)
        return True

    def stored(self, answer: Reply) -> None:
        """What became of the message of the last Complete."""
        self._say(answer)
        if answer.wire.startswith(b"2"):
            self.messages += 1
            self._idle_commands = self._errors = 0
        self._end_transaction()

    def authenticated(self, identity: Identity) -> None:
        """The password was right."""
        self.identity = identity
        self.authenticated_by_password = True
        self._traces.clear()
        self._known_senders.clear()
        self._say(reply.AUTH_OK)
        self._read = READ_COMMAND

    def tls_started(self) -> None:
        """The handshake succeeded: everything known of the client is forgotten (RFC 3207 4.2)."""
        self.tls = True
        self.identity = self.policy.identity
        self.greeted = ""
        self._traces.clear()
        self._known_senders.clear()
        self._state = State.NEW
        self._read = READ_COMMAND

    @property
    def between_mails(self) -> bool:
        """No transaction is under way, so the session may be ended without anybody losing work."""
        return self._transaction is None and not self.waiting

    @property
    def in_content(self) -> bool:
        """Content is being read."""
        return self._read is READ_CONTENT

    @property
    def held_bytes(self) -> int:
        """Bytes this session keeps in memory."""
        if self._transaction is None:
            return len(self._buffer)
        content = self._transaction.content
        return len(self._buffer) - self._at + (content.held_bytes if content is not None else 0)

    def refuse_content(self, answer: Reply) -> None:
        """Keep no more of the message that is coming in; `answer` at its end."""
        if self._transaction is not None and self._transaction.content is not None:
            self._transaction.content.refuse(answer)

    def trace(self) -> headers.Trace:
        """What our Received line says of this session."""
        utf8 = self._transaction is not None and self._transaction.mail.smtputf8
        if utf8 not in self._traces:
            word = headers.protocol(self.extended, self.tls, self.authenticated_by_password, utf8)
            self._traces[utf8] = headers.trace(self.greeted, self.client, self.policy.hostname, word)
        return self._traces[utf8]

    # --- commands

    def _read_command(self) -> bool:
        line = self._line()
        if line is None:
            return False
        verb, _, argument = line.partition(b" ")
        verb = verb.upper()
        self.commands += 1
        self._idle_commands += 1
        handler = self.handlers.get(verb)
        if handler is None:
            self._error(reply.UNKNOWN_COMMAND)
        elif len(line) + 2 > LINE_OCTETS.get(verb, OTHER_LINE_OCTETS):
            self._error(reply.LINE_TOO_LONG)
        elif (self._state, verb) not in NEXT and verb != b"BDAT":
            self._error(reply.NO_RECIPIENTS if (verb, self._state) == (b"DATA", State.MAIL) else reply.BAD_SEQUENCE)
            if verb == b"DATA" and self._at < len(self._buffer):
                self.close(None)  # the content of a mail we refused must not be read as commands
        else:
            try:
                handler(self, argument)
            except parameters.Refused as refused:
                self._error(refused.reply)
        if self._transaction is None and self._idle_commands > self.policy.limits.commands_without_mail:
            self._limit_reached(reply.TOO_MANY_COMMANDS)
        return True

    def _end_transaction(self) -> None:
        self._transaction = None
        self._read = READ_COMMAND
        if self._state is not State.NEW:
            self._state = State.READY

    def _ehlo(self, argument: bytes) -> None:
        self._greeting(b"EHLO", argument, reply.lines(250, [self.policy.hostname, *self.policy.extensions(self.tls)]))

    def _helo(self, argument: bytes) -> None:
        self._greeting(b"HELO", argument, reply.reply(f"250 {self.policy.hostname}"))

    def _greeting(self, verb: bytes, argument: bytes, answer: Reply) -> None:
        name = argument.strip()
        if not name or len(name) > 255 or not name.isascii() or not name.decode().isprintable():
            raise parameters.Refused(reply.SYNTAX)
        if self._at < len(self._buffer):
            # Nobody may pipeline before being told that it works; who does is not talking to us alone.
            self.close(reply.EARLY_PIPELINING)
            return
        self._transaction = None
        self.greeted = name.decode()
        self.extended = verb == b"EHLO"
        self._traces.clear()
        self._go(verb, answer)

    def _starttls(self, argument: bytes) -> None:
        if self.tls or not self.policy.starttls:
            raise parameters.Refused(reply.BAD_SEQUENCE)
        if argument:
            raise parameters.Refused(reply.SYNTAX)
        if self._at < len(self._buffer):
            # Plain text sent behind STARTTLS was put there by someone in the middle (CVE-2011-0411).
            self.close(None, abort=True)
            return
        self._go(b"STARTTLS", reply.TLS_GO)
        self._read = WAIT
        self._events.append(StartTls())

    def _mail(self, argument: bytes) -> None:
        identity = self.identity
        if identity is None:
            offered = self.policy.offers_auth(self.tls)
            raise parameters.Refused(reply.AUTH_REQUIRED if offered else reply.TLS_REQUIRED)
        mail = parameters.mail(argument, self.policy.address_literals)
        refusal = self.refusal() or self.policy.refusal(mail, identity)
        if refusal is not None:
            if refusal.wire.startswith(b"421"):
                self.close(refusal)
                return
            raise parameters.Refused(refusal)
        if len(self._known_senders) >= KNOWN_SENDERS:
            self._known_senders.clear()
        self._known_senders[b"MAIL %b\r\n" % argument] = mail
        self._transaction = Transaction(mail)
        self._go(b"MAIL", reply.MAIL_OK)

    def _rcpt(self, argument: bytes) -> None:
        transaction = self._current()
        taken = transaction.recipients
        if len(taken) >= self.policy.limits.recipients:
            self._say(reply.TOO_MANY_RECIPIENTS)
            return
        smtputf8, literals = transaction.mail.smtputf8, self.policy.address_literals
        taken.append(parameters.recipient(argument, len(taken), smtputf8, literals))
        self._go(b"RCPT", reply.RCPT_OK)

    def _rset(self, argument: bytes) -> None:
        self._transaction = None
        self._go(b"RSET", reply.RESET_OK)

    def _noop(self, argument: bytes) -> None:
        self._say(reply.NOOP_OK)

    def _vrfy(self, argument: bytes) -> None:
        self._say(reply.VRFY_MAYBE)

    def _help(self, argument: bytes) -> None:
        self._say(reply.HELP)

    def _quit(self, argument: bytes) -> None:
        self.close(reply.BYE)

    def _current(self) -> Transaction:
        assert self._transaction is not None, "the table lets no command in without one"
        return self._transaction

    # --- content

    def _new_content(self, *, dots: bool) -> Content:
        limits = self.policy.limits
        content = Content(limits.message_bytes, self.policy.repair_bare_lf, dots, limits.line_octets)
        self._current().content = content
        return content

    def _data(self, argument: bytes) -> None:
        if argument:
            raise parameters.Refused(reply.SYNTAX)
        self._begin_data()
        self._say(reply.DATA_GO)

    def _begin_data(self) -> None:
        self._state = NEXT[self._state, b"DATA"]
        self._framing = Dots(self._new_content(dots=True))
        self._read = READ_CONTENT

    def _bdat(self, argument: bytes) -> None:
        chunk = parameters.chunk(argument)
        if chunk is None:
            # How many bytes of content follow is unknown, so nothing after it can be read.
            self.close(reply.SYNTAX)
            return
        octets, last = chunk
        if (self._state, b"BDAT") not in NEXT:
            # RFC 3030 4.2: the bytes come anyway and must be read past.
            self._transaction = Transaction(parameters.Mail(""))
            self._new_content(dots=False).refuse(reply.BAD_SEQUENCE)
            last = True
        else:
            if self._state is State.RCPT:
                self._new_content(dots=False)
            self._state = NEXT[self._state, b"BDAT"]
        content = self._current().content
        assert content is not None, "made above, or by the first chunk"
        self._framing = Chunk(content, octets, last)
        self._read = READ_CONTENT
        if not octets:
            self._read_content()  # it ends without reading

    def _read_content(self) -> bool:
        framing = self._framing
        assert framing is not None, "set with the reader"
        self._at, block, end = framing.take(self._buffer, self._at)
        if end is MESSAGE:
            self._complete(block)
            return True
        if block is not None and self._judged(block):
            self._events.append(Block(self._current(), block))
        if end is CHUNK:
            self._say(framing.content.refusal or reply.CHUNK_OK)
            self._read = READ_COMMAND
        elif framing.content.runaway:
            self.close(framing.content.refusal)
        return end is CHUNK

    def _complete(self, block: bytes | None) -> None:
        transaction = self._current()
        if block is not None and self._judged(block):
            self._read = WAIT
            self._events.append(Complete(transaction, block))
            return
        content = transaction.content
        assert content is not None
        self._end_transaction()
        self._error(content.refusal or reply.CONTENT_TROUBLE)

    def _judged(self, block: bytes) -> bool:
        """Look at the header section when the first block has come."""
        transaction = self._current()
        if transaction.header is None:
            header = headers.scan(block, self.policy.limits, self.policy.campaign)
            if isinstance(header, Reply):
                assert transaction.content is not None
                transaction.content.refuse(header)
                return False
            transaction.header = header
        return True


READ_COMMAND, READ_CONTENT = Session._read_command, Session._read_content


Session.handlers = {
    b"EHLO": Session._ehlo,
    b"HELO": Session._helo,
    b"MAIL": Session._mail,
    b"RCPT": Session._rcpt,
    b"DATA": Session._data,
    b"BDAT": Session._bdat,
    b"RSET": Session._rset,
    b"NOOP": Session._noop,
    b"VRFY": Session._vrfy,
    b"HELP": Session._help,
    b"QUIT": Session._quit,
    b"STARTTLS": Session._starttls,
    b"AUTH": Session._auth,
}
