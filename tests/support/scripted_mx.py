"""A receiving server on a real socket that follows a script: any bytes at any phase, drops, silence, TLS, LMTP."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

DROP, RESET, HANG = "drop", "reset", "hang"
"""Instead of a reply: close, close with RST, say nothing."""

Said = bytes | str
Line = Said | Callable[[bytes], Said]
"""A reply without its CRLF, an action, or what makes one from the command."""

KEYWORDS = ("PIPELINING", "8BITMIME", "SMTPUTF8", "SIZE 50000000", "DSN", "ENHANCEDSTATUSCODES")


@dataclass
class Mail:
    """One accepted message."""

    mail: bytes
    rcpt: list[bytes]
    content: bytes
    connection: int
    tls: bool


@dataclass
class ScriptedMx:
    """`replies` by phase: GREETING, EHLO, STARTTLS, AUTH, MAIL, RCPT, DATA, DOT, RSET, QUIT; a list is used up in order
    and its last one repeats. What is not in it goes well."""

    replies: dict[str, Line | list[Line]] = field(default_factory=dict)
    keywords: tuple[str, ...] = KEYWORDS
    tls: ssl.SSLContext | None = None
    tls_at_once: bool = False
    lmtp: bool = False
    path: str = ""
    host: str = "127.0.0.1"
    delay: float = 0.0
    """Before every reply."""
    port: int = 0
    mails: list[Mail] = field(default_factory=list)
    commands: list[bytes] = field(default_factory=list)
    peers: list[Any] = field(default_factory=list)
    connections: int = 0
    open: int = 0
    most_open: int = 0
    bodies_read: int = 0

    async def __aenter__(self) -> ScriptedMx:
        context = self.tls if self.tls_at_once else None
        if self.path:
            self._server: asyncio.Server = await asyncio.start_unix_server(self._serve, self.path)
        else:
            self._server = await asyncio.start_server(self._serve, self.host, self.port, ssl=context, limit=1 << 22)
            self.port = self._server.sockets[0].getsockname()[1]
        self._tasks: set[asyncio.Task[Any]] = set()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def mail(self, count: int = 1, seconds: float = 10.0) -> list[Mail]:
        """The mails, once there are `count` of them."""
        async with asyncio.timeout(seconds):
            while len(self.mails) < count:
                await asyncio.sleep(0.005)
        return self.mails

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        self.peers.append(writer.get_extra_info("peername"))
        try:
            await _Session(self, reader, writer, self.connections).run()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, ssl.SSLError):
            pass
        finally:
            self.open -= 1
            self._tasks.discard(task)
            writer.close()

    def line(self, phase: str, command: bytes, default: bytes) -> Said:
        """What the script says at `phase`."""
        found = self.replies.get(phase, default)
        if isinstance(found, list):
            found = found.pop(0) if len(found) > 1 else found[0]
        return found(command) if callable(found) else found


class _End(Exception):
    pass


class _Session:
    def __init__(self, mx: ScriptedMx, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        self.mx, self.reader, self.writer, self.number = mx, reader, writer, number
        self.from_line = b""
        self.rcpt: list[bytes] = []
        self.tls = mx.tls_at_once

    async def run(self) -> None:
        try:
            await self.say("GREETING", b"", b"220 mx.test ESMTP")
            while line := await self.reader.readline():
                command = line.rstrip(b"\r\n")
                self.mx.commands.append(command)
                await self.obey(command, command.upper())
        except _End:
            return

    async def say(self, phase: str, command: bytes, default: bytes) -> bytes:
        said = self.mx.line(phase, command, default)
        if self.mx.delay:
            await asyncio.sleep(self.mx.delay)
        if said == HANG:
            await asyncio.sleep(3600)
        if said == RESET:
            self.writer.transport.abort()
            raise _End
        if said == DROP:
            self.writer.close()
            raise _End
        assert isinstance(said, bytes)
        self.writer.write(said + b"\r\n")
        await self.writer.drain()
        if said.startswith(b"421"):
            self.writer.close()
            raise _End
        return said

    async def obey(self, command: bytes, upper: bytes) -> None:
        if upper.startswith((b"EHLO", b"LHLO")):
            words = [*self.mx.keywords, *(["STARTTLS"] if self.mx.tls and not self.tls else [])]
            lines = [b"mx.test", *(word.encode() for word in words)]
            default = b"\r\n".join(b"250%s%s" % (b" " if i == len(lines) - 1 else b"-", x) for i, x in enumerate(lines))
            await self.say("EHLO", command, default)
        elif upper.startswith(b"HELO"):
            await self.say("HELO", command, b"250 mx.test")
        elif upper == b"STARTTLS":
            said = await self.say("STARTTLS", command, b"220 go on")
            if said.startswith(b"220") and self.mx.tls:
                await self.writer.start_tls(self.mx.tls)
                self.tls = True
        elif upper.startswith(b"AUTH"):
            await self.say("AUTH", command, b"235 2.7.0 welcome")
        elif upper.startswith(b"MAIL"):
            said = await self.say("MAIL", command, b"250 2.1.0 Ok")
            self.from_line, self.rcpt = command if said.startswith(b"2") else b"", []
        elif upper.startswith(b"RCPT"):
            if not self.from_line:
                self.writer.write(b"503 5.5.1 MAIL first\r\n")
                return
            said = await self.say("RCPT", command, b"250 2.1.5 Ok")
            if said.startswith(b"2"):
                self.rcpt.append(command)
        elif upper == b"DATA":
            default = b"354 go on" if self.rcpt else b"503 5.5.1 no recipients"
            if (await self.say("DATA", command, default)).startswith(b"354"):
                await self.data()
        elif upper == b"RSET":
            self.from_line, self.rcpt = b"", []
            await self.say("RSET", command, b"250 2.0.0 Ok")
        elif upper == b"QUIT":
            await self.say("QUIT", command, b"221 2.0.0 Bye")
            raise _End
        else:
            await self.say("OTHER", command, b"500 5.5.2 what?")

    async def data(self) -> None:
        content = bytearray()
        while (line := await self.reader.readline()) != b".\r\n":
            if not line:
                raise _End
            content += line[1:] if line.startswith(b".") else line
        self.mx.bodies_read += 1
        for recipient in self.rcpt if self.mx.lmtp else [b""]:
            said = await self.say("DOT", recipient, b"250 2.0.0 queued as 1")
            if said.startswith(b"2") and said[:3].isdigit() and self.rcpt:
                whom = [recipient] if self.mx.lmtp else list(self.rcpt)
                self.mx.mails.append(Mail(self.from_line, whom, bytes(content), self.number, self.tls))
        self.from_line, self.rcpt = b"", []
