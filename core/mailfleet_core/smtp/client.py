"""The client's side of SMTP and LMTP transactions, without I/O: replies in, bytes to write and answers out.

One `Transaction` is one MAIL … final dot. Where PIPELINING is offered its commands go out in one write; the states are
the same either way. Every reply in every state has a defined effect, and every recipient has one answer in the end.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mailfleet_core.model import reply as phases
from mailfleet_core.model import wire
from mailfleet_core.model.reply import Answer, Reply

SMALL_BYTES = 65_536
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_NOTIFY = (
    (wire.NOTIFY_SUCCESS, "SUCCESS"), (wire.NOTIFY_FAILURE, "FAILURE"), (wire.NOTIFY_DELAY, "DELAY"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Offered:
    """What the server announced in its answer to EHLO or LHLO."""

    pipelining: bool = False
    size: int = -1
    """The largest message; 0: announced without a limit; -1: SIZE is not known."""
    eight_bit_mime: bool = False
    smtputf8: bool = False
    dsn: bool = False


def offered(extensions: Mapping[str, str]) -> Offered:
    """What the keywords (lower case) and their parameters say."""
    digits = extensions.get("size", "")
    limit = int(digits) if digits.isdecimal() and len(digits) < 20 else 0
    return Offered(
        pipelining="pipelining" in extensions,
        size=limit if "size" in extensions else -1,
        eight_bit_mime="8bitmime" in extensions,
        smtputf8="smtputf8" in extensions,
        dsn="dsn" in extensions,
    )


class Body:
    """The bytes of a message as they go out: dots stuffed, CRLF at the end, the final dot included."""

    __slots__ = ("chunks", "pieces")

    def __init__(self, chunks: Sequence[bytes]) -> None:
        self.chunks = chunks
        self.pieces = dot_stuffed(chunks)

    def is_ascii(self) -> bool:
        """Is there no byte above 127?"""
        return all(chunk.isascii() for chunk in self.chunks)

    def header_is_ascii(self) -> bool:
        """Is there no byte above 127 in the header section?"""
        return self.chunks[0].partition(b"\r\n\r\n")[0].isascii() if self.chunks else True


def dot_stuffed(chunks: Sequence[bytes]) -> list[bytes]:
    """The chunks with a dot before every dot that begins a line (RFC 5321 4.5.2), then the end of data."""
    if len(chunks) == 1 and len(whole := chunks[0]) <= SMALL_BYTES and whole[-2:] == b"\r\n" and whole[0] != 0x2E:
        # One piece is one write; for a small message that is worth a copy.
        return [whole.replace(b"\r\n.", b"\r\n..") + b".\r\n"]
    pieces: list[bytes] = []
    ending = b"\r\n"
    for chunk in chunks:
        if not chunk:
            continue
        # A line may begin at the border of two chunks; replace() copies only where it finds something.
        if chunk[0] == 0x2E and ending == b"\r\n":
            pieces.append(b".")
        elif chunk[:2] == b"\n." and ending[-1:] == b"\r":
            pieces.append(b"\n.")
            chunk = chunk[1:]
        stuffed = chunk.replace(b"\r\n.", b"\r\n..")
        pieces.append(stuffed)
        ending = (ending + chunk)[-2:] if len(chunk) < 2 else chunk[-2:]
    pieces.append(b".\r\n" if ending == b"\r\n" else b"\r\n.\r\n")
    return pieces


class Step(enum.Enum):
    """What the shell does next."""

    WAIT = 1
    """Read on."""
    WRITE = 2
    """Write `output`, read on."""
    BODY = 3
    """Write the body, tell `body_written`, read on."""
    DONE = 4
    """Every recipient has its answer; `reusable` says whether the connection takes another transaction."""


class State:
    """Whose reply comes next. Plain numbers: naming a member of an Enum costs ten times as much, and there are thirty a mail."""

    RESET = 0
    MAIL = 1
    RCPT = 2
    DATA = 3
    BODY = 4
    """Of nobody: the body is being written."""
    DOT = 5
    NOBODY = 6
    """Of an empty message: DATA was pipelined and let through without a recipient."""
    DONE = 7


_PHASE = (
    phases.MAIL, phases.MAIL, phases.RCPT, phases.DATA, phases.DATA, phases.DOT, phases.DATA, phases.DOT,
)  # fmt: skip
"""By state."""

_WAIT, _WRITE, _BODY, _DONE = Step
"""Names of their own, for the reason given at `State`."""


class Transaction:
    """One mail on one connection."""

    __slots__ = (
        "_accepted", "_commands", "_index", "_lmtp", "_mail_accepted", "_pipelined", "_places", "answers", "body",
        "dsn_passed_on", "output", "reset_needed", "reusable", "state", "untouched",
    )  # fmt: skip

    def __init__(self, unit: wire.Unit, body: Body, offers: Offered, lmtp: bool = False, reset: bool = False) -> None:
        self.body = body
        self.answers: list[Answer | None] = [None] * len(unit.recipients)
        self.output = b""
        self.reusable = True
        self.reset_needed = False
        """The server still has this transaction's envelope: the next one begins with RSET."""
        self.untouched = True
        """No reply came yet: on another connection the same transaction is still the first."""
        self.dsn_passed_on = False
        self._lmtp = lmtp
        self._pipelined = offers.pipelining
        self._mail_accepted = False
        self._accepted: list[int] = []
        self._index = 0
        self._places: list[int] = []
        """Recipients that RCPT is said for; the others have been answered here."""
        self._commands: list[bytes] = []
        self.state = State.RESET if reset else State.MAIL
        self._plan(unit, offers)

    @property
    def phase(self) -> str:
        """Which phase a silence now would be in."""
        return _PHASE[self.state]

    def start(self) -> Step:
        """The first step."""
        if not self._places:
            self.state = State.DONE
            # Nothing was said, so what an earlier transaction left there is there still.
            self.reset_needed = bool(self._commands) and self._commands[0] == b"RSET\r\n"
            return _DONE
        self.output = b"".join(self._commands) if self._pipelined else self._commands[0]
        return _WRITE

    def receive(self, reply: Reply) -> Step:
        """What follows from a reply."""
        if reply.code in (421, 0):
            # 421 is about the connection, whatever it answers (RFC 5321 3.8); code 0 is no reply at all.
            return self._abandon(reply)
        self.untouched = False
        return _HANDLERS[self.state](self, reply)

    def let_through(self, replies: Sequence[Reply]) -> bool:
        """Do these answer all commands that were pipelined, and nobody is refused? Then they are taken, and the body is next.

        The same as `receive` for each of them; anything else is left to that.
        """
        places = self._places
        if (
            self.state != State.MAIL
            or not self._pipelined
            or len(replies) != len(places) + 2
            or replies[-1].code != 354
        ):
            return False
        for reply in replies[:-1]:
            if reply.code // 100 != 2:
                return False
        self.untouched = False
        self._mail_accepted = True
        self._index = len(places)
        self._accepted = places.copy()
        self.state = State.BODY
        return True

    def body_written(self) -> None:
        """The last byte has left: what is silent now has perhaps taken the mail."""
        if self.state == State.BODY:
            self.state = State.DOT

    def lost(self, why: str) -> None:
        """The connection is gone, or too slow: whoever has no answer is deferred in the present phase."""
        self._abandon(Reply(0, "4.4.2", why))

    # --- before the first byte -----------------------------------------------------------------------------------
    def _plan(self, unit: wire.Unit, offers: Offered) -> None:
        said = _mail(unit, self.body, offers)
        if self.state == State.RESET:
            self._commands.append(b"RSET\r\n")
        if isinstance(said, Reply):
            self._answer_all(said, phases.MAIL)
            return
        self._commands.append(said)
        for place, recipient in enumerate(unit.recipients):
            command = _rcpt(recipient, offers)
            if isinstance(command, Reply):
                self.answers[place] = Answer(command, phases.RCPT)
                continue
            self._places.append(place)
            self._commands.append(command)
            self.dsn_passed_on = self.dsn_passed_on or (offers.dsn and recipient.notify != 0)
        self._commands.append(b"DATA\r\n")

    # --- replies -------------------------------------------------------------------------------------------------
    def _write(self, command: bytes) -> Step:
        if self._pipelined:
            return _WAIT
        self.output = command
        return _WRITE

    def _reset(self, reply: Reply) -> Step:
        if reply.code // 100 != 2:
            return self._abandon(Reply(0, "4.5.0", f"RSET was refused: {reply.code} {reply.text}"))
        self.state = State.MAIL
        return self._write(self._commands[1])

    def _mail(self, reply: Reply) -> Step:
        kind = reply.code // 100
        if kind == 3:
            return self._odd(reply)
        self._mail_accepted = kind == 2
        if not self._mail_accepted:
            self._answer_all(reply, phases.MAIL)
            if not self._pipelined:
                return self._end()
        self.state = State.RCPT
        return self._write(self._commands[-len(self._places) - 1])

    def _rcpt(self, reply: Reply) -> Step:
        place = self._places[self._index]
        kind = reply.code // 100
        if self.answers[place] is None:
            if kind == 3:
                return self._odd(reply)
            if kind == 2:
                self._accepted.append(place)
            else:
                self.answers[place] = Answer(self._too_many(reply), phases.RCPT)
        self._index += 1
        if self._index < len(self._places):
            return self._write(self._commands[self._index - len(self._places) - 1])
        if not self._accepted and not self._pipelined:
            return self._end()
        self.state = State.DATA
        return self._write(self._commands[-1])

    def _too_many(self, reply: Reply) -> Reply:
        # RFC 5321 4.5.3.1.10: 552 to a further recipient has meant "too many" and is to be taken for 452.
        if reply.code == 552 and self._accepted and reply.enhanced in ("", "5.5.3"):
            return Reply(452, "4.5.3", reply.text)
        return reply

    def _data(self, reply: Reply) -> Step:
        if reply.code == 354:
            if self._accepted:
                self.state = State.BODY
                return _BODY
            # RFC 2920 3.1: the server waits for a message, so it gets an empty one, for nobody.
            self.state = State.NOBODY
            self.output = b".\r\n"
            return _WRITE
        if reply.code // 100 in (2, 3):
            return self._odd(reply)
        self._answer_all(reply, phases.DATA)
        return self._end()

    def _early(self, reply: Reply) -> Step:
        # The server answers what it has not read to the end: it cannot have taken it, and what it reads next is mail.
        self.reusable = False
        if reply.code // 100 in (4, 5):
            self._answer_all(reply, phases.DATA)
            return self._end()
        return self._odd(reply)

    def _dot(self, reply: Reply) -> Step:
        if reply.code // 100 == 3:
            return self._odd(reply)
        if not self._lmtp:
            self._answer_all(reply, phases.DOT)
            return self._end()
        self.answers[self._accepted.pop(0)] = Answer(reply, phases.DOT)
        return _WAIT if self._accepted else self._end()

    def _nobody(self, reply: Reply) -> Step:
        self._mail_accepted = False
        return self._end()

    def _after(self, reply: Reply) -> Step:
        self.reusable = False
        return _DONE

    # --- ends ----------------------------------------------------------------------------------------------------
    def _answer_all(self, reply: Reply, phase: str) -> None:
        answer = Answer(reply, phase)
        self.answers = [known or answer for known in self.answers]

    def _odd(self, reply: Reply) -> Step:
        return self._abandon(Reply(0, "4.5.0", f"unexpected reply {reply.code} {reply.text}"))

    def _abandon(self, reply: Reply) -> Step:
        if self.state != State.DONE:
            self._answer_all(reply, self.phase)
        self.reusable = False
        return self._end()

    def _end(self) -> Step:
        self.reset_needed = self._mail_accepted and self.state != State.DOT
        self.state = State.DONE
        return _DONE


