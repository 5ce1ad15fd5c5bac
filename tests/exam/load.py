"""The load: a steady stream of mail, handed in as a careful client does, with a line for each attempt.

`python -m exam.load --to HOST:PORT,… --rate N --count N --log FILE`. A mail that was not accepted is tried again under
the same X-Ledger-Id; so is one whose dot was sent and not answered (`indoubt`), which may make two of it (RFC 1047).
SIGTERM ends it early; what was under way then gets its line, too: a mail whose dot was sent may have been accepted.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import re
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from exam.behaviours import BEHAVIOURS, DOMAIN, REPORTS

ACCEPTED_ID = re.compile(rb"\b([0-9A-Z]{26})\b")
LETTERS = b"abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ .0123456789"
REPLY_SECONDS, CONNECT_SECONDS, AGAIN_SECONDS = 60.0, 5.0, 1.0
MAILS_PER_CONNECTION = 25


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail of the ledger."""

    id: str
    recipients: tuple[str, ...]
    content: bytes
    sha: str


class Refused(Exception):
    """A reply that is no 2xx or 3xx."""

    def __init__(self, reply: bytes) -> None:
        super().__init__(reply.decode(errors="replace"))
        self.code = int(reply[:3])


class Maker:
    """Makes mails: mostly of a few kilobytes, one to three recipients, sites by their weights."""

    def __init__(self, seed: int, weights: dict[str, float], mark: str = "m") -> None:
        """`mark`: what the names of its mails begin with."""
        self.dice, self.mark = random.Random(seed), mark
        lines = (bytes(self.dice.choices(LETTERS, k=70)).strip() for _ in range(16_000))
        self.text = b"\r\n".join(line.replace(b"a", b".", 1) if line.startswith(b"a") else line for line in lines)
        self.sites = [
            f"{name}{number or ''}.{DOMAIN}" for name, script in BEHAVIOURS.items() for number in range(script.domains)
        ]
        self.weights = [
            weights.get(name, 0.0) / script.domains
            for name, script in BEHAVIOURS.items()
            for _ in range(script.domains)
        ]

    def mail(self, number: int) -> Mail:
        """The mail of this number; the same seed gives the same mails."""
        name = f"{self.mark}{number:06d}"
        wanted = self.dice.choices((1, 2, 3), weights=(85, 10, 5))[0]
        sites = self.dice.choices(self.sites, weights=self.weights, k=wanted)
        recipients = tuple(f"r{place}.{name}@{site}" for place, site in enumerate(sites))
        size = self.dice.choices((1_500, 4_000, 20_000, 100_000, 950_000), weights=(500, 400, 80, 18, 2))[0]
        start = self.dice.randrange(len(self.text) - size - 200)
        lines = self.text[start : start + size + 200].partition(b"\r\n")[2].rpartition(b"\r\n")[0]
        content = self._headers(name, recipients) + lines + b"\r\n"
        return Mail(name, recipients, content, hashlib.sha256(content).hexdigest())

    @staticmethod
    def _headers(name: str, recipients: tuple[str, ...]) -> bytes:
        lines = (
            f"X-Ledger-Id: {name}", f"From: <{name}@{REPORTS}.{DOMAIN}>", f"To: <{recipients[0]}>", "Subject: a mail",
            f"Message-ID: <{name}@{DOMAIN}>", "Date: Sat, 21 Nov 2026 23:00:00 +0000", "", "",
        )  # fmt: skip
        return "\r\n".join(lines).encode()


class Client:
    """One connection at a time, opened anew when it was lost or used enough."""

    def __init__(self, targets: list[tuple[str, int]], number: int) -> None:
        self.targets, self.number = targets, number
        self.used = 0
        self.writer: asyncio.StreamWriter | None = None
        self.dot_sent = False

    async def submit(self, mail: Mail) -> bytes:
        """Hand in one mail; the reply to its dot. Raises Refused, OSError, TimeoutError, EOFError."""
        self.dot_sent = False
        if self.writer is None or self.used >= MAILS_PER_CONNECTION:
            await self._connect()
        self.used += 1
        commands = [f"MAIL FROM:<{mail.id}@{REPORTS}.{DOMAIN}>", *(f"RCPT TO:<{to}>" for to in mail.recipients), "DATA"]
        self._write("".join(f"{command}\r\n" for command in commands).encode())
        for reply in [await self._reply() for _ in commands]:
            self._check(reply)
        self._write(mail.content.replace(b"\r\n.", b"\r\n..") + b".\r\n")
        self.dot_sent = True
        reply = await self._reply()
        self._check(reply)
        return reply

    def drop(self) -> None:
        """Let go of the connection."""
        if self.writer is not None:
            self.writer.close()
        self.writer = None

    async def _connect(self) -> None:
        self.drop()
        self.number += 1
        host, port = self.targets[self.number % len(self.targets)]
        async with asyncio.timeout(CONNECT_SECONDS):
            self.reader, self.writer = await asyncio.open_connection(host, port)
        self.used = 0
        self._check(await self._reply())
        self._write(b"EHLO load.test\r\n")
        self._check(await self._reply())

    def _write(self, data: bytes) -> None:
        assert self.writer is not None
        self.writer.write(data)

    async def _reply(self) -> bytes:
        async with asyncio.timeout(REPLY_SECONDS):
            while True:
                line = await self.reader.readline()
                if not line.endswith(b"\n"):
                    raise EOFError
                if line[3:4] != b"-":
                    return line.rstrip()

    @staticmethod
    def _check(reply: bytes) -> None:
        if reply[:1] not in (b"2", b"3"):
            raise Refused(reply)


