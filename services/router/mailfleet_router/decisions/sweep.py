"""A slow walk over all units: what nobody has a timer for, because a timer for each would double their size."""

from __future__ import annotations

from mailfleet_router.decisions.partition import Partition
from mailfleet_router.decisions.site_queue import DEFERRED, FOLDED, IN_FLIGHT, PARKED, READY, RESOLVING, Held

ROUND_SECONDS = 10.0
STEP_UNITS = 2_000
SHORT_ROUND_SECONDS = 1.0
"""For as many units as one step takes: a unit that was in flight at one look is not at all of them."""

WAITING = frozenset({READY, PARKED, RESOLVING})


class Sweep:
    """Expiry of what cannot be tried, delay reports, and why things wait."""

    def __init__(self, partition: Partition) -> None:
        self._partition = partition
        self._left: list[Held] = []
        self._again_at = 0.0
        partition.ledger.store.look_at = self._look_at

    def step(self, now: float) -> None:
        """Look at some units more; a round is begun every few seconds. Raises SpillLost."""
        self._look_into_store(now)
        if not self._left:
            if now < self._again_at:
                return
            self._left = list(self._partition.ledger.units.values())
            self._again_at = now + (ROUND_SECONDS if len(self._left) > STEP_UNITS else SHORT_ROUND_SECONDS)
        for held in self._left[-STEP_UNITS:]:
            self._look(held, now)
        del self._left[-STEP_UNITS:]

    def _look_into_store(self, now: float) -> None:
        """Nobody walks what lies there; it says itself when it wants a look."""
        store, left = self._partition.ledger.store, STEP_UNITS
        for number in store.to_look_at(now):
            left -= store.examine(number, lambda held: self._look(held, now))
            if left <= 0:
                return

    def _look_at(self, held: Held) -> float:
        """The first instant at which `_look` finds something to do for a unit that waits."""
        policy, at = self._partition.policy, float("inf")
        if held.state in WAITING:
            at = held.expires_at if held.reported else min(held.expires_at, held.since + policy.held_report_seconds)
        after = policy.ladder(held.stream).delay_dsn_seconds
        if after > 0 and not held.delay and held.state != FOLDED:
            at = min(at, held.accepted_at + after)
        return at

    def _look(self, held: Held, now: float) -> None:
        partition, policy = self._partition, self._partition.policy
        state = held.state
        if state in WAITING:
            if now >= held.expires_at:
                partition.expire(held, now)
                return
            if now - held.since >= policy.held_report_seconds and not held.reported:
                self._tell(held, now)
        elif state == IN_FLIGHT and now - held.since > policy.in_flight_report_seconds and not held.reported:
            # Never sent elsewhere by ourselves: the sender may have it.
            partition.tell_held(held, f"no answer from the sender of lane {held.lane}", 0.0, "router", now)
        if not held.delay and (state in WAITING or state == DEFERRED):
            after = policy.ladder(held.stream).delay_dsn_seconds
            if 0 < after <= now - held.accepted_at:
                partition.report_delay(held)

    def _tell(self, held: Held, now: float) -> None:
        reason, by, until = why(self._partition, held)
        self._partition.tell_held(held, reason, until, by, now)


def why(partition: Partition, held: Held) -> tuple[str, str, float]:
    """(reason, by, until) why a waiting unit is not tried."""
    if held.state == RESOLVING:
        return f"the DNS is asked for {held.domain.name if held.domain else ''}", "dns", 0.0
    if (hold := partition.scheduler.hold_on(held)) is not None:
        return hold.reason, hold.by, hold.until
    site = held.site
    if site is None or site.rule is None:
        return "", "router", 0.0
    if site.in_flight >= site.rule.site_window:
        return f"{site.in_flight} in senders' hands, which is the site's window", "window", 0.0
    if site.rule.site_messages_per_second and site.bucket.tokens < 1.0 and site.waking:
        return f"the site's limit of {site.rule.site_messages_per_second:g} messages per second", "rate", 0.0
    if site.waits and (site.waking or site.stalled or not site.active):
        return site.waits, "policy", 0.0
    return "its turn has not come", "router", 0.0
