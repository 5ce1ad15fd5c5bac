"""The granter of all limits that span partitions: demands in, shares out. It is the owner of queue partition 0.

What it gives counts as in use from the moment it decides, whether or not the record gets into the log. What a holder says that
it does not use any more is free at once, and otherwise after the term of its lease.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec

from mailfleet_router.decisions.shaping import leases
from mailfleet_router.decisions.shaping.leases import EARLY_SECONDS, PERIOD_SECONDS, TERM_SECONDS, Granter, Lease, Limit
from mailfleet_router.decisions.shaping.leasing import BEAT_SECONDS, Claimed, Given, Granted, Want, Wanted

LAPSE_SECONDS = 3 * BEAT_SECONDS
"""A demand that was not repeated for so long is over: a lease would end before it could be used."""
EARLY_TRIES = 4
"""So often a holder that has nothing is given something before the period is over: others give back first."""


class _Demand(NamedTuple):
    want: Want
    number: int
    """Of the holder's record."""
    at: float
    """When it was read, by the granter's clock."""


class Granting:
    """One claim's granter. `now` is always the same steady clock."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.live = False
        """It has read its own claim, and so every lease that counts and is not its own."""
        self.over = False
        """Somebody has claimed after it."""
        self._newest = -1
        self._number = 0
        self._granters: dict[str, Granter] = {}
        self._demands: dict[str, dict[str, _Demand]] = {}
        """Counter → holder → what it asked for."""
        self._landed: dict[int, float] = {-1: math.inf}
        """Numbers of own leases that were read back, and when."""
        self._tries: dict[tuple[str, str], int] = {}
        """(counter, holder) that is new or has nothing: how often a grant has passed it by."""
        self._swept_at = -math.inf
        self._early_at = -math.inf

    # --- the log -----------------------------------------------------------------------------------------------------
    def heard(self, record: Claimed | Granted | Wanted | None, now: float) -> None:
        """The next record, from the oldest that is kept."""
        if isinstance(record, Claimed):
            self._newest = max(self._newest, record.epoch)
            self.live = self.live or record.epoch == self.epoch
            self.over = self._newest > self.epoch
        elif isinstance(record, Granted) and record.epoch >= self._newest:
            for given in record.given:
                self._given(record.epoch, given, now)
        elif isinstance(record, Wanted) and self.live:
            self._wanted(record, now)

    def _given(self, epoch: int, given: Given, now: float) -> None:
        if epoch == self.epoch:
            self._landed[given.number] = now
            return
        # Nobody knows when it was given: before now, and so it has ended a term from now.
        lease = Lease(given.holder, given.share, now + TERM_SECONDS, epoch, given.number)
        granter = self._granters.get(given.counter) or Granter(self.epoch)
        self._granters[given.counter] = msgspec.structs.replace(granter, leases=(*granter.leases, lease))

    def _wanted(self, wanted: Wanted, now: float) -> None:
        if wanted.gone:
            for counter in list(self._demands):
                self._forget(wanted.holder, counter)
        if wanted.epoch < self.epoch:
            # It may still read an older granter's lease.
            return
        for want in wanted.wants:
            if want.demand < 0:
                self._forget(wanted.holder, want.counter)
                continue
            granter = self._followed(want, wanted, now)
            demands = self._demands.setdefault(want.counter, {})
            # Of who speaks for the first time a lease of an older granter may be about to end.
            new = wanted.holder not in demands
            demands[wanted.holder] = _Demand(want, wanted.number, now)
            # Who has none may have one on its way, or one that came too late.
            if new or want.share <= 0 or not _has(granter, wanted.holder, now):
                self._tries.setdefault((want.counter, wanted.holder), 0)

    def _followed(self, want: Want, wanted: Wanted, now: float) -> Granter:
        """The granter without the leases that the holder does not use any more. What is known of older granters' leases is
        replaced by what it says that it has: they were counted as if all of them were in force."""
        granter, holder = self._granters.get(want.counter) or Granter(self.epoch), wanted.holder
        old = [lease for lease in granter.leases if lease.holder == holder and lease.epoch < self.epoch]
        if old:
            kept = [lease for lease in granter.leases if lease not in old]
            if want.share > 0:
                kept.append(Lease(holder, want.share, now + TERM_SECONDS, self.epoch, -1))
            granter = msgspec.structs.replace(granter, leases=tuple(kept))
        granter = leases.follows(granter, holder, wanted.epoch, wanted.last, self._landed)
        self._granters[want.counter] = granter
        return granter

    def _forget(self, holder: str, counter: str) -> None:
        demand = self._demands.get(counter, {}).pop(holder, None)
        self._tries.pop((counter, holder), None)
        # Its units are still in use, and whoever takes them over has not counted them yet.
        if (demand is None or not demand.want.used) and counter in self._granters:
            self._granters[counter] = leases.forget(self._granters[counter], holder)

    # --- giving ------------------------------------------------------------------------------------------------------
    def due_at(self) -> float:
        """When `grant` will have something to do."""
        if not self.live or self.over:
            return math.inf
        early = any(tries < EARLY_TRIES for tries in self._tries.values())
        return min(self._swept_at + PERIOD_SECONDS, self._early_at + EARLY_SECONDS if early else math.inf)

    def grant(self, now: float) -> list[Given]:
        """The shares to write at this instant."""
        if now < self.due_at():
            return []
        self._early_at = now
        if now >= self._swept_at + PERIOD_SECONDS:
            self._swept_at = now
            self._tidy(now)
            counters = list(self._demands)
        else:
            counters = list({counter for (counter, _), tries in self._tries.items() if tries < EARLY_TRIES})
        return [given for counter in counters for given in self._grant(counter, now)]

    def _grant(self, counter: str, now: float) -> list[Given]:
        asked = {
            holder: demand
            for holder, demand in self._demands.get(counter, {}).items()
            if demand.at > now - LAPSE_SECONDS
        }
        if not asked:
            return []
        wants = [demand.want for demand in asked.values()]
        # While a changed limit goes round the least of what the holders know holds.
        limit = Limit(min(want.total for want in wants), any(want.whole for want in wants))
        demands = {holder: demand.want.demand for holder, demand in asked.items()}
        used = {holder: demand.want.used for holder, demand in asked.items() if demand.want.whole}
        granter = self._granters.get(counter) or Granter(self.epoch)
        granter = msgspec.structs.replace(granter, number=self._number)
        granter, given = leases.grant(granter, limit, demands, now, used, early=True)
        self._granters[counter], self._number = granter, granter.number
        got = {lease.holder for lease in given}
        for holder in asked:
            if holder in got:
                self._tries.pop((counter, holder), None)
            elif (counter, holder) in self._tries:
                self._tries[counter, holder] += 1
        return [Given(counter, lease.holder, lease.share, lease.number, asked[lease.holder].number) for lease in given]

    def _tidy(self, now: float) -> None:
        for number in [number for number, at in self._landed.items() if at < now - 2 * TERM_SECONDS]:
            del self._landed[number]
        for counter, demands in list(self._demands.items()):
            for holder in [holder for holder, demand in demands.items() if demand.at <= now - LAPSE_SECONDS]:
                del demands[holder]
                self._tries.pop((counter, holder), None)
            if not demands:
                del self._demands[counter]
        for counter, granter in list(self._granters.items()):
            granter = leases.expire(granter, now)
            if granter.leases or counter in self._demands:
                self._granters[counter] = granter
            else:
                del self._granters[counter]


def _has(granter: Granter, holder: str, now: float) -> bool:
    return any(lease.holder == holder and lease.until > now for lease in granter.leases)
