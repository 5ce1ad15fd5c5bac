"""The admission webhook: a TrafficPolicy that `policy check` rejects is not let in. HTTPS, the certificate from files."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path

from aiohttp import web

from mailfleet_core.settings import SettingsError
from mailfleet_operator.decisions.policies import review
from mailfleet_router.shell.traffic import shipped

log = logging.getLogger(__name__)

PATH = "/validate/trafficpolicies"
LOOK_SECONDS = 10.0
MOST_BYTES = 4 << 20


class Webhook:
    """Answers as long as the process runs, whoever leads: a review changes nothing."""

    def __init__(self, listen: str, directory: str) -> None:
        self._listen, self._directory = listen, Path(directory)
        self._runner: web.AppRunner | None = None
        self._reading: asyncio.Task[None] | None = None
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)

    async def start(self) -> None:
        """Listen. Raises SettingsError."""
        self._read()
        application = web.Application(client_max_size=MOST_BYTES)
        application.add_routes([web.post(PATH, self._review)])
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        host, _, port = self._listen.rpartition(":")
        await web.TCPSite(self._runner, host, int(port), ssl_context=self._context).start()
        self._reading = asyncio.create_task(self._read_again())

    async def stop(self) -> None:
        """Listen no more."""
        if self._reading is not None:
            self._reading.cancel()
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def port(self) -> int:
        """The one it listens on."""
        assert self._runner is not None
        return int(self._runner.addresses[0][1])

    async def _review(self, request: web.Request) -> web.Response:
        try:
            asked = await request.json()
        except ValueError:
            return web.Response(status=400, text="not an AdmissionReview")
        return web.json_response(await asyncio.to_thread(review, asked, shipped()))

    def _read(self) -> None:
        try:
            self._context.load_cert_chain(self._directory / "tls.crt", self._directory / "tls.key")
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(f"[operator] webhook_directory: tls.crt, tls.key: {error}") from error

    async def _read_again(self) -> None:
        stamp = self._stamp()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self._stamp() != stamp:
                stamp = self._stamp()
                try:
                    self._read()
                except SettingsError as error:
                    log.error(
                        "the webhook's certificate cannot be read; the old one stays", extra={"error": str(error)}
                    )

    def _stamp(self) -> float:
        try:
            return (self._directory / "tls.crt").stat().st_mtime
        except OSError:
            return 0.0
