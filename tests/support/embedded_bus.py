"""A real log process and clients of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from mailfleet_core.bus.embedded import EmbeddedBus
from mailfleet_core.settings import BusSettings


class LogProcess:
    """Call it with a name for a started client; `kill` and `restart` are about the log process."""

    def __init__(self, directory: Path, settings: dict[str, Any], options: list[str]) -> None:
        self.directory = directory
        self.settings = BusSettings(kind="embedded", directory=str(directory), **settings)
        self._options = options
        self._process: asyncio.subprocess.Process | None = None
        self._clients: list[EmbeddedBus] = []

    async def __call__(self, name: str = "client", **options: Any) -> EmbeddedBus:
        """A started client; closed with the log."""
        bus = EmbeddedBus(self.settings, name, **options)
        await bus.start()
        self._clients.append(bus)
        return bus

    @property
    def pid(self) -> int:
        """Of the log process."""
        assert self._process is not None
        return self._process.pid

    async def restart(self) -> None:
        """Start the log process (clients find it when its socket is there)."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "mailfleet_core.bus.logd", "--directory", str(self.directory), *self._options
        )

    async def kill(self, number: int = signal.SIGKILL) -> int:
        """Send it a signal (0: none) and wait for its end; its exit code."""
        assert self._process is not None
        if self._process.returncode is None and number:
            os.kill(self._process.pid, number)
        return await self._process.wait()

    async def close(self) -> None:
        """Close the clients, then end the log process."""
        for bus in self._clients:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(bus.close(), 5)
        await self.kill(signal.SIGTERM)


@contextlib.asynccontextmanager
async def embedded_bus(directory: Path, *options: str, **settings: Any) -> AsyncIterator[LogProcess]:
    """A log process in `directory`; `options` are its arguments, `settings` those of `[bus]`."""
    log = LogProcess(directory, settings, list(options))
    await log.restart()
    try:
        yield log
    finally:
        await log.close()
