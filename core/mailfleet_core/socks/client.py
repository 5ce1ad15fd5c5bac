"""The client's side of a conversation with an egress proxy: octets in, octets out. No I/O."""

from __future__ import annotations

from enum import IntEnum

from mailfleet_core.socks import wire
from mailfleet_core.socks.wire import Code


class Stage(IntEnum):
    """How far the conversation is. Up to BIND it is about our own way out; from CONNECT on it is about one destination."""

    REACH = 0
    """No answer yet, not even to the greeting."""
    PASSWORD = 1
    BIND = 2
    CONNECT = 3
    OPEN = 4
    """What comes now is the destination's."""


class ProxyFailed(Exception):
    """The proxy does not do what it was asked."""

    def __init__(self, stage: Stage, text: str, code: int = Code.DONE, silent: bool = False) -> None:
        super().__init__(text)
        self.stage = stage
        self.code = code
        """Its reply to BIND or CONNECT; 0 where that is not what failed."""
        self.silent = silent
        """It said nothing for as long as we waited."""


WORDS: dict[int, str] = {
    Code.FAILED: "general failure",
    Code.FORBIDDEN: "not allowed",
    Code.NETWORK_UNREACHABLE: "network unreachable",
    Code.HOST_UNREACHABLE: "host unreachable",
    Code.REFUSED: "connection refused",
    Code.TIMED_OUT: "no answer in time",
    Code.NO_SUCH_COMMAND: "it does not know the command",
    Code.NO_SUCH_ADDRESS_TYPE: "it does not know the type of address",
}


class Client:
    """One conversation: from `source` (an address) as `user`, if there is one."""

    def __init__(self, source: str, user: str = "", password: str = "") -> None:
        self.stage = Stage.REACH
        self.rest = b""
        """Octets of the destination that came with the last reply."""
        self._source = source
        self._password = wire.password_message(user, password) if user else b""
        self._buffer = b""
        self._asked = False
        """CONNECT has been sent."""

    @property
    def greeting(self) -> bytes:
        """What to send first."""
        return bytes((wire.VERSION, 1, wire.PASSWORD if self._password else wire.NO_AUTH))

    @property
    def needs(self) -> int:
        """So many octets may be read at once without taking one that is the destination's."""
        if self.stage in (Stage.REACH, Stage.PASSWORD):
            return 2 - len(self._buffer)
        if len(self._buffer) < 5:
            return 5 - len(self._buffer)
        octets = {wire.IPV4: 10, wire.IPV6: 22}.get(self._buffer[3], 7 + self._buffer[4])
        return octets - len(self._buffer)

    @property
    def bound(self) -> bool:
        """Has the proxy taken the source? `connect` is to follow."""
        return self.stage == Stage.CONNECT and not self._asked

    def connect(self, address: str, port: int) -> bytes:
        """What to send when it has."""
        self._asked = True
        return wire.message(wire.CONNECT, address, port)

    def receive(self, data: bytes) -> bytes:
        """What to send after `data` came. Raises ProxyFailed."""
        self._buffer += data
        send = b""
        while not self.bound and (step := self._step()) is not None:
            send += step
        if self.stage == Stage.OPEN:
            self.rest, self._buffer = self.rest + self._buffer, b""
        return send

    def _step(self) -> bytes | None:
        """Take one answer off the buffer; None: it is not whole."""
        if self.stage == Stage.OPEN or len(self._buffer) < 2:
            return None
        if self.stage == Stage.REACH:
            return self._method(*self._take(2))
        if self.stage == Stage.PASSWORD:
            return self._admitted(*self._take(2))
        return self._answer()

    def _take(self, octets: int) -> bytes:
        taken, self._buffer = self._buffer[:octets], self._buffer[octets:]
        return taken

    def _method(self, version: int, method: int) -> bytes:
        if version != wire.VERSION:
            raise ProxyFailed(self.stage, "it does not speak SOCKS5")
        if method == wire.PASSWORD and self._password:
            self.stage = Stage.PASSWORD
            return self._password
        if method != wire.NO_AUTH or self._password:
            raise ProxyFailed(
                Stage.PASSWORD, "it does not let us in as we are: it wants another kind of authentication"
            )
        return self._bind()

    def _admitted(self, _: int, status: int) -> bytes:
        if status:
            raise ProxyFailed(self.stage, "it does not know the user, or the password is wrong")
        return self._bind()

    def _bind(self) -> bytes:
        self.stage = Stage.BIND
        return wire.message(wire.BIND, self._source)

    def _answer(self) -> bytes | None:
        version, code = self._buffer[0], self._buffer[1]
        if version != wire.VERSION:
            raise ProxyFailed(self.stage, "it does not speak SOCKS5")
        if code:
            raise ProxyFailed(self.stage, WORDS.get(code, f"code {code}"), code)
        try:
            found = wire.place(self._buffer, 3)
        except wire.Unreadable as error:
            raise ProxyFailed(self.stage, f"its answer cannot be read: {error}") from error
        if found is None:
            return None
        self._take(found.end)
        self.stage = Stage.CONNECT if self.stage == Stage.BIND else Stage.OPEN
        return b""
