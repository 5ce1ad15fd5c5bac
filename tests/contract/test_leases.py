"""Leases over every log: several processes use one limit to the full, and never more, while granters come and go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mailfleet_core.bus import topics
from mailfleet_core.clock import SystemClock
from mailfleet_router.decisions.shaping import leases
from mailfleet_router.decisions.shaping.leases import TERM_SECONDS, Limit
from mailfleet_router.shell.leasing import Leases

LIMIT = Limit(40.0)
KEY = "tenants|acme"
now = SystemClock.monotonic


class Owner:
    """An owner that sends whenever it may."""

    def __init__(self, leases: Leases, holder: str) -> None:
        self.leases, self.holder = leases, holder
        self.sent: list[float] = []
        self.grew = asyncio.Event()

    async def send(self) -> None:
        while True:
            at = now()
            self.leases.want(KEY, self.holder, LIMIT, self.leases.demand(KEY, self.holder, 1000, at), at)
            wait = self.leases.wait(KEY, self.holder, at)
            if wait == 0:
                self.leases.take(KEY, self.holder, at)
                self.sent.append(at)
            else:
                await asyncio.sleep(min(wait, 0.1))


@asynccontextmanager
async def process(lab: Any, name: str) -> AsyncIterator[Leases]:
    bus = await lab.client(name)
    shares = Leases(bus, SystemClock(), name, lambda holders: None)
    shares.start()
    try:
        yield shares
    finally:
        await shares.stop()


@asynccontextmanager
async def sending(*owners: Owner) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(owner.send()) for owner in owners]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def judge(*owners: Owner) -> list[float]:
    """No window of any length admitted more than rate x window + burst, and one message for each name that an owner had."""
    times = sorted(at for owner in owners for at in owner.sent)
    most = LIMIT.total * leases.BURST_SECONDS + len(owners) + 1
    debt, before = 0.0, 0.0
    for at in times:
        debt = max(0.0, debt - LIMIT.total * (at - before)) + 1
        before = at
        assert debt <= most + 1e-6
    return times


async def until(condition: Any, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def test_a_first_share_comes_within_a_second_or_two(lab: Any) -> None:
    async with process(lab, "a") as granter, process(lab, "b") as other:
        granter.grant_as(1)
        await asyncio.sleep(1)
        owner = Owner(other, "3@17")
        began = now()
        async with sending(owner):
            await until(lambda: owner.sent, 5)
        assert owner.sent[0] - began < 2


@pytest.mark.slow
async def test_three_processes_never_exceed_a_limit_while_granters_change(lab: Any) -> None:
    async with process(lab, "a") as a, process(lab, "b") as b, process(lab, "c") as c:
        owners = [Owner(a, "0@1"), Owner(b, "1@2"), Owner(c, "2@3")]
        a.grant_as(1)
        async with sending(*owners):
            await until(lambda: all(owner.sent for owner in owners), 20)
            await asyncio.sleep(4)
            b.grant_as(5)  # and the old granter hears of it by reading only
            await asyncio.sleep(4)
            a.left("0@1")
            owners[0].holder = "0@9"
            await asyncio.sleep(6)
        times = judge(*owners)
    # All of the limit is used, but for what the new holders waited for.
    assert len(times) >= LIMIT.total * (times[-1] - times[0]) * 0.85


@pytest.mark.slow
async def test_while_the_log_is_away_shares_run_out_and_come_back_with_it(lab: Any) -> None:
    async with process(lab, "a") as a, process(lab, "b") as b:
        owners = [Owner(a, "0@1"), Owner(b, "1@2")]
        a.grant_as(1)
        async with sending(*owners):
            await until(lambda: all(owner.sent for owner in owners), 20)
            await lab.kill_broker()
            away = now()
            await asyncio.sleep(TERM_SECONDS + 1)
            last = max(at for owner in owners for at in owner.sent)
            await lab.start_broker()
            back = len(owners[0].sent)
            await until(lambda: len(owners[0].sent) > back + 20, 60)
        judge(*owners)
    assert last - away < TERM_SECONDS


async def test_what_has_ended_is_trimmed(lab: Any) -> None:
    bus = await lab.client("a")
    shares = Leases(bus, SystemClock(), "a", lambda holders: None, trim_seconds=0.5)
    shares.start()
    shares.grant_as(1)
    owner = Owner(shares, "0@1")
    async with sending(owner):
        await until(lambda: shares.trimmed, 10)
    await shares.stop()
    assert 0 < shares.trimmed < await bus.end(topics.LEASE, 0)
