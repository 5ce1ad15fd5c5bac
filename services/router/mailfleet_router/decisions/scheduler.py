"""Which unit goes next: sites in turn, each within its limits, and not while it is suspended.

A site that does not move holds nobody up: it is simply not in the round. It comes back when a unit of it comes back, when
a limit lets the next one go, or when it is resumed. Inside a site the same holds for the mail of one tenant.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from mailfleet_router.decisions.bucket import Bucket, fill, wait
from mailfleet_router.decisions.commands import Commands, Hold
from mailfleet_router.decisions.shaping.fairness import Fair, Queue
from mailfleet_router.decisions.shaping.rules import Rules
from mailfleet_router.decisions.shaping.shaper import LOOK_AGAIN_SECONDS, SITE, UNIT, Wait
from mailfleet_router.decisions.site_queue import ATTEMPTING, DEFERRED, PARKED, READY, Held, SiteQueue
from mailfleet_router.decisions.spill.backlog import Backlog
from mailfleet_router.decisions.spill.later import Later
from mailfleet_router.decisions.spill.store import Store

Attempt = Callable[[Held, SiteQueue], Wait | None]
"""Begins an attempt, or says why the unit may not go; None: it is not ready any more, whatever became of it."""

TURN = 16
"""Units a site may send before the next one has its turn."""
DUE_UNITS = 1000
"""Units that become due in one go."""


MANY_SITES = 10_000


MOST_WAIT_SECONDS = 600.0
"""Whoever waits is looked at so often at least, whatever was said of the end."""


class Resting(NamedTuple):
    """Mail of one tenant that may not go to a site for now."""

    site: SiteQueue
    queue: Queue[Held]


class Due(NamedTuple):
    """A timer."""

    at: float
    number: int
    what: SiteQueue | Resting


class Scheduler:
    """The sites of one partition and what is ready at each."""

    def __init__(self, commands: Commands, rules: Rules, store: Store) -> None:
        self.rules = rules
        self.sites: dict[str, SiteQueue] = {}
        self.in_flight = 0
        self._commands = commands
        self._round: deque[SiteQueue] = deque()
        self._timers: list[Due] = []
        self._store = store
        self._later = Later(store)
        self._parked = Backlog(store, _parked, 0)
        self._number = 0

    # --- in ------------------------------------------------------------------------------------------------------
    def site(self, name: str, now: float) -> SiteQueue:
        """The site of that name."""
        found = self.sites.get(name)
        if found is None:
            found = self.sites[name] = SiteQueue(name, now)
            found.ready = Fair(self._weight, found.wants, self._floor, partial(Backlog, self._store, found.wants))
        return found

    def _weight(self, tenant: str) -> float:
        return self.rules.weight(tenant)

    def _floor(self, priority: int) -> float:
        return self.rules.floor(priority)

    def leave(self, site: SiteQueue) -> bool:
        """One unit less at this site. A site without units is forgotten when there are many: was it?"""
        site.units -= 1
        if site.units <= 0 and len(self.sites) > MANY_SITES and not site.in_flight:
            return self.sites.pop(site.name, None) is not None
        return False

    def ready(self, held: Held, site: SiteQueue, now: float) -> None:
        """The unit may go as soon as the site may."""
        held.state, held.since = READY, now
        site.ready.add(held, held.tenant, self.rules.priority(held.stream), (held.stream, held.pool))
        self.wake(site)

    def defer(self, held: Held, until: float, now: float) -> None:
        """The unit waits until an instant."""
        held.state, held.due_at, held.since = DEFERRED, until, now
        self._later.add(held, now)

    def wake(self, site: SiteQueue) -> None:
        """Something changed for this site."""
        if not site.active and not site.waking and not site.stalled and site.ready:
            site.active = True
            self._round.append(site)

    def took(self, site: SiteQueue) -> None:
        """A unit of this site went into a sender's hands."""
        site.in_flight += 1
        self.in_flight += 1

    def freed(self, site: SiteQueue) -> None:
        """And one came back."""
        site.in_flight -= 1
        self.in_flight -= 1
        self._stir(site)

    def _stir(self, site: SiteQueue) -> None:
        """What waited for a unit to come back may ask again."""
        site.stalled = False
        for queue in site.resting:
            site.ready.wake(queue)
        site.resting.clear()
        self.wake(site)

    def stir(self) -> None:
        """Limits or commands are others now: everybody may ask again."""
        for site in self.sites.values():
            self.rouse(site)

    def rouse(self, site: SiteQueue) -> None:
        """All mail of the site may ask again."""
        site.waking = False
        site.ready.wake_all()
        self._stir(site)

    def park(self, held: Held) -> None:
        """The unit waits until commands change."""
        held.state = PARKED
        self._parked.append(held)

    def resumed(self) -> Backlog:
        """Commands changed: everybody may ask again. What was parked is returned to be looked at anew."""
        self.stir()
        parked, self._parked = self._parked, Backlog(self._store, _parked, 0)
        return parked

    def hold_on(self, held: Held) -> Hold | None:
        """The suspension that keeps this unit back."""
        if not self._commands:
            return None
        hold = self._commands.hold(held)
        if hold is None and held.state == PARKED:
            # All sources that it may use are suspended.
            return next(iter(self._commands.sources(held).values()), None)
        return hold

    # --- out -----------------------------------------------------------------------------------------------------
    def due(self, now: float) -> Iterator[Held]:
        """Some of the units whose time has come; sites and queues whose time it is are woken on the way. Raises SpillLost."""
        timers = self._timers
        while timers and timers[0].at <= now:
            what = heapq.heappop(timers).what
            if isinstance(what, SiteQueue):
                what.waking = False
                self.wake(what)
            else:
                what.site.ready.wake(what.queue)
                self.wake(what.site)
        return self._later.due(now, DUE_UNITS)

    def next_at(self) -> float:
        """When the next timer fires; infinity when there is none."""
        later = self._later.next_at()
        return min(self._timers[0].at, later) if self._timers else later

    @property
    def idle(self) -> bool:
        """Nobody could go now."""
        return not self._round

    def pump(self, now: float, budget: int, attempt: Attempt) -> None:
        """Offer up to `budget` units, a turn for each site after the other. A unit that is
        set aside takes its time too."""
        while self._round and budget > 0:
            site = self._round.popleft()
            site.active = False
            budget -= self._turn(site, now, min(TURN, budget), attempt)

    def _turn(self, site: SiteQueue, now: float, most: int, attempt: Attempt) -> int:
        if self._commands and self._commands.on_site(site.base):
            return 0
        rule = site.rule
        rate = rule.site_messages_per_second if rule else 0.0
        window = rule.site_window if rule else 100
        if rate:
            site.bucket = fill(site.bucket, rate, now)
        tries = 0
        while tries < most and site.in_flight < window:
            if rate and site.bucket.tokens < 1.0:
                self._wake_at(site, now + wait(site.bucket, rate) + 0.001)
                return tries
            queue = site.ready.peek()
            if queue is None:
                return tries
            tries += 1
            held = queue.items[0]
            waits = attempt(held, site)
            if waits is None:
                site.ready.take(queue)
                if rate and held.state == ATTEMPTING:
                    site.bucket = Bucket(site.bucket.tokens - 1.0, site.bucket.at)
            elif not self._set_aside(site, queue, waits, now):
                return tries
        if site.in_flight < window:
            self.wake(site)
        return tries

    def _set_aside(self, site: SiteQueue, queue: Queue[Held], waits: Wait, now: float) -> bool:
        """The unit may not go: who else may not? False: nobody of the site."""
        site.waits = waits.reason
        endless = waits.until == float("inf")
        until = max(min(waits.until, now + MOST_WAIT_SECONDS), now + 0.001)
        if endless and not site.in_flight:
            # Nothing is out that could come back, so nobody would ever ask again.
            endless, until = False, now + LOOK_AGAIN_SECONDS
        if waits.who == SITE:
            if endless:
                site.stalled = True
            else:
                self._wake_at(site, until)
            return False
        if waits.who == UNIT:
            self.defer(site.ready.take(queue), until, now)
            return True
        site.ready.rest(queue)
        if endless:
            site.resting[queue] = waits.reason
        else:
            self._timer(until, Resting(site, queue))
        return True

    def _wake_at(self, site: SiteQueue, at: float) -> None:
        site.waking = True
        self._timer(at, site)

    def _timer(self, at: float, what: SiteQueue | Resting) -> None:
        self._number += 1
        heapq.heappush(self._timers, Due(at, self._number, what))


def _parked(held: Held) -> bool:
    return held.state == PARKED
