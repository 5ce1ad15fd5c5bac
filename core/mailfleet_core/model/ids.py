"""Identifiers: 16-byte message ids that sort by time, and the unit ids derived from them."""

from __future__ import annotations

import hashlib
from functools import lru_cache

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base 32: no I, L, O, U, so an id survives being read over a telephone."""

MESSAGE_ID_BYTES = 16
UNIT_ID_BYTES = 18
_PAIRS = tuple(first + second for first in ALPHABET for second in ALPHABET)
"""Ten bits at a time: `text` is called several times for each mail."""
_DIGITS = str.maketrans(ALPHABET[10:] + "ILOU", "ABCDEFGHIJKLMNOPQRSTUV" + "----")
"""To the digits of `int`, and what is in no id to what is no digit."""


def message_id(now: float, entropy: bytes) -> bytes:
    """A new message id: 6 bytes of milliseconds since 1970, then the 10 bytes of `entropy`."""
    return int(now * 1000).to_bytes(6, "big") + entropy


def unit_id(message: bytes, first_recipient: int) -> bytes:
    """The id of the unit of `message` whose first recipient has index `first_recipient` in the envelope.

    Expanding the same message twice gives the same ids, so doing it twice changes nothing.
    """
    return message + first_recipient.to_bytes(2, "big")


def derived_message_id(unit: bytes, purpose: str, now_milliseconds: int) -> bytes:
    """The id of a message that we make because of `unit` (a DSN): the same inputs give the same id."""
    digest = hashlib.blake2b(unit + purpose.encode(), digest_size=10).digest()
    return now_milliseconds.to_bytes(6, "big") + digest


def text(identifier: bytes) -> str:
    """Base-32 text of a message id (26 letters); a unit id adds `-` and the index of its first recipient."""
    word = _word(identifier[:16])
    return word if len(identifier) == MESSAGE_ID_BYTES else f"{word}-{int.from_bytes(identifier[16:], 'big')}"


@lru_cache(maxsize=4096)  # the story of one mail names it a dozen times
def _word(identifier: bytes) -> str:
    number = int.from_bytes(identifier, "big")
    pairs = _PAIRS
    return (
        pairs[number >> 120] + pairs[number >> 110 & 1023] + pairs[number >> 100 & 1023] + pairs[number >> 90 & 1023]
        + pairs[number >> 80 & 1023] + pairs[number >> 70 & 1023] + pairs[number >> 60 & 1023]
        + pairs[number >> 50 & 1023] + pairs[number >> 40 & 1023] + pairs[number >> 30 & 1023]
        + pairs[number >> 20 & 1023] + pairs[number >> 10 & 1023] + pairs[number & 1023]
    )  # fmt: skip


def parse(word: str) -> bytes:
    """The inverse of `text`. Raises ValueError for what is no id."""
    head, dash, index = word.strip().upper().partition("-")
    digits = head.translate(_DIGITS)
    if len(head) != 26 or not digits.isalnum() or not digits.isascii() or digits[0] > "7":
        raise ValueError(f"{word!r} is not a message id (26 letters and digits)")
    identifier = int(digits, 32).to_bytes(16, "big")
    return identifier + int(index).to_bytes(2, "big") if dash else identifier
