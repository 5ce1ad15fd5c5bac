"""One client's handshake as a machine: octets and answers in, events and octets out. It holds at most one message.

The same octets give the same events and replies however they are divided; what comes behind the last request is the
destination's.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from mailfleet_core.socks import wire
from mailfleet_core.socks.wire import Code


class Authenticate(NamedTuple):
    """Is this somebody? `authenticated` answers."""

    user: str
    password: str


class Bind(NamedTuple):
    """Connect from this address later. `bound` answers."""

    address: str


class Connect(NamedTuple):
    """Connect there. `connected` answers."""

    address: str
    port: int


class Refused(NamedTuple):
    """The session is over: send what there is to send, and close."""

    reason: str
    """One word, for the metrics."""


Event = Authenticate | Bind | Connect | Refused


class State(Enum):
    """What comes next."""

    GREETING = "greeting"
    PASSWORD = "password"
    """The user name and password."""
    JUDGING = "judging"
    """`authenticated`."""
    SOURCE = "source"
    """The request BIND."""
    BINDING = "binding"
    """`bound`."""
    DESTINATION = "destination"
    """The request CONNECT."""
    CONNECTING = "connecting"
    """`connected`."""
    OPEN = "open"
    OVER = "over"


WAITING = frozenset({State.JUDGING, State.BINDING, State.CONNECTING})
"""States in which it is our turn."""


class Session:
    """One of them. `users`: there are some, and a client must be one of them."""

    def __init__(self, users: bool) -> None:
        self.state = State.GREETING
        self.user = ""
        self._users = users
        self._buffer = b""
        self._out = b""

    @property
    def waiting(self) -> bool:
        """Is it our turn? What comes meanwhile is kept."""
        return self.state in WAITING

    def output(self) -> bytes:
        """What is to be sent, once."""
        out, self._out = self._out, b""
        return out

    def rest(self) -> bytes:
        """What the client has sent for the destination, once it is open."""
        rest, self._buffer = self._buffer, b""
        return rest

    # --- what happens --------------------------------------------------------------------------------------------
    def receive(self, data: bytes) -> list[Event]:
        """The client sent `data`."""
        if self.state is State.OVER:
            return []
        self._buffer += data
        return self._go_on()

    def authenticated(self, known: bool) -> list[Event]:
        """The answer to Authenticate."""
        if not known:
            self.user = ""
            return [self._refuse("password", bytes((wire.AUTH_VERSION, 1)))]
        self._out += bytes((wire.AUTH_VERSION, 0))
        self.state = State.SOURCE
        return self._go_on()

    def bound(self, code: Code, reason: str = "", address: str = "0.0.0.0") -> list[Event]:
        """The answer to Bind."""
        if code:
            return [self._refuse(reason, wire.message(code))]
        self._out += wire.message(Code.DONE, address)
        self.state = State.DESTINATION
        return self._go_on()

    def connected(self, code: Code, reason: str = "", address: str = "0.0.0.0", port: int = 0) -> list[Event]:
        """The answer to Connect: with Code.DONE, what comes from now on is the destination's."""
        if code:
            return [self._refuse(reason, wire.message(code))]
        self._out += wire.message(Code.DONE, address, port)
        self.state = State.OPEN
        return []

    # --- reading -------------------------------------------------------------------------------------------------
    def _go_on(self) -> list[Event]:
        read = {
            State.GREETING: self._greeting, State.PASSWORD: self._password, State.SOURCE: self._source,
            State.DESTINATION: self._destination,
        }  # fmt: skip
        events: list[Event] = []
        before: tuple[State, int] | None = None
        while self.state in read and self._buffer and before != (self.state, len(self._buffer)):
            before = (self.state, len(self._buffer))
            if (event := read[self.state]()) is not None:
                events.append(event)
        return events

    def _greeting(self) -> Event | None:
        data = self._buffer
        if data[0] != wire.VERSION:
            return self._refuse("not_socks")
        if len(data) < 2 or len(data) < 2 + data[1]:
            return None
        methods = self._take(2 + data[1])[2:]
        wanted = wire.PASSWORD if self._users else wire.NO_AUTH
        if not self._users and wanted not in methods and wire.PASSWORD in methods:
            # Nobody to compare with, so whoever insists on a password may say any.
            wanted = wire.PASSWORD
        if wanted not in methods:
            return self._refuse("method", bytes((wire.VERSION, wire.NO_METHOD)))
        self._out += bytes((wire.VERSION, wanted))
        self.state = State.PASSWORD if wanted == wire.PASSWORD else State.SOURCE
        return None

    def _password(self) -> Event | None:
        data = self._buffer
        if data[0] != wire.AUTH_VERSION:
            return self._refuse("malformed", bytes((wire.AUTH_VERSION, 1)))
        if len(data) < 2 or len(data) < 3 + data[1]:
            return None
        at = 2 + data[1]
        end = at + 1 + data[at]
        if len(data) < end:
            return None
        said = self._take(end)
        self.user = said[2:at].decode("utf-8", "replace")
        self.state = State.JUDGING
        return Authenticate(self.user, said[at + 1 :].decode("utf-8", "replace"))

    def _source(self) -> Event | None:
        found = self._request(wire.BIND, "unbound")
        if not isinstance(found, wire.Place):
            return found
        if found.port:
            return self._refuse("source_port", wire.message(Code.FORBIDDEN))
        self.state = State.BINDING
        return Bind(found.address)

    def _destination(self) -> Event | None:
        found = self._request(wire.CONNECT, "bound_twice")
        if not isinstance(found, wire.Place):
            return found
        self.state = State.CONNECTING
        return Connect(found.address, found.port)

    def _request(self, command: int, other: str) -> wire.Place | Refused | None:
        """The request that must come now; `other` is the reason to refuse the other one of the two."""
        data = self._buffer
        if data[0] != wire.VERSION:
            return self._refuse("malformed", wire.message(Code.FAILED))
        if len(data) < 2:
            return None
        if data[1] not in (wire.CONNECT, wire.BIND):
            return self._refuse("command", wire.message(Code.NO_SUCH_COMMAND))
        if data[1] != command:
            return self._refuse(other, wire.message(Code.FORBIDDEN))
        try:
            found = wire.place(data, 3)
        except wire.Unreadable:
            found = wire.Place("", 0, 0)
        if found is None:
            return None
        if not found.address:
            return self._refuse("address_type", wire.message(Code.NO_SUCH_ADDRESS_TYPE))
        self._take(found.end)
        return found

    def _take(self, octets: int) -> bytes:
        taken, self._buffer = self._buffer[:octets], self._buffer[octets:]
        return taken

    def _refuse(self, reason: str, said: bytes = b"") -> Refused:
        self._out += said
        self._buffer = b""
        self.state = State.OVER
        return Refused(reason)
