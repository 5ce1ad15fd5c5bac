"""A mailbox provider on a machine of its own: limits for each address that connects, and orders that change while it runs.

`python -m cluster.lab.provider --stage STAGE.json --orders ORDERS.json --log SINK.jsonl --limits LIMITS.jsonl`. What it
takes goes into the first book, every connection with the address that it came from into the second. ORDERS.json is read
again whenever it changes: {"blocked": {ADDRESS: COUNT}, "greylist": true}; so many messages from the address are answered
`BLOCKED` of `exam.receivers`, further ones `REFUSED`. A recipient whose local part begins with `nobody` does not exist.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from exam.limits_sink import Desk, LimitedSession, Line, listener
from exam.receivers import BLOCKED, BY_NAME, REFUSED, Limits, Receiver
from exam.sink import Answer, Ledger, address

GREYLISTED = Answer(b"451 4.7.1 Greylisted, please come back later")
UNKNOWN = Answer(b"550 5.1.1 The email account that you tried to reach does not exist")


class Office(Desk):
    """What all connections of the provider share."""

    def __init__(self, ledger: Ledger, limits: Ledger, orders: Path) -> None:
        super().__init__(ledger, limits, {}, [])
        self._file, self._read_at, self._orders = orders, -1, dict[str, Any]()
        self._seen: set[tuple[str, str, str]] = set()
        self._blocked: Counter[str] = Counter()

    @property
    def orders(self) -> dict[str, Any]:
        """The orders in force."""
        changed = self._file.stat().st_mtime_ns if self._file.exists() else 0
        if changed != self._read_at:
            self._orders = json.loads(self._file.read_text()) if changed else {}
            self._read_at = changed
            self._blocked.clear()
        return self._orders

    def blocked(self, source: str, site: str, at: float) -> str:
        """See `Desk`."""
        threshold = self.orders.get("blocked", {}).get(source)
        if threshold is None:
            return ""
        self._blocked[source] += 1
        return BLOCKED if self._blocked[source] <= threshold else REFUSED

    def greylisted(self, source: str, path: str, recipient: str) -> bool:
        """Is this the first time that these three come together, where that counts?"""
        who = (source, path, recipient)
        new = who not in self._seen
        self._seen.add(who)
        return new and bool(self.orders.get("greylist"))


class Visit(LimitedSession):
    """One connection."""

    desk: Office

    async def rcpt(self, line: bytes) -> None:
        """See `Session`."""
        recipient = address(line)
        if recipient.startswith("nobody"):
            await self.carry_out(UNKNOWN, b"")
        elif self.desk.greylisted(self.source, self.reverse_path, recipient):
            await self.carry_out(GREYLISTED, b"")
        else:
            await super().rcpt(line)

    def keep(self, content: bytes, replied: bool) -> None:
        """See `Session`; the address that the mail came from goes into the book."""
        super().keep(content, replied)
        self.desk.write(self.line.at, kind="taken", recipients=list(self.recipients), helo=self.greeted, **self.where)


async def serve(stage: dict[str, Any], office: Office) -> None:
    """Listen until cancelled. `stage`: the receiver's name, its addresses, the port, and other limits if it has some."""
    receiver = BY_NAME[stage["receiver"]]
    if "limits" in stage:
        receiver = replace(receiver, limits=Limits(**stage["limits"]))
    async with asyncio.TaskGroup() as group:
        for where in stage["addresses"]:
            group.create_task(_accept(office, receiver, where, int(stage["port"])))


async def _accept(office: Office, receiver: Receiver, where: str, port: int) -> None:
    loop, listening, running = asyncio.get_running_loop(), listener(where, port), set[asyncio.Task[None]]()
    while True:
        sock, (peer, _) = await loop.sock_accept(listening)
        task = loop.create_task(Visit(office, receiver, Line(sock), peer).run())
        running.add(task)
        task.add_done_callback(running.discard)


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    for name in ("stage", "orders", "log", "limits"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    options = parser.parse_args()
    books = (
        Ledger(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)) for path in (options.log, options.limits)
    )
    asyncio.run(serve(json.loads(options.stage.read_text()), Office(*books, options.orders)))


if __name__ == "__main__":
    main()
