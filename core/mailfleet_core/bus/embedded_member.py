"""The client's side of a group membership."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import Any

from mailfleet_core.bus.embedded_link import Link
from mailfleet_core.bus.port import OnAssigned, OnRevoked

log = logging.getLogger(__name__)


class Member:
    """A share of a topic's partitions, as the log last told."""

    def __init__(
        self, number: int, group: str, topic: int, link: Link, told: tuple[OnAssigned, OnRevoked],
        only: frozenset[int] | None,
    ) -> None:  # fmt: skip
        self.number = number
        self._group = group
        self._topic = topic
        self._link = link
        self._on_assigned, self._on_revoked = told
        self._only = [] if only is None else [sorted(only)]
        self._held: frozenset[int] = frozenset()
        self._left = False
        self._one_at_a_time = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def assigned(self) -> frozenset[int]:
        """The partitions it holds now."""
        return self._held

    @property
    def sure_until(self) -> float:
        """See `Membership.sure_until`: the log asks for what a member holds, and gives it RELEASE_SECONDS to let go."""
        return math.inf

    async def enter(self) -> None:
        """Join, or join again after a broken connection with what is still held."""
        if self._left:
            return
        holding = self._held
        place = (self.number, self._group, self._topic)
        kept = frozenset(await self._link.ask_once("join", *place, sorted(holding), *self._only))
        if lost := holding - kept:
            # Others have them already: there is nothing to wait for.
            self._start(self._let_go(lost, tell=False))

    def given(self, partitions: list[int]) -> None:
        """The log gives these."""
        new = frozenset(partitions) - self._held
        if new and not self._left:
            self._held |= new
            self._on_assigned(new)

    def asked(self, partitions: list[int]) -> None:
        """The log asks for these."""
        self._start(self._let_go(frozenset(partitions), tell=True))

    async def leave(self) -> None:
        """Give all of them back (calls `on_revoked` first)."""
        if self._left:
            return
        self._left = True
        await self._let_go(self._held, tell=False)
        await self._link.ask("leave", self.number)

    async def _let_go(self, partitions: frozenset[int], *, tell: bool) -> None:
        async with self._one_at_a_time:
            held = partitions & self._held
            if held:
                try:
                    await self._on_revoked(held)
                except Exception:
                    log.exception("on_revoked failed; the partitions go to others all the same")
                self._held -= held
            if tell:
                await self._link.ask("released", self.number, sorted(partitions))

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
