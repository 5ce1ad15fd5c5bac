"""The sink with limits: receivers that count what each address sends them, refuse what is too much, and block on command.

`python -m exam.limits_sink --stage STAGE.json --log SINK.jsonl --limits LIMITS.jsonl`. What it takes goes into the first
book, as `exam.sink` writes it; every connection, message and excess into the second.

A message counts when MAIL arrives, a connection from its handshake to the arrival of QUIT or of its end. These instants are
the kernel's: how late this process comes to look at them changes nothing. They are on one clock that never steps.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import socket
import struct
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from exam.behaviours import REPORTS
from exam.receivers import BLOCKED, BY_NAME, REFUSED, TOO_FAST, TOO_MANY_CONNECTIONS, Block, Limits, Receiver
from exam.sink import Cut, Ledger, Session, address
from exam.windows import Gate

SO_TIMESTAMPNS = 35
CHUNK = 262_144
ESTABLISHED = 1
"""The state of a connection whose other end has not closed it (include/net/tcp_states.h)."""
_BASE = time.time() - time.monotonic()


def now() -> float:
    """Seconds since 1970, as they were at the start plus what has passed."""
    return _BASE + time.monotonic()


class Line:
    """One accepted TCP connection: lines and the instant at which the last piece of them arrived."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.at = self.connected_at = self._last_segment_at()
        self._buffer = bytearray()
        self._unsent = bytearray()
        self._loop = asyncio.get_running_loop()

    @property
    def open(self) -> bool:
        """Has neither end closed it?"""
        return self.sock.fileno() >= 0 and self._info("B", 0) == ESTABLISHED

    async def readline(self) -> bytes:
        """The next line, or nothing at the end."""
        try:
            return await self.readuntil(b"\n")
        except asyncio.IncompleteReadError:
            return b""

    async def readuntil(self, end: bytes) -> bytes:
        """Everything up to `end`. Raises IncompleteReadError, OSError."""
        searched = 0
        while (found := self._buffer.find(end, max(0, searched - len(end)))) < 0:
            searched = len(self._buffer)
            if not await self._more():
                raise asyncio.IncompleteReadError(bytes(self._buffer), None)
        data = bytes(self._buffer[: found + len(end)])
        del self._buffer[: found + len(end)]
        return data

    def write(self, data: bytes) -> None:
        """As a StreamWriter."""
        self._unsent += data

    async def drain(self) -> None:
        """As a StreamWriter. Raises OSError."""
        data, self._unsent = bytes(self._unsent), bytearray()
        await self._loop.sock_sendall(self.sock, data)

    def close(self) -> None:
        """As a StreamWriter."""
        self.sock.close()

    async def _more(self) -> bool:
        while True:
            try:
                data, ancillary, _, _ = self.sock.recvmsg(CHUNK, 128)
                break
            except BlockingIOError:
                await self._readable()
        self.at = max(self.at, _arrival(ancillary) if data else self._last_segment_at())
        self._buffer += data
        return bool(data)

    async def _readable(self) -> None:
        ready = self._loop.create_future()
        self._loop.add_reader(self.sock, lambda: None if ready.done() else ready.set_result(None))
        try:
            await ready
        finally:
            self._loop.remove_reader(self.sock)

    def _last_segment_at(self) -> float:
        """When the newest segment came, be it the handshake's last one or the end; to some milliseconds."""
        return now() - self._info("I", 56) / 1000  # tcpi_last_ack_recv

    def _info(self, kind: str, offset: int) -> int:
        info = self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        return int(struct.unpack_from(kind, info, offset)[0])


def _arrival(ancillary: list[tuple[int, int, bytes]]) -> float:
    for level, kind, value in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
            seconds, nanoseconds = struct.unpack("qq", value[:16])
            # The kernel's is the wall clock's; what has passed since then is taken off a clock that does not step.
            return now() - max(0.0, time.time() - (seconds + nanoseconds / 1e9))
    return now()


@dataclass
class Counters:
    """What one source does at one receiver."""

    messages: Gate
    connections: Gate
    lines: set[Line] = field(default_factory=set)


class Desk:
    """What all connections share: the books, the counters, the script."""

    def __init__(self, ledger: Ledger, limits: Ledger, sources: dict[str, str], script: list[Block]) -> None:
        self.ledger, self.limits, self.sources = ledger, limits, sources
        self.script = script
        self.numbers = itertools.count(1)
        self.begun_at = 0.0
        self._counters: dict[tuple[str, str], Counters] = {}
        self._refused: Counter[Block] = Counter()
        self._refused_since: defaultdict[Block, float] = defaultdict(float)

    def write(self, at: float, **line: object) -> None:
        """One line of the book of limits."""
        os.write(self.limits.file, json.dumps({"at": at, **line}).encode() + b"\n")

    def counters(self, source: str, receiver: Receiver) -> Counters:
        """The counters of a source at a receiver."""
        found = self._counters.get((source, receiver.name))
        if found is None:
            limits: Limits = receiver.limits
            found = self._counters[source, receiver.name] = Counters(
                Gate(limits.messages_per_second, limits.burst), Gate(limits.connections_per_second, 1)
            )
        return found

    def blocked(self, source: str, site: str, at: float) -> str:
        """What the script has for a message that came at `at`: BLOCKED, REFUSED or nothing."""
        self.begun_at = self.begun_at or at
        for block in self.script:
            if (block.source, block.site) != (source, site) or at < self.begun_at + block.after_seconds:
                continue
            since = self._refused_since.setdefault(block, at)
            if at < since + block.seconds:
                self._refused[block] += 1
                return BLOCKED if self._refused[block] <= block.threshold else REFUSED
        return ""


