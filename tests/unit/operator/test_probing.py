"""Addresses are looked at when they are due, and soon again when something seems to be wrong."""

from __future__ import annotations

import asyncio
from typing import Any

from mailfleet_core.dns.port import DnsTemporary
from mailfleet_operator.decisions import resources
from mailfleet_operator.decisions.conditions import FALSE, TRUE, UNKNOWN
from mailfleet_operator.decisions.life import NOT_LISTED, PLUMBED, PTR
from mailfleet_operator.decisions.preflight import Path
from mailfleet_operator.shell.probing import Probing, Task


class Zone:
    """A DNS that says what a test wrote into it."""

    def __init__(self) -> None:
        self.said: dict[tuple[str, str], tuple[str, ...]] = {
            ("1.2.0.192.in-addr.arpa", "PTR"): ("mx1.example.org.",),
            ("mx1.example.org", "A"): ("192.0.2.1",),
        }
        self.away = False
        self.asked: list[str] = []

    async def records(self, domain: str, kind: str) -> tuple[str, ...]:
        self.asked.append(domain)
        if self.away:
            raise DnsTemporary("away")
        return self.said.get((domain, kind), ())


class Clock:
    def __init__(self) -> None:
        self.at = 1000.0

    def now(self) -> float:
        return self.at

    monotonic = now

    def jitter(self) -> float:
        return 0.0

    def entropy(self, size: int) -> bytes:
        return bytes(size)


async def plumbed(*_: Any) -> Path:
    return Path(True)


def body(**status: Any) -> resources.Address:
    spec = {"address": "192.0.2.1", "hostname": "mx1.example.org"}
    return resources.address({"metadata": {"name": "ip-1"}, "spec": spec, "status": status})


POOL = resources.pool(
    {
        "metadata": {"name": "tx"},
        "spec": {"egress": {"mode": "PodNetwork"}, "preflight": {"blocklists": ["bl.example"], "intervalSeconds": 300}},
    }
)


class Bench:
    def __init__(self) -> None:
        self.zone, self.clock, self.changes = Zone(), Clock(), list[str]()
        self.probing = Probing(self.zone, plumbed, self.clock, self.changes.append)

    async def turn(self, after: float = 0.0) -> dict[str, str]:
        self.clock.at += after
        self.probing.turn([Task(body(), POOL)])
        for _ in range(50):
            await asyncio.sleep(0)
        return {kind: verdict.status for kind, verdict in self.probing.look(body()).checks.items()}


async def test_a_look_finds_what_the_dns_and_the_way_out_say() -> None:
    bench = Bench()
    found = await bench.turn()
    assert (found[PTR], found[NOT_LISTED], found[PLUMBED]) == (TRUE, TRUE, TRUE)
    assert bench.changes == ["ip-1"]
    assert "1.2.0.192.bl.example" in bench.zone.asked


async def test_what_is_right_is_looked_at_again_after_its_interval() -> None:
    bench = Bench()
    await bench.turn()
    asked = len(bench.zone.asked)
    await bench.turn(after=299)
    assert len(bench.zone.asked) == asked
    await bench.turn(after=1)
    assert len(bench.zone.asked) > asked


async def test_a_lost_ptr_is_confirmed_soon() -> None:
    bench = Bench()
    await bench.turn()
    del bench.zone.said["1.2.0.192.in-addr.arpa", "PTR"]
    assert (await bench.turn(after=300))[PTR] == TRUE
    assert (await bench.turn(after=10))[PTR] == FALSE


async def test_an_outage_of_the_dns_is_not_known_and_not_no() -> None:
    bench = Bench()
    await bench.turn()
    bench.zone.away = True
    found = await bench.turn(after=300)
    assert (found[PTR], found[NOT_LISTED]) == (UNKNOWN, UNKNOWN)


async def test_a_new_leader_begins_with_what_the_status_remembers() -> None:
    condition = {"type": PTR, "status": "True", "reason": "Verified", "message": "", "lastTransitionTime": ""}
    look = Bench().probing.look(body(conditions=[condition], seenAddress="192.0.2.1"))
    assert (look.checks[PTR].status, look.seen) == (TRUE, "192.0.2.1")
