"""From a source to a connected socket: bound on this machine, or through its egress proxy. And whose fault it is if not.

What fails before a destination comes into it is our own trouble: it says nothing of a site, whatever the site is.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from pathlib import Path

from mailfleet_core import metrics
from mailfleet_core.model import reply as phases
from mailfleet_core.model.reply import Answer, Reply, printable
from mailfleet_core.model.wire import Source
from mailfleet_core.socks import proxy as proxies
from mailfleet_core.socks.client import ProxyFailed, Stage
from mailfleet_core.socks.connecting import Door, Turn, source_socket
from mailfleet_core.socks.proxy import Proxy
from mailfleet_core.socks.wire import Code
from mailfleet_sender.settings import SenderSettings

log = logging.getLogger(__name__)
UNPLUMBED, OURS = "4.3.5", "4.3.0"
"""RFC 3463: "system incorrectly configured", "other mail system status"."""
_AS_IF_HERE: dict[int, int] = {
    Code.NETWORK_UNREACHABLE: errno.ENETUNREACH,
    Code.HOST_UNREACHABLE: errno.EHOSTUNREACH,
    Code.REFUSED: errno.ECONNREFUSED,
    Code.TIMED_OUT: errno.ETIMEDOUT,
}
"""What a destination does to the proxy, as it would have done it to us."""


class CallFailed(Exception):
    """Ends a call; carries the answer."""

    def __init__(self, phase: str, reply: Reply) -> None:
        super().__init__(reply.text)
        self.answer = Answer(reply, phase)


class WayOut:
    """How connections of one source are made."""

    def __init__(self, settings: SenderSettings, source: Source) -> None:
        self._settings = settings
        self._source = source
        self._context: ssl.SSLContext | None = None

    def order(self, order: str) -> str:
        """In which order to try families: through a proxy those first for which the source has an address."""
        if not self._source.proxy or order.endswith("only") or (self._source.address and self._source.address6):
            return order
        return "ipv6_first" if self._source.address6 else "ipv4_first"

    async def connected(self, address: str, port: int, turn: Turn) -> socket.socket:
        """A socket connected to `address` from the source; `turn` is awaited just before. Raises CallFailed, OSError."""
        six = ":" in address
        mine = self._source.address6 if six else self._source.address
        if not self._source.proxy:
            return await self._directly(mine, address, port, turn)
        if not mine:
            text = f"the source {self._source.name} has no {'IPv6' if six else 'IPv4'} address"
            raise CallFailed(phases.CONNECT, Reply(0, "4.4.4", text))
        door = await self._door()
        try:
            return await door.connected(mine, address, port, turn)
        except ProxyFailed as failure:
            raise self._told(failure, door.proxy, mine) from failure

    async def _directly(self, mine: str, address: str, port: int, turn: Turn) -> socket.socket:
        try:
            sock = source_socket(mine, socket.AF_INET6 if ":" in address else socket.AF_INET)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise self._ours("unplumbed", UNPLUMBED, f"the address {mine} is not on this machine") from error
            raise self._ours("local", OURS, f"no socket: {error.strerror}") from error
        try:
            await turn()
            async with asyncio.timeout(self._settings.connect_seconds):
                await asyncio.get_running_loop().sock_connect(sock, (address, port))
        except OSError as error:
            sock.close()
            if error.errno == errno.EADDRNOTAVAIL:
                raise CallFailed(phases.CONNECT, Reply(0, "4.4.5", "no port is left for this destination")) from error
            raise
        except BaseException:
            sock.close()
            raise
        return sock

    async def _door(self) -> Door:
        try:
            proxy = proxies.proxy_of(self._source.proxy)
            password = await asyncio.to_thread(self._password, proxy) if proxy.user else ""
            if proxy.tls and self._context is None:
                self._context = ssl.create_default_context(cafile=self._settings.proxy_ca_file or None)
        except (OSError, ValueError) as error:
            raise self._ours("proxy", OURS, f"the egress proxy cannot be used: {error}") from error
        context = self._context if proxy.tls else None
        return Door(proxy, password, context, self._settings.proxy_seconds, self._settings.connect_seconds)

    def _password(self, proxy: Proxy) -> str:
        if not self._settings.proxy_users_file:
            raise ValueError(f"[sender] proxy_users_file is to have the password of {proxy.user!r}")
        found = proxies.users(Path(self._settings.proxy_users_file).read_text(encoding="utf-8")).get(proxy.user)
        if found is None:
            raise ValueError(f"proxy_users_file has no user {proxy.user!r}")
        return found

    def _told(self, failure: ProxyFailed, proxy: Proxy, mine: str) -> Exception:
        where = f"the egress proxy {proxy}"
        if failure.stage < Stage.BIND:
            return self._ours("proxy", OURS, f"{where}: {failure}")
        if failure.stage is Stage.BIND:
            if failure.code == Code.FORBIDDEN:
                return self._ours("not_listed", UNPLUMBED, f"{where} does not allow the source {mine}")
            return self._ours("unplumbed", UNPLUMBED, f"{where} does not have the address {mine}: {failure}")
        if failure.code in _AS_IF_HERE:
            number = _AS_IF_HERE[failure.code]
            return TimeoutError() if number == errno.ETIMEDOUT else OSError(number, str(failure))
        if failure.code == Code.FORBIDDEN:
            return CallFailed(phases.CONNECT, Reply(0, "4.4.4", f"{where} does not connect there: {failure}"))
        if failure.code or failure.silent:
            # Whoever has a mail server could make it so, which is why it takes no source away.
            return CallFailed(phases.CONNECT, Reply(0, "4.4.5", printable(f"{where}: {failure}")))
        return self._ours("proxy", OURS, f"{where}: {failure}")

    def _ours(self, reason: str, enhanced: str, text: str) -> CallFailed:
        metrics.EGRESS_FAILURES.labels(self._source.name, reason).inc()
        log.warning("no way out: %s", text, extra={"source": self._source.name})
        return CallFailed(phases.EGRESS, Reply(0, enhanced, printable(text)[:500]))
