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
from mailfleet_sender.decisions.throttle import rate_of
from mailfleet_sender.shell.bodies import Bodies
from mailfleet_sender.shell.connection import SOON, Connection
from mailfleet_sender.shell.dial import Dialer, Open
from mailfleet_sender.shell.jobs import Failure, Job, Link, Share
from mailfleet_sender.shell.meter import Meter

log = logging.getLogger(__name__)

YIELD_AFTER = 10
"""Messages after which a connection makes room for another next hop of the same site that has none."""
WOKEN_AT_ONCE = 8
UNSURE_SECONDS = 0.1
"""Until it is looked again whether our lanes are still ours."""
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

    def returned(self, job: Job) -> None:
        """It was not begun, and will not be here."""

    def sure(self) -> bool:
        """Can nobody else hold our lanes, for all we know? Otherwise nothing is begun that a receiver would see."""

    def room(self, path: EgressPath) -> bool:
        """May this path open another connection, as far as the process is concerned? It is woken when it may."""

    def opened(self) -> None:
        """A connection is being opened."""

    def closed(self) -> None:
        """A connection is gone."""


class EgressPath:
    """One lane of a source to one site."""

    def __init__(self, desk: Desk, dialer: Dialer, site: str, source: str, sharers: int, since: float) -> None:
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
        self.messages, self.dials = Meter(since), Meter(since)
        self.coming: set[asyncio.Task[None] | None] = set()
        """Dials that wait for their turn, where connections have a rate."""
        self._limits = _NO_LIMITS
        self._gauge = metrics.SENDER_CONNECTIONS.labels(source)
        self._woken: asyncio.TimerHandle | None = None

    def add(self, job: Job) -> None:
        """Queue a job; it begins as soon as limits and connections allow."""
        route = job.dispatch.route
        # Equal routes are told from each other by comparing; a hash would look at every field as well, and then compare.
        hop = self._newest
        if hop is not None and route == self._route:
            hop.add(job)
            return
        self._obey(route)
        where = _where(route)
        hop = self.hops.get(where)
        if hop is None:
            hop = self.hops[where] = NextHop(self, where)
        self._newest = hop
        hop.add(job)

    async def turn(self) -> None:
        """Wait until a connection may be opened; it is, before anything else happens."""
        seconds = self._wait_to_dial()
        while seconds:
            await asyncio.sleep(seconds)
            seconds = self._wait_to_dial()
        if self.coming:
            self.coming.discard(asyncio.current_task())
            self.loop.call_soon(self.wake)

    def _wait_to_dial(self) -> float:
        return self.dials.take() if self.desk.sure() else UNSURE_SECONDS

    @property
    def surplus(self) -> int:
        """Connections more than the limit, which has become lower, beside those that are closing."""
        above = self.connections - self.limit
        if above <= 0:
            return 0
        return above - sum(connection.quitting for hop in self.hops.values() for connection in hop.everyone)

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
        if self._woken is not None:
            if self._woken.when() <= self.loop.time() + seconds:
                return
            self._woken.cancel()
        self._woken = self.loop.call_later(seconds, self._wake_later)

    def evict(self, asking: NextHop | None) -> bool:
        """Close a kept connection of a next hop that is not `asking`. Returns whether there was one."""
        for hop in self.hops.values():
            if hop is not asking and hop.idle:
                hop.idle.pop(0).quit()
                return True
        return False

    def obey(self, dialer: Dialer, sharers: int) -> None:
        """From now on the source connects as `dialer` does and has so many lanes. What was taken of its limits stays taken;
        connections that were made as another one end with what they are doing."""
        self.stopped = False
        if dialer is not self.dialer:
            self.dialer = dialer
            for hop in self.hops.values():
                hop.leave_connections()
        if sharers != self._sharers:
            self._sharers, self._limits = sharers, _NO_LIMITS
            if self._route is not None:
                self._obey(self._route)

    def stop(self) -> list[Job]:
        """Begin nothing more, until `obey`; returns what was not begun."""
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
        # A path that is forgotten must not come back with more than it has left.
        if self.hops or self.connections or self.messages.owes() or self.dials.owes():
            self.used_at = now
        return now - self.used_at < 60.0

    def _wake_later(self) -> None:
        self._woken = None
        self.wake()

    def _obey(self, route: Route) -> None:
        """Take over the limits of the newest route; what was taken stays taken."""
        limits = _limits(route)
        self._route = route
        if limits == self._limits:
            return
        self._limits = limits
        self.limit = max(1, route.max_connections // self._sharers)
        self.per_connection = max(1, route.messages_per_connection)
        self.messages.obey(rate_of(route.messages_per_second, self._sharers))
        self.dials.obey(rate_of(route.connections_per_second, self._sharers))
        while self.surplus > 0 and self.evict(None):
            pass
        if self.hungry:
            self.wake_in(0.0)


_Limits = tuple[int, float, float, int]
_NO_LIMITS: _Limits = (0, 0.0, 0.0, 0)


def _limits(route: Route) -> _Limits:
    return (
        route.max_connections, route.connections_per_second, route.messages_per_second, route.messages_per_connection,
    )  # fmt: skip


def _where(route: Route) -> Route:
    """The next hop alone, without the limits: connections there are of use whatever the limits have become."""
    return Route(route.kind, route.hosts, route.port, route.tls, route.username, route.name)


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
        self.everyone: set[Connection] = set()

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
        ahead = len(self.everyone) + len(self._dials) + 1
        asked = self._asked
        while asked < ahead and asked < len(waiting) and self._fetch(waiting[asked]):
            asked += 1
        self._asked = asked
        while idle and waiting and waiting[0].body is not None:
            connection = idle.pop()
            if not connection.usable:
                connection.quit()
            elif wait := path.messages.take() if path.desk.sure() else UNSURE_SECONDS:
                idle.append(connection)
                path.wake_in(wait)
                break
            else:
                self._begin(connection)
        path.hungry.pop(self, None)
        if not waiting:
            return
        path.hungry[self] = None
        if path.connections < path.limit or not (self.everyone or self._dials):
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

    def leave_connections(self) -> None:
        """Use no connection that is open for anything more."""
        for connection in self.everyone:
            connection.outdated = True
        for connection in tuple(self.idle):
            connection.quit()
        self.idle.clear()
        self._failure, self._paused_until = None, 0.0
        self.pump()

    def sweep(self, now: float) -> bool:
        """End what is too slow, close what is kept too long. Returns whether the next hop is still of use."""
        for connection in tuple(self.everyone):
            connection.check(now)
        for connection in tuple(self.idle):
            if connection.deadline == SOON:
                connection.deadline = now + self.path.desk.idle_seconds
            elif now >= connection.deadline:
                self.idle.remove(connection)
                connection.quit()
        return bool(self._waiting or self.everyone or self._dials or now < self._paused_until)

    # --- what connections tell -----------------------------------------------------------------------------------
    def finished(self, connection: Connection, job: Job, transaction: Transaction) -> None:
        """See `Owner`."""
        del self.busy[connection]
        path, sent = self.path, connection.sent
        path.desk.ended(job, transaction.answers, connection.link, sent > 1, transaction.dsn_passed_on)
        if not connection.quitting:
            if (
                not path.stopped
                and not connection.outdated
                and sent < path.per_connection
                and (path.connections <= path.limit or path.surplus <= 0)
                and (not path.hungry or self._keep(connection))
            ):
                self.idle.append(connection)
                connection.deadline = SOON
            else:
                connection.quit()
        if self._waiting:
            self.pump()

    def untouched(self, connection: Connection, job: Job) -> None:
        """See `Owner`."""
        del self.busy[connection]
        if self.path.stopped:
            self.path.desk.returned(job)
            return
        job.moved = True
        self._waiting.appendleft(job)
        self._asked += 1
        self.pump()

    def closed(self, connection: Connection) -> None:
        """See `Owner`."""
        self.everyone.discard(connection)
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
        return not any(not hop.everyone and not hop._dials for hop in islice(path.hungry, WOKEN_AT_ONCE))

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
            if self.everyone or self._dials:
                return
            if self._failure is not None:
                self._fail_waiting(self._failure, path.desk.now())
                return
        # Each open connection takes one job soon, so only what is beyond them asks for new ones.
        missing = len(self._waiting) - len(self._dials) - len(self.idle)
        while missing > 0:
            if path.connections >= path.limit:
                if not self.everyone and not self._dials:
                    path.evict(self)
                return
            if not path.desk.room(path):
                return
            if path.dials.limited:
                # One at a time: whoever looks for addresses first shall not keep a turn that others could use.
                if path.coming:
                    return
                if wait := path.dials.wait():
                    path.wake_in(wait)
                    return
            missing -= 1
            self._dial()

    def _dial(self) -> None:
        self.path.count(+1)
        self._dialled_at = self.path.desk.now()
        task = self._loop.create_task(self._open())
        self._dials.add(task)
        if self.path.dials.limited:
            self.path.coming.add(task)
        task.add_done_callback(self._dialled)

    def _dialled(self, task: asyncio.Task[None]) -> None:
        self._dials.discard(task)
        self.path.coming.discard(task)
        if task.cancelled():
            self.path.count(-1)
        elif error := task.exception():
            log.error("opening a connection failed in an unforeseen way", exc_info=error)
            answer = Answer(Reply(0, "4.3.0", "internal error while connecting"), phases.CONNECT)
            self.path.count(-1)
            self._failed(Failure(answer))

    async def _open(self) -> None:
        dialer = self.path.dialer
        opened = await dialer.dial(self.route, self.path.turn)
        self._dials.discard(asyncio.current_task())
        outdated = dialer is not self.path.dialer
        if not isinstance(opened, Failure):
            self._connected(opened, outdated)
            return
        self.path.count(-1)
        if outdated:
            self.pump()
        else:
            self._failed(opened)

    def _connected(self, opened: Open, outdated: bool) -> None:
        desk = self.path.desk
        connection = Connection(
            self, opened.link, opened.offers, self.route.kind == "lmtp", desk.seconds, desk.block_seconds
        )
        connection.adopt(opened.transport)
        self.everyone.add(connection)
        if self.path.stopped or outdated:
            connection.quit()
            return
        self._failure, self._paused_until = None, 0.0
        self.idle.append(connection)
        self.pump()

    def _failed(self, failure: Failure) -> None:
        """All hosts failed: nobody else waits for the same time-outs, unless a connection there still works."""
        if self.path.stopped:
            return
        alone = not self.everyone and not self._dials
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
