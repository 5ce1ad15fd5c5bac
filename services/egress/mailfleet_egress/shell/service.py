"""The egress proxy as a service: it listens, looks at its connections once a second, and drains."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
import ssl
from pathlib import Path

from aiohttp import web

from mailfleet_core import metrics
from mailfleet_core.dns.guard import InsideGuard
from mailfleet_core.service import Alone
from mailfleet_core.settings import SettingsError
from mailfleet_core.socks.connecting import source_socket
from mailfleet_core.tls import Certificates
from mailfleet_egress.decisions.plumbing import Plumbing
from mailfleet_egress.decisions.rules import Doorman, Rules
from mailfleet_egress.settings import EgressProxySettings
from mailfleet_egress.shell.connection import Connection
from mailfleet_egress.shell.hub import Hub
from mailfleet_egress.shell.users import Users

log = logging.getLogger(__name__)
LOOK_SECONDS = 1.0
BACKLOG = 1024
MAX_BEGINNING = 500
"""TLS handshakes at once; further clients are closed."""
NONLOCAL = ("/proc/sys/net/ipv4/ip_nonlocal_bind", "/proc/sys/net/ipv6/ip_nonlocal_bind")


class EgressProxy:
    """The service."""

    def __init__(self, context: Alone, settings: EgressProxySettings) -> None:
        self._settings = settings
        self._clock = context.clock
        rules = Rules(settings.addresses, settings.ports, InsideGuard(settings.allowed_inside).permits)
        doorman = Doorman(settings.max_connections, settings.max_connections_per_client, settings.networks)
        self.hub = Hub(settings, rules, doorman, Users(settings.users_file, context.clock), context.clock)
        self.plumbing = Plumbing(rules.addresses)
        self.port = settings.port
        """Where it listens: in the settings 0 is any port."""
        self._certificates = _certificates(settings, context)
        self._sock: socket.socket | None = None
        self._beginning: set[asyncio.Task[None]] = set()
        self._tasks: list[asyncio.Task[None]] = []
        context.routes.append(web.get("/sources", self._page))

    # --- Service -------------------------------------------------------------------------------------------------
    @property
    def ready(self) -> bool:
        """See `Service.ready`: without one of its addresses the proxy is of no use to anybody."""
        return self._sock is not None and not self.hub.draining and self.plumbing.any

    async def start(self) -> None:
        """See `Service.start`."""
        _allow_many_files()
        _warn_of_nonlocal_binding()
        self._look_at_addresses()
        self._sock = _listening(self._settings)
        self.port = int(self._sock.getsockname()[1])
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._accept(self._sock)), loop.create_task(self._look())]
        log.info("listening", extra={"address": self._settings.address, "port": self.port})

    async def drain(self) -> None:
        """See `Service.drain`: new clients are refused; connections may end what they do."""
        hub, self.hub.draining = self.hub, True
        self._tasks[0].cancel()
        if self._sock is not None:
            self._sock.close()
        for connection in [each for each in hub.connections if not each.open]:
            connection.abort()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_seconds):
                while hub.connections:
                    hub.changed.clear()
                    await hub.changed.wait()
        if hub.connections:
            log.warning("connections are cut at the end of the drain", extra={"count": len(hub.connections)})
        for connection in list(hub.connections):
            connection.abort()
        for task in (*self._tasks, *self._beginning):
            task.cancel()
        hub.users.close()
        hub.tell()

    # --- clients -------------------------------------------------------------------------------------------------
    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, peer = await loop.sock_accept(listening)
            except OSError as error:
                log.error("cannot accept a connection: %s", error)
                await asyncio.sleep(0.1)
                continue
            client = str(peer[0]).removeprefix("::ffff:")
            refused = self.hub.doorman.admit(client)
            if not refused and len(self._beginning) >= MAX_BEGINNING:
                self.hub.doorman.leave(client)
                refused = "full"
            if refused:
                self.hub.refuse(refused, client)
                sock.close()
                continue
            task = loop.create_task(self._begin(sock, client))
            self._beginning.add(task)
            task.add_done_callback(self._beginning.discard)

    async def _begin(self, sock: socket.socket, client: str) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(self.hub, client)
        self.hub.connections.add(connection)
        certificates = self._certificates
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection,
                sock,
                ssl=certificates.context() if certificates else None,
                ssl_handshake_timeout=self._settings.handshake_seconds if certificates else None,
            )
        except (OSError, ssl.SSLError) as error:
            self.hub.refuse("tls", client, error=str(error))
            sock.close()
            connection.leave()
        except asyncio.CancelledError:
            sock.close()
            connection.leave()
            raise

    # --- time ----------------------------------------------------------------------------------------------------
    async def _look(self) -> None:
        looked_at = self._clock.monotonic()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = self._clock.monotonic()
            for connection in list(self.hub.connections):
                connection.look(now)
            self.hub.tell()
            if now - looked_at >= self._settings.plumbing_seconds:
                looked_at = now
                self._look_at_addresses()

    def _look_at_addresses(self) -> None:
        """Bind to each of them: it asks nobody, and says what a client would hear."""
        for address in self.hub.rules.addresses:
            error = ""
            try:
                source_socket(address).close()
            except OSError as failure:
                error = failure.strerror or str(failure)
            if self.plumbing.observe(address, error, self._clock.now()):
                level = logging.WARNING if error else logging.INFO
                log.log(level, "address %s", "not on this machine" if error else "plumbed", extra={"source": address})
            metrics.EGRESS_PLUMBED.labels(address).set(not error)

    async def _page(self, _: web.Request) -> web.Response:
        return web.json_response({"draining": self.hub.draining, "sources": self.plumbing.page()})


def _certificates(settings: EgressProxySettings, context: Alone) -> Certificates | None:
    if not settings.certificate_file:
        return None
    return Certificates(settings.certificate_file, settings.key_file, context.clock, section="[egress_proxy]")


def _listening(settings: EgressProxySettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setblocking(False)
    try:
        sock.bind((settings.address, settings.port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        where = f"{settings.address} port {settings.port}"
        raise SettingsError(f"[egress_proxy] cannot listen on {where}: {error.strerror}") from error
    return sock


def _allow_many_files() -> None:
    """Two for each connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _warn_of_nonlocal_binding() -> None:
    for name in NONLOCAL:
        with contextlib.suppress(OSError):
            if Path(name).read_text().strip() == "1":
                log.error("%s is 1: binding says nothing about which addresses are here, so none is missed", name)
