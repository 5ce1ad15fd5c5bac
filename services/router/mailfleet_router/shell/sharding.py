"""The owner of queue partition 0 divides hot sites as the policy asks: it writes their maps into `mail.control`.

Whoever writes a map, everybody goes by the last one that he has read, and uses a source only with the right to it. So two writers
at once do no harm; the next look puts it right.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from mailfleet_core.bus import topics
from mailfleet_core.bus.port import Bus, BusUnavailable
from mailfleet_core.clock import Clock
from mailfleet_core.model import wire
from mailfleet_core.model.shards import KEY, Numbered
from mailfleet_router.decisions.policy import Policy
from mailfleet_router.decisions.shaping.leases import CLOCK_SECONDS, TERM_SECONDS
from mailfleet_router.decisions.shaping.sharding import plan

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
"""Between two looks. A map that was written is in the log by the next one, or is written again."""
ALONE_SECONDS = TERM_SECONDS + 5 * CLOCK_SECONDS
"""A site becomes hot with one shard. It is divided when its owner has long read that, and uses sources by right only."""


class Sharding:
    """The maps that the policy asks for."""

    def __init__(self, bus: Bus, clock: Clock, maps: Mapping[str, Numbered], policy: Callable[[], Policy]) -> None:
        self._bus, self._clock, self._maps, self._policy = bus, clock, maps, policy
        self._look_at = 0.0
        self._alone: dict[str, float] = {}
        """Sites with one shard, and since when we know it."""

    def look(self) -> None:
        """To be called now and then, by the owner of queue partition 0 and nobody else."""
        now = self._clock.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_SECONDS
        policy = self._policy()
        asked = {site.site: site.shards for site in policy.shaping.policy.traffic.sites}
        for site in sorted({*asked, *self._maps}):
            known = self._maps.get(site)
            count = self._count(site, asked.get(site, 1), known, now)
            if known is None and asked.get(site, 1) <= 1:
                continue
            pools = {name: policy.reach(name) for name in policy.pools}
            found = plan(known.map if known else None, count, policy.lanes, pools)
            if known is None or found != known.map:
                self._write(site, found)

    def forget(self) -> None:
        """Somebody else is the owner now."""
        self._alone.clear()

    def _count(self, site: str, asked: int, known: Numbered | None, now: float) -> int:
        if known is None:
            return 1
        if len(known.map.sources) > 1:
            self._alone.pop(site, None)
            return asked
        return asked if now - self._alone.setdefault(site, now) >= ALONE_SECONDS else 1

    def _write(self, site: str, found: wire.ShardMap) -> None:
        log.info("the map of a hot site", extra={"site": site, "shards": len(found.sources)})
        said = self._bus.append(topics.CONTROL, 0, KEY + site.encode(), wire.encode(found), topics.tag(topics.PUT))
        said.add_done_callback(lambda future: None if future.cancelled() else _unsaid(future.exception()))


def _unsaid(error: BaseException | None) -> None:
    if isinstance(error, BusUnavailable):
        log.warning("the map of a hot site is written later", extra={"error": str(error)})
