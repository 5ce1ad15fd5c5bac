"""The users of the file, and whether somebody is one of them."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mailfleet_core.clock import Clock
from mailfleet_core.settings import SettingsError
from mailfleet_core.socks import proxy
from mailfleet_egress.decisions import users
from mailfleet_egress.decisions.users import Proven

log = logging.getLogger(__name__)
LOOK_SECONDS = 3.0
THREADS = 2
"""Hashes compared at once: each takes 16 MiB and a core."""


class Users:
    """Read again when the file changes; its last good state survives a broken edit. Without a file there are none."""

    def __init__(self, path: str, clock: Clock) -> None:
        self._path = Path(path) if path else None
        self._clock = clock
        self._looked_at = clock.monotonic()
        self._stamp = self._stat()
        self._proven = Proven(clock.entropy(32))
        self._threads = ThreadPoolExecutor(THREADS, "passwords")
        try:
            self._known: Mapping[str, str] = self._read()
        except (OSError, ValueError) as error:
            raise SettingsError(f"[egress_proxy] users_file: {path}: {error}") from error
        if self._path and not self._known:
            raise SettingsError(f"[egress_proxy] users_file: {path} has no user")

    @property
    def any(self) -> bool:
        """Must a client be one of them?"""
        return self._path is not None

    def at_once(self, user: str, password: str) -> bool | None:
        """Is `password` the user's? None: only `identify` can say."""
        self._refresh()
        secret = self._known.get(user)
        if secret is not None and (not users.is_hash(secret) or self._proven.knows(secret, password)):
            return users.is_hash(secret) or users.matches(secret, password)
        return None

    async def identify(self, user: str, password: str) -> bool:
        """Is `password` the user's?"""
        secret = self._known.get(user)
        loop = asyncio.get_running_loop()
        right = await loop.run_in_executor(self._threads, users.matches, secret or users.nobody(), password)
        if secret is None or not right:
            return False
        self._proven.learn(secret, password)
        return True

    def close(self) -> None:
        """Forget the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _refresh(self) -> None:
        now = self._clock.monotonic()
        if now - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = now
        stamp = self._stat()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            found = self._read()
        except (OSError, ValueError) as error:
            log.error("users kept as they were: %s", error)
            return
        if found:
            self._known = found
            log.info("users read again", extra={"count": len(found)})
        else:
            log.error("users kept as they were: the file has none")

    def _read(self) -> dict[str, str]:
        if self._path is None:
            return {}
        found = proxy.users(self._path.read_text(encoding="utf-8"))
        users.check(found)
        return found

    def _stat(self) -> tuple[int, int, int] | None:
        try:
            status = os.stat(self._path) if self._path else None
        except OSError:
            return None
        return (status.st_mtime_ns, status.st_size, status.st_ino) if status else None
