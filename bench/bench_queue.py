"""A partition with a long queue: decisions a second, memory a unit, how long a new owner takes, how late due mail goes.

`python bench/bench_queue.py [--queued 10000,1000000,10000000] [--fold 1000000] [--purge 1000000] [--late SECONDS]`.
A decision is: a ready unit chosen by turns of tenants and streams, a source chosen, limits taken (a policy with limits of all
kinds, too high to bind), the attempt's record and the dispatch encoded. Reading mail, answers and the log are not in it.
Each measurement runs in a process of its own; memory is the resident size before and after.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import uvloop

from bench_router import SETTINGS, Dns
from mailfleet_core.bus import topics
from mailfleet_core.bus.memory import MemoryBus, MemoryLog
from mailfleet_core.clock import SystemClock
from mailfleet_core.model import ids, wire
from mailfleet_core.model.site import partition_of, site_name
from mailfleet_core.model.tags import CLAIM, PUT, tag
from mailfleet_core.service import Context
from mailfleet_core.settings import SettingsFile
from mailfleet_router.decisions.outbox import Append
from mailfleet_router.decisions.partition import Partition
from mailfleet_router.decisions.policy import Ladder, Policy
from mailfleet_router.decisions.routing import Routing
from mailfleet_router.decisions.shaping import policy_file
from mailfleet_router.decisions.shaping.control import Command, Controls
from mailfleet_router.decisions.shaping.rules import Rules
from mailfleet_router.decisions.spill.space import Room, Spill
from mailfleet_router.settings import RouterSettings
from mailfleet_router.shell.service import Router
from mailfleet_router.shell.spill_file import SpillFile
from mailfleet_router.shell.traffic import shipped

SITES = 1000
TENANTS = 20
DECISIONS = 100_000
LIMITS = """
version: 1
limits:
  - {name: paths, per: [source, site], cases: [{message_rate: 10000/s, burst: 10000, concurrency: 100}]}
  - {name: tenants, per: [tenant, site], cases: [{message_rate: 10000/s, burst: 10000}]}
  - {name: windows, per: [site], cases: [{window: 1000}]}
"""
SOURCES = tuple(f"ip-{number}" for number in range(8))

Record = tuple[int, bytes, bytes, bytes | None]


@cache
def site_of(domain: str) -> str:
    """Where the mail of a domain waits."""
    return site_name([f"mx.{domain}"])


def unit(number: int, now: float, due_at: float = 0.0) -> tuple[bytes, bytes]:
    """Key and bytes of a queued mail of 4 KB."""
    domain = f"d{number * 7919 % SITES}.example"
    message = ids.message_id(now, number.to_bytes(10, "big"))
    stream = "transactional" if number % 10 == 0 else "bulk"
    envelope = wire.Envelope(
        message_id=message, reverse_path=f"bounces+{number}@mail.customer.example", tenant=f"tenant-{number % TENANTS}",
        stream=stream, pool="default", body=wire.BodyRef(number % 4, (number * 5000,), 4096), accepted_at=now,
        expires_at=now + 432000, header_message_id=f"<{number:032x}@mail.customer.example>", client="192.0.2.17",
    )  # fmt: skip
    site = site_of(domain)
    recipient = wire.Recipient(0, f"some.body{number}@{domain}")
    entry = wire.Entry(wire.Unit(ids.unit_id(message, 0), site, envelope, (recipient,)), due_at=due_at)
    return entry.unit.unit_id, wire.encode(entry)


def resident() -> int:
    """Bytes of this process in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