class LimitedSession(Session):
    """One connection to a receiver."""

    def __init__(self, desk: Desk, receiver: Receiver, line: Line, source: str) -> None:
        super().__init__(desk.ledger, receiver.name, line, line)  # type: ignore[arg-type]
        self.desk, self.receiver, self.line, self.source = desk, receiver, line, source
        self.number = next(desk.numbers)
        self.messages = 0
        self.where = {"site": receiver.name, "source": source, "connection": self.number}
        self.counters = desk.counters(source, receiver)

    async def run(self) -> None:
        """From the greeting to the end."""
        try:
            if await self.greet():
                while text := await self.line.readline():
                    await self.command(text.rstrip(b"\r\n"))
        except (Cut, asyncio.IncompleteReadError):
            pass
        except OSError:
            self.line.at = now()
        finally:
            self.end(self.line.at)
            self.line.close()

    async def greet(self) -> bool:
        """Count the connection; the greeting, or why there is none."""
        at = self.line.connected_at
        self.desk.write(at, kind="connect", **self.where)
        others = sum(line.open for line in self.counters.lines)
        self.counters.lines.add(self.line)
        too_soon = not self.counters.connections.take(at)
        if too_soon or others >= self.receiver.limits.concurrency:
            what = "connection rate" if too_soon else f"concurrency, {others} others"
            await self.excess(at, what, TOO_MANY_CONNECTIONS)
        return await self.say("greeting", "", f"220 {self.receiver.hosts[0]} ESMTP".encode())

    async def excess(self, at: float, what: str, reply: str) -> None:
        """Something that the source may not: written down, refused, and the connection closed. Raises Cut."""
        self.desk.write(at, kind="violation", what=what, **self.where)
        await self.refuse(reply)

    async def refuse(self, reply: str) -> None:
        """Say no in the receiver's words and close. Raises Cut."""
        text = self.receiver.replies[reply].format(address=self.line.sock.getpeername()[0])
        self.end(now())
        self.writer.write(text.encode() + b"\r\n")
        await self.writer.drain()
        raise Cut

    def end(self, at: float) -> None:
        """The connection does not count any more."""
        if self.line in self.counters.lines:
            self.counters.lines.discard(self.line)
            self.desk.write(at, kind="close", **self.where)

    async def command(self, line: bytes) -> None:
        """See `Session`."""
        if line[:4].upper() == b"QUIT":
            self.end(self.line.at)
        await super().command(line)

    async def mail(self, line: bytes) -> None:
        """MAIL FROM: here a message counts."""
        at = self.line.at
        self.messages += 1
        block = self.desk.blocked(self.source, self.receiver.name, at)
        self.desk.write(at, kind="mail", path=address(line), block=block, **self.where)
        too_fast = not self.counters.messages.take(at)
        if self.messages > self.receiver.limits.messages_per_connection:
            await self.excess(at, f"message {self.messages} on a connection", TOO_FAST)
        if too_fast:
            await self.excess(at, "message rate", TOO_FAST)
        if block:
            await self.refuse(block)
        await super().mail(line)

    async def dot(self, content: bytes, answer: object) -> None:
        """See `Session`; a receiver takes its time."""
        await asyncio.sleep(self.receiver.accept_seconds)
        await super().dot(content, answer)  # type: ignore[arg-type]

    def keep(self, content: bytes, replied: bool) -> None:
        """See `Session`; the site is the first label of the domain, where it is one of this receiver's."""
        domain = self.recipients[0].rpartition("@")[2]
        self.label = domain.partition(".")[0] if domain in self.receiver.domains else self.receiver.name
        super().keep(content, replied)


def listener(where: str, port: int) -> socket.socket:
    """A listening socket whose connections say when their data arrived."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    sock.setblocking(False)
    sock.bind((where, port))
    sock.listen(512)
    return sock


async def serve(stage: dict[str, object], log: Path, limits: Path) -> None:
    """Listen for all receivers, and for reports, until cancelled. `stage`: addresses, port, sources and script."""
    addresses: dict[str, str] = stage["addresses"]  # type: ignore[assignment]
    sources: dict[str, str] = stage["sources"]  # type: ignore[assignment]
    script = [Block(**each) for each in stage["script"]]  # type: ignore[attr-defined]
    ledger, book = (Ledger(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)) for path in (log, limits))
    desk = Desk(ledger, book, sources, script)
    running = set[asyncio.Task[None]]()
    async with asyncio.TaskGroup() as group:
        for where, name in addresses.items():
            group.create_task(_accept(desk, name, listener(where, int(stage["port"])), running))  # type: ignore[call-overload]


async def _accept(desk: Desk, name: str, listening: socket.socket, running: set[asyncio.Task[None]]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        sock, (peer, _) = await loop.sock_accept(listening)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line = Line(sock)
        if name == REPORTS:
            session = Session(desk.ledger, REPORTS, line, line)  # type: ignore[arg-type]
        else:
            session = LimitedSession(desk, BY_NAME[name], line, desk.sources.get(peer, peer))
        task = loop.create_task(session.run())
        running.add(task)
        task.add_done_callback(running.discard)


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--stage", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--limits", type=Path, required=True)
    options = parser.parse_args()
    asyncio.run(serve(json.loads(options.stage.read_text()), options.log, options.limits))


if __name__ == "__main__":
    main()
