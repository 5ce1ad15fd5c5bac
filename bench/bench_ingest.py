"""What one accepted message costs ingest: CPU microseconds by size, and how many a second.

`python bench/bench_ingest.py` runs the service in a process of its own, on a log that forgets (ingest alone) or on the
embedded log (`--bus embedded`: with a log process, every message synced), and sends from this process on reused
connections, one command at a time as smtp-source does, or pipelined. `--profile` prints the server's hot spots.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import json
import pstats
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import uvloop

from mailfleet_core import logs
from mailfleet_core.bus import topics
from mailfleet_core.bus.port import Bus, Record
from mailfleet_core.clock import SystemClock
from mailfleet_core.service import Context
from mailfleet_core.settings import BusSettings, SettingsFile
from mailfleet_ingest.shell.service import Ingest


class ForgetfulBus:
    """Acknowledges everything at the end of the loop's turn and keeps nothing."""

    in_flight_bytes = 0
    healthy = True

    def __init__(self) -> None:
        self._topics = topics.topics(4, 16, 86_400)
        self._waiting: list[asyncio.Future[int]] = []
        self._offset = 0

    def partitions(self, topic: str) -> int:
        return self._topics[topic].partitions

    def append(
        self, topic: str, partition: int, key: bytes, value: bytes | None, tag: bytes = b""
    ) -> asyncio.Future[int]:
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._acknowledge)
        future = loop.create_future()
        self._waiting.append(future)
        return future

    place = append

    def _acknowledge(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            self._offset += 1
            future.set_result(self._offset)

    async def tail(self, topic: str, partition: int, start: int) -> AsyncIterator[list[Record]]:
        await asyncio.get_running_loop().create_future()
        yield []

    async def close(self) -> None:
        pass


async def serve(bus_kind: str, directory: str) -> None:
    """Run ingest until SIGTERM, then print what it used."""
    bus: Bus = ForgetfulBus()  # type: ignore[assignment]
    if bus_kind == "embedded":
        from mailfleet_core.bus.embedded import EmbeddedBus

        bus = EmbeddedBus(BusSettings(directory=directory), "bench")
        await bus.start()
    raw = {"hostname": "mx.example", "listeners": [{"port": 0}]}
    service = Ingest(Context("ingest", "bench", SettingsFile({"ingest": raw}, "bench", {}), bus, SystemClock()))
    await service.start()
    print(service.ports["trusted"], flush=True)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    before: list[float] = []
    loop.add_signal_handler(signal.SIGUSR1, lambda: before.append(used_seconds()))
    await stop.wait()
    print(json.dumps({"cpu_seconds": used_seconds() - before[-1], "rss_kb": rss_kb()}), flush=True)
    await service.drain()
    await bus.close()


def used_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def rss_kb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class Sender(asyncio.Protocol):
    """One session that sends mails until there are no more to send."""

    def __init__(self, work: list[int], content: bytes, pipelined: bool, done: asyncio.Future[None]) -> None:
        envelope = [b"MAIL FROM:<a@b.example>\r\n", b"RCPT TO:<c@d.example>\r\n", b"DATA\r\n"]
        self._steps = [b"".join(envelope), content] if pipelined else [*envelope, content]
        self._replies = [3, 1] if pipelined else [1, 1, 1, 1]
        self._work, self._done = work, done
        self._step, self._due = -1, 1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._due -= sum(line[3:4] == b" " for line in data.split(b"\r\n"))
        if data[:1] not in b"23":
            self._done.set_exception(RuntimeError(data.decode()))
        if self._due:
            return
        if self._step == -1:
            self._step, self._due = -2, 1
            self._transport.write(b"EHLO bench.example\r\n")
            return
        self._step = 0 if self._step == -2 else (self._step + 1) % len(self._steps)
        if self._step == 0:
            if not self._work:
                self._transport.close()
                if not self._done.done():
                    self._done.set_result(None)
                return
            self._work.pop()
        self._due = self._replies[self._step]
        self._transport.write(self._steps[self._step])


async def send(port: int, sessions: int, count: int, size: int, pipelined: bool) -> float:
    """Send `count` mails of `size` bytes; the seconds it took."""
    line = b"x" * 70 + b"\r\n"
    content = (
        b"Subject: bench\r\nFrom: <a@b.example>\r\nTo: <c@d.example>\r\n\r\n" + line * (size // len(line)) + b".\r\n"
    )
    loop = asyncio.get_running_loop()
    work = list(range(count))
    started = time.perf_counter()
    ended = []
    for _ in range(sessions):
        done = loop.create_future()
        ended.append(done)
        await loop.create_connection(lambda done=done: Sender(work, content, pipelined, done), "127.0.0.1", port)  # type: ignore[misc]
    await asyncio.gather(*ended)
    return time.perf_counter() - started


def run(options: argparse.Namespace, size: int, sessions: int) -> None:
    """One measurement, printed."""
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        log = None
        if options.bus == "embedded":
            log = subprocess.Popen([sys.executable, "-m", "mailfleet_core.bus.logd", "--directory", directory])
        command = [sys.executable, __file__, "--serve", directory, "--bus", options.bus]
        server = subprocess.Popen(
            [*command, *(["--profile"] if options.profile else [])], stdout=subprocess.PIPE, text=True
        )
        assert server.stdout is not None
        port = int(server.stdout.readline())
        count = options.count or max(1000, min(20_000, 200_000_000 // size))
        uvloop.run(send(port, sessions, count // 10, size, options.pipelined))
        server.send_signal(signal.SIGUSR1)
        time.sleep(0.1)
        seconds = uvloop.run(send(port, sessions, count, size, options.pipelined))
        server.terminate()
        used = json.loads(server.stdout.readline())
        print(
            f"{options.bus:9} {size / 1000:5.0f} KB {sessions:3} sessions {count / seconds:7.0f}/s"
            f" {used['cpu_seconds'] / count * 1e6:6.0f} µs CPU per message, {used['rss_kb'] // 1024} MB",
            flush=True,
        )
        sys.stdout.write(server.stdout.read())
        server.wait()
        if log is not None:
            log.terminate()
            log.wait()


def main() -> None:
    """Measure what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bus", default="none", choices=["none", "embedded"])
    parser.add_argument("--sizes", type=int, nargs="*", default=[4_000, 20_000, 100_000])
    parser.add_argument("--sessions", type=int, nargs="*", default=[50])
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--pipelined", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--directory", default=None, type=Path, help="where the embedded log lies")
    parser.add_argument("--serve", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.serve:
        for size in options.sizes:
            for sessions in options.sessions:
                run(options, size, sessions)
        return
    logs.setup("ingest", "console", "warning")
    sys.setswitchinterval(0.0005)
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    profile = cProfile.Profile() if options.profile else None
    if profile is not None:
        profile.enable()
    uvloop.run(serve(options.bus, options.serve))
    if profile is not None:
        profile.disable()
        pstats.Stats(profile, stream=sys.stdout).sort_stats("tottime").print_stats(30)


if __name__ == "__main__":
    main()
