"""Reports of complaints as mailbox providers send them: the Abuse Reporting Format, RFC 5965.

What a report says was written by somebody else, and whoever feeds it has decided to believe it. Nothing of it is used but to find
a mail that is known here.
"""

from __future__ import annotations

import base64
import binascii
import email
import quopri
import re
from dataclasses import dataclass
from datetime import UTC
from email.message import Message
from email.parser import BytesHeaderParser
from email.utils import parseaddr, parsedate_to_datetime

from mailfleet_core.model import ids
from mailfleet_core.model.reply import printable

COMPLAINTS = frozenset({"abuse", "fraud", "virus", "other"})
"""Feedback types of RFC 5965 that are complaints. `not-spam` (RFC 6430) and `auth-failure` (RFC 6591) are none."""
MOST_BYTES = 20_000_000
_ID = re.compile(r"\bid\s+([0-9A-HJKMNP-TV-Z]{26})\b")
"""As we write it into Received."""
_HEADERS = frozenset({"text/rfc822-headers", "message/rfc822-headers"})


class NotAReport(ValueError):
    """It is no report in the Abuse Reporting Format."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a report says of the mail it is about."""

    kind: str
    """Feedback-Type, lower case."""
    message_ids: tuple[str, ...] = ()
    """Ids that may be ours, from the Received fields of the mail."""
    header_message_id: str = ""
    """Message-ID of the mail, without angle brackets."""
    recipients: tuple[str, ...] = ()
    """Original-Rcpt-To, or empty; providers may make the local part unreadable (RFC 6590)."""
    reported_at: float = 0.0
    """When the report was made; 0: it does not say."""
    by: str = ""
    """Who made it: the domain of its author."""

    @property
    def complains(self) -> bool:
        """Is it a complaint?"""
        return self.kind in COMPLAINTS


def parse(data: bytes) -> Report:
    """The report in a mail. Raises NotAReport."""
    if len(data) > MOST_BYTES:
        raise NotAReport(f"longer than {MOST_BYTES} bytes")
    mail = email.message_from_bytes(data)
    fields = next((_fields(part) for part in mail.walk() if part.get_content_type() == "message/feedback-report"), None)
    if fields is None or not _text(fields, "Feedback-Type"):
        raise NotAReport("it has no part message/feedback-report with a Feedback-Type (RFC 5965)")
    original = _original(mail)
    return Report(
        _text(fields, "Feedback-Type").lower(),
        _our_ids(original),
        _text(original, "Message-ID").strip("<> ") if original is not None else "",
        tuple(dict.fromkeys(filter(None, map(_address, fields.get_all("Original-Rcpt-To", []))))),
        _reported_at(mail),
        _address(_text(mail, "From")).rpartition("@")[2] or _text(fields, "Reporting-MTA").rpartition(";")[2].strip(),
    )


def _fields(part: Message) -> Message:
    """The fields of the machine-readable part."""
    inner = part.get_payload(0) if part.is_multipart() else part
    assert isinstance(inner, Message)
    coding = str(part.get("Content-Transfer-Encoding", "")).strip().lower()
    if coding not in ("base64", "quoted-printable"):
        return inner
    # No message may be coded so (RFC 2046 5.2), but some of these are.
    text = inner.as_bytes().lstrip(b"\r\n")
    try:
        plain = base64.b64decode(text) if coding == "base64" else quopri.decodestring(text)
    except binascii.Error as error:
        raise NotAReport(f"its feedback-report cannot be decoded: {error}") from error
    return BytesHeaderParser().parsebytes(plain)


def _original(mail: Message) -> Message | None:
    """The header of the mail that is complained about."""
    for part in mail.walk():
        kind = part.get_content_type()
        if kind == "message/rfc822" and part.is_multipart():
            inner = part.get_payload(0)
            return inner if isinstance(inner, Message) else None
        if kind in _HEADERS:
            if part.is_multipart():
                inner = part.get_payload(0)
                return inner if isinstance(inner, Message) else None
            text = part.get_payload(decode=True)
            return BytesHeaderParser().parsebytes(text) if isinstance(text, bytes) else None
    return None


def _our_ids(original: Message | None) -> tuple[str, ...]:
    if original is None:
        return ()
    received = " ".join(" ".join(str(value).split()) for value in original.get_all("Received", []))
    found = dict.fromkeys(_ID.findall(received))
    return tuple(word for word in found if _is_id(word))


def _is_id(word: str) -> bool:
    try:
        ids.parse(word)
    except ValueError:
        return False
    return True


def _text(message: Message, name: str) -> str:
    return printable(" ".join(str(message.get(name, "")).split()))[:500]


def _address(value: object) -> str:
    text = " ".join(str(value).split()).removeprefix("rfc822;").strip()
    address = parseaddr(text)[1] or text.strip("<>")
    return printable(address)[:320] if "@" in address else ""


def _reported_at(mail: Message) -> float:
    try:
        at = parsedate_to_datetime(str(mail.get("Date", "")))
    except ValueError:
        return 0.0
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