class Owned:
    """One owned partition; what it wants is answered at once."""

    def __init__(self, now: float, memory_units: int, folded: Iterable[list[Record]] = ()) -> None:
        rules = Rules(policy_file.over(policy_file.read(LIMITS, "bench"), shipped()))
        policy = Policy(
            ladders={"bulk": Ladder(), "transactional": Ladder()}, pools={"default": tuple((name, 1) for name in SOURCES)},
            lanes={name: (lane,) for lane, name in enumerate(SOURCES)}, shaping=rules,
        )  # fmt: skip
        self.now, self.offset, self.results = now, 1, 0
        routing = Routing(policy)
        for number in range(SITES):
            routing.answered(f"d{number}.example", "mx", ((10, f"mx.d{number}.example"),), now)
        spill = Spill(Room(memory_units), SpillFile(RouterSettings().spill_directory))
        self.controls = Controls()
        self.partition = Partition(0, 1, policy, routing, self.controls, spill=spill)
        self.partition.claimed(1 << 40, 0)
        self.folding = 0.0
        for records in folded:
            began = time.thread_time()
            self.partition.fold(records, now)
            self.folding += time.thread_time() - began
        began = time.thread_time()
        self.partition.fold([(1 << 40, b"!epoch", tag(CLAIM), b"")], now)
        self.partition.restore(now)
        self.partition.resume(now)
        self.live = self.folding + time.thread_time() - began
        self.offset = (1 << 40) + 1

    def put(self, numbers: range) -> float:
        """New mail comes; the CPU seconds that it took."""
        records: list[Record] = []
        for number in numbers:
            key, value = unit(number, self.now)
            records.append((self._next(), key, tag(PUT), value))
        began = time.thread_time()
        self.partition.fold(records, self.now)
        took = time.thread_time() - began
        self.partition.take()
        return took

    def decide(self) -> tuple[int, float]:
        """One turn: (decisions, CPU seconds). Everything that was sent is delivered before the next."""
        self.now += 0.05
        began = time.thread_time()
        self.partition.tick(self.now)
        took = time.thread_time() - began
        attempts = deque(self.partition.take().own)
        decisions = len(attempts)
        self._answer(attempts)
        return decisions, took

    def _answer(self, own: deque[Append]) -> None:
        partition = self.partition
        while own:
            partition.fold([(self._next(), each.key, each.tag, each.value) for each in own], self.now)
            out = partition.take()
            partition.durable(out.batch)
            if out.dispatches:
                partition.results([self._delivered(each) for each in out.dispatches], self.now)
            again = partition.take()
            partition.durable(again.batch)
            last = partition.take()
            own = deque((*out.own, *again.own, *last.own))

    def purge(self) -> float:
        """One command ends all mail of a campaign's tenants, and every sender hears of it; the CPU seconds until nothing is
        left. What the partition writes is durable and read at once."""
        partition = self.partition
        began = time.thread_time()
        self.controls.set("purge", Command("purge", "bounce", (("pool", "default"),), "wrong list", "bench", self.now))
        partition.commanded(self.now)
        while len(partition.ledger):
            self.now += 0.01
            partition.tick(self.now)
            while (out := partition.take()).own or out.events or out.reports:
                partition.durable(out.batch)
                for report in out.reports:
                    partition.carried_out(report.token)
                partition.fold([(self._next(), each.key, each.tag, each.value) for each in out.own], self.now)
        return time.thread_time() - began

    def _delivered(self, dispatch: Append) -> Record:
        work = wire.decode(wire.Dispatch, dispatch.value or b"")
        outcome = (wire.RecipientOutcome(0, wire.DELIVERED, 250, "2.0.0", "2.0.0 Ok: queued as 4F6C21A0B3", "dot"),)
        result = wire.Result(dispatch.key, 0, work.attempt, wire.SETTLED, work.source, self.now, self.now, outcome)
        self.results += 1
        return self.results - 1, dispatch.key, tag(PUT), wire.encode(result)

    def _next(self) -> int:
        self.offset += 1
        return self.offset


def queued(units: int, memory_units: int) -> dict[str, float]:
    """Decisions a second with so many queued, and what a unit takes in memory."""
    owned = Owned(time.time(), memory_units)
    before, filling = resident(), 0.0
    for start in range(0, units, 1000):
        filling += owned.put(range(start, min(units, start + 1000)))
        if start and start % 1_000_000 == 0:
            print(f"  {start:,} of {units:,} are queued, {resident() >> 20} MB", file=sys.stderr, flush=True)
    after, came = resident(), units
    decisions, spent = 0, 0.0
    gc.freeze()
    while decisions < DECISIONS:
        made, took = owned.decide()
        decisions, spent = decisions + made, spent + took
        owned.put(range(came, came + made))
        came += made
    return {
        "per_second": decisions / spent, "bytes": (after - before) / units, "resident": after, "put": filling / units,
        "in_memory": len(owned.partition.ledger.units),
    }  # fmt: skip


def fold(units: int, memory_units: int) -> dict[str, float]:
    """How long a new owner takes from the first record to live, without reading the log."""
    now = time.time()

    def records() -> Iterator[list[Record]]:
        for start in range(0, units, 1000):
            batch = [(number, *unit(number, now)) for number in range(start, min(units, start + 1000))]
            yield [(number + 2, key, tag(PUT), value) for number, key, value in batch]

    owned = Owned(now, memory_units, records())
    assert len(owned.partition.ledger) == units
    return {"per_second": units / owned.folding, "seconds": owned.live}


def purge(units: int, memory_units: int) -> dict[str, float]:
    """How long one command takes to end so many mails."""
    owned = Owned(time.time(), memory_units)
    for start in range(0, units, 1000):
        owned.put(range(start, min(units, start + 1000)))
    gc.freeze()
    seconds = owned.purge()
    return {"seconds": seconds, "per_second": units / seconds}