_HANDLERS = (
    Transaction._reset, Transaction._mail, Transaction._rcpt, Transaction._data, Transaction._early, Transaction._dot,
    Transaction._nobody, Transaction._after,
)  # fmt: skip
"""By state: what a reply does in it."""


def _mail(unit: wire.Unit, body: Body, offers: Offered) -> bytes | Reply:
    """The MAIL command, or why this server must not be given this message at all."""
    envelope = unit.envelope
    length = envelope.body.length
    if 0 < offers.size < length:
        return Reply(552, "5.3.4", f"message of {length} bytes, the site takes {offers.size} (its SIZE)")
    if not offers.smtputf8 and _needs_utf8(envelope, body):
        return Reply(0, "5.6.7", "the message needs SMTPUTF8 and the site does not offer it")
    if envelope.eight_bit and not offers.eight_bit_mime and not body.is_ascii():
        return Reply(0, "5.6.3", "the message needs 8BITMIME and the site does not offer it")
    line = f"MAIL FROM:<{envelope.reverse_path}>"
    if offers.size >= 0:
        line += f" SIZE={length}"
    if envelope.eight_bit and offers.eight_bit_mime:
        line += " BODY=8BITMIME"
    if offers.smtputf8 and (envelope.smtputf8 or not _all_ascii(unit)):
        line += " SMTPUTF8"
    if offers.dsn and envelope.ret:
        line += f" RET={envelope.ret}"
    if offers.dsn and envelope.envid:
        line += f" ENVID={envelope.envid}"
    return _command(line) or Reply(0, "5.1.7", "the reverse path cannot be written in a command")