class Load:
    """The workers, the clock that feeds them, and the log."""

    def __init__(self, clients: Sequence[Client], log: Path, give_up_seconds: float) -> None:
        self.file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self.clients = clients
        self.waiting: asyncio.Queue[Mail] = asyncio.Queue()
        self.open = 0
        self.give_up_seconds = give_up_seconds
        self.give_up_at = float("inf")

    async def run(self, maker: Maker, count: int, rate: float) -> None:
        """Feed `count` mails at `rate` a second; return when each was accepted, refused for good or given up."""
        workers = [asyncio.create_task(self._work(client)) for client in self.clients]
        feeding = asyncio.create_task(self._feed(maker, count, rate))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, feeding.cancel)
        await asyncio.wait([feeding])
        for worker in workers:
            worker.cancel()
        await asyncio.wait(workers)
        if not feeding.cancelled():
            feeding.result()

    async def _feed(self, maker: Maker, count: int, rate: float) -> None:
        begun = time.monotonic()
        for number in range(count):
            await asyncio.sleep(max(0.0, begun + number / rate - time.monotonic()))
            self.open += 1
            self.waiting.put_nowait(maker.mail(number))
        self.give_up_at = time.monotonic() + self.give_up_seconds
        while self.open:
            await asyncio.sleep(0.1)

    async def _work(self, client: Client) -> None:
        while True:
            mail = await self.waiting.get()
            if await self._attempt(client, mail) or time.monotonic() > self.give_up_at:
                self.open -= 1
            else:
                asyncio.get_running_loop().call_later(AGAIN_SECONDS, self.waiting.put_nowait, mail)

    async def _attempt(self, client: Client, mail: Mail) -> bool:
        """One attempt and its line; True when there is to be no other."""
        begun = time.time()
        try:
            reply = await client.submit(mail)
        except Refused as refused:
            client.drop()
            self._line(mail, begun, "refused", str(refused))
            return refused.code >= 500
        except (OSError, TimeoutError, EOFError, asyncio.CancelledError) as error:
            outcome = "indoubt" if client.dot_sent else "failed"
            client.drop()
            self._line(mail, begun, outcome, repr(error))
            if isinstance(error, asyncio.CancelledError):
                raise
            return False
        self._line(mail, begun, "accepted", reply.decode(errors="replace"))
        return True

    def _line(self, mail: Mail, begun: float, outcome: str, text: str) -> None:
        now = time.time()
        given = ACCEPTED_ID.search(text.encode()) if outcome == "accepted" else None
        line = {
            "at": now, "seconds": round(now - begun, 4), "id": mail.id, "outcome": outcome, "text": text[:200],
            "mailfleet": given.group(1).decode() if given else "", "rcpts": mail.recipients, "sha": mail.sha,
            "size": len(mail.content),
        }  # fmt: skip
        os.write(self.file, json.dumps(line).encode() + b"\n")


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--to", required=True, help="HOST:PORT of the listeners, separated by commas")
    parser.add_argument("--rate", type=float, default=50.0, help="mails a second")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--give-up-seconds", type=float, default=120.0, help="after the last mail was first tried")
    parser.add_argument("--weights", default="", help="behaviour=weight,… instead of the usual ones")
    parser.add_argument("--log", type=Path, required=True)
    options = parser.parse_args()
    targets = [(host, int(port)) for host, _, port in (to.rpartition(":") for to in options.to.split(","))]
    named = (pair.split("=") for pair in options.weights.split(",") if pair)
    weights = {name: float(weight) for name, weight in named}
    weights = weights or {name: script.weight for name, script in BEHAVIOURS.items()}
    clients = [Client(targets, number) for number in range(options.sessions)]
    load = Load(clients, options.log, options.give_up_seconds)
    asyncio.run(load.run(Maker(options.seed, weights), options.count, options.rate))


if __name__ == "__main__":
    main()
