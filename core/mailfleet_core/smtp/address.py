"""The envelope's address grammar: RFC 5321 4.1.2 with RFC 6531, strict, and nothing else.

An address goes out byte for byte as it came in: nothing here decodes, folds, normalises or unquotes. What a mail
library would "understand" (encoded words, comments, groups) is either legal atext, and passes untouched, or refused.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from functools import lru_cache

import idna

MAX_LOCAL_OCTETS, MAX_DOMAIN_OCTETS, MAX_ADDRESS_OCTETS = 64, 255, 254
"""RFC 5321 4.5.3.1; the last is the 256 of a path without its brackets (RFC 3696, erratum 1690)."""

_ATEXT = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = rb"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ASCII_DOT_STRING = re.compile(_ATEXT + rb"(?:\." + _ATEXT + rb")*")
_PLAIN_DOMAIN = re.compile(rb"(?:" + _LABEL + rb"\.)*(" + _LABEL + rb")")
_DOT_STRING = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\U0010ffff-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\U0010ffff-]+)*"
)
_QUOTED_STRING = re.compile(r'"(?:[ !#-\[\]-~\x80-\U0010ffff]|\\[ -~])*"')
_ASCII_LABEL = re.compile(_LABEL.decode())
_PATH = re.compile(rb'<((?:[^<>"\\]|"(?:[^"\\]|\\.)*")*)>')
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Cn", "Co", "Zs", "Zl", "Zp"})
"""Unicode categories that show nothing or turn the reading order; no mailbox needs one, every spoof does."""


class BadAddress(ValueError):
    """It is not a mailbox; the text says why, in words that may be shown to a client."""


def path(argument: bytes, *, literals: bool = False) -> tuple[str, bytes]:
    """The mailbox in the path at the start of `argument`, empty for `<>`, and what follows. Raises BadAddress."""
    argument = argument.lstrip(b" ")
    end = argument.find(b">")
    if end > 0 and argument.startswith(b"<") and (found := plain(argument[1:end])):
        return found, argument[end + 1 :]
    inside, rest = split_path(argument)
    return (mailbox(inside, literals=literals) if inside else ""), rest


def plain(address: bytes) -> str:
    """The mailbox `address` when it is a dot-string at a domain, all ASCII, as nearly all are; empty: ask `mailbox`."""
    local, _, domain = address.partition(b"@")
    if len(local) > MAX_LOCAL_OCTETS or len(address) > MAX_ADDRESS_OCTETS:
        return ""
    if _ASCII_DOT_STRING.fullmatch(local) is None or not _is_plain_domain(domain):
        return ""
    return address.decode("ascii")


@lru_cache(maxsize=4096)
def _is_plain_domain(domain: bytes) -> bool:
    found = _PLAIN_DOMAIN.fullmatch(domain)
    return found is not None and not found[1].isdigit()


def split_path(argument: bytes) -> tuple[bytes, bytes]:
    """The address inside `<…>` at the start of `argument`, and what follows the bracket. Raises BadAddress."""
    found = _PATH.match(argument)
    if found is None:
        raise BadAddress("the address must stand in angle brackets")
    return found[1], argument[found.end() :]


def mailbox(address: bytes, *, literals: bool = False) -> str:
    """The mailbox `address` as text, unchanged; its UTF-8 is `address` again. Raises BadAddress.

    `literals` admits address literals (`a@[192.0.2.1]`). Source routes are refused: nobody needs them and they relay.
    """
    if len(address) > MAX_ADDRESS_OCTETS:
        raise BadAddress("the address is too long")
    return plain(address) or _careful(address, literals)


def _careful(address: bytes, literals: bool) -> str:
    """The slow path: quoted strings, UTF-8, literals, and the reason for a refusal."""
    try:
        text = address.decode("utf-8")
    except UnicodeDecodeError:
        raise BadAddress("the address is not UTF-8") from None
    if not text:
        raise BadAddress("the address is empty")
    if not text.isascii() and any(unicodedata.category(letter) in _INVISIBLE for letter in text if letter != " "):
        raise BadAddress("the address has invisible characters")
    if text.startswith("@"):
        raise BadAddress("source routes are not accepted")
    local, at, domain = text.rpartition("@")
    if not at:
        raise BadAddress("the address has no domain")
    _check_local(local)
    _check_domain(domain, literals)
    return text


def _check_local(local: str) -> None:
    if len(local.encode()) > MAX_LOCAL_OCTETS:
        raise BadAddress("the local part is too long")
    if not (_DOT_STRING.fullmatch(local) or _QUOTED_STRING.fullmatch(local)):
        raise BadAddress("the local part is malformed")


def _check_domain(domain: str, literals: bool) -> None:
    if domain.startswith("["):
        if not (literals and is_literal(domain)):
            raise BadAddress("address literals are not accepted")
        return
    if len(domain.encode()) > MAX_DOMAIN_OCTETS:
        raise BadAddress("the domain is too long")
    labels = domain.split(".")
    if labels[-1].isdigit():
        raise BadAddress("the domain is a number")
    if not all(map(_is_label, labels)):
        raise BadAddress("the domain is malformed")


def _is_label(label: str) -> bool:
    if label.isascii():
        return _ASCII_LABEL.fullmatch(label) is not None
    try:
        # The check is on the normal form; the label itself goes on as it was sent.
        idna.alabel(unicodedata.normalize("NFC", label.lower()))
    except (idna.IDNAError, UnicodeError):
        return False
    return True


def is_literal(domain: str) -> bool:
    """Whether `domain` is an address literal of RFC 5321 4.1.3: `[192.0.2.1]` or `[IPv6:2001:db8::1]`."""
    if not (domain.startswith("[") and domain.endswith("]")):
        return False
    inner = domain[1:-1]
    try:
        if inner[:5].lower() == "ipv6:":
            ipaddress.IPv6Address(inner[5:])
            return "%" not in inner
        ipaddress.IPv4Address(inner)
    except ValueError:
        return False
    return True
