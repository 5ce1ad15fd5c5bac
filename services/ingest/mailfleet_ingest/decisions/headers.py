"""The header section: judged once when it has come, and the lines we put before it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

import msgspec

from mailfleet_core.model.reply import printable
from mailfleet_ingest.decisions import reply
from mailfleet_ingest.decisions.policy import Limits
from mailfleet_ingest.decisions.reply import Reply

_FIELD = re.compile(rb"[!-9;-~]+[ \t]*:")
_FIELD_NAME = re.compile(r"[!-9;-~]{1,70}")
_SAFE_NAME = re.compile(r"[A-Za-z0-9._\-]{1,255}|\[[A-Za-z0-9.:]{1,64}\]")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
MAX_MESSAGE_ID_OCTETS = 500
MAX_CAMPAIGN_OCTETS = 100


class Header(msgspec.Struct, frozen=True, gc=False):
    """What we need to know of a header section."""

    has_date: bool
    message_id: str
    """The value of Message-ID, or empty."""
    has_fields: bool = True
    """False: the content begins with text, so ours must end with an empty line."""
    campaign: str = ""
    """The value of the field that names the campaign, or empty."""


def campaign_mark(field: str) -> bytes:
    """What `scan` looks for to find the campaign: the start of a line with header field `field`; empty: nothing.
    Raises ValueError for what is no field's name."""
    if field and _FIELD_NAME.fullmatch(field) is None:
        raise ValueError(
            f"{field!r} is not the name of a header field; write a name such as X-Campaign, without the colon"
        )
    return f"\r\n{field.lower()}:".encode() if field else b""


def scan(block: bytes, limits: Limits, campaign: bytes = b"") -> Header | Reply:
    """The header section at the start of `block` (at least 100 kB of the message, or all of it). `campaign`: see
    `campaign_mark`."""
    if block.startswith(b"\r\n"):
        return Header(False, "")
    if _FIELD.match(block) is None:
        return Header(False, "", has_fields=False)
    end = block.find(b"\r\n\r\n")
    if end < 0:
        end = len(block) - 2
    if end > limits.header_bytes:
        return reply.HEADER_TOO_BIG
    section = b"\r\n" + block[: end + 2].lower()
    fields = section.count(b"\r\n")
    if fields > limits.header_fields:
        fields -= section.count(b"\r\n ") + section.count(b"\r\n\t")
        if fields > limits.header_fields:
            return reply.HEADER_TOO_BIG
    if section.count(b"\r\nreceived:") > limits.received_fields:
        return reply.LOOP
    at = section.find(b"\r\nmessage-id:")
    label = section.find(campaign) if campaign else -1
    return Header(
        b"\r\ndate:" in section,
        _value(block, at + 11, MAX_MESSAGE_ID_OCTETS) if at >= 0 else "",
        True,
        # The section begins with a CRLF that the block has not.
        printable(" ".join(_value(block, label + len(campaign) - 2, MAX_CAMPAIGN_OCTETS).split()))
        if label >= 0
        else "",
    )


def _value(block: bytes, start: int, most: int) -> str:
    """The unfolded value that starts at `start`; no more than `most` octets of it."""
    end = block.find(b"\r\n", start)
    while end >= 0 and block[end + 2 : end + 3] in (b" ", b"\t"):
        end = block.find(b"\r\n", end + 2)
    value = block[start : end if end >= 0 else len(block)].replace(b"\r\n", b"").strip()
    return value[:most].decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Trace:
    """What a Received line says that is the same for all messages of a session."""

    before_id: bytes
    """`Received: from … by … with … id `"""
    hostname: str


def trace(greeted: str, client: str, hostname: str, protocol: str) -> Trace:
    """The trace of a session; a name that is no domain and no literal is not repeated, since it could say anything."""
    name = greeted if _SAFE_NAME.fullmatch(greeted) else "unknown"
    address = f"IPv6:{client}" if ":" in client else client
    text = f"Received: from {name} ([{address}])\r\n\tby {hostname} with {protocol} id "
    return Trace(text.encode("ascii", "replace"), hostname)


def protocol(extended: bool, tls: bool, authenticated: bool, smtputf8: bool) -> str:
    """The word after `with` (RFC 3848, RFC 6531 4.3)."""
    if not extended:
        return "SMTP"
    return ("UTF8SMTP" if smtputf8 else "ESMTP") + "S" * tls + "A" * authenticated


def additions(header: Header, session: Trace, message: str, recipient: str, now: float) -> bytes:
    """Our lines, to go before the message. `message` is its id as text; `recipient` the only one, or empty."""
    date = date_text(int(now))
    to = f"\r\n\tfor <{recipient}>; " if recipient and recipient.isascii() else "; "
    lines = f"{message}{to}{date}\r\n"
    if not header.has_date:
        lines += f"Date: {date}\r\n"
    if not header.message_id:
        lines += f"Message-ID: {made_message_id(message, session.hostname)}\r\n"
    if not header.has_fields:
        lines += "\r\n"
    return session.before_id + lines.encode("ascii")


def made_message_id(message: str, hostname: str) -> str:
    """The Message-ID of a message that came without one."""
    return f"<{message}@{hostname}>"


@lru_cache(maxsize=4)
def date_text(second: int) -> str:
    """An instant as RFC 5322 3.3 writes it, in UTC."""
    at = datetime.fromtimestamp(second, UTC)
    return f"{_DAYS[at.weekday()]}, {at.day:02d} {_MONTHS[at.month - 1]} {at.year} {at:%H:%M:%S} +0000"
