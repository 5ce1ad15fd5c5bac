"""A raw SMTP client: says exactly the bytes it is told, reads whole replies."""

from __future__ import annotations

import asyncio
import base64
import ssl


class Dialogue:
    """One connection to a server under test."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, port: int, *, tls: bool = False, host: str = "127.0.0.1") -> Dialogue:
        """Connect; the greeting is not read yet."""
        context = _trusting() if tls else None
        return cls(*await asyncio.open_connection(host, port, ssl=context))

    @classmethod
    async def greeted(cls, port: int, *, tls: bool = False) -> Dialogue:
        """Connect, and say EHLO."""
        dialogue = await cls.open(port, tls=tls)
        await dialogue.reply()
        await dialogue.ask(b"EHLO client.example")
        return dialogue

    def send(self, data: bytes) -> None:
        """Say `data` as it is."""
        self.writer.write(data)

    async def reply(self) -> str:
        """The next reply, all its lines; empty at the end of the connection."""
        lines = []
        while True:
            try:
                line = await asyncio.wait_for(self.reader.readline(), 20)
            except ConnectionError:
                return ""
            lines.append(line.decode())
            if line[3:4] != b"-":
                return "".join(lines)

    async def ask(self, command: bytes) -> str:
        """Say one command; its reply."""
        self.send(command + b"\r\n")
        return await self.reply()

    async def codes(self, data: bytes, count: int) -> list[str]:
        """Say `data`; the codes of the next `count` replies."""
        self.send(data)
        return [(await self.reply())[:3] for _ in range(count)]

    async def mail(self, content: bytes, sender: bytes = b"a@b.example", *recipients: bytes) -> str:
        """A whole mail, each command after the reply to the one before; the last reply."""
        answer = await self.ask(b"MAIL FROM:<" + sender + b">")
        for recipient in recipients or (b"c@d.example",):
            if answer[:1] == "2":
                answer = await self.ask(b"RCPT TO:<" + recipient + b">")
        if answer[:1] == "2":
            answer = await self.ask(b"DATA")
        if answer[:3] == "354":
            answer = await self.ask(content + b".")
        return answer

    async def starttls(self) -> None:
        """STARTTLS, and EHLO again."""
        assert (await self.ask(b"STARTTLS"))[:3] == "220"
        await self.writer.start_tls(_trusting())
        await self.ask(b"EHLO client.example")

    async def login(self, user: str, password: str) -> str:
        """AUTH PLAIN."""
        return await self.ask(b"AUTH PLAIN " + base64.b64encode(f"\0{user}\0{password}".encode()))

    async def ended(self) -> bool:
        """Whether the server ends the connection now (what it still says is skipped)."""
        try:
            await asyncio.wait_for(self.reader.read(), 20)
        except ConnectionError:
            return True
        return True

    def close(self) -> None:
        """Go away at once."""
        self.writer.transport.abort()


def _trusting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
