"""A proxy in the middle of a path, which can fall silent for some processes: what a cut network looks like to them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

Address = str | tuple[str, int]
"""The path of a Unix socket, or host and port."""
Who = Callable[[], Mapping[int, str]]
"""Process id → name, of the processes that may be cut off."""
CHUNK = 1 << 16


class Proxy:
    """Passes bytes on; those of processes that are cut off wait, in both directions, until the cut is mended."""

    def __init__(self, ways: Mapping[Address, Address], who: Who) -> None:
        self._ways, self._who = ways, who
        self._cut: Collection[str] = ()
        self._loop = asyncio.new_event_loop()
        self._mended = asyncio.Event()
        self._servers: list[asyncio.Server] = []
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def start(self) -> None:
        """Listen."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)

    def stop(self) -> None:
        """End."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def cut(self, *names: str) -> None:
        """From now on nothing passes to or from processes whose names begin so; empty: whoever it is."""
        self._loop.call_soon_threadsafe(self._set, names)

    def mend(self) -> None:
        """Let everything pass, also what waits."""
        self._loop.call_soon_threadsafe(self._set, ())

    def _set(self, names: Collection[str]) -> None:
        self._cut = names
        if not names:
            self._mended.set()
            self._mended = asyncio.Event()

    async def _listen(self) -> None:
        for where, target in self._ways.items():
            accept = self._acceptor(target)
            listening = (
                asyncio.start_unix_server(accept, where)
                if isinstance(where, str)
                else asyncio.start_server(accept, *where)
            )
            self._servers.append(await listening)

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _acceptor(self, target: Address) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            name = self._name(writer)
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._gate(name)
                there = (
                    asyncio.open_unix_connection(target)
                    if isinstance(target, str)
                    else asyncio.open_connection(*target)
                )
                far_reader, far_writer = await there
                await asyncio.gather(self._pass(name, reader, far_writer), self._pass(name, far_reader, writer))
            writer.close()

        return accept

    async def _pass(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(CHUNK):
                await self._gate(name)
                writer.write(data)
                await writer.drain()
            await self._gate(name)
        finally:
            writer.close()

    async def _gate(self, name: str) -> None:
        while any(name.startswith(word) for word in self._cut):
            await self._mended.wait()

    def _name(self, writer: asyncio.StreamWriter) -> str:
        """The name of the process at the other end; empty when it is none of those that matter."""
        peer = writer.get_extra_info("socket")
        if peer.family == socket.AF_UNIX:
            pid = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
            return self._who().get(pid, "")
        inode = inode_of(peer.getpeername()[1], peer.getsockname()[1])
        return next((name for pid, name in self._who().items() if inode and has_inode(pid, inode)), "")


def inode_of(local_port: int, remote_port: int) -> str:
    """The inode of the socket of this machine that leads from one port to the other."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if int(words[1].rpartition(":")[2], 16) == local_port and int(words[2].rpartition(":")[2], 16) == remote_port:
            return words[9]
    return ""


def has_inode(pid: int, inode: str) -> bool:
    """Has the process a socket of this inode?"""
    try:
        links = [os.readlink(entry.path) for entry in os.scandir(f"/proc/{pid}/fd")]
    except OSError:
        return False
    return f"socket:[{inode}]" in links


@contextmanager
def proxy(ways: Mapping[Address, Address], who: Who = dict) -> Iterator[Proxy]:
    """A running proxy: where it listens → where that leads."""
    made = Proxy(ways, who)
    made.start()
    try:
        yield made
    finally:
        made.mend()
        made.stop()
