"""Traffic policies: their conditions, and the file of the one in force."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from mailfleet_core.clock import Clock
from mailfleet_operator.decisions import policies
from mailfleet_operator.decisions.conditions import merged
from mailfleet_operator.decisions.senders import Place
from mailfleet_operator.shell.cluster import POLICY, Cluster, Object
from mailfleet_operator.shell.stock import Stock
from mailfleet_router.shell.traffic import shipped

Say = Callable[[str, str, Any, dict[str, Any], float], Awaitable[None]]
"""Kind, name, the status before and the one to be, now."""


class Policies:
    """Of one term."""

    def __init__(self, cluster: Cluster, clock: Clock, place: Place, say: Say) -> None:
        self._cluster, self._clock, self._place, self._say = cluster, clock, place, say
        self._rendered = ""
        """Digest of the file that was written last."""

    async def look(self, stock: Stock) -> None:
        """All of them, for which is in force depends on all. With none that is right, the file stays as it is."""
        bodies = sorted(stock.policies.values(), key=lambda body: body["metadata"]["name"])
        checked = {
            body["metadata"]["name"]: await asyncio.to_thread(policies.checked, body, shipped()) for body in bodies
        }
        chosen = policies.chosen(bodies, checked)
        # The one that was looked at, not one that has come since.
        right = next((body for body in bodies if body["metadata"]["name"] == chosen), None)
        digest = await self._render(right) if right is not None else ""
        for body in bodies:
            name = body["metadata"]["name"]
            after = self._status(body, checked[name], chosen)
            after |= {"digest": digest} if name == chosen else {}
            await self._say(POLICY, name, body.get("status") or {}, after, self._clock.now())

    def _status(self, body: Object, found: policies.Checked, chosen: str) -> dict[str, Any]:
        generation = body["metadata"].get("generation", 0)
        told = {
            policies.ACCEPTED: found.verdict,
            policies.IN_FORCE: policies.in_force(body["metadata"]["name"], chosen, found),
        }
        before = (body.get("status") or {}).get("conditions") or ()
        return {
            "observedGeneration": generation,
            "warnings": len(found.warnings),
            "findings": [*found.errors, *found.warnings][: policies.MOST_FINDINGS],
            "conditions": merged(before, told, generation, self._clock.now()),
        }

    async def _render(self, body: Object) -> str:
        text = policies.rendered(body)
        digest = policies.digest(text)
        if self._rendered != digest:
            await self._cluster.apply(policies.config_map(f"{self._place.release}-policy", self._place.namespace, text))
            self._rendered = digest
        return digest