async def late(seconds: float, per_second: float) -> dict[str, float]:
    """Milliseconds from due to dispatched (in the log), by a whole router on the memory log, with so many a second."""
    memory = MemoryLog(4, 1)
    bus, mine = MemoryBus(memory, "world"), MemoryBus(memory, "router")
    await bus.start()
    await mine.start()
    router = Router(Context("router", "bench", SettingsFile(SETTINGS, "bench", {}), mine, SystemClock()), Dns())
    await router.start()
    while not (len(router.owners) == 4 and router.ready):
        await asyncio.sleep(0.01)
    waits: list[float] = []
    due: dict[bytes, float] = {}
    sender = asyncio.create_task(_send(bus, due, waits))
    # All domains have been asked for and all sites have been used once: this is not the first second of a process.
    count, warm = int(seconds * per_second), SITES
    for number in range(warm):
        await _come(bus, number, 0.0)
    while len(waits) < warm:
        await asyncio.sleep(0.05)
    waits.clear()
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)  # as services do
    first = time.time() + 5.0 + count * 100e-6
    for number in range(warm, warm + count):
        at = first + random.random() * seconds
        due[await _come(bus, number, at)] = at
    began_late = time.time() - first
    while len(waits) < count:
        await asyncio.sleep(0.05)
    sender.cancel()
    await router.drain()
    waits.sort()
    assert began_late < 0, f"the mail came {began_late:.1f} s too late"
    return {"p50": waits[len(waits) // 2] * 1e3, "p99": waits[len(waits) * 99 // 100] * 1e3, "most": waits[-1] * 1e3}


async def _come(bus: MemoryBus, number: int, due_at: float) -> bytes:
    key, value = unit(number, time.time(), due_at)
    home = partition_of(wire.decode(wire.Entry, value).unit.site, 4)
    bus.append(topics.QUEUE, home, key, value, topics.tag(topics.PUT))
    if number % 50 == 0:
        await asyncio.sleep(0)
    return key


async def _send(bus: MemoryBus, due: dict[bytes, float], waits: list[float]) -> None:
    outcome = (wire.RecipientOutcome(0, wire.DELIVERED, 250, "2.0.0", "2.0.0 Ok: queued as 4F6C21A0B3", "dot"),)
    async for batch in bus.tail(topics.DISPATCH, 0, 0):
        now = time.time()
        for record in batch:
            waits.append(now - due.get(record.key, now))
            work = wire.decode(wire.Dispatch, record.value or b"")
            result = wire.Result(record.key, 0, work.attempt, wire.SETTLED, work.source, now, now, outcome)
            bus.append(topics.RESULT, work.queue_partition, record.key, wire.encode(result), topics.tag(topics.PUT))


def alone(*words: object) -> dict[str, float]:
    """One measurement, in a process of its own."""
    done = subprocess.run([sys.executable, __file__, "--one", *map(str, words)], stdout=subprocess.PIPE, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def report(options: argparse.Namespace) -> None:
    """Everything, one measurement after the other."""
    first = 0.0
    for units in map(int, options.queued.split(",")):
        found = alone("queued", units, options.memory_units)
        first = first or found["per_second"]
        print(f"{units:>10,} queued: {found['per_second']:,.0f} decisions a core and second, {first / found['per_second']:.2f} ×"
              f" the cost of the first; {found['bytes']:.0f} bytes a unit, {found['resident'] / 1e6:,.0f} MB in all;"
              f" {found['put'] * 1e6:.0f} µs to take a mail in, {found['in_memory']:,.0f} in memory", flush=True)  # fmt: skip
    if options.fold:
        found = alone("fold", options.fold, options.memory_units)
        print(
            f"{options.fold:>10,} folded: {found['per_second']:,.0f} units a second, live after {found['seconds']:.1f} s",
            flush=True,
        )
    if options.purge:
        found = alone("purge", options.purge, options.memory_units)
        print(
            f"{options.purge:>10,} ended by one command, each sender told: {found['seconds']:.1f} s of CPU,"
            f" {found['per_second']:,.0f} a second",
            flush=True,
        )
    if options.late:
        found = alone("late", options.late, options.half)
        print(
            f"due to dispatched with {options.half:,.0f} mails a second: p50 {found['p50']:.1f} ms, p99 {found['p99']:.1f} ms,"
            f" at most {found['most']:.0f} ms"
        )


def one(what: str, number: float, other: float) -> dict[str, float]:
    """The measurement that `alone` asked for."""
    if what == "late":
        return uvloop.run(late(number, other))
    return {"queued": queued, "fold": fold, "purge": purge}[what](int(number), int(other))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(one(sys.argv[2], float(sys.argv[3]), float(sys.argv[4]))))
    else:
        parser = argparse.ArgumentParser(description="A partition with a long queue.")
        parser.add_argument("--queued", default="10000,1000000,10000000", help="how many units wait")
        parser.add_argument("--fold", type=int, default=1_000_000, help="units that a new owner folds; 0: none")
        parser.add_argument("--purge", type=int, default=1_000_000, help="units that one command ends; 0: none")
        parser.add_argument("--late", type=float, default=10.0, help="seconds of due mail; 0: none")
        parser.add_argument("--half", type=float, default=3000.0, help="mails a second that become due")
        parser.add_argument("--memory-units", type=int, default=RouterSettings().memory_units)
        report(parser.parse_args())
