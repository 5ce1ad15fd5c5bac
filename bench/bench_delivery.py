"""Delivered mails per second, end to end, beside Postfix, Exim and Haraka in the same run.

    python bench/bench_delivery.py [--sizes 4,20,100] [--sessions 1,50] [--peers postfix,exim,haraka] [--bus embedded,kafka]

smtp-source submits over reused connections, each server relays to the same smtp-sink, and the clock stops when the sink
has the last mail. All servers are durable before they say 250. Ratios are what to read: the machine is noisy.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

import peers
from ports import free_port, wait_for_port
from relay import mailfleet


class Sink:
    """smtp-sink on a free port, counting what it got."""

    def __init__(self) -> None:
        self.port = free_port()
        self.count = 0
        self.process = subprocess.Popen(
            ["smtp-sink", "-u", "root", "-c", f"127.0.0.1:{self.port}", "2000"], stdout=subprocess.PIPE, bufsize=0
        )
        threading.Thread(target=self._read, daemon=True).start()
        wait_for_port(self.port)

    def _read(self) -> None:
        assert self.process.stdout
        while chunk := self.process.stdout.read(65536):
            if found := re.findall(rb"mesg=(\d+)", chunk):
                self.count = int(found[-1])

    def wait_for(self, count: int, seconds: float) -> bool:
        """True when `count` mails are in before the time is over or nothing came for 20 s."""
        until = last = time.monotonic()
        until += seconds
        seen = self.count
        while (now := time.monotonic()) < until:
            if self.count >= count:
                return True
            if self.count != seen:
                seen, last = self.count, now
            if now - last > 20:
                return False
            time.sleep(0.005)
        return False

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait()


@dataclass
class Row:
    """One measurement."""

    server: str
    size_kb: int
    sessions: int
    mails: int
    accepted_per_second: float
    delivered_per_second: float
    cpu_microseconds: dict[str, float]
    memory_mib: dict[str, float]
    lost: int


def submit(port: int, sessions: int, mails: int, size: int) -> float:
    """Send with smtp-source over connections that stay open; seconds it took."""
    began = time.monotonic()
    subprocess.run(
        ["smtp-source", "-d", "-s", str(sessions), "-m", str(mails), "-l", str(size), "-f", "a@example.com",
         "-t", "b@example.net", f"127.0.0.1:{port}"],
        check=True, stdout=subprocess.DEVNULL, timeout=600,
    )  # fmt: skip
    return time.monotonic() - began


def measure(name: str, running: peers.Running, sink: Sink, size_kb: int, sessions: int, mails: int) -> Row:
    """Warm up with a tenth, then measure."""
    warm = max(50, mails // 10)
    start = sink.count
    submit(running.port, sessions, warm, size_kb * 1024)
    sink.wait_for(start + warm, 60)
    before, start = running.cpu_seconds(), sink.count
    began = time.monotonic()
    accepted = submit(running.port, sessions, mails, size_kb * 1024)
    complete = sink.wait_for(start + mails, 180)
    took = time.monotonic() - began
    after = running.cpu_seconds()
    got = sink.count - start
    return Row(
        name, size_kb, sessions, mails, round(mails / accepted, 1), round(got / took, 1),
        {role: round((after[role] - before[role]) / max(got, 1) * 1e6) for role in after},
        {role: round(value) for role, value in running.memory_mib().items()},
        0 if complete else mails - got,
    )  # fmt: skip


def contender(name: str, directory: Path, sink_port: int) -> AbstractContextManager[peers.Running]:
    """The server called `name`, relaying to the sink."""
    if name.startswith("mailfleet-"):
        return mailfleet(directory, sink_port, name.removeprefix("mailfleet-"))
    return {"postfix": peers.postfix, "exim": peers.exim, "haraka": peers.haraka}[name](directory, sink_port)


def mails_for(size_kb: int, sessions: int, scale: float) -> int:
    """How many mails make a run of some seconds."""
    return max(100, int({4: 4000, 20: 3000}.get(size_kb, 1500) * (1.0 if sessions > 1 else 0.25) * scale))


def report(rows: list[Row]) -> None:
    """Print the table with ratios to Postfix in the same run."""
    print(
        f"{'size':>5} {'sess':>4}  {'server':<20} {'accepted/s':>10} {'delivered/s':>11} {'× Postfix':>9}  CPU µs per mail"
    )
    for size, sessions in sorted({(row.size_kb, row.sessions) for row in rows}):
        group = [row for row in rows if (row.size_kb, row.sessions) == (size, sessions)]
        base = [row.delivered_per_second for row in group if row.server == "postfix"]
        for name in dict.fromkeys(row.server for row in group):
            mine = [row for row in group if row.server == name]
            rate = statistics.median(row.delivered_per_second for row in mine)
            ratio = f"{rate / statistics.median(base):9.2f}" if base else " " * 9
            roles = mine[0].cpu_microseconds
            cpu = {role: round(statistics.median(row.cpu_microseconds[role] for row in mine)) for role in roles}
            note = f"  INCOMPLETE: {sum(row.lost for row in mine)} missing" if any(row.lost for row in mine) else ""
            accepted = statistics.median(row.accepted_per_second for row in mine)
            total = f" = {sum(cpu.values())}" if len(cpu) > 1 else ""
            print(f"{size:>3}KB {sessions:>4}  {name:<20} {accepted:>10.0f} {rate:>11.0f} {ratio}  {cpu}{total}{note}")


def main() -> None:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="4,20,100")
    parser.add_argument("--sessions", default="1,50")
    parser.add_argument("--servers", default="mailfleet-embedded,postfix,exim,haraka,mailfleet-kafka")
    parser.add_argument("--rounds", type=int, default=1, help="the servers take turns; medians are printed")
    parser.add_argument("--scale", type=float, default=1.0, help="times as many mails")
    parser.add_argument("--json", type=Path, help="append every row to this file")
    options = parser.parse_args()
    rows: list[Row] = []
    for _ in range(options.rounds):
        for name in options.servers.split(","):
            rows += run_server(name, options)
    report(rows)
    if options.json:
        with options.json.open("a") as file:
            file.writelines(json.dumps(asdict(row)) + "\n" for row in rows)


def run_server(name: str, options: argparse.Namespace) -> list[Row]:
    """All sizes and session counts for one server."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="mailfleet-bench-") as directory:
        sink = Sink()
        try:
            with contender(name, Path(directory) / name, sink.port) as running:
                for size in map(int, options.sizes.split(",")):
                    for sessions in map(int, options.sessions.split(",")):
                        row = measure(name, running, sink, size, sessions, mails_for(size, sessions, options.scale))
                        print(f"  {row}", file=sys.stderr, flush=True)
                        rows.append(row)
        except peers.Unavailable as error:
            print(f"{name}: left out; {error} adds it", file=sys.stderr)
        finally:
            sink.stop()
    return rows


if __name__ == "__main__":
    main()
