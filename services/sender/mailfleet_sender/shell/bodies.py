"""Message bytes: fetched just before they are needed, and never more of them than memory has room for."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from mailfleet_core.bus import topics
from mailfleet_core.bus.port import Bus, BusUnavailable, NotFound
from mailfleet_core.smtp.client import Body
from mailfleet_sender.shell.jobs import Job, Share

log = logging.getLogger(__name__)

SMALL_BYTES = 65_536
"""A body this small is fetched even when one site has its share, so that a few large ones do not stop it."""
PATIENCE_SECONDS = 1.0
WORKERS = 64

Fetched = Callable[[Job, bool], None]
"""Told that a body is there (True) or gone for good (False)."""


class Bodies:
    """Fetches bodies within a budget of bytes."""

    def __init__(self, bus: Bus, budget: int) -> None:
        self._bus = bus
        self._budget = budget
        self._quarter = budget // 4
        self.held = 0
        self._wanted: deque[tuple[Job, Fetched]] = deque()
        self._workers: list[asyncio.Task[None]] = []
        self._idle: list[asyncio.Future[None]] = []

    def close(self) -> None:
        """Fetch nothing more."""
        for worker in self._workers:
            worker.cancel()

    def fetch(self, job: Job, share: Share, fetched: Fetched) -> bool:
        """Fetch at once if that can be done without waiting, else begin to; then `fetched` is told of the end.

        Returns False when there is no room now: ask again after a release.
        """
        reference = job.dispatch.unit.envelope.body
        length = reference.length
        # Always room for one, then for a quarter; small ones also when all sites together have the whole.
        if share.held and not (
            share.held + length <= self._quarter and (self.held + length <= self._budget or length <= SMALL_BYTES)
        ):
            return False
        job.held_bytes, job.share = length, share
        self.held += length
        share.held += length
        if len(reference.offsets) == 1:
            content = self._bus.read_at_once(topics.BODY, reference.partition, reference.offsets[0], length)
            if content is not None:
                job.body = Body((content,))
                return True
        job.fetching = True
        self._wanted.append((job, fetched))
        if self._idle:
            self._idle.pop().set_result(None)
        elif len(self._workers) < WORKERS:
            self._workers.append(asyncio.get_running_loop().create_task(self._work()))
        return True

    def release(self, job: Job) -> None:
        """The body of `job` is not needed any more. Saying so twice changes nothing."""
        share = job.share
        if share is not None:
            length = job.held_bytes
            self.held -= length
            share.held -= length
            job.share = None
        job.body = None

    async def _work(self) -> None:
        # Workers that stay: a task for each body costs more than the body's read.
        loop = asyncio.get_running_loop()
        while True:
            while self._wanted:
                await self._fetch(*self._wanted.popleft())
            idle = loop.create_future()
            self._idle.append(idle)
            await idle

    async def _fetch(self, job: Job, fetched: Fetched) -> None:
        reference = job.dispatch.unit.envelope.body
        rest = reference.length
        chunks: list[bytes] = []
        while len(chunks) < len(reference.offsets):
            size = min(rest, topics.MAX_CHUNK_BYTES)
            try:
                chunk = await self._bus.read(topics.BODY, reference.partition, reference.offsets[len(chunks)], size)
            except BusUnavailable:
                await asyncio.sleep(PATIENCE_SECONDS)
                continue
            except NotFound as error:
                log.error("a body is gone", extra={"error": str(error)})
                fetched(job, False)
                return
            chunks.append(chunk)
            rest -= len(chunk)
        if job.share is not None:
            job.body = Body(chunks)
        fetched(job, True)
