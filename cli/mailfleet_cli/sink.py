"""`python -m mailfleet_cli.sink`: an SMTP server that keeps every mail it gets, so that no trial mails a stranger."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import sys
from pathlib import Path

import click
from aiosmtpd.smtp import SMTP, Envelope, Session

from mailfleet_cli import maildir
from mailfleet_core import logs
from mailfleet_core.clock import SystemClock

log = logging.getLogger(__name__)
MAX_BYTES = 100 << 20


class Keeper:
    """aiosmtpd's handler: into the Maildir, then 250."""

    def __init__(self, inbox: Path) -> None:
        self.inbox = inbox
        self.numbers = itertools.count()
        self.clock = SystemClock()

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 (aiosmtpd's name)
        """Keep one mail."""
        content = envelope.content if isinstance(envelope.content, bytes) else b""
        name = f"{self.clock.now():017.6f}.{os.getpid()}-{next(self.numbers):06d}"
        try:
            await asyncio.to_thread(
                maildir.keep, self.inbox, name, envelope.mail_from or "", list(envelope.rcpt_tos), content
            )
        except OSError as error:
            log.error("cannot keep a mail", extra={"reason": str(error)})
            return "452 4.3.1 No room"
        log.info("kept a mail", extra={"recipients": len(envelope.rcpt_tos), "size_bytes": len(content)})
        return f"250 2.0.0 kept as {name}"


async def serve(listen: str, inbox: Path) -> None:
    """Listen until SIGTERM or SIGINT."""
    loop, stop, keeper = asyncio.get_running_loop(), asyncio.Event(), Keeper(inbox)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    host, _, port = listen.rpartition(":")
    server = await loop.create_server(
        lambda: SMTP(
            keeper, data_size_limit=MAX_BYTES, enable_SMTPUTF8=True, hostname="sink.invalid", ident="Mailfleet sink"
        ),
        host.strip("[]"),
        int(port),
    )
    log.info("ready")
    await stop.wait()
    server.close()


@click.command()
@click.option("--listen", required=True, help="address:port")
@click.option("--inbox", required=True, type=click.Path(path_type=Path), help="the Maildir")
@click.option("--log-format", default="auto", help="json, console or auto")
def main(listen: str, inbox: Path, log_format: str) -> None:
    """Keep every mail that comes."""
    logs.setup("sink", log_format, "info")
    maildir.create(inbox)
    try:
        asyncio.run(serve(listen, inbox))
    except OSError as error:
        sys.exit(f"mailfleet sink: cannot listen on {listen} ({error.strerror}); change [run] sink_listen")


if __name__ == "__main__":
    main()
