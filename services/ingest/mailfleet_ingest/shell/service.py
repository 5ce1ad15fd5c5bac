"""The ingest service: listeners, the once-a-second look at all connections, drain."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mailfleet_core import metrics
from mailfleet_core import settings as core_settings
from mailfleet_core.service import Context
from mailfleet_core.settings import BusSettings, SettingsError
from mailfleet_core.tls import Certificates
from mailfleet_ingest.decisions.admission import Admission, Network, networks
from mailfleet_ingest.decisions.deadlines import Deadlines
from mailfleet_ingest.decisions.headers import campaign_mark
from mailfleet_ingest.decisions.policy import Identity, Limits, Policy
from mailfleet_ingest.settings import IngestSettings, ListenerSettings
from mailfleet_ingest.shell import credential_file
from mailfleet_ingest.shell.acceptance import Acceptance
from mailfleet_ingest.shell.authenticator import Authenticator, Book
from mailfleet_ingest.shell.careful import CarefulServer
from mailfleet_ingest.shell.connection import Connection
from mailfleet_ingest.shell.hub import Hub, Listener
from mailfleet_ingest.shell.sites import Sites

log = logging.getLogger(__name__)
KINDS = ("submission", "implicit_tls", "trusted")
LOOK_SECONDS = 1.0
TELL_SECONDS = 0.2
"""Metrics are told what was counted this often."""
DRAIN_SECONDS = 20.0
"""Transactions under way may take this long; the runner allows 30 for everything."""
BACKLOG = 1024
LOOPBACK = ("127.0.0.0/8", "::1/128")


class Ingest:
    """Accepts mail."""

    def __init__(self, context: Context) -> None:
        settings = context.settings.section("ingest", IngestSettings)
        self._context = context
        self._settings = settings
        self._limits = _limits(settings)
        self._campaign = _campaign(settings)
        self._expiry = {stream.name: stream.expire_seconds for stream in core_settings.egress(context.settings).streams}
        self._book = Book(_credentials_path(settings, context.settings.origin))
        self._authenticator = Authenticator(self._book, context.clock, settings.verify_threads, self._expiry)
        self._sites = Sites(context.bus)
        acceptance = Acceptance(context.bus, context.clock, self._sites, settings.recipients_per_unit)
        self.hub = Hub(
            context.bus,
            context.clock,
            acceptance,
            self._authenticator,
            Admission(
                settings.max_connections, settings.max_connections_per_address, settings.max_connections_per_credential
            ),
            Deadlines(
                settings.idle_seconds,
                settings.session_seconds,
                settings.min_bytes_per_second,
                write_seconds=settings.write_seconds,
            ),
            settings.max_held_bytes,
            context.settings.section("bus", BusSettings).max_in_flight_bytes,
        )
        self._listeners = [(each, self._listener(each)) for each in settings.listeners]
        self._servers: list[asyncio.Server | CarefulServer] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.ports: dict[str, int] = {}
        """Where each listener listens, by label; for a port 0 in the settings, the one the system chose."""
        self._ready = False

    @property
    def ready(self) -> bool:
        """May clients come?"""
        return self._ready and not self.hub.draining

    async def start(self) -> None:
        """Listen."""
        self._book.refresh()
        self._sites.start()
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._look(), name="deadlines"), loop.create_task(self._tell(), name="metrics")]
        for settings, listener in self._listeners:
            await self._listen(settings, listener)
        self._ready = True

    async def drain(self) -> None:
        """Take no more mail; return when what was accepted is durable and its clients know."""
        hub = self.hub
        hub.draining = True
        for server in self._servers:
            server.close()
        for connection in list(hub.connections):
            connection.drain()
        try:
            await asyncio.wait_for(self._emptied(), DRAIN_SECONDS)
        except TimeoutError:
            for connection in list(hub.connections):
                connection.abort()
        await hub.acceptance.settle()
        hub.acceptance.tell_metrics()
        for task in self._tasks:
            task.cancel()
        await self._sites.stop()
        self._authenticator.close()

    async def _emptied(self) -> None:
        while self.hub.connections:
            self.hub.changed.clear()
            await self.hub.changed.wait()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.look()

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(TELL_SECONDS)
            self.hub.acceptance.tell_metrics()

    def look(self) -> None:
        """Judge the deadlines of all connections now, and notice changed credentials."""
        now = self._context.clock.monotonic()
        for connection in list(self.hub.connections):
            connection.look(now)
        self._book.refresh()

    async def _listen(self, settings: ListenerSettings, listener: Listener) -> None:
        loop = asyncio.get_running_loop()
        sock = _bound(settings)
        self.ports[listener.label] = int(sock.getsockname()[1])
        if settings.proxy_protocol or listener.implicit_tls:
            proxies = _networks(settings, settings.proxy_networks or LOOPBACK) if settings.proxy_protocol else None
            sock.listen(BACKLOG)
            self._servers.append(CarefulServer(sock, proxies, self.hub, listener))
        else:
            factory = partial(Connection, self.hub, listener)
            self._servers.append(await loop.create_server(factory, sock=sock, backlog=BACKLOG))
        log.info("listening", extra={"listener": listener.label, "address": settings.address, "port": settings.port})

    def _listener(self, settings: ListenerSettings) -> Listener:
        if settings.kind not in KINDS:
            raise SettingsError(f"[[ingest.listeners]] kind = {settings.kind!r}: it is one of {', '.join(KINDS)}")
        trusted = settings.kind == "trusted"
        certificates = self._certificates(settings)
        if certificates is None and not trusted:
            raise SettingsError(f"[[ingest.listeners]] {settings.label}: {settings.kind} needs a certificate_file")
        policy = Policy(
            hostname=self._settings.own_name(),
            identity=self._identity(settings) if trusted else None,
            starttls=certificates is not None and settings.kind != "implicit_tls",
            auth=True,
            auth_without_tls=trusted,
            repair_bare_lf=settings.repair_bare_lf,
            address_literals=self._settings.address_literals,
            limits=self._limits,
            campaign=self._campaign,
        )
        delay = settings.greeting_delay_seconds
        return Listener(
            settings.label,
            policy,
            certificates,
            settings.kind == "implicit_tls",
            (0.0 if trusted else 0.05) if delay is None else delay,
            _networks(settings, settings.networks or (LOOPBACK if trusted else ())),
            metrics.CONNECTIONS.labels(settings.label),
        )

    def _certificates(self, settings: ListenerSettings) -> Certificates | None:
        if not settings.certificate_file:
            return None
        weak = self._settings.allow_weak_tls
        return Certificates(
            settings.certificate_file, settings.key_file, self._context.clock, section="[[ingest.listeners]]", weak=weak
        )

    def _identity(self, settings: ListenerSettings) -> Identity:
        if settings.stream not in self._expiry:
            raise SettingsError(f"[[ingest.listeners]] {settings.label}: there is no [[stream]] {settings.stream!r}")
        domains = frozenset(domain.lower() for domain in settings.sender_domains)
        expire_seconds = self._expiry[settings.stream]
        return Identity(
            "", settings.tenant, settings.stream, settings.pool, domains, settings.null_sender, expire_seconds
        )  # fmt: skip


def _limits(settings: IngestSettings) -> Limits:
    return Limits(
        message_bytes=settings.max_message_bytes,
        recipients=settings.max_recipients,
        commands_without_mail=settings.max_commands_without_mail,
        errors=settings.max_errors,
        auth_failures=settings.max_auth_failures,
    )


def _campaign(settings: IngestSettings) -> bytes:
    try:
        return campaign_mark(settings.campaign_header)
    except ValueError as error:
        raise SettingsError(f"[ingest] campaign_header: {error}") from error


def _credentials_path(settings: IngestSettings, origin: str) -> Path:
    if settings.credentials_file:
        return Path(settings.credentials_file)
    return credential_file.default_path(origin if origin != "defaults" else None)


def _networks(settings: ListenerSettings, texts: Sequence[str]) -> tuple[Network, ...]:
    try:
        return networks(texts)
    except ValueError as error:
        raise SettingsError(f"[[ingest.listeners]] {settings.label}: {error}") from error


def _bound(settings: ListenerSettings) -> socket.socket:
    """A socket that other ingest processes may bind too: the kernel shares the connections among them."""
    family = socket.AF_INET6 if ":" in settings.address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.setblocking(False)
    try:
        sock.bind((settings.address, settings.port))
    except OSError as error:
        sock.close()
        raise SettingsError(
            f"[[ingest.listeners]] {settings.label}: cannot listen on {settings.address} port {settings.port}: {error}"
        ) from error
    return sock
