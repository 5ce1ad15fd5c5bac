"""What the egress proxy costs: connections and bytes through it, beside the same without it, and CPU of its process.

python bench/bench_egress.py [--connections 2000] [--at-once 50] [--kilobytes 4 100]
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import uvloop

from mailfleet_core.socks.connecting import Door, source_socket
from mailfleet_core.socks.proxy import Proxy
from ports import free_port, wait_for_port

SOURCE, BANNER, ANSWER = "127.0.0.7", b"220 mx ESMTP\r\n", b"250 taken\r\n"
Connect = Callable[[], Awaitable[socket.socket]]


class Figures(NamedTuple):
    per_second: float
    proxy_cpu_ms: float
    """For each connection."""


def receive(port: int) -> None:
    """A server that greets, takes what comes up to an empty end, and answers; in a process of its own."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(BANNER)
        head = await reader.read(4)  # none from who only looks whether somebody listens
        size = int.from_bytes(head, "big")
        while size > 0:
            size -= len(await reader.read(min(size, 1 << 16)))
        writer.write(ANSWER)
        await reader.read()
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", port, backlog=1024)
        await server.serve_forever()

    uvloop.run(run())


async def one(connect: Connect, body: bytes) -> None:
    sock = await connect()
    reader, writer = await asyncio.open_connection(sock=sock)
    assert await reader.readexactly(len(BANNER)) == BANNER
    writer.write(len(body).to_bytes(4, "big") + body)
    await writer.drain()
    assert await reader.readexactly(len(ANSWER)) == ANSWER
    writer.close()
    await writer.wait_closed()


async def measured(connect: Connect, body: bytes, connections: int, at_once: int, proxy: int) -> Figures:
    left = iter(range(connections))

    async def session() -> None:
        for _ in left:
            await one(connect, body)

    began, cpu = time.perf_counter(), seconds_of(proxy)
    await asyncio.gather(*(session() for _ in range(at_once)))
    seconds = time.perf_counter() - began
    return Figures(connections / seconds, (seconds_of(proxy) - cpu) / connections * 1000)


def seconds_of(pid: int) -> float:
    """CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def compare(port: int, proxy_port: int, proxy: int, options: argparse.Namespace) -> None:
    door = Door(Proxy("127.0.0.1", proxy_port, "bench"), "secret")

    async def directly() -> socket.socket:
        sock = source_socket(SOURCE)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        return sock

    async def through() -> socket.socket:
        return await door.connected(SOURCE, "127.0.0.1", port)

    for kilobytes in options.kilobytes:
        body = os.urandom(kilobytes << 10)
        await measured(through, body, 200, options.at_once, proxy)  # both processes are warm
        plain = await measured(directly, body, options.connections, options.at_once, proxy)
        proxied = await measured(through, body, options.connections, options.at_once, proxy)
        ratio = proxied.per_second / plain.per_second
        print(
            f"{kilobytes:6} KB: direct {plain.per_second:7.0f}/s, through the proxy {proxied.per_second:7.0f}/s "
            f"(x {ratio:.2f}), proxy {proxied.proxy_cpu_ms:.2f} ms CPU a connection"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=2000)
    parser.add_argument("--at-once", type=int, default=50)
    parser.add_argument("--kilobytes", type=int, nargs="+", default=[4, 100, 4096])
    options = parser.parse_args()
    port, proxy_port = free_port(), free_port()
    receiver = multiprocessing.Process(target=receive, args=(port,), daemon=True)
    receiver.start()
    with tempfile.TemporaryDirectory() as directory:
        users = Path(directory) / "users"
        users.write_text("bench:secret\n")
        config = Path(directory) / "egress.toml"
        config.write_text(
            f'[egress_proxy]\nport = {proxy_port}\naddresses = ["{SOURCE}"]\nports = [{port}]\n'
            f'allowed_inside = ["127.0.0.0/8"]\nusers_file = "{users}"\n[logs]\nlevel = "warning"\n'
        )
        proxy = subprocess.Popen([sys.executable, "-m", "mailfleet_egress", "--config", str(config)])
        try:
            for each in (port, proxy_port):
                wait_for_port(each)
            uvloop.run(compare(port, proxy_port, proxy.pid, options))
        finally:
            proxy.terminate()
            proxy.wait()
            receiver.terminate()


if __name__ == "__main__":
    main()
