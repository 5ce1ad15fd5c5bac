"""What the embedded log costs, beside a group-committing SQLite writer (WAL, synchronous=FULL) in the same run.

usage: python bench/bench_log.py [--seconds 3] [--directory DIR]; prints a table and the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import multiprocessing
import os
import shutil
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop

from mailfleet_core.bus.topics import BODY, EVENTS, QUEUE, RESULT

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from support.embedded_bus import LogProcess

Append = Callable[[str, int, bytes, bytes], Awaitable[Any]]
CASES = [(300, 50), (300, 500), (4_000, 50), (100_000, 50)]
STATE_BYTES = 330


def cpu_of(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class SqliteLog:
    """The baseline: one writer thread in the same process, one commit for all that waits."""

    def __init__(self, directory: Path) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: collections.deque[tuple[int, bytes, bytes, asyncio.Future[int]]] = collections.deque()
        self._wake = threading.Event()
        self._running = True
        self._path = directory / "log.db"
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def append(self, topic: str, partition: int, key: bytes, value: bytes) -> asyncio.Future[int]:
        """One durable row."""
        future: asyncio.Future[int] = self._loop.create_future()
        self._waiting.append((partition, key, value, future))
        self._wake.set()
        return future

    def close(self) -> None:
        """End the thread."""
        self._running = False
        self._wake.set()
        self._thread.join()

    def _work(self) -> None:
        database = sqlite3.connect(self._path, isolation_level=None)
        for pragma in ("page_size=8192", "journal_mode=wal", "synchronous=full", "wal_autocheckpoint=4000"):
            database.execute(f"pragma {pragma}")
        database.execute("create table log (id integer primary key, partition int, at int, key blob, value blob)")
        database.execute("create unique index place on log (partition, at)")
        number = 0
        while self._running:
            self._wake.wait()
            self._wake.clear()
            group = [self._waiting.popleft() for _ in range(min(len(self._waiting), 2000))]
            if not group:
                continue
            rows = []
            for partition, key, value, _ in group:
                number += 1
                rows.append((partition, number, key, value))
            database.execute("begin immediate")
            database.executemany("insert into log (partition, at, key, value) values (?, ?, ?, ?)", rows)
            database.execute("commit")
            self._loop.call_soon_threadsafe(self._done, group)
            if self._waiting:
                self._wake.set()
        database.close()

    def _done(self, group: list[tuple[int, bytes, bytes, asyncio.Future[int]]]) -> None:
        for number, (_, _, _, future) in enumerate(group):
            future.set_result(number)


async def load(append: Append, topic: str, size: int, at_once: int, seconds: float) -> tuple[int, float, float]:
    """(records, seconds, CPU seconds of this process) of `at_once` writers that wait for each of their appends."""
    value, count, end = os.urandom(size), 0, time.perf_counter() + seconds

    async def writer(number: int) -> None:
        nonlocal count
        while time.perf_counter() < end:
            await append(topic, number % 4, b"k" * 18, value)
            count += 1

    cpu, started = time.process_time(), time.perf_counter()
    await asyncio.gather(*[writer(number) for number in range(at_once)])
    return count, time.perf_counter() - started, time.process_time() - cpu


async def compare(directory: Path, seconds: float) -> None:
    """Both logs, the same appends."""
    print(
        f"{'bytes':>7} {'at once':>7} | {'embedded/s':>10} {'client µs':>9} {'log µs':>7} | {'sqlite/s':>8} {'µs':>5} | ratio"
    )
    for size, at_once in CASES:
        log = LogProcess(directory / f"embedded-{size}-{at_once}", {}, [])
        await log.restart()
        bus = await log("bench")
        topic = BODY if size >= 4000 else QUEUE
        before = cpu_of(log.pid)
        count, took, cpu = await load(bus.append, topic, size, at_once, seconds)
        server = cpu_of(log.pid) - before
        await log.close()
        base = SqliteLog(directory)
        base_count, base_took, base_cpu = await load(base.append, topic, size, at_once, seconds)
        base.close()
        for path in directory.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        rate, base_rate = count / took, base_count / base_took
        print(
            f"{size:7} {at_once:7} | {rate:10.0f} {cpu / count * 1e6:9.1f} {server / count * 1e6:7.1f} |"
            f" {base_rate:8.0f} {base_cpu / base_count * 1e6:5.0f} | {rate / base_rate:.2f}"
        )


def _process(role: str, directory: str, mails: int, at_once: int, output: Any) -> None:
    output.put((role, *uvloop.run(_part(role, Path(directory), mails, at_once))))


async def _part(role: str, directory: Path, mails: int, at_once: int) -> tuple[float, int]:
    """What ingest, router and sender append for each mail, and the tails that start the next of them."""
    bus = await LogProcess(directory, {}, [])(role)
    records, value, body = 0, os.urandom(STATE_BYTES), os.urandom(4000)
    cpu = time.process_time()

    async def follow(topic: str, step: Callable[[int], Awaitable[None]]) -> None:
        """Do `step` for each record of a partition 0 … 3 of `topic`, `mails` in all."""
        nonlocal records
        left, done = mails, asyncio.Event()

        async def one(partition: int) -> None:
            nonlocal left, records
            async for batch in bus.tail(topic, partition, 0):
                records += len(batch)
                mine = [record for record in batch if record.key == role.encode()]
                await asyncio.gather(*[step(partition) for _ in mine])
                left -= len(mine)
                if left <= 0:
                    done.set()

        tasks = [asyncio.ensure_future(one(partition)) for partition in range(4)]
        await done.wait()
        for task in tasks:
            task.cancel()

    async def put(topic: str, partition: int, to: str, data: bytes = value) -> None:
        nonlocal records
        records += 1
        await bus.append(topic, partition, to.encode(), data)

    async def accept(number: int) -> None:
        await bus.place(BODY, number % 4, b"", body)
        await asyncio.gather(put(QUEUE, number % 4, "router"), put(EVENTS, number % 4, ""))

    async def deliver(partition: int) -> None:
        await put(RESULT, partition, "settle")

    async def route(partition: int) -> None:
        await put(QUEUE, partition, "")
        await put("mail.dispatch", partition, "sender")
        await asyncio.gather(put(QUEUE, partition, ""), put(EVENTS, partition, ""))

    if role == "ingest":
        turn = iter(range(mails))

        async def client() -> None:
            for number in turn:
                await accept(number)

        await asyncio.gather(*[client() for _ in range(at_once)])
    elif role == "router":
        await follow(QUEUE, route)
    else:
        await follow("mail.dispatch", deliver)
    await bus.close()
    return time.process_time() - cpu, records


async def mail(directory: Path, mails: int, at_once: int) -> None:
    """One mail as the cluster writes it: a body of 4 KB and 7 small records by three processes that tail each other."""
    where = directory / f"mail-{at_once}"
    log = LogProcess(where, {}, [])
    await log.restart()
    await log("warm-up")
    context = multiprocessing.get_context("spawn")
    output = context.SimpleQueue()
    parts = [
        context.Process(target=_process, args=(role, str(where), mails, at_once, output))
        for role in ("router", "sender", "ingest")
    ]
    before, started = cpu_of(log.pid), time.perf_counter()
    for part in parts:
        part.start()
    found = [await asyncio.to_thread(output.get) for _ in parts]
    took, server = time.perf_counter() - started, cpu_of(log.pid) - before
    for part in parts:
        part.join()
    await log.close()
    clients = ", ".join(
        f"{role} {cpu / mails * 1e6:.0f} µs ({cpu / count * 1e6:.1f} a record)" for role, cpu, count in sorted(found)
    )
    print(
        f"mail, {at_once} at once: {mails / took:.0f}/s, start-up included, log process {server / mails * 1e6:.0f} µs a mail;"
        f" {clients}"
    )


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--mails", type=int, default=10_000)
    parser.add_argument("--directory", default=None, help="on the disk to measure")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        uvloop.run(compare(Path(directory), options.seconds))
        for at_once in (5, 50, 500):
            uvloop.run(mail(Path(directory), options.mails, at_once))


if __name__ == "__main__":
    main()
