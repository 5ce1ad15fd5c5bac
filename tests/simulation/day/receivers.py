"""The receiving side: what a provider does with a source that it knows, does not know, or has had enough of."""

from __future__ import annotations

from collections import deque
from random import Random

from mailfleet_core.model.site import domain_of
from mailfleet_core.model.wire import DELIVERED, RecipientOutcome
from mailfleet_router.decisions.shaping.values import seconds
from simulation.day.scenario import Receiver, Scenario

ACCEPTED = (RecipientOutcome(0, DELIVERED, 250, "2.0.0", "2.0.0 Ok: queued as 4F6C21A0B3", "dot"),)

BURST_SECONDS = 20.0
"""So many seconds' worth of its rate a receiver lets come at once."""
TOO_FAST = 3
"""More refusals than that in a minute make it one of the minutes that count against a source."""
PATIENCE_SECONDS = 3600.0
QUIET_SECONDS = 30.0
"""A blocked source may ask once in so long; asking more often makes the block longer."""
LONGER_SECONDS = 60.0
LONGEST = 3.0
"""A block is at most so many times as long as it was meant to be."""
GREYLIST_SECONDS = 300.0
LEAST_JUDGED = 60
"""Recipients of an hour below which their share of unknown ones says nothing."""
WARNED_SECONDS = 900.0
"""A source with too many unknown recipients is answered `slow` so long before it is blocked."""


class Standing:
    """What one receiver thinks of one source, and what really came from it."""

    __slots__ = (
        "_level", "_level_at", "_minute", "_refused", "blocked_from", "blocked_until", "blocks", "connections",
        "judged_at", "new", "recipients", "seen_at", "slow_minutes", "unknown", "warned_until",
    )  # fmt: skip

    def __init__(self, new: bool, now: float) -> None:
        self.new = new
        self.connections = 0
        self.blocks = 0
        self.blocked_from = self.blocked_until = self.warned_until = 0.0
        self.recipients = self.unknown = 0.0
        self.judged_at = self.seen_at = now
        self.slow_minutes: deque[float] = deque()
        self._level, self._level_at = 0.0, now
        self._minute, self._refused = 0.0, 0

    def state(self, now: float) -> str:
        """good, slowed or blocked."""
        if now < self.blocked_until:
            return "blocked"
        recent = self.slow_minutes and self.slow_minutes[-1] > now - 300.0
        return "slowed" if now < self.warned_until or recent else "good"

    def within(self, rate: float, least: float, now: float) -> bool:
        """Is this message within `rate`? It is counted only if it is."""
        level = max(0.0, self._level - rate * (now - self._level_at))
        self._level_at = now
        within = level + 1.0 <= max(least, rate * BURST_SECONDS)
        self._level = level + 1.0 if within else level
        return within

    def refused(self, patience: int, now: float) -> bool:
        """It was too fast. Returns whether that was once too often."""
        minute = now // 60.0
        if minute != self._minute:
            self._minute, self._refused = minute, 0
        self._refused += 1
        if self._refused != TOO_FAST:
            return False
        self.slow_minutes.append(now)
        while self.slow_minutes[0] < now - PATIENCE_SECONDS:
            self.slow_minutes.popleft()
        return len(self.slow_minutes) > patience

    def recipient(self, unknown: bool, limit: float, now: float) -> bool:
        """A recipient was named. Returns whether too many are unknown; what is an hour old counts by a third."""
        faded = 0.33 ** ((now - self.judged_at) / 3600.0)
        self.recipients, self.unknown = self.recipients * faded + 1.0, self.unknown * faded + unknown
        self.judged_at = now
        return unknown and self.recipients >= LEAST_JUDGED and self.unknown > limit * self.recipients

    def block(self, length: float, now: float) -> None:
        """From now on it gets nothing but refusals."""
        self.blocks += 1
        self.blocked_from, self.blocked_until = now, now + length
        self.warned_until = 0.0
        self.slow_minutes.clear()
        self.recipients = self.unknown = 0.0

    def still_blocked(self, length: float, now: float) -> bool:
        """It asks again: is it blocked? Asking too often makes it longer."""
        if now >= self.blocked_until:
            return False
        if now - self.seen_at < QUIET_SECONDS:
            self.blocked_until = min(self.blocked_until + LONGER_SECONDS, self.blocked_from + length * LONGEST)
        return True


