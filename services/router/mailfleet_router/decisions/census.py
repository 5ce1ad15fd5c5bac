"""The queue of a partition, counted: by site, by state, by age, by tenant; a slice at a time, for it may be long."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from mailfleet_router.decisions.commands import Hold
from mailfleet_router.decisions.holding import STATES
from mailfleet_router.decisions.partition import Partition
from mailfleet_router.decisions.site_queue import (
    ATTEMPTING,
    DEFERRED,
    IN_FLIGHT,
    PARKED,
    READY,
    RESOLVING,
    Held,
    SiteQueue,
)
from mailfleet_router.decisions.sweep import why

AGES = (60.0, 600.0, 3600.0, 6 * 3600.0, 24 * 3600.0, 3 * 24 * 3600.0)
"""Bounds of the ages in seconds, each up to and with its own."""
SLICE_UNITS = 5_000
"""Looked at before others have a turn."""


def ready_tenants(site: SiteQueue) -> dict[str, float]:
    """The tenants that have mail at a site which may go, and their weights."""
    return {
        flow.tenant: flow.weight
        for _, flow in site.ready.flows()
        if any(queue.items and not queue.resting for queue in flow.queues.values())
    }


class Sites:
    """All sites that have units."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        """By site, as `/api/queues` says them."""

    def look(self, partition: Partition) -> Iterator[None]:
        """Count, a slice at a time."""
        rows = self.rows
        for number, held in enumerate(partition.ledger.walk(), 1):
            name = held.site.name if held.site else ""
            row = rows.get(name)
            if row is None:
                row = rows[name] = {
                    "site": name, "partition": partition.number, "waiting": 0, "in_flight": 0, "deferred": 0,
                    "oldest_at": held.accepted_at, "next_at": 0.0, "why": "", "per_second": 0.0,
                    "window": held.site.rule.site_window if held.site and held.site.rule else 0,
                }  # fmt: skip
            _add(row, held, partition)
            if number % SLICE_UNITS == 0:
                yield


def _add(row: dict[str, Any], held: Held, partition: Partition) -> None:
    row["oldest_at"] = min(row["oldest_at"], held.accepted_at)
    if held.state in (IN_FLIGHT, ATTEMPTING):
        row["in_flight"] += 1
        return
    row["waiting"] += 1
    if held.state == DEFERRED:
        row["deferred"] += 1
        row["next_at"] = min(row["next_at"] or held.due_at, held.due_at)
        hold = partition.scheduler.hold_on(held)
        row["why"] = hold.reason if hold else row["why"] or (held.site.why if held.site else "")
    elif held.state in (READY, PARKED, RESOLVING):
        # What keeps mail from being tried says more than what the last attempt came to.
        row["why"] = why(partition, held)[0] or row["why"]


class SiteCensus:
    """The units of one site."""

    def __init__(self, now: float) -> None:
        self._now = now
        self.states: Counter[str] = Counter()
        self.tenants: Counter[str] = Counter()
        """That wait."""
        self.streams: Counter[str] = Counter()
        self.domains: Counter[str] = Counter()
        self.ages = [0] * (len(AGES) + 1)
        """Of what waits, since we accepted it; the last are older than all bounds."""
        self.oldest_at = self.next_at = 0.0
        self.holds: dict[str, Hold] = {}
        """Suspensions of some of it."""

    def look(self, partition: Partition, site: str) -> Iterator[None]:
        """Count, a slice at a time."""
        for number, held in enumerate(partition.ledger.walk(), 1):
            if held.site is not None and held.site.name == site:
                self._add(held, partition)
            if number % SLICE_UNITS == 0:
                yield

    def story(self) -> dict[str, Any]:
        """What was counted, JSON-ready."""
        bounds = [*AGES, 0.0]
        return {
            "waiting": sum(self.ages),
            "states": dict(self.states),
            "ages": [{"up_to_seconds": bound, "units": units} for bound, units in zip(bounds, self.ages, strict=True)],
            "oldest_at": self.oldest_at,
            "next_at": self.next_at,
            "tenants": dict(self.tenants.most_common(50)),
            "streams": dict(self.streams.most_common(20)),
            "domains": dict(self.domains.most_common(20)),
            "holds": [hold._asdict() for hold in self.holds.values()],
        }

    def _add(self, held: Held, partition: Partition) -> None:
        self.states[STATES[held.state]] += 1
        if held.state in (IN_FLIGHT, ATTEMPTING):
            return
        self.tenants[held.tenant] += 1
        self.streams[held.stream] += 1
        self.domains[held.domain.name if held.domain else ""] += 1
        if (hold := partition.scheduler.hold_on(held)) is not None:
            self.holds[hold.reason] = hold
        age = self._now - held.accepted_at
        self.ages[next((number for number, bound in enumerate(AGES) if age <= bound), len(AGES))] += 1
        self.oldest_at = min(self.oldest_at or held.accepted_at, held.accepted_at)
        if held.state == DEFERRED:
            self.next_at = min(self.next_at or held.due_at, held.due_at)
