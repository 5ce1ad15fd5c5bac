"""Tells `mail.stats` how the partitions of this process stand, at most so often that nobody notices the work."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from mailfleet_core import metrics
from mailfleet_core.bus import topics
from mailfleet_core.bus.port import Bus
from mailfleet_core.clock import Clock
from mailfleet_core.model import stats as record
from mailfleet_router.decisions import stats
from mailfleet_router.decisions.partition import Partition
from mailfleet_router.shell.owner import Owner

LOOK_SECONDS = 5.0
"""Between two looks at a partition."""
LEAST_SECONDS = 25.0
"""What has not changed is told again so often: nobody hears of a partition that is silent for two minutes."""
MOST_SHARE = 0.005
"""Of this process's time. With very many sites and sources it is told less often,"""
AT_ONCE_SECONDS = 1.0
"""and it may use so many seconds' share at once."""


class Telling:
    """The records of one process."""

    def __init__(self, bus: Bus, clock: Clock, owners: Mapping[int, Owner], instance: str) -> None:
        self._bus = bus
        self._clock = clock
        self._owners = owners
        self._instance = instance
        self._looked: dict[int, float] = {}
        self._told: dict[int, tuple[float, object]] = {}
        self._paid_until = 0.0
        """Until when the work done is within its share."""

    async def tell(self) -> None:
        """Look at the partitions whose time it is."""
        for number in self._looked.keys() - self._owners.keys():
            self._looked.pop(number)
            self._told.pop(number, None)
        for number, owner in list(self._owners.items()):
            began = self._clock.monotonic()
            if self._paid_until - began > AT_ONCE_SECONDS:
                return
            partition = owner.partition
            if partition is None or not owner.live or began - self._looked.get(number, -LOOK_SECONDS) < LOOK_SECONDS:
                continue
            self._looked[number] = began
            self._look(number, partition, began)
            seconds = self._clock.monotonic() - began
            metrics.STATS_SECONDS.inc(seconds)
            self._paid_until = max(self._paid_until, began) + seconds / MOST_SHARE
            await asyncio.sleep(0)

    def _look(self, number: int, partition: Partition, began: float) -> None:
        said = stats.stats(partition, self._instance, self._clock.now())
        image = stats.image(said)
        told_at, told = self._told.get(number, (-LEAST_SECONDS, None))
        if image == told and began - told_at < LEAST_SECONDS:
            return
        self._told[number] = (began, image)
        tag = topics.tag(topics.PUT, partition.epoch)
        self._bus.append(topics.STATS, 0, record.key(number), record.encode(said), tag).add_done_callback(_unheard)


def _unheard(future: asyncio.Future[int]) -> None:
    # Another record follows. That the log does not answer is seen, and said, by whoever has mail to write.
    if not future.cancelled():
        future.exception()
