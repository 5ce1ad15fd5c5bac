"""Memory and disk under a steady load: are they flat?

    python bench/bench_soak.py [--minutes 10] [--rate 400] [--bus embedded]

Prints resident memory of every process and the size of the log, every half minute, and at the end the growth of each
over the second half. Bodies are freed some minutes after their mail ended, so the log grows at first and then stays.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from pathlib import Path

from bench_delivery import Sink
from peers import Running
from relay import mailfleet

BATCH_SECONDS = 5


def size_mib(directory: Path) -> float:
    """Bytes of all files below, MiB; files that go away meanwhile do not count."""
    total = 0
    for path in directory.rglob("*"):
        try:
            total += path.stat().st_blocks * 512
        except OSError:
            continue
    return total / 2**20


def batch(port: int, mails: int, size: int) -> None:
    """Submit some mails over 20 sessions."""
    command = ["smtp-source", "-d", "-s", "20", "-m", str(mails), "-l", str(size), "-f", "a@example.com"]
    subprocess.run([*command, "-t", "b@example.net", f"127.0.0.1:{port}"], check=True, stdout=subprocess.DEVNULL)


def soak(running: Running, sink: Sink, directory: Path, options: argparse.Namespace) -> list[dict[str, float]]:
    """Load for the time asked; a sample every half minute."""
    samples: list[dict[str, float]] = []
    began = next_sample = time.monotonic()
    sent = 0
    while (now := time.monotonic()) < began + 60 * options.minutes:
        if now >= next_sample:
            next_sample += 30
            sample = {"minute": (now - began) / 60, **running.memory_mib(), "disk": size_mib(directory / "log")}
            samples.append(sample)
            counts = f"sent {sent:>8} delivered {sink.count:>8}"
            print(counts, " ".join(f"{name}={value:.1f}" for name, value in sample.items()), flush=True)
        batch(running.port, options.rate * BATCH_SECONDS, options.size)
        sent += options.rate * BATCH_SECONDS
        time.sleep(max(0.0, now + BATCH_SECONDS - time.monotonic()))
    assert sink.wait_for(sent, 60), f"{sent - sink.count} mails are missing"
    return samples


def main() -> None:
    """Run it and say how flat it was."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--rate", type=int, default=400, help="mails per second")
    parser.add_argument("--size", type=int, default=4096, help="bytes")
    parser.add_argument("--bus", default="embedded")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mailfleet-soak-") as directory:
        sink = Sink()
        try:
            with mailfleet(Path(directory), sink.port, options.bus) as running:
                samples = soak(running, sink, Path(directory), options)
        finally:
            sink.stop()
    middle, last = samples[len(samples) // 2], samples[-1]
    for name in last:
        if name != "minute":
            print(f"{name:>8}: {middle[name]:8.1f} MiB at half time, {last[name]:8.1f} MiB at the end")


if __name__ == "__main__":
    main()