class Site:
    """A receiving site: a provider's, or a small one (`receiver` is None)."""

    def __init__(self, scenario: Scenario, receiver: Receiver | None, rng: Random, greylists: str = "") -> None:
        self.receiver = receiver
        self.seconds = receiver.seconds if receiver else scenario.small.seconds
        self.connections = receiver.connections if receiver else scenario.small.connections
        self.per_connection = receiver.per_connection if receiver else 100
        self.greylists = receiver.greylists if receiver else greylists
        self.standings: dict[str, Standing] = {}
        self._rng = rng
        self._new = scenario.new_sources()
        share = scenario.rate_share
        self._least = 5.0
        self._rate, self._new_rate = (receiver.rate * share, receiver.new_rate * share) if receiver else (0.0, 0.0)
        self._block = seconds(receiver.block) if receiver else 0.0
        self._greylisted: dict[object, float] = {}
        self._replies = {what: (scenario.reply(receiver, what),) for what in scenario.says}
        self._incidents = [
            (*incident.span, incident)
            for incident in scenario.incidents
            if receiver and incident.provider == receiver.name
        ]

    def standing(self, source: str, now: float) -> Standing:
        """Of that source here."""
        found = self.standings.get(source)
        if found is None:
            found = self.standings[source] = Standing(source in self._new, now)
        return found

    def rate(self, standing: Standing) -> float:
        """What it bears from this source, in messages per second; 0: whatever comes."""
        return self._new_rate if standing.new else self._rate

    def greeting(self, standing: Standing, now: float) -> tuple[RecipientOutcome, ...] | None:
        """The answer to a new connection when it is no welcome."""
        for start, end, incident in self._incidents:
            if incident.refuses and start <= now < end:
                return self._replies["refused"]
        blocked = self._replies["block"]
        if blocked[0].phase in ("connect", "greeting") and standing.still_blocked(self._block, now):
            standing.seen_at = now
            return blocked
        if standing.connections > self.connections:
            return self._say("connections")
        return None

    def transaction(
        self, standing: Standing, who: tuple[str, str], address: str, now: float
    ) -> tuple[RecipientOutcome, ...]:
        """The answer to a message for one recipient; `who` is (source, tenant)."""
        if self.receiver is not None and (refusal := self._judge(self.receiver, standing, address, now)) is not None:
            return refusal
        if address.startswith("u"):
            if self.greylists and self._greylist(who, address, now):
                return self._say("greylisted")
            return ACCEPTED if self._rng.random() > 0.0005 else self._say("busy_mailbox")
        if address.startswith("gone"):
            return self._say("unknown")
        return self._say("full" if address.startswith("full") else "spam")

    def latency(self, now: float) -> float:
        """Seconds that a transaction takes."""
        slower = 1.0
        for start, end, incident in self._incidents:
            if start <= now < end:
                slower = incident.slower
        return self.seconds * slower * (0.5 + self._rng.random())

    def _say(self, what: str) -> tuple[RecipientOutcome, ...]:
        return self._replies[what]

    def _greylist(self, who: tuple[str, str], address: str, now: float) -> bool:
        key = (*who, address) if self.greylists == "triple" else (who[0], domain_of(address))
        first = self._greylisted.setdefault(key, now)
        return now < first + GREYLIST_SECONDS

    def _judge(
        self, receiver: Receiver, standing: Standing, address: str, now: float
    ) -> tuple[RecipientOutcome, ...] | None:
        """What the source gets for what it is, whoever the recipient."""
        if standing.still_blocked(self._block, now):
            standing.seen_at = now
            return self._say("block")
        standing.seen_at = now
        if not standing.within(self.rate(standing), self._least, now):
            if standing.refused(receiver.patience, now):
                standing.block(self._block, now)
            return self._say("slow")
        if standing.recipient(address.startswith("gone"), receiver.reputation, now):
            if not standing.warned_until:
                standing.warned_until = now + WARNED_SECONDS
            elif now >= standing.warned_until:
                standing.block(self._block, now)
        return self._say("slow") if now < standing.warned_until else None


class Watch:
    """Sees at the receiver whether a configured limit is kept.

    No window of any length may hold more than rate × length + burst. The level of a bucket that leaks at `rate` is the most by
    which any window that ends now exceeds rate × length, so one number says it for all windows.
    """

    __slots__ = ("_at", "_burst", "_level", "rate", "violations", "worst")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate, self._burst = rate, burst
        self._level, self._at = 0.0, now
        self.violations = 0
        self.worst = 0.0
        """Messages above rate × length + burst."""

    def came(self, now: float) -> None:
        """A message began."""
        self._level = max(0.0, self._level - self.rate * (now - self._at)) + 1.0
        self._at = now
        over = self._level - self._burst
        if over > 1e-3:
            self.violations += 1
            self.worst = max(self.worst, over)
