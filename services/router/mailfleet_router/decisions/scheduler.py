"""Which unit goes next: sites in turn, each within its window and rate, and not while it is suspended.

A site that does not move holds nobody up: it is simply not in the round. It comes back when a result frees its window,
when its bucket has a token, or when it is resumed.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from mailfleet_router.decisions.bucket import Bucket, fill, wait
from mailfleet_router.decisions.holds import Hold, Holds
from mailfleet_router.decisions.site_queue import DEFERRED, PARKED, READY, Held, SiteQueue

TURN = 16
"""Units a site may send before the next one has its turn."""


class Due(NamedTuple):
    """A timer."""

    at: float
    number: int
    what: Held | SiteQueue


class Scheduler:
    """The sites of one partition and what is ready at each."""

    def __init__(self, holds: Holds) -> None:
        self.sites: dict[str, SiteQueue] = {}
        self.in_flight = 0
        self._holds = holds
        self._round: deque[SiteQueue] = deque()
        self._timers: list[Due] = []
        self._parked: list[Held] = []
        self._number = 0

    # --- in ------------------------------------------------------------------------------------------------------
    def site(self, name: str, now: float) -> SiteQueue:
        """The site of that name."""
        found = self.sites.get(name)
        if found is None:
            found = self.sites[name] = SiteQueue(name, now)
        return found

    def leave(self, site: SiteQueue) -> None:
        """One unit less at this site. A site without units is forgotten when there are many."""
        site.units -= 1
        if site.units <= 0 and len(self.sites) > 10_000 and not site.in_flight:
            self.sites.pop(site.name, None)

    def ready(self, held: Held, site: SiteQueue, now: float) -> None:
        """The unit may go as soon as the site may."""
        held.state, held.since = READY, now
        site.ready.append(held)
        self.wake(site)

    def defer(self, held: Held, until: float, now: float) -> None:
        """The unit waits until an instant."""
        held.state, held.due_at, held.since = DEFERRED, until, now
        self._timer(until, held)

    def wake(self, site: SiteQueue) -> None:
        """Something changed for this site."""
        if not site.active and not site.waking and site.ready:
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
        self.wake(site)

    def resumed(self) -> list[Held]:
        """Suspensions changed: everybody may ask again. What was parked is returned to be placed anew."""
        for site in self.sites.values():
            self.wake(site)
        parked, self._parked = self._parked, []
        return [held for held in parked if held.state == PARKED]

    def hold_on(self, held: Held) -> Hold | None:
        """The suspension that keeps this unit back."""
        if not self._holds or held.site is None or held.domain is None:
            return None
        return self._holds.on_site(held.site.name) or self._holds.on_unit(held.domain.name, held.tenant)

    # --- out -----------------------------------------------------------------------------------------------------
    def due(self, now: float) -> Iterator[Held]:
        """Units whose time has come; sites whose bucket filled are woken on the way."""
        timers = self._timers
        while timers and timers[0].at <= now:
            at, _, what = heapq.heappop(timers)
            if isinstance(what, SiteQueue):
                what.waking = False
                self.wake(what)
            elif what.state == DEFERRED and what.due_at == at:
                yield what

    def next_at(self) -> float:
        """When the next timer fires; infinity when there is none."""
        return self._timers[0].at if self._timers else float("inf")

    @property
    def idle(self) -> bool:
        """Nobody could go now."""
        return not self._round

    def pump(self, now: float, budget: int, attempt: Callable[[Held, SiteQueue], bool]) -> None:
        """Offer up to `budget` units, a turn for each site after the other; `attempt` says whether one was used up."""
        while self._round and budget > 0:
            site = self._round.popleft()
            site.active = False
            budget -= self._turn(site, now, min(TURN, budget), attempt)

    def _turn(self, site: SiteQueue, now: float, most: int, attempt: Callable[[Held, SiteQueue], bool]) -> int:
        if self._holds and self._holds.on_site(site.name):
            return 0
        rule = site.rule
        rate = rule.site_messages_per_second if rule else 0.0
        window = rule.site_window if rule else 100
        if rate:
            site.bucket = fill(site.bucket, rate, now)
        sent = 0
        while site.ready and sent < most and site.in_flight < window:
            if rate and site.bucket.tokens < 1.0:
                site.waking = True
                self._timer(now + wait(site.bucket, rate) + 0.001, site)
                return sent
            held = site.ready.popleft()
            if held.state != READY or held.site is not site or self._park(held):
                continue
            if attempt(held, site):
                sent += 1
                if rate:
                    site.bucket = Bucket(site.bucket.tokens - 1.0, site.bucket.at)
        if site.in_flight < window:
            self.wake(site)
        return sent

    def _park(self, held: Held) -> bool:
        if self._holds and held.domain and self._holds.on_unit(held.domain.name, held.tenant):
            held.state = PARKED
            self._parked.append(held)
            return True
        return False

    def _timer(self, at: float, what: Held | SiteQueue) -> None:
        self._number += 1
        heapq.heappush(self._timers, Due(at, self._number, what))
