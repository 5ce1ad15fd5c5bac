"""CPU per message of the sender: dispatches on the memory log, to Postfix' smtp-sink.

    python bench/bench_sender.py [size] [messages] [connections] [--profile file]

The memory log's own cost (dispatch read, body read, result written) is in the number.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import resource
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from mailfleet_core.bus import topics
from mailfleet_core.model import ids, wire
from support.sending import Sending, route, settings


async def main(options: argparse.Namespace, port: int) -> None:
    sending = Sending()
    line = b"x" * 76 + b"\r\n"
    content = b"From: a@example.com\r\nTo: b@example.net\r\nSubject: x\r\n\r\n" + line * (options.size // 78)
    sender, bus = sending.sender(settings(dot_seconds=60.0, mail_seconds=60.0, data_seconds=60.0))
    await bus.start()
    await sender.start()
    await asyncio.sleep(0.1)
    unit = await sending.unit(content=content)
    way = route(port, max_connections=options.connections, messages_per_connection=100_000)
    records = []
    for number in range(options.messages):
        key = ids.unit_id(ids.message_id(1.7e9, number.to_bytes(10, "big")), 0)
        fresh = wire.Unit(key, unit.site, unit.envelope, unit.recipients)
        records.append((key, wire.encode(wire.Dispatch(fresh, 1, 0, 1, "default", way))))
    window = 8 * options.connections
    warm = min(200, options.messages // 10)
    profile = cProfile.Profile() if options.profile else None
    used, began = 0.0, 0.0
    for number, (key, value) in enumerate(records):
        if number == warm:
            used, began = cpu(), time.perf_counter()
            if profile:
                profile.enable()
        sending.bus.append(topics.DISPATCH, 0, key, value)
        while number - done(sending) >= window:
            await asyncio.sleep(0.005)
    while done(sending) < options.messages:
        await asyncio.sleep(0.005)
    if profile:
        profile.disable()
        profile.dump_stats(options.profile)
    count = options.messages - warm
    spent, took = cpu() - used, time.perf_counter() - began
    print(f"{options.size} bytes: {count / took:.0f}/s, {spent / count * 1e6:.0f} us CPU per message")
    await sender.drain()


def done(sending: Sending) -> int:
    return len(sending.log._partitions[topics.RESULT, 0].records)


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("size", type=int, nargs="?", default=4096)
    parser.add_argument("messages", type=int, nargs="?", default=10_000)
    parser.add_argument("connections", type=int, nargs="?", default=20)
    parser.add_argument("--profile")
    arguments = parser.parse_args()
    sink = shutil.which("smtp-sink") or "/usr/sbin/smtp-sink"
    chosen = free_port()
    process = subprocess.Popen([sink, "-u", "nobody", "-c", f"127.0.0.1:{chosen}", "1000"], stdout=subprocess.DEVNULL)
    try:
        time.sleep(0.3)
        uvloop.run(main(arguments, chosen))
    finally:
        process.terminate()
