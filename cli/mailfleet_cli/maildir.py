"""The sink's Maildir: mails written whole, read back with the envelope they came with."""

from __future__ import annotations

import email.policy
import os
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path

ENVELOPE_TO = b"X-Mailfleet-Recipient"


@dataclass(frozen=True, slots=True)
class Stored:
    """A mail in the inbox."""

    name: str
    """Of its file; they sort by arrival."""
    arrived_at: float
    path: Path
    message: EmailMessage

    @property
    def reverse_path(self) -> str:
        """MAIL FROM, as the sink got it."""
        return str(self.message.get("Return-Path", "")).strip("<>")

    @property
    def recipients(self) -> list[str]:
        """RCPT TO, as the sink got them."""
        return [str(value) for value in self.message.get_all(ENVELOPE_TO.decode(), [])]


def create(directory: Path) -> None:
    """Make the three folders of a Maildir, readable by us only."""
    for folder in ("tmp", "new", "cur"):
        (directory / folder).mkdir(mode=0o700, parents=True, exist_ok=True)


def keep(directory: Path, name: str, reverse_path: str, recipients: list[str], content: bytes) -> None:
    """Write one mail durably: its envelope as header fields, then the bytes as they came."""
    fields = [b"Return-Path: <%s>" % _field(reverse_path)]
    fields += [b"%s: %s" % (ENVELOPE_TO, _field(recipient)) for recipient in recipients]
    with (directory / "tmp" / name).open("xb") as file:
        file.write(b"\r\n".join([*fields, content]))
        file.flush()
        os.fsync(file.fileno())
    (directory / "tmp" / name).rename(directory / "new" / name)


def _field(address: str) -> bytes:
    return address.encode("utf-8", "surrogateescape").replace(b"\r", b"").replace(b"\n", b"")


def stored(directory: Path) -> Iterator[Stored]:
    """All mails, the oldest first; only their headers are parsed."""
    parser = BytesParser(policy=email.policy.default)
    files = [path for folder in ("new", "cur") for path in (directory / folder).glob("*")]
    for path in sorted(files, key=lambda found: found.name):
        with path.open("rb") as file:
            message = parser.parse(file, headersonly=True)
        yield Stored(path.name, path.stat().st_mtime, path, message)
