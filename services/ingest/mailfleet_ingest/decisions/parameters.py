"""The arguments of MAIL and RCPT: path and ESMTP parameters, kept exactly as sent."""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from mailfleet_core.model import wire
from mailfleet_core.smtp import address
from mailfleet_ingest.decisions import reply
from mailfleet_ingest.decisions.reply import Reply


class Refused(Exception):
    """The command cannot be obeyed; `reply` says why."""

    def __init__(self, answer: Reply) -> None:
        self.reply = answer


class Mail(msgspec.Struct, gc=False):
    """MAIL FROM, understood."""

    reverse_path: str
    size: int = 0
    eight_bit: bool = False
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""


_XTEXT = r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})"
_ENVID = re.compile(_XTEXT + r"{1,100}")
_AUTH = re.compile(_XTEXT + r"{1,500}|<>")
_ORCPT = re.compile(r"[A-Za-z0-9-]+;(?:[!-*,-<>-~\x80-\U0010ffff]|\+[0-9A-F]{2}|\\x\{[0-9A-F]{2,6}\}){1,500}")
_SIZE = re.compile(r"[0-9]{1,20}")
_NOTIFY = {
    "NEVER": wire.NOTIFY_NEVER,
    "SUCCESS": wire.NOTIFY_SUCCESS,
    "FAILURE": wire.NOTIFY_FAILURE,
    "DELAY": wire.NOTIFY_DELAY,
}


def mail(argument: bytes, literals: bool = False) -> Mail:
    """What follows `MAIL `. Raises Refused."""
    sender, rest = _path(argument, b"FROM:", literals, reply.BAD_SENDER)
    parsed = Mail(sender)
    if rest:
        for keyword, value in _parameters(rest):
            if keyword not in _MAIL_PARAMETERS:
                raise Refused(reply.UNKNOWN_PARAMETER)
            _MAIL_PARAMETERS[keyword](parsed, value)
    if not parsed.smtputf8 and not sender.isascii():
        raise Refused(reply.NEEDS_SMTPUTF8)
    return parsed


def recipient(argument: bytes, index: int, smtputf8: bool, literals: bool = False) -> wire.Recipient:
    """What follows `RCPT `. Raises Refused."""
    mailbox, rest = _path(argument, b"TO:", literals, reply.BAD_RECIPIENT)
    if not mailbox:
        raise Refused(reply.BAD_RECIPIENT)
    if not smtputf8 and not mailbox.isascii():
        raise Refused(reply.NEEDS_SMTPUTF8)
    if not rest:
        return wire.Recipient(index, mailbox)
    notify, orcpt = 0, ""
    for keyword, value in _parameters(rest):
        if keyword == "NOTIFY":
            notify = _notify(value)
        elif keyword == "ORCPT":
            orcpt = _matching(_ORCPT, value)
        else:
            raise Refused(reply.UNKNOWN_PARAMETER)
    return wire.Recipient(index, mailbox, notify, orcpt)


def plain_recipient(line: bytes, index: int) -> wire.Recipient | None:
    """The recipient of a whole RCPT command with a plain address and no more; None: `recipient` must look at it."""
    if line[:9] != b"RCPT TO:<" or line[-3:] != b">\r\n":
        return None
    mailbox = address.plain(line[9:-3])
    return wire.Recipient(index, mailbox) if mailbox else None


def chunk(argument: bytes) -> tuple[int, bool] | None:
    """(octets, whether it is the last) of what follows `BDAT `; None: it cannot be understood."""
    words = argument.upper().split()
    if not words or not words[0].isdigit() or len(words[0]) > 10 or words[1:] not in ([], [b"LAST"]):
        return None
    return int(words[0]), bool(words[1:])


def _path(argument: bytes, prefix: bytes, literals: bool, bad: Reply) -> tuple[str, bytes]:
    if argument[: len(prefix)].upper() != prefix:
        raise Refused(reply.SYNTAX)
    try:
        # Clients that put a blank after the colon are many; it changes nothing.
        mailbox, rest = address.path(argument[len(prefix) :], literals=literals)
    except address.BadAddress:
        raise Refused(bad) from None
    if rest and not rest.startswith(b" "):
        raise Refused(bad)
    return mailbox, rest


def _parameters(rest: bytes) -> list[tuple[str, str]]:
    """(KEYWORD, value as sent) of each parameter; a keyword twice is an error."""
    try:
        words = rest.decode("utf-8").split(" ")
    except UnicodeDecodeError:
        raise Refused(reply.SYNTAX) from None
    found = []
    for word in words:
        if word:
            keyword, _, value = word.partition("=")
            found.append((keyword.upper(), value))
    if len({keyword for keyword, _ in found}) != len(found):
        raise Refused(reply.SYNTAX)
    return found


def _matching(pattern: re.Pattern[str], value: str) -> str:
    if pattern.fullmatch(value) is None:
        raise Refused(reply.SYNTAX)
    return value


def _notify(value: str) -> int:
    names = value.upper().split(",")
    if any(name not in _NOTIFY for name in names) or ("NEVER" in names and len(names) > 1):
        raise Refused(reply.SYNTAX)
    bits = 0
    for name in names:
        bits |= _NOTIFY[name]
    return bits


def _size(parsed: Mail, value: str) -> None:
    parsed.size = int(_matching(_SIZE, value))


def _body(parsed: Mail, value: str) -> None:
    if value.upper() not in ("7BIT", "8BITMIME"):
        raise Refused(reply.SYNTAX)
    parsed.eight_bit = value.upper() == "8BITMIME"


def _smtputf8(parsed: Mail, value: str) -> None:
    if value:
        raise Refused(reply.SYNTAX)
    parsed.smtputf8 = True


def _ret(parsed: Mail, value: str) -> None:
    if value.upper() not in ("FULL", "HDRS"):
        raise Refused(reply.SYNTAX)
    parsed.ret = value.upper()


def _envid(parsed: Mail, value: str) -> None:
    parsed.envid = _matching(_ENVID, value)


def _auth(parsed: Mail, value: str) -> None:
    # RFC 4954 5: accepted by anyone who announces AUTH, and worth nothing to us.
    _matching(_AUTH, value)


_MAIL_PARAMETERS: dict[str, Callable[[Mail, str], None]] = {
    "SIZE": _size,
    "BODY": _body,
    "SMTPUTF8": _smtputf8,
    "RET": _ret,
    "ENVID": _envid,
    "AUTH": _auth,
}
