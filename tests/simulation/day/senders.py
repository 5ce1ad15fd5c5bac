"""The senders, in virtual time: a path for each source and site, with connections, rates and queues as in `mailfleet_sender`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from mailfleet_core.model import wire
from mailfleet_core.model.wire import DEFERRED, RecipientOutcome, Route
from mailfleet_sender.decisions.throttle import NO_LIMIT, changed, empty, rate_of, take
from simulation.day.clockwork import Clockwork
from simulation.day.receivers import Site, Watch
from simulation.day.scenario import MIDNIGHT

IDLE_SECONDS = 5.0
PAUSE_SECONDS = 5.0
CONNECT_SECONDS = 0.2
FORGET_SECONDS = 60.0
"""The defaults of the sender's settings."""


class Job(NamedTuple):
    """An attempt in hand."""

    partition: int
    unit: bytes
    hop: int
    attempt: int
    source: str
    tenant: str
    address: str
    accepted_at: float


class Connection:
    """One that is open."""

    __slots__ = ("deadline", "sent")

    def __init__(self) -> None:
        self.sent = 0
        self.deadline = 0.0


class Path:
    """One source to one site."""

    def __init__(self, senders: Senders, site: Site, source: str, sharers: int) -> None:
        self.senders, self.site, self.source = senders, site, source
        self.standing = site.standing(source, senders.clock.now)
        self.watch: Watch | None = None
        self.waiting: deque[Job] = deque()
        self.idle: deque[Connection] = deque()
        self.open = 0
        self.dials = 0
        self.used_at = senders.clock.now
        self._sharers = sharers
        self._limits: tuple[int, float, float, int] | None = None
        self._limit = self._per_connection = 1
        self._message_rate = self._dial_rate = NO_LIMIT
        self._messages = self._dial = MIDNIGHT
        self._failure: tuple[RecipientOutcome, ...] | None = None
        self._paused_until = 0.0
        self._wakes_at = 0.0

    def add(self, job: Job, route: Route) -> None:
        """One more."""
        self._obey(route)
        self.waiting.append(job)
        self.pump()

    def pump(self) -> None:
        """Begin what may begin, open what is missing."""
        clock, waiting, idle = self.senders.clock, self.waiting, self.idle
        now = self.used_at = clock.now
        self._close_idle(now)
        while waiting and idle:
            if self._message_rate.per_second:
                self._messages, wait = take(self._messages, self._message_rate, now)
                if wait:
                    self._wake_in(wait)
                    break
            self._begin(idle.pop(), waiting.popleft(), now)
        if not waiting:
            return
        if now < self._paused_until:
            if not self.open and self._failure is not None:
                self._fail(self._failure, now)
            return
        missing = len(waiting) - self.dials - len(idle)
        while missing > 0 and self.open < self._limit:
            if self._dial_rate.per_second:
                self._dial, wait = take(self._dial, self._dial_rate, now)
                if wait:
                    self._wake_in(wait)
                    return
            missing -= 1
            self.open += 1
            self.dials += 1
            self.standing.connections += 1
            self.senders.most_open(self)
            clock.at(now + CONNECT_SECONDS, self._dialled, None)

    @property
    def forgettable(self) -> bool:
        """Nothing happens here any more."""
        now = self.senders.clock.now
        self._close_idle(now)
        owes = max(self._messages, self._dial) > now
        return not (self.waiting or self.open or owes) and now - self.used_at > FORGET_SECONDS

    # --- what happens --------------------------------------------------------------------------------------------
    def _dialled(self, _: object) -> None:
        now = self.senders.clock.now
        self.dials -= 1
        failure = self.site.greeting(self.standing, now)
        if failure is None:
            self._failure, self._paused_until = None, 0.0
            connection = Connection()
            connection.deadline = now + IDLE_SECONDS
            self.idle.append(connection)
            self.pump()
            return
        self._gone()
        alone = not self.open
        self._failure = failure if alone else None
        self._paused_until = now + PAUSE_SECONDS
        if alone:
            self._fail(failure, now)
        elif self.waiting:
            self._wake_in(PAUSE_SECONDS)

    def _begin(self, connection: Connection, job: Job, now: float) -> None:
        connection.sent += 1
        if self.watch is not None:
            self.watch.came(now)
        outcomes = self.site.transaction(self.standing, (job.source, job.tenant), job.address, now)
        self.senders.heard.began(self, job, outcomes[0], now)
        self.senders.clock.at(now + self.site.latency(now), self._finished, (connection, job, outcomes, now))

    def _finished(self, what: tuple[Connection, Job, tuple[RecipientOutcome, ...], float]) -> None:
        connection, job, outcomes, began_at = what
        now = self.senders.clock.now
        self.senders.ended(job, outcomes, began_at, now)
        over = outcomes[0].code == 421 or connection.sent >= min(self._per_connection, self.site.per_connection)
        if over:
            self._gone()
        else:
            connection.deadline = now + IDLE_SECONDS
            self.idle.append(connection)
        if self.waiting:
            self.pump()

    def _fail(self, failure: tuple[RecipientOutcome, ...], now: float) -> None:
        """No connection, so all that waits has its answer."""
        outcomes = failure
        if failure[0].verdict != DEFERRED:
            raise AssertionError("before MAIL nothing is final")
        waiting, self.waiting = self.waiting, deque()
        for job in waiting:
            self.senders.heard.began(self, job, outcomes[0], now)
            self.senders.ended(job, outcomes, now, now)

    def _gone(self) -> None:
        self.open -= 1
        self.standing.connections -= 1

    def _close_idle(self, now: float) -> None:
        idle = self.idle
        while idle and idle[0].deadline <= now:
            idle.popleft()
            self._gone()

    def _wake_in(self, wait: float) -> None:
        now = self.senders.clock.now
        if self._wakes_at <= now:
            self._wakes_at = now + wait
            self.senders.clock.at(now + wait, self._wake, None)

    def _wake(self, _: object) -> None:
        self._wakes_at = 0.0
        self.pump()

    def _obey(self, route: Route) -> None:
        limits = (
            route.max_connections, route.connections_per_second, route.messages_per_second, route.messages_per_connection,
        )  # fmt: skip
        if limits == self._limits:
            return
        fresh = self._limits is None
        self._limits = limits
        now = self.senders.clock.now
        self._limit = max(1, route.max_connections // self._sharers)
        self._per_connection = max(1, route.messages_per_connection)
        messages, dials = (
            rate_of(route.messages_per_second, self._sharers),
            rate_of(route.connections_per_second, self._sharers),
        )
        if fresh:
            self._messages, self._dial = empty(messages, MIDNIGHT), empty(dials, MIDNIGHT)
        else:
            self._messages = changed(self._messages, self._message_rate, messages, now)
            self._dial = changed(self._dial, self._dial_rate, dials, now)
        self._message_rate, self._dial_rate = messages, dials


class Senders:
    """All sources of one process."""

    def __init__(
        self, clock: Clockwork, lanes: dict[str, tuple[int, ...]], site: Callable[[wire.Dispatch], Site],
        result: Callable[[int, bytes, bytes], None], heard: Heard, watch: Callable[[str, Site], Watch | None],
    ) -> None:  # fmt: skip
        self.clock, self.heard = clock, heard
        self.violations = 0
        """Connections above the configured number."""
        self.watches: dict[tuple[str, str], Watch] = {}
        self._lanes, self._site, self._result, self._watch = lanes, site, result, watch
        self._paths: dict[tuple[str, str], Path] = {}

    def take(self, work: wire.Dispatch) -> None:
        """A dispatch was read from a lane."""
        unit = work.unit
        key = (work.source, unit.site)
        path = self._paths.get(key) or self._path(key, work)
        envelope = unit.envelope
        job = Job(
            work.queue_partition, unit.unit_id, unit.hop, work.attempt, work.source, envelope.tenant,
            unit.recipients[0].address, envelope.accepted_at,
        )  # fmt: skip
        path.add(job, work.route)

    def ended(self, job: Job, outcomes: tuple[RecipientOutcome, ...], began_at: float, now: float) -> None:
        """The result goes to the log."""
        result = wire.Result(
            job.unit, job.hop, job.attempt, wire.SETTLED, job.source, began_at, now, outcomes, "mx.example", "192.0.2.1"
        )
        self._result(job.partition, job.unit, wire.encode(result))

    def most_open(self, path: Path) -> None:
        """A connection was opened; is that one too many?"""
        if path.open > path._limit:
            self.violations += 1

    def sweep(self) -> None:
        """Forget paths that are not used."""
        for key in [key for key, path in self._paths.items() if path.forgettable]:
            del self._paths[key]

    def _path(self, key: tuple[str, str], work: wire.Dispatch) -> Path:
        source, site = work.source, self._site(work)
        path = self._paths[key] = Path(self, site, source, len(self._lanes[source]))
        if key not in self.watches and (watch := self._watch(source, site)) is not None:
            self.watches[key] = watch
        path.watch = self.watches.get(key)
        return path


class Heard:
    """Who wants to know what happens at the receivers."""

    def began(self, path: Path, job: Job, outcome: RecipientOutcome, now: float) -> None:
        """A transaction began, or failed before it could."""
