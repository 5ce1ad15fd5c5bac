"""The Lease: wait for it, lead while it is ours, stop in time, give it back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from mailfleet_core import metrics
from mailfleet_core.clock import Clock
from mailfleet_operator.decisions import election
from mailfleet_operator.decisions.election import CREATE, WAIT, Seen, Terms, Watch
from mailfleet_operator.decisions.times import micro_text_of
from mailfleet_operator.shell.cluster import LEASE, Cluster, Object, Refused

log = logging.getLogger(__name__)


class Leading:
    """One candidate."""

    def __init__(self, clock: Clock, name: str, namespace: str, me: str, terms: Terms) -> None:
        self._clock, self._name, self._namespace, self._me, self._terms = clock, name, namespace, me, terms
        self._watch = Watch()
        self._ours: Object | None = None
        """The lease as we wrote it last; to write it again it need not be read, for that is conditional on its version."""

    def leads(self) -> bool:
        """May this process act now?"""
        return election.leads(self._watch, self._terms, self._clock.monotonic())

    async def run(self, cluster: Cluster, lead: Callable[[], Awaitable[None]]) -> None:
        """Until cancelled: run `lead` whenever this process leads, and cancel it before it does not."""
        while True:
            await self._step(cluster)
            if self.leads():
                await self._term(cluster, lead)
            await asyncio.sleep(self._terms.retry)

    async def _term(self, cluster: Cluster, lead: Callable[[], Awaitable[None]]) -> None:
        log.info("leading", extra={"lease": self._name})
        metrics.OPERATOR_LEADING.set(1)
        work = asyncio.ensure_future(lead())
        renewing = asyncio.ensure_future(self._renew(cluster))
        try:
            while self.leads() and not work.done():
                left = election.left(self._watch, self._terms, self._clock.monotonic())
                await asyncio.wait({work}, timeout=min(left, self._terms.retry))
        finally:
            metrics.OPERATOR_LEADING.set(0)
            renewing.cancel()
            work.cancel()
            await asyncio.gather(work, renewing, return_exceptions=True)
        if work.done() and not work.cancelled() and (error := work.exception()) is not None:
            log.error("leading ended", exc_info=error)
        if not self.leads():
            log.warning("the lease could not be renewed; another operator may lead")

    async def _renew(self, cluster: Cluster) -> None:
        while True:
            await asyncio.sleep(self._terms.retry)
            await self._step(cluster)

    async def _step(self, cluster: Cluster) -> None:
        try:
            await self._look(cluster)
        except (Refused, OSError, TimeoutError) as error:
            log.warning("the lease cannot be looked at", extra={"error": str(error) or type(error).__name__})
        except Exception:
            # A client's own errors too: whoever cannot renew stops leading, and that is all that may come of it.
            log.exception("the lease cannot be looked at")

    async def _look(self, cluster: Cluster) -> None:
        lease, self._ours = self._ours, None
        if lease is not None and await self._write(cluster, lease):
            return
        lease = await cluster.get(LEASE, self._name, self._namespace)
        await self._write(cluster, lease)

    async def _write(self, cluster: Cluster, lease: Object | None) -> bool:
        """Do what is to be done to the lease as it was seen; whether that is written now."""
        sent = self._clock.monotonic()
        self._watch, step = election.look(self._watch, _seen(lease), self._me, self._terms, sent)
        if step == WAIT:
            return False
        spec = self._spec(lease, self._me, self._terms.lease)
        if step == CREATE or lease is None:
            self._ours = await cluster.create_lease(self._name, self._namespace, spec)
        else:
            self._ours = await cluster.replace_lease(lease, spec)
        if self._ours is None:
            return False
        self._watch = election.wrote(self._watch, sent)
        return True

    async def give_back(self, cluster: Cluster) -> None:
        """Let another one lead at once; only after the work has ended."""
        if not self.leads():
            return
        lease = await cluster.get(LEASE, self._name, self._namespace)
        self._watch, self._ours = self._watch._replace(renewed=None), None
        if lease is not None and _seen(lease).holder == self._me:
            await cluster.replace_lease(lease, self._spec(lease, "", 1.0))

    def _spec(self, lease: Object | None, holder: str, seconds: float) -> dict[str, Any]:
        """The Lease as it is to be; times in it are for people."""
        old = (lease or {}).get("spec") or {}
        now = micro_text_of(self._clock.now())
        another = old.get("holderIdentity") != holder
        return {
            "holderIdentity": holder,
            "leaseDurationSeconds": max(1, int(seconds)),
            "renewTime": now,
            "acquireTime": now if another else old.get("acquireTime", now),
            "leaseTransitions": int(old.get("leaseTransitions") or 0) + (1 if another and holder else 0),
        }


def _seen(lease: Object | None) -> Seen:
    if lease is None:
        return Seen("", "")
    return Seen(lease["metadata"]["resourceVersion"], (lease.get("spec") or {}).get("holderIdentity") or "")
