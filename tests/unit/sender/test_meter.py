"""A meter counts when something left, and is not forgotten while it owes."""

from __future__ import annotations

import asyncio
import time

from mailfleet_sender.decisions.throttle import Rate
from mailfleet_sender.shell.meter import Meter


def meter(rate: Rate) -> Meter:
    made = Meter(asyncio.get_running_loop().time() - 100.0)
    made.obey(rate)
    return made


async def test_what_was_taken_in_a_long_turn_counts_from_its_end() -> None:
    one = meter(Rate(10.0))
    assert one.take() == 0.0
    time.sleep(0.08)  # The loop writes only after this.
    await asyncio.sleep(0.005)
    assert one.take() >= 0.09


async def test_a_burst_taken_in_a_long_turn_counts_whole_from_its_end() -> None:
    one = meter(Rate(10.0, 3.0))
    assert [one.take() for _ in range(3)] == [0.0, 0.0, 0.0]
    time.sleep(0.25)
    await asyncio.sleep(0.005)
    assert one.take() >= 0.09


async def test_it_owes_until_a_new_one_would_allow_no_more() -> None:
    one = meter(Rate(10.0))
    assert not one.owes()
    one.take()
    assert one.owes()
    await asyncio.sleep(0.12)
    assert not one.owes()


async def test_without_a_rate_it_allows_everything_and_owes_nothing() -> None:
    one = meter(Rate(0.0))
    assert [one.take() for _ in range(5)] == [0.0] * 5
    assert not one.limited
    assert not one.owes()
    assert one.wait() == 0.0
