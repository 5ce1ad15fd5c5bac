"""Egress paths: one source to one site, with its limits, its queues by next hop and its connections."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Protocol

from mailfleet_core import metrics
from mailfleet_core.model import reply as phases
from mailfleet_core.model.reply import Answer, Reply
from mailfleet_core.model.wire import Route
from mailfleet_core.smtp.client import Transaction
from mailfleet_sender.decisions.throttle import Bucket, Rate, full, rate_of, take
from mailfleet_sender.shell.bodies import Bodies
from mailfleet_sender.shell.connection import SOON, Connection
from mailfleet_sender.shell.dial import Dialer, Open
from mailfleet_sender.shell.jobs import Failure, Job, Link, Share

log = logging.getLogger(__name__)

YIELD_AFTER = 10
"""Messages after which a connection makes room for another next hop of the same site that has none."""
WOKEN_AT_ONCE = 8
_GONE = Answer(Reply(0, "4.3.0", "the message content is not in the log any more"), phases.DATA)


class Desk(Protocol):
    """Where jobs end and what all paths of a process share."""

    bodies: Bodies
    seconds: dict[str, float]
    block_seconds: float
    pause_seconds: float
    idle_seconds: float

    def now(self) -> float:
        """Seconds since 1970."""

    def ended(
        self, job: Job, answers: Sequence[Answer | None], link: Link, reused: bool = False, dsn_passed_on: bool = False
    ) -> None:
        """The attempt is over."""

    def room(self, path: EgressPath) -> bool:
        """May this path open another connection, as far as the process is concerned? It is woken when it may."""

    def opened(self) -> None:
        """A connection is being opened."""

    def closed(self) -> None:
        """A connection is gone."""


class EgressPath:
    """One lane of a source to one site."""

    def __init__(self, desk: Desk, dialer: Dialer, site: str, source: str, sharers: int) -> None:
        # Kept, for asking asyncio for it is a system call (getpid) on Python 3.11.
        self.loop = asyncio.get_running_loop()
        self.desk = desk
        self.dialer = dialer
        self.site = site
        self.source = source
        self.share = Share()
        self.hops: dict[Route, NextHop] = {}
        self.hungry: dict[NextHop, None] = {}
        """Next hops with work that found no connection."""
        self.connections = 0
        self.stopped = False
        self.used_at = 0.0
        self.limit = 1
        self.per_connection = 1
        self._sharers = sharers
        self._route: Route | None = None
        self._newest: NextHop | None = None
        """The next hop of `_route`."""
        self._limits: tuple[int, float, float, int] | None = None
        self._message_rate = self._dial_rate = Rate(0.0)
        self._messages = self._dials = Bucket(0.0, 0.0)
        self._gauge = metrics.SENDER_CONNECTIONS.labels(source)
        self._woken: asyncio.TimerHandle | None = None
        self._obey(_NO_LIMITS)

    def add(self, job: Job) -> None:
        """Queue a job; it begins as soon as limits and connections allow."""
        route = job.dispatch.route
        # Equal routes are told from each other by comparing; a hash would look at every field as well, and then compare.
        hop = self._newest
        if hop is not None and route == self._route:
            hop.add(job)
            return
        self._obey(route)
        hop = self.hops.get(route)
        if hop is None:
            hop = self.hops[route] = NextHop(self, route)
        self._newest = hop
        hop.add(job)

    def take_message(self) -> float:
        """0.0 and one message of the rate is taken, or the seconds to wait."""
        if not self._message_rate.per_second:
            return 0.0
        self._messages, wait = take(self._messages, self._message_rate, self.loop.time())
        return wait

    def take_connection(self) -> float:
        """0.0 and one connection of the rate is taken, or the seconds to wait."""
        if not self._dial_rate.per_second:
            return 0.0
        self._dials, wait = take(self._dials, self._dial_rate, self.loop.time())
        return wait

    def count(self, change: int) -> None:
        """A connection more or less."""
        self.connections += change
        self._gauge.inc(change)
        self.desk.opened() if change > 0 else self.desk.closed()

    def wake(self) -> None:
        """A connection or room has become free."""
        for hop in tuple(islice(self.hungry, WOKEN_AT_ONCE)):
            hop.pump()

    def wake_in(self, seconds: float) -> None:
        """Look again after a wait that a limit imposed."""
        if self._woken is None:
            self._woken = self.loop.call_later(seconds, self._wake_later)

    def evict(self, asking: NextHop) -> bool:
        """Close a kept connection of another next hop so that `asking` may have one."""
        for hop in self.hops.values():
            if hop is not asking and hop.idle:
                hop.idle.pop(0).quit()
                return True
        return False

    def stop(self) -> list[Job]:
        """Begin nothing more; returns what was not begun."""
        self.stopped = True
        waiting = [job for hop in self.hops.values() for job in hop.give_up()]
        self.hungry.clear()
        return waiting

    def sweep(self, now: float) -> bool:
        """Called every now and then. Returns whether the path is still of use."""
        for route, hop in tuple(self.hops.items()):
            if not hop.sweep(now):
                del self.hops[route]
                self._newest = None
        if self.hops or self.connections:
            self.used_at = now
        return now - self.used_at < 60.0

    def _wake_later(self) -> None:
        self._woken = None
        self.wake()

    def _obey(self, route: Route) -> None:
        """Take over the limits of the newest route; buckets keep what was taken."""
        limits = _limits(route)
        self._route = route
        if limits == self._limits:
            return
        self._limits = limits
        now = self.loop.time()
        self.limit = max(1, route.max_connections // self._sharers)
        self.per_connection = max(1, route.messages_per_connection)
        self._message_rate = rate_of(route.messages_per_second, self._sharers)
        self._dial_rate = rate_of(route.connections_per_second, self._sharers)
        self._messages = full(self._message_rate, now)
        self._dials = full(self._dial_rate, now)


_NO_LIMITS = Route("mx", ())


def _limits(route: Route) -> tuple[int, float, float, int]:
    return (
        route.max_connections, route.connections_per_second, route.messages_per_second, route.messages_per_connection,
    )  # fmt: skip


class NextHop:
    """The units of a path that go the same way, and the connections that lead there."""

    def __init__(self, path: EgressPath, route: Route) -> None:
        self.path = path
        self.route = route
        self._loop = path.loop
        self.idle: list[Connection] = []
        self.busy: dict[Connection, Job] = {}
        self._waiting: deque[Job] = deque()
        self._asked = 0
        """How many of the first waiting jobs have been told to fetch their bodies."""
        self._dials: set[asyncio.Task[None] | None] = set()
        self._failure: Failure | None = None
        self._paused_until = 0.0
        self._dialled_at = 0.0
        self._everyone: set[Connection] = set()

    def add(self, job: Job) -> None:
        """Queue a job."""
        self._waiting.append(job)
        self.pump()

    def pump(self) -> None:
        """Give waiting jobs to connections, fetch the bodies of those that come next, open what is missing."""
        path, waiting, idle = self.path, self._waiting, self.idle
        if path.stopped or not waiting:
            path.hungry.pop(self, None)
            return
        # A body ahead for every connection, open or coming, and one more: it arrives while another is on its way.
        ahead = len(self._everyone) + len(self._dials) + 1
        asked = self._asked
        while asked < ahead and asked < len(waiting) and self._fetch(waiting[asked]):
            asked += 1
        self._asked = asked
        while idle and waiting and waiting[0].body is not None:
            connection = idle.pop()
            if not connection.usable:
                connection.quit()
            elif wait := path.take_message():
                idle.append(connection)
                path.wake_in(wait)
                break
            else:
                self._begin(connection)
        path.hungry.pop(self, None)
        if not waiting:
            return
        path.hungry[self] = None
        if path.connections < path.limit or not (self._everyone or self._dials):
            self._open_missing()

    def give_up(self) -> list[Job]:
        """Begin nothing more: close what is kept, stop opening; returns what waits."""
        waiting = list(self._waiting)
        self._waiting.clear()
        self._asked = 0
        for dial in self._dials:
            if dial is not None:
                dial.cancel()
        for connection in tuple(self.idle):
            connection.quit()
        self.idle.clear()
        return waiting

    def sweep(self, now: float) -> bool:
        """End what is too slow, close what is kept too long. Returns whether the next hop is still of use."""
        for connection in tuple(self._everyone):
            connection.check(now)
        for connection in tuple(self.idle):
            if connection.deadline == SOON:
                connection.deadline = now + self.path.desk.idle_seconds
            elif now >= connection.deadline:
                self.idle.remove(connection)
                connection.quit()
        return bool(self._waiting or self._everyone or self._dials or now < self._paused_until)

    # --- what connections tell -----------------------------------------------------------------------------------
    def finished(self, connection: Connection, job: Job, transaction: Transaction) -> None:
        """See `Owner`."""
        del self.busy[connection]
        path, sent = self.path, connection.sent
        path.desk.ended(job, transaction.answers, connection.link, sent > 1, transaction.dsn_passed_on)
        if not connection.quitting:
            if not path.stopped and sent < path.per_connection and (not path.hungry or self._keep(connection)):
                self.idle.append(connection)
                connection.deadline = SOON
            else:
                connection.quit()
        if self._waiting:
            self.pump()

    def untouched(self, connection: Connection, job: Job) -> None:
        """See `Owner`."""
        del self.busy[connection]
        job.moved = True
        self._waiting.appendleft(job)
        self._asked += 1
        self.pump()

    def closed(self, connection: Connection) -> None:
        """See `Owner`."""
        self._everyone.discard(connection)
        if connection in self.idle:
            self.idle.remove(connection)
        self.path.count(-1)
        self.path.wake()

    # --- inside --------------------------------------------------------------------------------------------------
    def _keep(self, connection: Connection) -> bool:
        """Does no other next hop need its place more?"""
        path = self.path
        if connection.sent < YIELD_AFTER or path.connections < path.limit:
            return True
        # Mostly the only hungry one is this one, which has a connection.
        if len(path.hungry) == 1 and self in path.hungry:
            return True
        return not any(not hop._everyone and not hop._dials for hop in islice(path.hungry, WOKEN_AT_ONCE))

    def _begin(self, connection: Connection) -> None:
        job = self._waiting.popleft()
        self._asked -= 1
        self.busy[connection] = job
        job.started_at = self.path.desk.now()
        connection.begin(job)

    def _fetch(self, job: Job) -> bool:
        """Have the body fetched, unless it is there or under way. Returns False when there is no room for it now."""
        if job.body is not None or job.fetching:
            return True
        return self.path.desk.bodies.fetch(job, self.path.share, self._fetched)

    def _fetched(self, job: Job, there: bool) -> None:
        job.fetching = False
        if not there and job in self._waiting:
            self._asked -= self._waiting.index(job) < self._asked
            self._waiting.remove(job)
            self.path.desk.ended(job, [_GONE] * len(job.dispatch.unit.recipients), Link())
        self.pump()

    def _open_missing(self) -> None:
        path = self.path
        if self._loop.time() < self._paused_until:
            if self._everyone or self._dials:
                return
            if self._failure is not None:
                self._fail_waiting(self._failure, path.desk.now())
                return
        # Each open connection takes one job soon, so only what is beyond them asks for new ones.
        missing = len(self._waiting) - len(self._dials) - len(self.idle)
        while missing > 0:
            if path.connections >= path.limit:
                if not self._everyone and not self._dials:
                    path.evict(self)
                return
            if not path.desk.room(path):
                return
            if wait := path.take_connection():
                path.wake_in(wait)
                return
            missing -= 1
            self._dial()

    def _dial(self) -> None:
        self.path.count(+1)
        self._dialled_at = self.path.desk.now()
        task = self._loop.create_task(self._open())
        self._dials.add(task)
        task.add_done_callback(self._dialled)

    def _dialled(self, task: asyncio.Task[None]) -> None:
        self._dials.discard(task)
        if task.cancelled():
            self.path.count(-1)
        elif error := task.exception():
            log.error("opening a connection failed in an unforeseen way", exc_info=error)
            answer = Answer(Reply(0, "4.3.0", "internal error while connecting"), phases.CONNECT)
            self.path.count(-1)
            self._failed(Failure(answer))

    async def _open(self) -> None:
        opened = await self.path.dialer.dial(self.route)
        self._dials.discard(asyncio.current_task())
        if isinstance(opened, Failure):
            self.path.count(-1)
            self._failed(opened)
        else:
            self._connected(opened)

    def _connected(self, opened: Open) -> None:
        desk = self.path.desk
        connection = Connection(
            self, opened.link, opened.offers, self.route.kind == "lmtp", desk.seconds, desk.block_seconds
        )
        connection.adopt(opened.transport)
        self._failure, self._paused_until = None, 0.0
        self._everyone.add(connection)
        if self.path.stopped:
            connection.quit()
            return
        self.idle.append(connection)
        self.pump()

    def _failed(self, failure: Failure) -> None:
        """All hosts failed: nobody else waits for the same time-outs, unless a connection there still works."""
        if self.path.stopped:
            return
        alone = not self._everyone and not self._dials
        # In company it is more likely "too many connections" than a dead site: when the others are done, it may try again.
        self._failure = failure if alone else None
        self._paused_until = self._loop.time() + self.path.desk.pause_seconds
        self.path.wake_in(self.path.desk.pause_seconds)
        if alone:
            self._fail_waiting(failure, self._dialled_at)
        self.path.wake()

    def _fail_waiting(self, failure: Failure, since: float) -> None:
        waiting = list(self._waiting)
        self._waiting.clear()
        self._asked = 0
        self.path.hungry.pop(self, None)
        for job in waiting:
            job.started_at = since
            self.path.desk.ended(job, [failure.answer] * len(job.dispatch.unit.recipients), failure.link)
