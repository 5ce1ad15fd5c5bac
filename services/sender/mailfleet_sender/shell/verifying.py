"""Now and then: which address does the world see when a source of ours connects?"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable, Iterable

from mailfleet_core import metrics
from mailfleet_core.dns.port import DnsTemporary
from mailfleet_core.socks.connecting import at_once
from mailfleet_core.socks.seen import Seen, asked
from mailfleet_sender.shell.dial import Dialer
from mailfleet_sender.shell.way_out import CallFailed

log = logging.getLogger(__name__)
ANSWER_SECONDS = 15.0
NOTHING_HELD_SECONDS = 5.0


class Verifier:
    """Asks `target` (`address:port`, see `mailfleet_egress check`) by the way that mail of each source goes."""

    def __init__(self, target: str, every_seconds: float, dialers: Callable[[], Iterable[Dialer]]) -> None:
        """`dialers`: of the sources whose lanes are held now."""
        host, _, port = target.rpartition(":")
        self._address, self._port = str(ipaddress.ip_address(host.strip("[]"))), int(port)
        self._every_seconds = every_seconds
        self._dialers = dialers

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            held = tuple(self._dialers())
            for dialer in held:
                await self.look(dialer)
            await asyncio.sleep(self._every_seconds if held else NOTHING_HELD_SECONDS)

    async def look(self, dialer: Dialer) -> Seen | None:
        """What is seen of one source; None: it has no address of its own, so any will do."""
        source = dialer.source
        expected = source.address6 if ":" in self._address else source.address
        if not expected:
            return None
        try:
            async with asyncio.timeout(ANSWER_SECONDS + dialer.settings.connect_seconds):
                sock = await dialer.out.connected(self._address, self._port, at_once)
                found = await asked(sock, dialer.ehlo_name)
        except (CallFailed, OSError, TimeoutError) as error:
            log.warning("the address seen outside is not known", extra={"source": source.name, "why": str(error)})
            return Seen("", str(error))
        # Behind a translation of addresses the source has a private one, and its name the one that is seen.
        if found.mismatches(expected, *await _addresses(dialer)):
            metrics.IP_MISMATCHES.labels(source.name, expected, found.address).inc()
            told = {"source": source.name, "expected": expected, "seen": found.address}
            log.error("outside another address is seen than the source's", extra=told)
        return found


async def _addresses(dialer: Dialer) -> tuple[str, ...]:
    """Of the name that the source says in EHLO."""
    if not dialer.source.ehlo_name:
        return ()
    try:
        return tuple(await dialer.resolver.addresses(dialer.source.ehlo_name))
    except DnsTemporary:
        return ()
