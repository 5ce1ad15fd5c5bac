"""What a receiving server said, as a value, and the names of the phases in which it said it."""

from __future__ import annotations

from typing import NamedTuple

DNS, CONNECT, GREETING, EHLO, STARTTLS, AUTH = "dns", "connect", "greeting", "ehlo", "starttls", "auth"
MAIL, RCPT, DATA, DOT = "mail", "rcpt", "data", "dot"

EGRESS = "egress"
"""Our own way out: the source's address is not on the machine, or its egress proxy fails. It says nothing of the site."""

MAX_TEXT = 1000


class Reply(NamedTuple):
    """One reply, its text fit for people, logs and DSNs."""

    code: int
    """200 to 599; 0 when no reply came or it was none, then `text` says what happened instead."""
    enhanced: str
    """RFC 3463, of the same class as the code; empty when the server gave none."""
    text: str


class Answer(NamedTuple):
    """What settles one recipient: a reply and the phase it was given in."""

    reply: Reply
    phase: str


def printable(text: str) -> str:
    """`text` with everything escaped that is not a printable character or a blank."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
