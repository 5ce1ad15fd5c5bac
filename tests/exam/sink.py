"""The sink: an SMTP server per site, each with its behaviour, that writes down what it takes before it says so.

`python -m exam.sink --sites SITES.json --port PORT --log FILE`; SITES.json is {address: label}. One JSON line for each
(message, recipient) taken, and one for each report about a recipient that came back to the sender.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from exam.behaviours import BEHAVIOURS, REPORTS, YES, Answer, behaviour_of

LARGEST = 64 << 20
PATH = re.compile(rb"<(.*)>")
RECEIVED_ID = re.compile(rb"\sid\s+([0-9A-Z]{26})")
LEDGER_ID = re.compile(rb"^X-Ledger-Id: (\S+)\r\n", re.MULTILINE)
REPORTED = re.compile(rb"^Final-Recipient: *rfc822; *(\S+)\r\n(?:.+\r\n)*?Action: *(\S+)", re.MULTILINE | re.IGNORECASE)
CAPABILITIES = ("PIPELINING", "SIZE 60000000", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES")


class Cut(Exception):
    """The connection ends here."""


@dataclass
class Ledger:
    """The sink's log and its memory of who has been here before."""

    file: int
    seen: Counter[tuple[str, ...]] = field(default_factory=Counter)

    def write(self, **line: object) -> None:
        """One line, in the file when this returns."""
        os.write(self.file, json.dumps({"at": time.time(), **line}).encode() + b"\n")

    def answer(self, behaviour: str, phase: str, key: str) -> Answer:
        """What to do at `phase` for the mail `key`."""
        script = BEHAVIOURS[behaviour]
        if phase not in script.at:
            return YES
        if script.once:
            self.seen[behaviour, phase, key] += 1
            if self.seen[behaviour, phase, key] > 1:
                return YES
        return script.at[phase]


