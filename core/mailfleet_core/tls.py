"""TLS of a listener: a context for each new connection, with the certificate as its files are now."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from mailfleet_core.clock import Clock
from mailfleet_core.settings import SettingsError

log = logging.getLogger(__name__)
LOOK_SECONDS = 3.0


class Certificates:
    """Gives new connections a context with the certificate as the files are now."""

    def __init__(self, certificate: str, key: str, clock: Clock, *, section: str, weak: bool = False) -> None:
        """`section`: of the settings that name the files. Raises SettingsError."""
        self._files = (Path(certificate), Path(key or certificate))
        self._clock = clock
        self._weak = weak
        self._section = section
        self._looked_at = clock.monotonic()
        self._stamp = self._stat()
        self._context = self._fresh()
        try:
            self._load(self._context)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(f"{self._section} certificate_file {certificate}: {error}") from error

    def context(self) -> ssl.SSLContext:
        """The context for the next connection; looks at the files at most every three seconds."""
        now = self._clock.monotonic()
        if now - self._looked_at >= LOOK_SECONDS:
            self._looked_at = now
            self._reload()
        return self._context

    def _reload(self) -> None:
        stamp = self._stat()
        if stamp == self._stamp:
            return
        try:
            # A new context, for a certificate without its new key would break the one in use.
            fresh = self._fresh()
            self._load(fresh)
        except (OSError, ssl.SSLError) as error:
            log.error("certificate kept as it was: %s", error, extra={"file": str(self._files[0])})
            return
        self._context, self._stamp = fresh, stamp
        log.info("certificate read again", extra={"file": str(self._files[0])})

    def _fresh(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1 if self._weak else ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        context.load_cert_chain(self._files[0], self._files[1])

    def _stat(self) -> tuple[tuple[int, int, int] | None, ...]:
        found: list[tuple[int, int, int] | None] = []
        for file in self._files:
            try:
                status = file.stat()
            except OSError:
                found.append(None)
            else:
                found.append((status.st_mtime_ns, status.st_size, status.st_ino))
        return tuple(found)
