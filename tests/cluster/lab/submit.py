"""A client outside the cluster: logs in over TLS and hands in mail, a line for each that was accepted.

`python -m cluster.lab.submit --to HOST:PORT --user NAME --password WORD --from ADDRESS --log FILE --count N DOMAIN…`. The
recipients go round the domains. What is refused or cut is handed in again under the same X-Ledger-Id.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import aiosmtplib

MAILS_PER_SESSION = 50
AGAIN_SECONDS = 1.0
GIVE_UP_SECONDS = 120.0


class Client:
    """Hands in the mails of a shared list until it is empty."""

    def __init__(self, options: argparse.Namespace, mails: Iterator[tuple[str, str]], log: int) -> None:
        self._options, self._mails, self._log = options, mails, log
        self._trust = ssl.create_default_context()
        self._trust.check_hostname = False
        self._trust.verify_mode = ssl.CERT_NONE

    async def run(self) -> None:
        """Session after session. Raises when the cluster does not take mail for too long."""
        waiting = next(self._mails, None)
        since = time.monotonic()
        while waiting:
            try:
                async with self._session() as session:
                    for _ in range(MAILS_PER_SESSION):
                        if not waiting:
                            break
                        await self._hand_in(session, *waiting)
                        waiting, since = next(self._mails, None), time.monotonic()
            except (aiosmtplib.SMTPException, OSError) as error:
                if time.monotonic() - since > GIVE_UP_SECONDS:
                    raise
                print(f"again: {error}", flush=True)
                await asyncio.sleep(AGAIN_SECONDS)

    def _session(self) -> aiosmtplib.SMTP:
        host, _, port = self._options.to.rpartition(":")
        return aiosmtplib.SMTP(
            host, int(port), start_tls=True, tls_context=self._trust, timeout=30,
            username=self._options.user, password=self._options.password,
        )  # fmt: skip

    async def _hand_in(self, session: aiosmtplib.SMTP, identity: str, recipient: str) -> None:
        sender = self._options.sender
        text = f"From: {sender}\r\nTo: {recipient}\r\nSubject: {identity}\r\nX-Ledger-Id: {identity}\r\n\r\nHello.\r\n"
        _, reply = await session.sendmail(sender, [recipient], text.encode())
        line = {"at": time.time(), "outcome": "accepted", "id": identity, "rcpts": [recipient], "reply": reply}
        os.write(self._log, json.dumps(line).encode() + b"\n")


async def submit(options: argparse.Namespace) -> None:
    """Hand in all of it."""
    domains = options.domains
    mails = (
        (f"{options.mark}-{number}", f"user{number}@{domains[number % len(domains)]}")
        for number in range(options.count)
    )
    log = os.open(options.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    async with asyncio.TaskGroup() as group:
        for _ in range(options.sessions):
            group.create_task(Client(options, mails, log).run())


def main() -> None:
    """Read the command line and submit."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    for name in ("to", "user", "password", "mark"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--from", dest="sender", required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--sessions", type=int, default=4)
    parser.add_argument("domains", nargs="+")
    asyncio.run(submit(parser.parse_args()))


if __name__ == "__main__":
    main()
