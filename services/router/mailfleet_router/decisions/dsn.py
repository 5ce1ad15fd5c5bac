"""Delivery status notifications (RFC 3461, 3464, 6522, 6533): who is told of what, and the message itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.utils import formatdate

from mailfleet_core.model import ids
from mailfleet_core.model.wire import (
    BOUNCED,
    CANCELLED,
    DELIVERED,
    NOTIFY_DELAY,
    NOTIFY_FAILURE,
    NOTIFY_SUCCESS,
    Entry,
    Envelope,
    Recipient,
)  # fmt: skip
from mailfleet_router.decisions.settle import EXPIRED, Ending

DELAYED = "delayed"
STORED = "stored"
"""Delivered by LMTP, so into the mailbox itself (RFC 2033 2)."""
MAX_RETURNED_BYTES = 50_000
"""Of the message; a longer one is returned as its headers only, and of those no more than this. A report goes to an address
that somebody claimed: it must not be a way to make us send much."""

_ASKED = {
    BOUNCED: NOTIFY_FAILURE, EXPIRED: NOTIFY_FAILURE, CANCELLED: NOTIFY_FAILURE, DELAYED: NOTIFY_DELAY, DELIVERED: NOTIFY_SUCCESS,
    STORED: NOTIFY_SUCCESS,
}  # fmt: skip
_UNASKED = NOTIFY_FAILURE | NOTIFY_DELAY
_ACTIONS = {
    BOUNCED: "failed", EXPIRED: "failed", CANCELLED: "failed", DELAYED: "delayed", DELIVERED: "relayed",
    STORED: "delivered",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Dsn:
    """A notification, ready to be stored and queued."""

    message_id: bytes
    content: bytes
    smtputf8: bool
    eight_bit: bool
    action: str
    """Of its first recipient, for metrics."""


def reportable(
    endings: tuple[Ending, ...], envelope: Envelope, *, passed_on: bool = False, mailbox: bool = False
) -> tuple[Ending, ...]:
    """The endings of which the reverse path is to be told. Nobody is told where the reverse path is empty, and of
    success only where it was asked for and the next server does not tell of it itself (`passed_on`). `mailbox`: the next
    server was the last."""
    if not envelope.reverse_path:
        return ()
    found = []
    for ending in endings:
        bit = _ASKED.get(ending.kind, 0)
        if not bit or (ending.kind == DELIVERED and passed_on):
            continue
        told = tuple(recipient for recipient in ending.recipients if (recipient.notify or _UNASKED) & bit)
        if told:
            kind = STORED if mailbox and ending.kind == DELIVERED else ending.kind
            found.append(Ending(kind, ending.outcome, told))
    return tuple(found)


def build(
    entry: Entry,
    purpose: str,
    endings: tuple[Ending, ...],
    at: float,
    original: bytes,
    host: str,
    mx: str,
    most: int = MAX_RETURNED_BYTES,
) -> Dsn:
    """The notification about `endings`, made at the instant `at`; `original` is the message, or at least its headers, of
    which `most` bytes are returned."""
    envelope = entry.unit.envelope
    message_id = ids.derived_message_id(entry.unit.unit_id, purpose, int(at * 1000))
    addresses = [envelope.reverse_path, *(r.address for ending in endings for r in ending.recipients)]
    utf8 = not all(address.isascii() for address in addresses)
    returned, full = _returned(envelope, endings, original, most)
    eight = not returned.isascii()
    action = _ACTIONS[endings[0].kind]
    kind = "global-delivery-status" if utf8 else "delivery-status"
    whole = {(True, True): "message/global", (True, False): "message/global-headers", (False, True): "message/rfc822",
             (False, False): "text/rfc822-headers"}[utf8, full]  # fmt: skip
    boundary = f"=_{ids.text(message_id)}"
    top = [
        f"From: Mail Delivery System <MAILER-DAEMON@{host}>",
        f"To: <{_line(envelope.reverse_path)}>",
        f"Subject: {_SUBJECTS[action]}",
        f"Date: {formatdate(at)}",
        f"Message-ID: <{ids.text(message_id)}@{host}>",
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type={kind};\r\n boundary="{boundary}"',
        *_eight_bit(eight or utf8),
    ]
    fields = [_about_message(envelope, host)]
    fields += [_about(entry, ending, r, at, mx, utf8) for ending in endings for r in ending.recipients]
    lines = [
        *top, "", "This is a report of a mail system; no answer to it is read.", "",
        *_part(boundary, "text/plain; charset=utf-8", utf8), *_explain(entry, endings, host), "",
        *_part(boundary, f"message/{kind}", utf8), *(line for group in fields for line in (*group, "")),
        *_part(boundary, whole, eight), "",
    ]  # fmt: skip
    content = "\r\n".join(lines).encode() + returned
    content += (b"" if content.endswith(b"\r\n") else b"\r\n") + f"\r\n--{boundary}--\r\n".encode()
    return Dsn(message_id, content, utf8, eight or utf8, action)


def _returned(envelope: Envelope, endings: tuple[Ending, ...], original: bytes, most: int) -> tuple[bytes, bool]:
    """What is returned of the message, and whether that is all of it."""
    failed = any(ending.kind in (BOUNCED, EXPIRED, CANCELLED) for ending in endings)
    if failed and envelope.ret != "HDRS" and len(original) <= most >= envelope.body.length:
        return original, True
    return _whole_lines(original.partition(b"\r\n\r\n")[0] + b"\r\n", most), False


def _part(boundary: str, kind: str, eight: bool) -> list[str]:
    return [f"--{boundary}", f"Content-Type: {kind}", *_eight_bit(eight), ""]


def _eight_bit(eight: bool) -> list[str]:
    return ["Content-Transfer-Encoding: 8bit"] if eight else []


_SUBJECTS = {
    "failed": "Your mail could not be delivered",
    "delayed": "Your mail is delayed",
    "relayed": "Your mail was passed on",
    "delivered": "Your mail was delivered",
}


def _explain(entry: Entry, endings: tuple[Ending, ...], host: str) -> list[str]:
    said = {
        BOUNCED: "could not be delivered; it is not tried again",
        CANCELLED: "was ended by a postmaster of the sending system; it is not tried again",
        EXPIRED: "could not be delivered in time; it is not tried again",
        DELAYED: "is not delivered yet; it is tried again, and you need not do anything",
        DELIVERED: "was passed on to a server that does not tell of its further way",
        STORED: "was delivered into the mailbox",
    }
    lines = [f"This is the mail system at {host}.", ""]
    for ending in endings:
        lines += [f"Your message {said[ending.kind]}:", ""]
        for recipient in ending.recipients:
            lines += [f"  <{_line(recipient.address)}>", *_fold("    ", _said(ending)), ""]
    return [*lines, f"Its number here is {ids.text(entry.unit.envelope.message_id)}."]


def _said(ending: Ending) -> str:
    outcome = ending.outcome
    return ascii_text(" ".join(filter(None, (str(outcome.code or ""), outcome.enhanced, outcome.text))))


def _about_message(envelope: Envelope, host: str) -> list[str]:
    lines = [f"Reporting-MTA: dns; {host}", f"Arrival-Date: {formatdate(envelope.accepted_at)}"]
    if envelope.envid:
        lines.insert(0, f"Original-Envelope-Id: {ascii_text(unxtext(envelope.envid))[:900]}")
    return lines


def _about(entry: Entry, ending: Ending, recipient: Recipient, at: float, mx: str, utf8: bool) -> list[str]:
    lines = []
    if recipient.orcpt:
        kind, _, address = recipient.orcpt.partition(";")
        original = un_utf8_xtext(address) if kind.lower() == "utf-8" else unxtext(address)
        lines.append(f"Original-Recipient: {ascii_text(kind)[:80]};{_line(original if utf8 else ascii_text(original))}")
    kind = "rfc822" if recipient.address.isascii() else "utf-8"
    lines.append(f"Final-Recipient: {kind};{_line(recipient.address)}")
    lines.append(f"Action: {_ACTIONS[ending.kind]}")
    lines.append(f"Status: {status(ending)}")
    if mx:
        lines.append(f"Remote-MTA: dns; {ascii_text(mx)[:255]}")
    outcome = ending.outcome
    if outcome.code:
        lines += _fold("", f"Diagnostic-Code: smtp; {_said(ending)}")
    elif outcome.text:
        lines += _fold("", f"Diagnostic-Code: x-mailfleet; {ascii_text(outcome.text)}")
    if entry.attempts:
        lines.append(f"Last-Attempt-Date: {formatdate(entry.attempted_at or at)}")
    lines.append(f"Final-Log-ID: {ids.text(entry.unit.unit_id)}")
    if ending.kind == DELAYED:
        lines.append(f"Will-Retry-Until: {formatdate(entry.unit.envelope.expires_at)}")
    return lines


_STATUS = re.compile(r"[245]\.\d{1,3}\.\d{1,3}")


def status(ending: Ending) -> str:
    """The Status field: its class says what happened, whatever the site wrote (a "550 2.0.0" is a failure)."""
    digit = {BOUNCED: "5", CANCELLED: "5", EXPIRED: "4", DELAYED: "4", DELIVERED: "2", STORED: "2"}[ending.kind]
    given = ending.outcome.enhanced
    return digit + given[1:] if _STATUS.fullmatch(given) else f"{digit}.0.0"


def _whole_lines(headers: bytes, most: int) -> bytes:
    if len(headers) <= most:
        return headers
    return b"".join(headers[:most].rpartition(b"\r\n")[:2])


def unxtext(text: str) -> str:
    """Decode xtext (RFC 3461 4). What is not xtext stays as it is."""
    return re.sub(r"\+([0-9A-F]{2})", lambda match: chr(int(match[1], 16)), text)


def un_utf8_xtext(text: str) -> str:
    """Decode utf-8-addr-xtext (RFC 6533 3). Numbers that are no character stay as they are."""

    def character(match: re.Match[str]) -> str:
        number = int(match[1], 16)
        return chr(number) if 0x20 < number < 0x110000 and not 0xD800 <= number < 0xE000 else match[0]

    return re.sub(r"\\x\{([0-9A-Fa-f]{2,6})\}", character, text)


def ascii_text(text: str) -> str:
    """Anything as printable ASCII in one line, so that no reply of a stranger can write our headers."""
    return "".join(c if " " <= c <= "~" else "?" if c.isspace() or not c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return f"\\x{{{ord(character):X}}}"


def _line(text: str) -> str:
    """Text without anything that could end the line it stands in."""
    return "".join(character if character.isprintable() else "?" for character in text)[:1000]


def _fold(indent: str, text: str) -> list[str]:
    """Lines of at most 78 characters; a continuation begins with blanks."""
    lines, rest = [], indent + text
    while len(rest) > 78:
        cut = rest.rfind(" ", len(indent) + 20, 78)
        cut = cut if cut > 0 else 78
        lines.append(rest[:cut])
        rest = (indent or " ") + rest[cut:].lstrip(" ")
    return [*lines, rest]
