"""Our own connections to brokers, on our own event loop: for Produce and Fetch, of which every mail needs several.

kafka-python's cost 1 to 2 ms of CPU a request, for its thread and ours take turns with the interpreter's lock. Here a
request is a write and a callback. Who leads what, and everything that is asked rarely, stays kafka-python's (`Link`).
"""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from kafka.errors import KafkaConnectionError, KafkaError, KafkaTimeoutError, SaslAuthenticationFailedError, for_code
from kafka.net.sasl import get_sasl_mechanism

if TYPE_CHECKING:
    from mailfleet_core.bus.kafka_link import Link

CONNECT_SECONDS = 5.0
LARGEST_BYTES = 256 << 20
_HEAD = struct.Struct(">ihhi")
_ANSWER = struct.Struct(">ii")
_SASL_HANDSHAKE, _SASL_AUTHENTICATE = 17, 36


class Security(NamedTuple):
    """How brokers want to be spoken to, and by whom."""

    tls: ssl.SSLContext | None
    sasl: dict[str, Any] | None
    """The options of kafka-python's mechanisms."""


def security(options: dict[str, Any]) -> Security:
    """What kafka-python's options say, with its own defaults: TLS 1.2 or newer, names are checked."""
    protocol = options["security_protocol"]
    tls = None
    if protocol.endswith("SSL"):
        tls = ssl.create_default_context(cafile=options.get("ssl_cafile"))
        tls.minimum_version = ssl.TLSVersion.TLSv1_2
    return Security(tls, options if protocol.startswith("SASL") else None)


class Connection(asyncio.Protocol):
    """One connection: requests go out in turn, and a broker answers them in turn."""

    def __init__(self, client: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._client = struct.pack(">h", len(client.encode())) + client.encode()
        self._transport: Any = None
        self._asked: deque[tuple[int, asyncio.Future[bytes], float]] = deque()
        self._number = 0
        self._arrived = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self.open = False

    def connection_made(self, transport: Any) -> None:
        """See `asyncio.Protocol`."""
        self._transport = transport
        self.open = True

    def ask(self, api: int, version: int, body: Sequence[bytes], seconds: float) -> asyncio.Future[bytes]:
        """Send a request; its answer, or KafkaError when the connection ends or `seconds` are over."""
        answer: asyncio.Future[bytes] = self._loop.create_future()
        if not self.open:
            answer.set_exception(KafkaConnectionError("not connected"))
            return answer
        self._number = number = (self._number + 1) & 0x7FFFFFFF
        size = _HEAD.size - 4 + len(self._client) + sum(map(len, body))
        self._transport.writelines([_HEAD.pack(size, api, version, number) + self._client, *body])
        deadline = self._loop.time() + seconds
        self._asked.append((number, answer, deadline))
        if self._timer is None:
            self._timer = self._loop.call_at(deadline, self._look_at_the_clock)
        return answer

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        arrived = self._arrived
        arrived += data
        at = 0
        while len(arrived) - at >= 8 and self.open:
            size, number = _ANSWER.unpack_from(arrived, at)
            if size > LARGEST_BYTES:
                self.drop(KafkaConnectionError(f"an answer of {size} bytes"))
            if len(arrived) - at - 4 < size:
                break
            with memoryview(arrived) as view:
                answer = bytes(view[at + 8 : at + 4 + size])
            self._answered(number, answer)
            at += 4 + size
        del arrived[:at]

    def _answered(self, number: int, answer: bytes) -> None:
        if not self._asked or self._asked[0][0] != number:
            self.drop(KafkaConnectionError("an answer to nothing that was asked"))
            return
        future = self._asked.popleft()[1]
        if not future.done():
            future.set_result(answer)

    def _look_at_the_clock(self) -> None:
        self._timer = None
        if not self._asked:
            return
        deadline = min(at for _, _, at in self._asked)
        if deadline <= self._loop.time():
            self.drop(KafkaTimeoutError("the broker does not answer"))
        else:
            self._timer = self._loop.call_at(deadline, self._look_at_the_clock)

    def connection_lost(self, error: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self.drop(KafkaConnectionError(repr(error) if error else "the broker closed the connection"))

    def drop(self, error: KafkaError) -> None:
        """Close it; what was asked fails with `error`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.open:
            self.open = False
            self._transport.abort()
        while self._asked:
            future = self._asked.popleft()[1]
            if not future.done():
                future.set_exception(error)


class Line:
    """A connection to one broker, made when it is needed and anew when it broke."""

    def __init__(self, link: Link, node: int) -> None:
        self._link = link
        self._node = node
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()

    async def ask(self, api: int, version: int, body: Sequence[bytes], seconds: float) -> bytes:
        """The answer to a request. Raises KafkaError."""
        connection = self._connection
        if connection is None or not connection.open:
            async with self._connecting:
                connection = self._connection
                if connection is None or not connection.open:
                    connection = self._connection = await self._connect()
        return await connection.ask(api, version, body, seconds)

    def drop(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.drop(KafkaConnectionError("closed"))

    async def _connect(self) -> Connection:
        host, port = self._link.address(self._node)
        tls = self._link.security.tls
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, connection = await loop.create_connection(
                    lambda: Connection(self._link.client), host, port, ssl=tls, server_hostname=host if tls else None
                )
                try:
                    await self._authenticate(connection, host)
                except BaseException:
                    connection.drop(KafkaConnectionError("not authenticated"))
                    raise
        except (OSError, TimeoutError) as error:
            self._link.stale()  # It may have come back under another address.
            raise KafkaConnectionError(f"{host}:{port}: {error!r}") from error
        except (ValueError, struct.error) as error:
            raise SaslAuthenticationFailedError(f"{host}:{port} answers what is no answer: {error!r}") from error
        return connection

    async def _authenticate(self, connection: Connection, host: str) -> None:
        sasl = self._link.security.sasl
        if sasl is None:
            return
        name = sasl["sasl_mechanism"]
        answer = await connection.ask(_SASL_HANDSHAKE, 1, [_string(name)], CONNECT_SECONDS)
        _check(answer, f"the broker does not take {name}")
        mechanism = get_sasl_mechanism(name)(host=host, **sasl)
        while not mechanism.is_done():
            token = mechanism.auth_bytes()
            body = struct.pack(">i", len(token)) + token
            answer = await connection.ask(_SASL_AUTHENTICATE, 0, [body], CONNECT_SECONDS)
            _check(answer, "the broker does not know us")
            said = 4 + max(0, struct.unpack_from(">h", answer, 2)[0])
            mechanism.receive(answer[said + 4 :])


def _string(text: str) -> bytes:
    return struct.pack(">h", len(text.encode())) + text.encode()


def _check(answer: bytes, what: str) -> None:
    (code,) = struct.unpack_from(">h", answer)
    if code:
        raise SaslAuthenticationFailedError(f"{what}: {for_code(code).__name__}")
