"""What happened in the day, counted where it happens; the parts of several processes add up."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from mailfleet_core.model.wire import TERMINAL_KINDS, Event, RecipientOutcome
from mailfleet_router.decisions.shaping.fairness import jain
from simulation.day.mails import Mail, is_stuck, tally_of
from simulation.day.receivers import Standing
from simulation.day.scenario import DAY_SECONDS, MIDNIGHT, Scenario, of_day
from simulation.day.senders import Heard, Job, Path

STEP_SECONDS = 300.0
STEPS = int(DAY_SECONDS / STEP_SECONDS)
WAITS = [0.05 * 1.15**step for step in range(110)]
"""Upper ends of classes of waits in seconds, from 50 ms to two days."""
LEAST_WANTED = 10
"""Turns that a tenant must have wanted in a step to be looked at."""

Contest = tuple[int, int, str]
"""Tenants with ready mail in one queue: (partition, receiver, pool)."""


class Tally(Heard):
    """Everything that is counted of the queue partitions of one process."""

    def __init__(self, scenario: Scenario, pictured: Iterable[tuple[str, str]]) -> None:
        self.scenario = scenario
        self.names = [receiver.name for receiver in scenario.receivers] + ["small sites"]
        self.tenants = [campaign.tenant for campaign in scenario.campaigns]
        self.counts: Counter[str] = Counter()
        self.outcomes: Counter[tuple[str, int, str]] = Counter()
        """(provider, code, first words of the text) of everything that was not delivered."""
        self.ends: list[list[bytearray]] = [[] for _ in range(scenario.partitions)]
        self.queued = [[0] * len(scenario.campaigns) for _ in self.names]
        self.queue: dict[str, list[int]] = {name: [0] * (STEPS + 1) for name in self.names}
        self.delivered: dict[str, list[int]] = {name: [0] * STEPS for name in self.names}
        self.waits = {tenant: [0] * (len(WAITS) + 1) for tenant in self.tenants}
        self.burst_waits = [0] * (len(WAITS) + 1)
        self.attempted = {pair: [0] * STEPS for pair in pictured}
        self.states: dict[tuple[str, str], list[str]] = {}
        self.pictured = frozenset(pictured)
        self.fair: dict[str, list[float]] = defaultdict(list)
        self.before_outage: dict[str, int] = {}
        self.drained_at: dict[str, float] = {}
        self._turns: Counter[tuple[Contest, str]] = Counter()
        """Of bulk tenants, in this step."""
        self._burst = _burst(scenario)
        self._outages = {
            self.names.index(incident.provider): incident.span[1] for incident in scenario.incidents if incident.refuses
        }
        self._step = 0

    # --- mails come, and end -------------------------------------------------------------------------------------
    def came(self, mail: Mail, campaign: int, receiver: int) -> None:
        """A mail was accepted."""
        self.queued[receiver][campaign] += 1
        self.counts["accepted"] += 1
        if receiver in self._outages and mail.at < self._outages[receiver] and not is_stuck(mail.key):
            name = self.names[receiver]
            self.before_outage[name] = self.before_outage.get(name, 0) + 1

    def told(self, event: Event, now: float) -> None:
        """The router tells of a step."""
        kind = event.kind
        if kind in TERMINAL_KINDS:
            self._ended(event, now)
        elif kind == "attempted":
            self._turn(event.unit)
        elif kind not in ("accepted", "queued"):
            self.counts[kind] += 1

    def _turn(self, unit: bytes) -> None:
        campaign, receiver, _ = tally_of(unit)
        of = self.scenario.campaigns[campaign]
        if of.stream == "bulk":
            self._turns[(unit[6], receiver, of.pool), of.tenant] += 1

    def _ended(self, event: Event, now: float) -> None:
        unit = event.unit
        campaign, receiver, number = tally_of(unit)
        ends = self.ends[unit[6]][campaign]
        ends[number] += 1
        self.counts[event.kind] += 1
        self.queued[receiver][campaign] -= 1
        if event.kind == "delivered":
            self.delivered[self.names[receiver]][min(self._step, STEPS - 1)] += 1
        else:
            self.counts[
                f"{event.kind} {'gone' if event.recipients[0][1].startswith(('gone', 'spam')) else 'good'}"
            ] += 1
        if (
            receiver in self._outages
            and not is_stuck(unit)
            and int.from_bytes(unit[:6], "big") / 1000.0 < self._outages[receiver]
        ):
            self._outage_left(self.names[receiver], receiver, now)

    def _outage_left(self, name: str, receiver: int, now: float) -> None:
        # Blocks that have nothing to do with the outage are left: 99 of 100 count as all.
        self.before_outage[name] -= 1
        if now > self._outages[receiver] and name not in self.drained_at:
            total = self.counts[f"before the outage at {name}"]
            if self.before_outage[name] <= total / 100:
                self.drained_at[name] = now

    # --- at the receivers ----------------------------------------------------------------------------------------
    def began(self, path: Path, job: Job, outcome: RecipientOutcome, now: float) -> None:
        """A transaction began, or could not."""
        self.counts["attempts"] += 1
        if job.attempt == 1:
            wait = bisect_left(WAITS, now - job.accepted_at)
            self.waits[job.tenant][wait] += 1
            if job.tenant == "passwords" and self._burst[0] <= job.accepted_at < self._burst[1]:
                self.burst_waits[wait] += 1
        receiver = path.site.receiver
        if receiver is not None:
            pair = (job.source, receiver.name)
            if pair in self.pictured:
                self.attempted[pair][min(self._step, STEPS - 1)] += 1
        if outcome.code != 250:
            name = receiver.name if receiver else "small sites"
            self.outcomes[name, outcome.code, outcome.text[:60]] += 1

    # --- time passes ---------------------------------------------------------------------------------------------
    def sample(
        self, now: float, standings: dict[tuple[str, str], Standing], contending: dict[Contest, dict[str, int]]
    ) -> None:
        """The end of a step. `contending`: ready units of the bulk tenants at the providers' sites that no reply has
        slowed."""
        self._step = min(STEPS, int((now - MIDNIGHT) / STEP_SECONDS + 0.5))
        for index, name in enumerate(self.names):
            self.queue[name][self._step] = sum(self.queued[index])
        for pair in self.pictured:
            if pair in standings:
                line = self.states.setdefault(pair, ["unused"] * (self._step - 1))
                line.append(standings[pair].state(now))
        self._measure_fairness(contending)
        for index, until in self._outages.items():
            if now <= until:
                name = self.names[index]
                self.counts[f"before the outage at {name}"] = self.before_outage.get(name, 0)

    def _measure_fairness(self, contending: dict[Contest, dict[str, int]]) -> None:
        """Between the tenants of a queue with more ready mail than it had turns, against the max-min fair shares of what
        they wanted: the turns they had, and the mail that is ready still."""
        for contest, ready in contending.items():
            wanted = {tenant: self._turns[contest, tenant] + left for tenant, left in ready.items()}
            wanted = {tenant: demand for tenant, demand in wanted.items() if demand >= LEAST_WANTED}
            turns = {tenant: self._turns[contest, tenant] for tenant in wanted}
            total = sum(turns.values())
            if len(wanted) > 1 and LEAST_WANTED <= total < sum(wanted.values()) * 0.8:
                shares = max_min(wanted, total)
                self.fair[self.names[contest[1]]].append(jain(turns[tenant] / shares[tenant] for tenant in wanted))
        self._turns.clear()

    def parts(self) -> dict[str, Any]:
        """What there is to add up, as plain values."""
        twice = sum(1 for partition in self.ends for ends in partition for end in ends if end > 1)
        never = sum(ends.count(0) for partition in self.ends for ends in partition)
        return {
            "counts": dict(self.counts), "outcomes": dict(self.outcomes), "queue": self.queue, "delivered": self.delivered,
            "waits": self.waits, "burst_waits": self.burst_waits, "attempted": self.attempted, "states": self.states,
            "fair": dict(self.fair), "drained_at": self.drained_at, "ended_twice": twice, "without_end": never,
        }  # fmt: skip


def max_min(demands: dict[str, int], total: float) -> dict[str, float]:
    """Everybody's fair share of `total`: nobody gets more than he asks for, and what he leaves is shared by the others."""
    shares: dict[str, float] = {}
    for left, (name, demand) in zip(
        range(len(demands), 0, -1), sorted(demands.items(), key=lambda item: item[1]), strict=True
    ):
        shares[name] = min(demand, total / left)
        total -= shares[name]
    return {name: share or 1e-9 for name, share in shares.items()}


def quantile(counts: list[int], share: float) -> float:
    """The wait in seconds that `share` of all do not exceed, to 15 %."""
    wanted, seen = sum(counts) * share, 0
    for index, count in enumerate(counts):
        seen += count
        if seen >= wanted and seen:
            return WAITS[index] if index < len(WAITS) else float("inf")
    return 0.0


def _burst(scenario: Scenario) -> tuple[float, float]:
    """While the largest campaign that comes at once lies in the queue: from its begin, two hours."""
    begin = min(
        (of_day(one.begins) for one in scenario.campaigns if one.begins and one.tenant == "letters"), default=0.0
    )
    return MIDNIGHT + begin, MIDNIGHT + begin + 2 * 3600.0