def _rcpt(recipient: wire.Recipient, offers: Offered) -> bytes | Reply:
    """The RCPT command, or why this server cannot be told this recipient."""
    address = recipient.address
    if not offers.smtputf8 and not address.isascii():
        return Reply(0, "5.6.7", "the address needs SMTPUTF8 and the site does not offer it")
    line = f"RCPT TO:<{address}>"
    if offers.dsn and recipient.notify:
        never = recipient.notify & wire.NOTIFY_NEVER
        words = "NEVER" if never else ",".join(word for bit, word in _NOTIFY if recipient.notify & bit)
        line += f" NOTIFY={words}"
    if offers.dsn and recipient.orcpt and (offers.smtputf8 or recipient.orcpt.isascii()):
        line += f" ORCPT={recipient.orcpt}"
    command = _command(line) if address else b""
    return command or Reply(0, "5.1.3", "the address cannot be written in a command")


def _command(line: str) -> bytes:
    """The line as bytes with its CRLF; empty when it would be two commands, or is not UTF-8."""
    if line.isascii() and line.isprintable():
        return f"{line}\r\n".encode("ascii")
    try:
        command = line.encode("utf-8")
    except UnicodeEncodeError:
        return b""
    return b"" if _CONTROL.search(command) else command + b"\r\n"


def _all_ascii(unit: wire.Unit) -> bool:
    return unit.envelope.reverse_path.isascii() and all(to.address.isascii() for to in unit.recipients)


def _needs_utf8(envelope: wire.Envelope, body: Body) -> bool:
    if not envelope.reverse_path.isascii():
        return True
    # A client may say SMTPUTF8 for every mail it has; the mail itself decides (RFC 6531 3.4).
    return envelope.smtputf8 and not body.header_is_ascii()
