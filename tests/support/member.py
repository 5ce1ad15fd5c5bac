"""A member of a group in a process of its own, so that it can be killed as a member is killed.

Run as `python -P member.py SETTINGS GROUP TOPIC ONLY NAME` (-P: modules of this folder have names of real packages); it prints
its partitions, a JSON list a line, at each change.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Callable
from typing import Protocol

import msgspec

from mailfleet_core.bus.opening import open_bus
from mailfleet_core.settings import BusSettings


class ForeignMember(Protocol):
    """A member of a group that can be killed."""

    async def holds(self, count: int) -> frozenset[int]:
        """Wait until it holds `count` partitions; say which."""

    async def kill(self) -> None:
        """It dies without a word."""

    def pause(self) -> None:
        """It does nothing for a while."""

    def go_on(self) -> None:
        """And then goes on."""


class MemberProcess:
    """The process, seen from the test."""

    def __init__(
        self, settings: BusSettings, group: str, topic: str, only: frozenset[int] | None = None, name: str = ""
    ) -> None:
        self.arguments = (
            msgspec.json.encode(settings).decode(),
            group,
            topic,
            msgspec.json.encode(only).decode(),
            name,
        )
        self.process: asyncio.subprocess.Process

    async def __aenter__(self) -> MemberProcess:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", __file__, *self.arguments, stdout=asyncio.subprocess.PIPE
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            await self.kill()

    async def holds(self, count: int) -> frozenset[int]:
        """See `ForeignMember.holds`."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            held = frozenset(json.loads(line))
            if len(held) == count:
                return held
        raise AssertionError("the member ended before it held its partitions")

    async def kill(self) -> None:
        """See `ForeignMember.kill`."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    def pause(self) -> None:
        """See `ForeignMember.pause`."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """See `ForeignMember.go_on`."""
        self.process.send_signal(signal.SIGCONT)


async def _main(settings: BusSettings, group: str, topic: str, only: frozenset[int] | None, name: str) -> None:
    held: set[int] = set()

    def say(change: Callable[[frozenset[int]], None], partitions: frozenset[int]) -> None:
        change(partitions)
        print(json.dumps(sorted(held)), flush=True)

    async def revoked(partitions: frozenset[int]) -> None:
        say(held.difference_update, partitions)

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    bus = open_bus(settings, "member")
    await bus.start()
    membership = await bus.join(group, topic, lambda partitions: say(held.update, partitions), revoked, only, name)
    await stop.wait()
    await membership.leave()
    await bus.close()


if __name__ == "__main__":
    bus_settings = msgspec.json.decode(sys.argv[1], type=BusSettings)
    asyncio.run(
        _main(bus_settings, *sys.argv[2:4], msgspec.json.decode(sys.argv[4], type=frozenset[int] | None), sys.argv[5])
    )