class Session:
    """One connection."""

    def __init__(self, ledger: Ledger, label: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.ledger, self.label, self.reader, self.writer = ledger, label, reader, writer
        self.behaviour = behaviour_of(label)
        self.greeted = ""
        self.reset()

    def reset(self) -> None:
        """Forget the transaction."""
        self.reverse_path, self.recipients = "", list[str]()

    async def run(self) -> None:
        """From the greeting to the end."""
        try:
            await self.say("greeting", self.connection_key(), b"220 2.0.0 sink ESMTP")
            while line := await self.reader.readline():
                await self.command(line.rstrip(b"\r\n"))
        except (Cut, OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.writer.close()

    def connection_key(self) -> str:
        """What the greeting is given for: two connections in a row have the same key, so every other one is refused."""
        self.ledger.seen["connections", self.label] += 1
        return str(self.ledger.seen["connections", self.label] // 2)

    async def say(self, phase: str, key: str, usual: bytes) -> bool:
        """Reply as the behaviour wants; False when the reply was no 2xx or 3xx."""
        answer = self.ledger.answer(self.behaviour, phase, key)
        return await self.carry_out(answer, usual)

    async def carry_out(self, answer: Answer, usual: bytes) -> bool:
        """Do what `answer` says."""
        if answer.delay:
            await asyncio.sleep(answer.delay)
        if answer.cut:
            raise Cut
        reply = answer.reply or usual
        self.writer.write(reply + b"\r\n")
        await self.writer.drain()
        if answer.close:
            raise Cut
        return reply[:1] in b"23"

    async def command(self, line: bytes) -> None:
        """Answer one command."""
        verb = line[:4].upper()
        if verb == b"EHLO":
            self.greeted = line[5:].decode(errors="replace")
            lines = [b"sink", *(word.encode() for word in CAPABILITIES)]
            reply = b"\r\n".join(b"250-" + text for text in lines[:-1]) + b"\r\n250 " + lines[-1]
            await self.carry_out(YES, reply)
        elif verb == b"MAIL":
            await self.mail(line)
        elif verb == b"RCPT":
            await self.rcpt(line)
        elif verb == b"DATA":
            await self.data()
        elif verb == b"QUIT":
            await self.carry_out(Answer(close=True), b"221 2.0.0 Bye")
        else:
            self.reset()
            await self.carry_out(YES, b"250 2.0.0 OK")

    async def mail(self, line: bytes) -> None:
        """MAIL FROM."""
        self.reset()
        path = address(line)
        if await self.say("mail", path, b"250 2.1.0 OK"):
            self.reverse_path = path or "<>"

    async def rcpt(self, line: bytes) -> None:
        """RCPT TO."""
        if not self.reverse_path:
            await self.carry_out(YES, b"503 5.5.1 MAIL first")
            return
        path = address(line)
        if await self.say("rcpt", f"{self.reverse_path} {path}", b"250 2.1.5 OK"):
            self.recipients.append(path)

    async def data(self) -> None:
        """DATA, the content and the dot."""
        if not self.recipients:
            await self.carry_out(YES, b"554 5.5.1 No valid recipients")
            return
        key = f"{self.reverse_path} {self.recipients[0]}"
        answer = self.ledger.answer(self.behaviour, "data", key)
        if answer.cut:
            await self.carry_out(YES, b"354 Go on")
            await self.reader.readline()
            raise Cut
        if not await self.carry_out(answer, b"354 Go on"):
            return
        content = await self.reader.readuntil(b"\r\n.\r\n")
        await self.dot(content[:-3].replace(b"\r\n..", b"\r\n."), self.ledger.answer(self.behaviour, "dot", key))

    async def dot(self, content: bytes, answer: Answer) -> None:
        """Write down what is taken, then reply."""
        if answer.delay:
            await asyncio.sleep(answer.delay)
        if answer.accept:
            self.keep(content, not answer.cut)
        self.reset()
        await self.carry_out(Answer(answer.reply, 0.0, answer.cut), b"250 2.0.0 Taken")

    def keep(self, content: bytes, replied: bool) -> None:
        """The lines of the ledger for one message."""
        where = {"site": self.label, "from": self.greeted, "mailfleet": found(RECEIVED_ID, content)}
        if self.behaviour == REPORTS:
            for recipient, action in REPORTED.findall(content):
                about = self.recipients[0].partition("@")[0]
                text = {"rcpt": recipient.decode(errors="replace"), "action": action.decode().lower()}
                self.ledger.write(kind="report", id=about, reverse_path=self.reverse_path, **text, **where)
            return
        digest = hashlib.sha256(without_received(content)).hexdigest()
        for recipient in self.recipients:
            self.ledger.write(kind="taken", id=found(LEDGER_ID, content), reverse_path=self.reverse_path,
                              rcpt=recipient, sha=digest, replied=replied, **where)  # fmt: skip


def address(line: bytes) -> str:
    """What is between < and > in a command."""
    found_path = PATH.search(line)
    return found_path.group(1).decode("utf-8", "surrogateescape") if found_path else ""


def found(pattern: re.Pattern[bytes], content: bytes) -> str:
    """The first match near the top of a message, or nothing."""
    match = pattern.search(content, 0, 4096)
    return match.group(1).decode() if match else ""


def without_received(content: bytes) -> bytes:
    """`content` without the Received lines before it."""
    while content.startswith(b"Received:"):
        end = content.index(b"\r\n") + 2
        while content[end : end + 1] in (b" ", b"\t"):
            end = content.index(b"\r\n", end) + 2
        content = content[end:]
    return content


async def serve(sites: dict[str, str], port: int, log: Path) -> None:
    """Listen for all `sites` until cancelled."""
    ledger = Ledger(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644))

    async def open_site(where: str, label: str) -> None:
        async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await Session(ledger, label, reader, writer).run()

        await asyncio.start_server(session, where, port, limit=LARGEST, backlog=512)

    for where, label in sites.items():
        await open_site(where, label)
    await asyncio.Event().wait()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--sites", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--log", type=Path, required=True)
    options = parser.parse_args()
    asyncio.run(serve(json.loads(options.sites.read_text()), options.port, options.log))


if __name__ == "__main__":
    main()
