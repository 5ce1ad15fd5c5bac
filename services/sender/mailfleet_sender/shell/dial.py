"""From a route to a connection on which mail can be sent: names, addresses, the guard, TCP, TLS, EHLO, AUTH.

aiosmtplib speaks until EHLO is answered; then `Connection` takes its transport.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import aiosmtplib

from mailfleet_core import metrics
from mailfleet_core.dns.guard import InsideGuard
from mailfleet_core.dns.port import DnsTemporary, Resolver
from mailfleet_core.model import reply as phases
from mailfleet_core.model.reply import Answer, Reply, printable
from mailfleet_core.model.wire import Route, Source
from mailfleet_core.settings import RouteSettings
from mailfleet_core.smtp.client import Offered, offered
from mailfleet_core.smtp.reply import reply_of
from mailfleet_core.socks.connecting import Turn
from mailfleet_sender.decisions.hosts import addresses_in_order, hosts_in_order
from mailfleet_sender.settings import SenderSettings
from mailfleet_sender.shell.jobs import Failure, Link
from mailfleet_sender.shell.way_out import CallFailed, WayOut

log = logging.getLogger(__name__)

REMEMBER_DOWN_SECONDS = 60.0
SUBMISSIONS_PORT = 465
"""TLS from the first byte (RFC 8314)."""


class Target(NamedTuple):
    """One address to connect to."""

    mx: str
    address: str
    """Empty for a Unix socket, whose path `mx` has."""


class Open(NamedTuple):
    """An open transport with EHLO answered."""

    transport: Any
    link: Link
    offers: Offered


@dataclass(slots=True)
class Dialer:
    """Opens connections for one egress source."""

    settings: SenderSettings
    source: Source
    resolver: Resolver
    guard: InsideGuard
    routes: dict[str, RouteSettings]
    """Static routes of the settings by name: their addresses may be inside, their secrets are read here."""
    jitter: Callable[[], float]
    ehlo_name: str
    _down: dict[str, float] = field(default_factory=dict)
    _contexts: dict[bool, ssl.SSLContext] = field(default_factory=dict)
    out: WayOut = field(init=False)

    def __post_init__(self) -> None:
        self.out = WayOut(self.settings, self.source)

    async def dial(self, route: Route, turn: Turn) -> Open | Failure:
        """The first connection that comes about; else the last thing that went wrong. Each try awaits its `turn`.

        What goes wrong on our own side is said only when nothing was heard of the site, also by the other family."""
        search = _Search(self, route)
        failure: Failure | None = None
        ours: dict[bool, Failure] = {}
        tried = 0
        async for target in search.targets():
            six = ":" in target.address
            if six in ours:
                continue
            opened = await self._try(route, target, turn)
            if isinstance(opened, Open):
                self._down.pop(target.address, None)
                return opened
            if opened.answer.phase == phases.EGRESS:
                ours[six] = opened
                continue
            tried += 1
            failure = opened
            self._down[target.address] = asyncio.get_running_loop().time() + REMEMBER_DOWN_SECONDS
            if tried >= self.settings.max_addresses:
                break
        return failure or next(iter(ours.values()), None) or search.verdict()

    def failed_lately(self, address: str) -> bool:
        """Did the last connection to `address` fail, less than a minute ago?"""
        return self._down.get(address, 0.0) > asyncio.get_running_loop().time()

    def context(self, verify: bool) -> ssl.SSLContext:
        """The TLS client context: with or without a look at the certificate."""
        if verify not in self._contexts:
            context = ssl.create_default_context(cafile=self.settings.ca_file or None)
            if not verify:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            self._contexts[verify] = context
        return self._contexts[verify]

    async def _try(self, route: Route, target: Target, turn: Turn) -> Open | Failure:
        """One address; where TLS is only an opportunity and breaks, once more without."""
        call = _Call(self, route, target, turn)
        opened = await call.make(route.tls != "off")
        if isinstance(opened, Failure) and opened.answer.phase == phases.STARTTLS and route.tls == "opportunistic":
            again = _Call(self, route, target, turn, f"clear ({opened.answer.reply.text})")
            return await again.make(False)
        return opened


class _Search:
    """Finds addresses host by host, so that the second MX is asked for only when the first did not work."""

    def __init__(self, dialer: Dialer, route: Route) -> None:
        self._dialer = dialer
        self._route = route
        named = dialer.routes.get(route.name) if route.kind != "mx" else None
        # A next hop that the settings name by its address may be inside: whoever wrote it meant it.
        self._named = frozenset(named.hosts) if named else frozenset()
        self._refused: list[str] = []
        self._unanswered = ""

    async def targets(self) -> AsyncIterator[Target]:
        """Every permitted address of every host, in the order to be tried."""
        for host in hosts_in_order(self._route.hosts, self._dialer.jitter):
            if host.startswith("unix:"):
                if host in self._named:
                    yield Target(host, "")
                continue
            for address in await self._addresses(host):
                yield Target(host, address)

    async def _addresses(self, host: str) -> list[str]:
        try:
            found = await self._dialer.resolver.addresses(host)
        except DnsTemporary as error:
            self._unanswered = str(error)
            return []
        meant = host in self._named and (host == "localhost" or host in found)
        permitted = [address for address in found if meant or self._dialer.guard.permits(address)]
        refused = [address for address in found if address not in permitted]
        if refused:
            self._refused += [f"{host} [{address}]" for address in refused]
            metrics.INSIDE_ADDRESSES.inc(len(refused))
            log.warning("an MX points inside", extra={"mx": host, "addresses": " ".join(refused)})
        order = self._dialer.out.order(self._dialer.settings.ip_order)
        return addresses_in_order(permitted, order, self._dialer.failed_lately)

    def verdict(self) -> Failure:
        """Why there was nothing to connect to."""
        if self._unanswered:
            return _failure(phases.DNS, Reply(0, "4.4.3", printable(self._unanswered)))
        if self._refused:
            text = f"the domain's MX points to addresses that are not connected to: {', '.join(self._refused)}"
            return _failure(phases.CONNECT, Reply(0, "5.4.4", printable(text)))
        if all(host in self._named for _, host in self._route.hosts):
            return _failure(phases.DNS, Reply(0, "4.4.4", "the next hop has no address"))
        return _failure(phases.DNS, Reply(0, "5.4.4", "no mail host of the domain has an address"))


class _Call:
    """One connection attempt to one address."""

    def __init__(self, dialer: Dialer, route: Route, target: Target, turn: Turn, tls_text: str = "") -> None:
        self._dialer = dialer
        self._settings = dialer.settings
        self._route = route
        self._target = target
        self._turn = turn
        self._tls_text = tls_text
        self._lmtp = route.kind == "lmtp"
        self._phase = phases.CONNECT

    async def make(self, with_tls: bool) -> Open | Failure:
        """Connect, greet, encrypt if `with_tls`, authenticate if the route has a user."""
        smtp: aiosmtplib.SMTP | None = None
        try:
            smtp = await self._connect(with_tls)
            await self._hello(smtp)
            if with_tls and not smtp.use_tls:
                await self._encrypt(smtp)
            if self._route.username:
                await self._authenticate(smtp)
            return self._hand_over(smtp)
        except BaseException as error:
            if smtp is not None:
                smtp.close()
            answer = self._answer(error)
            if answer is None:
                raise
            return Failure(answer, Link(self._target.mx, self._target.address, self._tls_text))

    # --- phases --------------------------------------------------------------------------------------------------
    async def _connect(self, with_tls: bool) -> aiosmtplib.SMTP:
        from_the_start = with_tls and self._route.kind == "smart_host" and self._route.port == SUBMISSIONS_PORT
        options: dict[str, Any] = {
            "local_hostname": self._dialer.ehlo_name,
            "start_tls": False,
            "use_tls": from_the_start,
            "timeout": self._settings.greeting_seconds,
            "hostname": self._target.mx,
        }
        if from_the_start:
            options["tls_context"] = self._dialer.context(self._route.tls == "verify")
        if self._target.address:
            sock = await self._dialer.out.connected(self._target.address, self._route.port, self._turn)
            self._phase = phases.STARTTLS if from_the_start else phases.GREETING
            smtp = aiosmtplib.SMTP(sock=sock, **options)
        else:
            del options["hostname"]
            smtp = aiosmtplib.SMTP(socket_path=self._target.mx.removeprefix("unix:"), **options)
            await self._turn()
        await smtp.connect()
        return smtp

    async def _hello(self, smtp: aiosmtplib.SMTP) -> None:
        self._phase = phases.EHLO
        seconds = self._settings.ehlo_seconds
        if self._lmtp:
            answer = await smtp.execute_command(b"LHLO", self._dialer.ehlo_name.encode(), timeout=seconds)
            if answer.code != 250:
                raise aiosmtplib.SMTPHeloError(answer.code, answer.message)
            smtp.last_ehlo_response = answer
            return
        try:
            await smtp.ehlo(timeout=seconds)
        except aiosmtplib.SMTPHeloError as refusal:
            if not (smtp.is_connected and 500 <= refusal.code <= 599):
                raise
            await smtp.helo(timeout=seconds)

    async def _encrypt(self, smtp: aiosmtplib.SMTP) -> None:
        must = self._route.tls in ("required", "verify")
        if not smtp.supports_extension("starttls"):
            if must:
                raise CallFailed(phases.STARTTLS, Reply(0, "4.7.4", "TLS is required and the site does not offer it"))
            return
        self._phase = phases.STARTTLS
        context = self._dialer.context(self._route.tls == "verify")
        try:
            await smtp.starttls(
                tls_context=context, server_hostname=self._target.mx, timeout=self._settings.ehlo_seconds
            )  # fmt: skip
        except aiosmtplib.SMTPResponseException as refusal:
            if must or not smtp.is_connected:
                raise
            # Refused in words, so nothing is broken: the same connection goes on in clear.
            self._tls_text = f"clear (STARTTLS refused: {refusal.code} {_printable(refusal.message)})"
            return
        await self._hello(smtp)

    async def _authenticate(self, smtp: aiosmtplib.SMTP) -> None:
        self._phase = phases.AUTH
        encrypted = smtp.get_transport_info("sslcontext") is not None
        if not encrypted and self._route.tls != "off":
            raise CallFailed(phases.AUTH, Reply(0, "4.7.4", "the password is not sent without TLS"))
        route = self._dialer.routes.get(self._route.name)
        if route is None or not route.password_file:
            raise CallFailed(phases.AUTH, Reply(0, "4.3.5", "the settings have no password_file for this route"))
        try:
            secret = await asyncio.to_thread(Path(route.password_file).read_text, encoding="utf-8")
        except OSError as error:
            log.error("a password file cannot be read", extra={"route": route.name, "error": str(error)})
            raise CallFailed(phases.AUTH, Reply(0, "4.3.5", "the password file cannot be read")) from error
        await smtp.login(self._route.username, secret.strip("\r\n"), timeout=self._settings.ehlo_seconds)

    def _hand_over(self, smtp: aiosmtplib.SMTP) -> Open:
        protocol, transport = smtp.protocol, smtp.transport
        if protocol is None or transport is None or transport.is_closing():
            raise aiosmtplib.SMTPServerDisconnected("closed after the greeting")
        if protocol._buffer:
            raise CallFailed(self._phase, Reply(0, "4.5.0", "the site said more than it was asked"))
        if secure := transport.get_extra_info("ssl_object"):
            self._tls_text = f"{secure.version()} {secure.cipher()[0]}"
        link = Link(self._target.mx, self._target.address, self._tls_text)
        return Open(transport, link, offered(smtp.esmtp_extensions))

    # --- errors --------------------------------------------------------------------------------------------------
    def _answer(self, error: BaseException) -> Answer | None:
        """What an error of any library means; None: it is a fault of ours and must be seen."""
        where = f"{self._target.mx} [{self._target.address}]" if self._target.address else self._target.mx
        if isinstance(error, CallFailed):
            return error.answer
        if isinstance(error, aiosmtplib.SMTPResponseException):
            lines = error.message.encode("utf-8", "surrogateescape").split(b"\n")
            valid = 200 <= error.code <= 599
            reply = (
                reply_of(error.code, lines) if valid else Reply(0, "4.5.0", f"not a reply: {_printable(error.message)}")
            )
            return Answer(reply, self._phase)
        if isinstance(error, ssl.SSLError):
            reason = getattr(error, "verify_message", "") or error.reason or "handshake failed"
            return Answer(Reply(0, "4.7.5", f"TLS failed with {where}: {_printable(str(reason))}"), phases.STARTTLS)
        enhanced = "4.4.1" if self._phase == phases.CONNECT else "4.4.2"
        if isinstance(error, TimeoutError | aiosmtplib.SMTPTimeoutError):
            return Answer(Reply(0, enhanced, f"{where}: no answer in time"), self._phase)
        if isinstance(error, aiosmtplib.SMTPException | OSError | ValueError):
            return Answer(Reply(0, enhanced, f"{where}: {_printable(_reason(error))}"), self._phase)
        return None


def _reason(error: Exception) -> str:
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number) if number else str(error) or type(error).__name__


def _printable(text: str) -> str:
    return printable(text)[:500]


def _failure(phase: str, reply: Reply) -> Failure:
    return Failure(Answer(reply, phase))
