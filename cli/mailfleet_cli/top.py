"""`mailfleet top`: the fleet at a glance, again and again, until `q`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import termios
import tty
from collections.abc import Coroutine, Iterator
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.live import Live

from mailfleet_cli import output, reading
from mailfleet_cli.main import Invocation
from mailfleet_cli.top_view import Snapshot, as_json, frame, snapshot
from mailfleet_core.bus.port import Bus, BusUnavailable
from mailfleet_core.clock import SystemClock
from mailfleet_core.model import wire
from mailfleet_core.settings import SettingsFile

SERVICES = ("ingest", "router", "sender")
MEMBERS_SECONDS = 30.0
"""New processes are looked for so often."""
ONCE_SECONDS = 1.0
"""Between the two looks of `--once`."""


@click.command()
@click.option(
    "--every", type=click.FloatRange(0.5, 60), default=2.0, show_default=True, help="Seconds between two looks."
)
@click.option("--once", is_flag=True, help="Print one frame, of one second, and end.")
@click.option("--json", "as_line", is_flag=True, help="One JSON object, of one second, and end.")
@click.pass_obj
def top(invocation: Invocation, every: float, once: bool, as_line: bool) -> None:
    """Show the fleet at a glance: rates, the sites with most mail waiting, sources, and what is held back. `q` ends it."""
    console = Console(highlight=False)
    if once or as_line:
        before, now = reading.run(_twice(invocation.file()))
        if as_line:
            output.json(as_json(before, now))
        else:
            console.print(frame(before, now, _clock(), console.size))
        return
    if not console.is_terminal:
        output.fail("this is no terminal; `mailfleet top --once` prints one frame")
    with contextlib.suppress(KeyboardInterrupt):
        reading.run(_watch(invocation.file(), console, every))


class Watcher:
    """Asks all processes of a fleet."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._members: list[wire.Member] = []
        self._search: asyncio.Task[None] | None = None

    async def look(self) -> Snapshot:
        """What they say now."""
        if self._search is None:
            await self._find()
            self._search = asyncio.create_task(self._keep_finding())
        now = SystemClock.monotonic()
        routers = [member.http for member in self._members if member.service == "router"]
        urls = [member.http for member in self._members]
        pages, metrics = await asyncio.gather(
            asyncio.gather(*(reading.page(url + "/api/top") for url in routers)),
            asyncio.gather(*(reading.page(url + "/metrics") for url in urls)),
        )
        told = [msgspec.json.decode(page) if page is not None else None for page in pages]
        texts = {
            url: text.decode("utf-8", "replace") if text else None for url, text in zip(urls, metrics, strict=True)
        }
        return snapshot(now, told, texts)

    def stop(self) -> None:
        """Look for no more processes."""
        if self._search is not None:
            self._search.cancel()

    async def _find(self) -> None:
        records = await reading.control(self._bus)
        self._members = [each for service in SERVICES for each in reading.members(records, service)]

    async def _keep_finding(self) -> None:
        while True:
            await asyncio.sleep(MEMBERS_SECONDS)
            # While the log is away the processes may well be there.
            with contextlib.suppress(BusUnavailable):
                await self._find()


async def _twice(file: SettingsFile) -> tuple[Snapshot, Snapshot]:
    async with reading.opened(file) as bus:
        watcher = Watcher(bus)
        before = await watcher.look()
        if not before.routers:
            output.fail("no router answers; start them with `mailfleet run` or `python -m mailfleet_router`")
        await asyncio.sleep(ONCE_SECONDS)
        now = await watcher.look()
        watcher.stop()
        return before, now


async def _watch(file: SettingsFile, console: Console, every: float) -> None:
    async with reading.opened(file) as bus:
        watcher = Watcher(bus)
        before = now = await watcher.look()
        over = asyncio.Event()
        # A cancellation can be lost between two waits; an event is not.
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, over.set)
        with Live(console=console, screen=True, auto_refresh=False) as live, _keys(over), _resizes(live):
            while not over.is_set():
                live.update(frame(before, now, _clock(), console.size), refresh=True)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(over.wait(), every)
                before, now = now, await _unless(over, watcher.look()) or now
        watcher.stop()


async def _unless(over: asyncio.Event, work: Coroutine[Any, Any, Snapshot]) -> Snapshot | None:
    """What `work` gives; None as soon as it is over. A process that is gone keeps a question waiting for seconds."""
    tasks = asyncio.ensure_future(work), asyncio.ensure_future(over.wait())
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return None if tasks[0].cancelled() else tasks[0].result()


@contextlib.contextmanager
def _keys(over: asyncio.Event) -> Iterator[None]:
    """`q` ends it; what is typed is not shown."""
    if not sys.stdin.isatty():
        yield
        return
    descriptor, loop = sys.stdin.fileno(), asyncio.get_running_loop()
    before = termios.tcgetattr(descriptor)

    def typed() -> None:
        if not (keys := os.read(descriptor, 64)) or b"q" in keys.lower():
            over.set()

    tty.setcbreak(descriptor)
    loop.add_reader(descriptor, typed)
    try:
        yield
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _resizes(live: Live) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGWINCH, live.refresh)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)


def _clock() -> str:
    return output.clock(SystemClock.now())[11:]
