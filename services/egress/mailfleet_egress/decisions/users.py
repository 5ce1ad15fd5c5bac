"""Users and their passwords, clear or as a hash."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from functools import cache

_MARK = "scrypt$"
_N, _R, _P = 1 << 14, 8, 1
"""OWASP's scrypt of 16 MiB (https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html)."""
_REMEMBERED = 10_000


def hashed(password: str, salt: bytes) -> str:
    """What may stand in the file instead of `password`."""
    return f"{_MARK}{salt.hex()}${_scrypt(password, salt).hex()}"


def check(known: Mapping[str, str]) -> None:
    """Raises ValueError when a hash cannot be one."""
    for user, secret in known.items():
        if secret.startswith(_MARK):
            try:
                _parts(secret)
            except ValueError:
                raise ValueError(f"the hash of {user!r} cannot be read") from None


def is_hash(secret: str) -> bool:
    """Is it a hash, which takes some 50 ms to compare with?"""
    return secret.startswith(_MARK)


def matches(secret: str, password: str) -> bool:
    """Is `password` the one that `secret`, from the file, is or stands for?"""
    if not is_hash(secret):
        return hmac.compare_digest(secret.encode(), password.encode())
    salt, expected = _parts(secret)
    return hmac.compare_digest(_scrypt(password, salt), expected)


@cache
def nobody() -> str:
    """Compared with where there is no such user, so that the time tells nothing."""
    return hashed("", b"nobody")


class Proven:
    """Passwords that were compared with a hash and were right: senders come with the same one thousands of times."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._known: dict[bytes, None] = {}

    def knows(self, secret: str, password: str) -> bool:
        """Was it right before?"""
        return self._mark(secret, password) in self._known

    def learn(self, secret: str, password: str) -> None:
        """It was right."""
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[self._mark(secret, password)] = None

    def _mark(self, secret: str, password: str) -> bytes:
        return hmac.digest(self._key, f"{secret}\n{password}".encode(), "sha256")


def _parts(secret: str) -> tuple[bytes, bytes]:
    salt, _, digest = secret.removeprefix(_MARK).partition("$")
    parts = bytes.fromhex(salt), bytes.fromhex(digest)
    if len(parts[1]) != 32:
        raise ValueError("not 32 octets")
    return parts


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=_N, r=_R, p=_P, maxmem=64 << 20, dklen=32)
