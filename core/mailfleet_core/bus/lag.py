"""How far a member of a group is behind the log: asked now and then, told as a metric."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from mailfleet_core import metrics
from mailfleet_core.bus.port import Bus, BusUnavailable

log = logging.getLogger(__name__)

EVERY_SECONDS = 10.0
"""One question for each partition that is held: few enough for hundreds of them."""


class Lag:
    """The lag of this process in one group. `positions` says of each partition held how far it is dealt with."""

    def __init__(self, bus: Bus, group: str, topic: str, positions: Callable[[], Mapping[int, int]]) -> None:
        self._bus = bus
        self._topic = topic
        self._positions = positions
        self._gauge = metrics.LOG_LAG.labels(group, topic)

    async def run(self, every_seconds: float = EVERY_SECONDS) -> None:
        """Look again and again, until cancelled."""
        while True:
            try:
                await self.look()
            except BusUnavailable as error:
                log.info("the lag is not known now", extra={"topic": self._topic, "error": str(error)})
            await asyncio.sleep(every_seconds)

    async def look(self) -> None:
        """Look once. Raises BusUnavailable."""
        held = tuple(self._positions())
        ends = await asyncio.gather(*(self._bus.end(self._topic, partition) for partition in held))
        now = self._positions()
        # After the ends: what was dealt with while they were asked for is no lag.
        self._gauge.set(sum(max(0, end - now.get(number, end)) for number, end in zip(held, ends, strict=True)))
