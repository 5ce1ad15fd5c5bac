"""The dialogue as values: states, the table of legal commands, and what the state machine tells the shell."""

from __future__ import annotations

from enum import Enum

import msgspec

from mailfleet_core.model import wire
from mailfleet_ingest.decisions.content import Content
from mailfleet_ingest.decisions.headers import Header
from mailfleet_ingest.decisions.parameters import Mail

MAX_AUTH_LINE = 12_288
"""RFC 4954 4: the longest response a mechanism may send."""
LINE_OCTETS = {b"MAIL": 1536, b"RCPT": 1536, b"AUTH": MAX_AUTH_LINE}
OTHER_LINE_OCTETS = 512
"""RFC 5321 4.5.3.1.4; MAIL and RCPT carry ENVID, AUTH and ORCPT besides."""


class State(Enum):
    """Where the dialogue stands."""

    NEW = 1
    READY = 2
    MAIL = 3
    RCPT = 4
    BDAT = 5

    __hash__ = object.__hash__
    """Enum's own hashes the name, in Python, at each look into a table."""


_TRANSACTION = (State.MAIL, State.RCPT, State.BDAT)
NEXT: dict[tuple[State, bytes], State] = {
    **{(state, verb): State.READY for state in State for verb in (b"EHLO", b"HELO")},
    **{(state, verb): state for state in State for verb in (b"NOOP", b"VRFY", b"HELP", b"QUIT")},
    (State.NEW, b"RSET"): State.NEW,
    **{(state, b"RSET"): State.READY for state in (State.READY, *_TRANSACTION)},
    (State.READY, b"STARTTLS"): State.NEW,
    (State.READY, b"AUTH"): State.READY,
    (State.READY, b"MAIL"): State.MAIL,
    (State.MAIL, b"RCPT"): State.RCPT,
    (State.RCPT, b"RCPT"): State.RCPT,
    (State.RCPT, b"DATA"): State.READY,
    (State.RCPT, b"BDAT"): State.BDAT,
    (State.BDAT, b"BDAT"): State.BDAT,
}
"""(state, command) → state after it succeeded. A pair that is not here is a bad sequence."""


class Transaction:
    """One mail on its way in; a new object for each, so that whoever holds it may keep it."""

    __slots__ = ("content", "header", "mail", "recipients")

    def __init__(self, mail: Mail) -> None:
        self.mail = mail
        self.recipients: list[wire.Recipient] = []
        self.content: Content | None = None
        self.header: Header | None = None


class Block(msgspec.Struct, frozen=True):
    """Content of a message that has more; no answer is needed."""

    transaction: Transaction
    data: bytes


class Complete(msgspec.Struct, frozen=True):
    """The last content of a message. Answer with `stored`."""

    transaction: Transaction
    data: bytes


class Authenticate(msgspec.Struct, frozen=True):
    """A client says who it is. Answer with `authenticated` or `authentication_refused`."""

    mechanism: str
    user: bytes
    password: bytes


class StartTls(msgspec.Struct, frozen=True):
    """Write the output, then do the handshake, then `tls_started`."""


class Close(msgspec.Struct, frozen=True):
    """Write the output, then close; `abort`: at once, the client broke the protocol in a way nobody does by mistake."""

    abort: bool = False


Event = Block | Complete | Authenticate | StartTls | Close
