"""Questions to the DNS, many at once, one for each domain."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from mailfleet_core.clock import Clock
from mailfleet_core.dns.port import DnsTemporary, MxAnswer, Resolver
from mailfleet_router.decisions.routing import Routing

log = logging.getLogger(__name__)


class Resolving:
    """Asks, tells `Routing` the answer, and then everybody who waits."""

    def __init__(
        self, resolver: Resolver, routing: Routing, clock: Clock, most: int, told: Callable[[str], None]
    ) -> None:
        self._resolver = resolver
        self._routing = routing
        self._clock = clock
        self._room = asyncio.Semaphore(most)
        self._told = told
        self._asked: dict[str, asyncio.Task[None]] = {}

    def ask(self, name: str) -> None:
        """Find out where mail for `name` goes, if nobody is asking already."""
        if name not in self._asked:
            self._asked[name] = asyncio.create_task(self._ask(name))

    async def stop(self) -> None:
        """Forget all questions."""
        for task in list(self._asked.values()):
            task.cancel()
        await asyncio.gather(*self._asked.values(), return_exceptions=True)

    async def _ask(self, name: str) -> None:
        try:
            async with self._room:
                answer = await self._answer(name)
        finally:
            self._asked.pop(name, None)
        self._routing.answered(name, answer.kind, answer.hosts, self._clock.now())
        self._told(name)

    async def _answer(self, name: str) -> MxAnswer:
        if name.startswith("[") and name.endswith("]"):
            # An address literal (RFC 5321 4.1.3) is its own next hop.
            return MxAnswer("implicit", ((0, name[1:-1].removeprefix("ipv6:")),))
        try:
            return await self._resolver.mx(name)
        except DnsTemporary as error:
            log.info("no answer from the DNS", extra={"domain": name, "error": str(error)})
        except Exception:
            # Broken machinery of ours must not bounce anybody's mail.
            log.exception("the resolver failed", extra={"domain": name})
        return MxAnswer("temporary")
