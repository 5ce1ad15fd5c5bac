"""The lag of a group: what was appended and is not dealt with yet, in the partitions that are held."""

from __future__ import annotations

from typing import cast

from mailfleet_core import metrics
from mailfleet_core.bus import topics
from mailfleet_core.bus.lag import Lag
from mailfleet_core.bus.port import Bus


class Ends:
    """A log of which only the ends are known; while it is asked, somebody works."""

    def __init__(self, ends: dict[int, int], positions: dict[int, int]) -> None:
        self.ends, self.positions = ends, positions
        self.meanwhile: dict[int, int] = {}

    async def end(self, topic: str, partition: int) -> int:
        assert topic == topics.RESULT
        self.positions.update(self.meanwhile)
        return self.ends[partition]

    def lag(self) -> Lag:
        return Lag(cast(Bus, self), "testers", topics.RESULT, lambda: self.positions)


def told() -> float:
    return metrics.LOG_LAG.labels("testers", topics.RESULT)._value.get()


async def test_it_is_what_is_not_dealt_with_in_the_partitions_that_are_held() -> None:
    log = Ends({0: 10, 1: 500, 2: 7}, {0: 4, 2: 7})
    await log.lag().look()
    assert told() == 6
    log.positions[2] = 2
    await log.lag().look()
    assert told() == 6 + 5
    log.positions.clear()
    await log.lag().look()
    assert told() == 0


async def test_what_is_dealt_with_while_the_log_is_asked_is_no_lag() -> None:
    log = Ends({0: 10}, {0: 0})
    log.meanwhile = {0: 12}
    await log.lag().look()
    assert told() == 0
