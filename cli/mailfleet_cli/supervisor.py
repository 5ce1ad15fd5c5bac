"""Keeps the planned processes running, restarts what dies, and stops all of them in the right order."""

from __future__ import annotations

import asyncio
import signal
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from mailfleet_cli.child import answers, pass_on, spawn
from mailfleet_cli.plan import START_STAGES, STOP_ORDER, Process

READY_SECONDS = 60.0
STOP_SECONDS = 40.0
"""A little more than a service allows itself to drain."""
STEADY_SECONDS = 60.0
"""Who ran this long starts at the bottom of the back-off again."""
START_TRIES = 3
"""Deaths before first being ready, after which the whole start has failed."""

Say = Callable[[str], None]


class StartFailed(Exception):
    """A process does not come up; the text has its last words."""


def back_off(deaths_in_a_row: int) -> float:
    """Seconds before the next start: at once the first time, then growing to half a minute."""
    return 0.0 if deaths_in_a_row <= 1 else min(30.0, 0.5 * 2.0 ** (deaths_in_a_row - 2))


@dataclass(slots=True)
class Child:
    """A planned process and what became of it."""

    spec: Process
    process: asyncio.subprocess.Process | None = None
    keeper: asyncio.Task[None] | None = None
    was_ready: bool = False
    deaths_in_a_row: int = 0
    stopping: bool = False
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=5))


class Supervisor:
    """All children of one `mailfleet run`."""

    def __init__(
        self,
        planned: tuple[Process, ...],
        environment: Mapping[str, str],
        say: Say,
        prefix: bool,
        stop_seconds: float = STOP_SECONDS,
    ) -> None:
        self.children = [Child(spec) for spec in planned]
        self.environment = environment
        self.say = say
        self.prefix = prefix
        self.stop_seconds = stop_seconds
        self.killed: list[str] = []

    async def start(self) -> None:
        """Start stage after stage, the log first; return when all are ready. Raises StartFailed."""
        for kinds in START_STAGES:
            stage = [child for child in self.children if child.spec.kind in kinds]
            for child in stage:
                child.keeper = asyncio.create_task(self._keep(child), name=child.spec.name)
            await asyncio.gather(*(self._until_ready(child) for child in stage))

    async def _until_ready(self, child: Child) -> None:
        assert child.keeper is not None
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not await answers(child.spec.ready_at):
            if child.keeper.done():
                child.keeper.result()
            if loop.time() - began > READY_SECONDS:
                raise StartFailed(f"{child.spec.name} is not ready after {READY_SECONDS:.0f} s")
            await asyncio.sleep(0.05)
        child.was_ready = True
        self.say(f"{child.spec.name} ready after {loop.time() - began:.1f} s")

    async def _keep(self, child: Child) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            code = await self._run_once(child)
            if child.stopping:
                return
            child.deaths_in_a_row = 1 if loop.time() - began > STEADY_SECONDS else child.deaths_in_a_row + 1
            if not child.was_ready and child.deaths_in_a_row >= START_TRIES:
                raise StartFailed(f"{child.spec.name} does not start; its last words:\n" + "\n".join(child.last_lines))
            wait = back_off(child.deaths_in_a_row)
            self.say(f"{child.spec.name} {_how(code)}; starting it again " + (f"in {wait:g} s" if wait else "at once"))
            await asyncio.sleep(wait)
            if child.stopping:
                return

    async def _run_once(self, child: Child) -> int:
        child.process = await spawn(child.spec, self.environment)
        assert child.process.stdout is not None
        await pass_on(child.spec.name, child.process.stdout, child.last_lines, self.prefix)
        return await child.process.wait()

    async def failed(self) -> None:
        """Return never, unless a keeper itself breaks; then raise what broke it."""
        await asyncio.gather(*(child.keeper for child in self.children if child.keeper))

    async def stop(self) -> None:
        """SIGTERM kind after kind, each waited for; who does not go in time is killed."""
        for kind in STOP_ORDER:
            stage = [child for child in self.children if child.spec.kind == kind and child.keeper]
            await asyncio.gather(*(self._stop_one(child) for child in stage))

    async def _stop_one(self, child: Child) -> None:
        assert child.keeper is not None
        child.stopping = True
        if child.process is None or child.process.returncode is not None:
            child.keeper.cancel()
        else:
            child.process.send_signal(signal.SIGTERM)
        loop = asyncio.get_running_loop()
        began = loop.time()
        if not (await asyncio.wait({child.keeper}, timeout=self.stop_seconds))[0]:
            self.killed.append(child.spec.name)
            self.kill(child)
            await asyncio.wait({child.keeper})
        self.say(f"{child.spec.name} stopped after {loop.time() - began:.1f} s")

    def kill(self, child: Child) -> None:
        """SIGKILL, if it still runs."""
        if child.process is not None and child.process.returncode is None:
            child.process.kill()

    def kill_all(self) -> None:
        """For a person who does not want to wait."""
        for child in self.children:
            child.stopping = True
            self.kill(child)


def _how(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
