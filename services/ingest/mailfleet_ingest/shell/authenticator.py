"""Passwords verified off the event loop, few at a time, with a short memory of right ones."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import argon2
from aiosmtpd.smtp import AuthResult, LoginPassword

from mailfleet_core.clock import Clock
from mailfleet_ingest.decisions import reply
from mailfleet_ingest.decisions.credentials import BadCredentials, Credential
from mailfleet_ingest.decisions.dialogue import Authenticate
from mailfleet_ingest.decisions.guessing import Guesses
from mailfleet_ingest.decisions.policy import Identity
from mailfleet_ingest.decisions.reply import Reply
from mailfleet_ingest.shell import credential_file

log = logging.getLogger(__name__)
REMEMBER_SECONDS = 60.0
MAX_REMEMBERED = 10_000
MAX_WAITING = 64
"""Verifications queued; more would only make everybody wait longer than clients do."""

Verify = Callable[[object, Credential | None, object, str, LoginPassword], AuthResult]
"""aiosmtpd's interface of an authenticator; its second argument is the credential, or None for an unknown user."""


class Book:
    """The credentials of the file, read again when it changes; its last good state survives a broken edit."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self.credentials: Mapping[str, Credential] = {}
        self.version = 0

    def refresh(self) -> None:
        """Read the file if it is another than before; a look costs a tenth of a promille of a verification."""
        seen = self._stamp()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self.credentials = credential_file.load(self._path)
        except (BadCredentials, OSError) as error:
            log.error("credentials kept as they were: %s", error)
            return
        self.version += 1
        log.info("credentials read", extra={"count": len(self.credentials)})

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino


class Passwords:
    """`Verify` over argon2id; called in a worker thread."""

    def __init__(self) -> None:
        # Verified for users that do not exist, so that they take as long as those that do.
        self._nobody = credential_file.HASHER.hash("no such user")

    def __call__(
        self, _: object, session: Credential | None, __: object, mechanism: str, data: LoginPassword
    ) -> AuthResult:
        """Whether `data` holds the password of the credential `session`."""
        stored = session.hash if session is not None else self._nobody
        try:
            right = bool(credential_file.HASHER.verify(stored, data.password))
        except argon2.exceptions.VerificationError:
            right = False
        except argon2.exceptions.InvalidHashError:
            log.error("hash of a credential cannot be used", extra={"credential": session.name if session else ""})
            right = False
        return AuthResult(success=right and session is not None, handled=True, auth_data=data.login)


class Authenticator:
    """Turns a user name and a password into an identity."""

    def __init__(
        self, book: Book, clock: Clock, threads: int, expiry: Mapping[str, float],
        verify: Verify | None = None, max_waiting: int = MAX_WAITING,
    ) -> None:  # fmt: skip
        self._book = book
        self._clock = clock
        self._expiry = expiry
        self._passwords = verify or Passwords()
        self._max_waiting = max_waiting
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="password")
        self._waiting = 0
        self._secret = clock.entropy(32)
        self._right: dict[bytes, float] = {}
        self._version = -1
        self._guesses = Guesses()

    async def identify(self, client: str, said: Authenticate) -> Identity | Reply:
        """The identity, or the reply that refuses it, after the wait that guessing deserves."""
        self._book.refresh()
        if self._version != self._book.version:
            self._version = self._book.version
            self._right.clear()
        credential = self._book.credentials.get(said.user.decode("utf-8", "replace"))
        verified = await self._verify(credential, said)
        if isinstance(verified, Reply):
            return verified
        if not verified or credential is None or not credential.usable_from(client):
            await asyncio.sleep(self._guesses.failed(client, said.user, self._clock.monotonic()))
            return reply.AUTH_REFUSED
        self._guesses.succeeded(client, said.user)
        return credential.identity(self._expiry.get(credential.stream, 5 * 86400.0))

    async def _verify(self, credential: Credential | None, said: Authenticate) -> bool | Reply:
        key = hmac.digest(self._secret, len(said.user).to_bytes(4, "big") + said.user + said.password, hashlib.sha256)
        now = self._clock.monotonic()
        if credential is not None and self._right.get(key, -1.0) > now:
            return True
        if self._waiting >= self._max_waiting:
            return reply.AUTH_BUSY
        self._waiting += 1
        try:
            data = LoginPassword(said.user, said.password)
            loop = asyncio.get_running_loop()
            result = await loop.run_in_executor(
                self._pool, self._passwords, None, credential, None, said.mechanism, data
            )
        finally:
            self._waiting -= 1
        if result.success:
            self._remember(key, now)
        return bool(result.success)

    def _remember(self, key: bytes, now: float) -> None:
        if len(self._right) >= MAX_REMEMBERED:
            self._right.clear()
        self._right[key] = now + REMEMBER_SECONDS

    def close(self) -> None:
        """Let the threads go."""
        self._pool.shutdown(wait=False, cancel_futures=True)
