"""One child process: started so that it dies with us, its lines passed on under its name."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from collections import deque
from collections.abc import Mapping

from mailfleet_cli.plan import Process

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_LINE_BYTES = 1 << 20


def die_with(parent: int) -> None:
    """Ask the kernel to kill this process when its parent is gone, however it went."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it went before we could ask
        os._exit(1)


async def spawn(spec: Process, environment: Mapping[str, str]) -> asyncio.subprocess.Process:
    """Start it in a session of its own, so that Ctrl-C reaches only us and the order of stopping is ours."""
    parent = os.getpid()
    return await asyncio.create_subprocess_exec(
        *spec.command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=dict(environment),
        start_new_session=True,
        preexec_fn=lambda: die_with(parent),
        limit=_LINE_BYTES,
    )


async def pass_on(name: str, stream: asyncio.StreamReader, last_lines: deque[str], prefix: bool) -> None:
    """Write the child's lines to our standard error, whole; JSON lines stay as they are."""
    while True:
        try:
            line = await stream.readline()
        except ValueError:  # a line beyond the limit: dropped by the reader
            continue
        if not line:
            return
        text = line.decode("utf-8", "backslashreplace").rstrip("\n")
        last_lines.append(text)
        sys.stderr.write(f"{name:<9} {text}\n" if prefix and not text.startswith("{") else f"{text}\n")
        sys.stderr.flush()


async def answers(ready_at: str) -> bool:
    """Does the process say that it is ready?"""
    try:
        async with asyncio.timeout(2):
            if ready_at.startswith("http://"):
                return await _http_ok(ready_at)
            _, writer = await _connect(ready_at)
            writer.close()
            return True
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return False


async def _connect(where: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if where.startswith("unix:"):
        return await asyncio.open_unix_connection(where.removeprefix("unix:"))
    host, _, port = where.removeprefix("tcp:").rpartition(":")
    return await asyncio.open_connection(host.strip("[]"), int(port))


async def _http_ok(url: str) -> bool:
    _, _, where, path = url.split("/", 3)
    reader, writer = await _connect(f"tcp:{where}")
    try:
        writer.write(f"GET /{path} HTTP/1.1\r\nHost: {where}\r\nConnection: close\r\n\r\n".encode())
        return b" 200 " in await reader.readline()
    finally:
        writer.close()
