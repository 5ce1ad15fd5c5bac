"""One process of the simulated day: some queue partitions with the real decisions, senders and receivers in virtual time."""

from __future__ import annotations

import gc
import heapq
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

from mailfleet_core.model import wire
from mailfleet_core.model.site import domain_of
from mailfleet_core.model.tags import CLAIM, EPOCH_KEY, PUT, tag
from mailfleet_core.model.wire import Dispatch
from mailfleet_router.decisions.outbox import Append, Outbox
from mailfleet_router.decisions.partition import Partition, Record
from mailfleet_router.decisions.site_queue import DEFERRED, READY
from mailfleet_router.decisions.sweep import Sweep, why
from simulation.day.brain import Brain
from simulation.day.clockwork import Clockwork
from simulation.day.mails import Mail, count_of, mails, tally_of
from simulation.day.receivers import Site, Standing, Watch
from simulation.day.scenario import DAY_SECONDS, MIDNIGHT, Scenario
from simulation.day.senders import Senders
from simulation.day.tally import STEP_SECONDS, Contest, Tally
from simulation.day.town import Domain, quarters

EPOCH = 8
LOG_SECONDS = 0.02
"""Until a record is durable and read."""
DNS_SECONDS = 0.03
SWEEP_SECONDS = 60.0


class Owner:
    """A queue partition and what is on its way to it."""

    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        self.sweep = Sweep(partition)
        self.puts: list[Record] = []
        self.results: list[Record] = []
        self.offset = EPOCH
        self.wakes_at = float("inf")

    def next_offset(self) -> int:
        """Of the next record, whichever topic it is in: they only have to grow."""
        self.offset += 1
        return self.offset


class Day:
    """The day of some queue partitions."""

    def __init__(self, scenario: Scenario, brain: Brain, numbers: list[int], pictured: list[tuple[str, str]]) -> None:
        self.scenario, self.brain, self.numbers = scenario, brain, numbers
        self.clock = Clockwork(MIDNIGHT)
        self.tally = Tally(scenario, pictured)
        self.towns = quarters(scenario)
        self.domains: dict[str, Domain] = {
            domain.name: domain for number in numbers for domain in self.towns[number].domains
        }
        self.sites: dict[str, Site] = {}
        self.owners = {number: self._own(number) for number in numbers}
        self._rngs = {number: Random(f"{scenario.seed} receivers {number}") for number in numbers}
        self.senders = Senders(self.clock, brain.lanes, self._site, self._result, self.tally, self._watch)

    def run(self, progress: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """The whole day. `progress` is told now and then."""
        gc.freeze()
        gc.set_threshold(200_000, 50, 50)
        scenario, clock = self.scenario, self.clock
        for number in self.numbers:
            town = self.towns[number]
            self.tally.ends[number] = [bytearray(count_of(scenario, town, one)) for one in scenario.campaigns]
        clock.feed(heapq.merge(*[mails(scenario, self.towns, number) for number in self.numbers]), self._submit)
        clock.at(MIDNIGHT + SWEEP_SECONDS, self._sweep, None)
        for step in range(1, int(DAY_SECONDS / STEP_SECONDS) + 1):
            until = MIDNIGHT + step * STEP_SECONDS
            clock.run(until)
            self.tally.sample(until, self._standings(), self._contending())
            progress(self._progress())
        return self._over()

    # --- the router ----------------------------------------------------------------------------------------------
    def _own(self, number: int) -> Owner:
        partition = self.brain.partition(number)
        partition.claimed(EPOCH, 0)
        partition.fold([(EPOCH, EPOCH_KEY, tag(CLAIM), b"")], MIDNIGHT)
        partition.restore(MIDNIGHT)
        partition.resume(MIDNIGHT)
        return Owner(partition)

    def _submit(self, mail: Mail) -> None:
        owner = self.owners[mail.partition]
        campaign, receiver, _ = tally_of(mail.key)
        self.tally.came(mail, campaign, receiver)
        owner.puts.append((owner.next_offset(), mail.key, tag(PUT), mail.value))
        self._wake(owner, mail.at + LOG_SECONDS)

    def _result(self, partition: int, key: bytes, value: bytes) -> None:
        owner = self.owners[partition]
        owner.results.append((owner.next_offset(), key, tag(PUT), value))
        self._wake(owner, self.clock.now + LOG_SECONDS)

    def _wake(self, owner: Owner, at: float) -> None:
        if at < owner.wakes_at:
            owner.wakes_at = at
            self.clock.at(at, self._flush, owner)

    def _flush(self, owner: Owner) -> None:
        now, partition = self.clock.now, owner.partition
        if owner.wakes_at != now:
            return  # it was woken earlier
        owner.wakes_at = float("inf")
        if owner.puts:
            puts, owner.puts = owner.puts, []
            partition.fold(puts, now)
        if owner.results:
            results, owner.results = owner.results, []
            partition.results(results, now)
        partition.tick(now)
        while self._wants(partition.out):
            self._carry_out(owner, partition.take())
        if not partition.scheduler.idle:
            self._wake(owner, now + 0.001)
        at = partition.scheduler.next_at()
        if at < MIDNIGHT + 2 * DAY_SECONDS:
            self._wake(owner, max(at, now + 0.001))

    @staticmethod
    def _wants(out: Outbox) -> bool:
        return bool(
            out.own or out.events or out.dispatches or out.asks or out.reports or out.moves or out.states or out.wide
        )

    def _carry_out(self, owner: Owner, out: Outbox) -> None:
        """Do what the partition wants, which may make it want more."""
        now, partition = self.clock.now, owner.partition
        if out.moves:
            raise AssertionError("the sites of all domains are known from the start: nothing moves")
        for name in out.asks:
            self.clock.at(now + DNS_SECONDS, self._resolved, (owner, name))
        for event in out.events:
            self.tally.told(event, now)
        if out.events:
            partition.durable(out.batch)
        for report in out.reports:
            self.tally.counts["reports"] += 1
            partition.carried_out(report.token)
        for token, _ in out.states:
            partition.kept(token)
        if out.own:
            partition.fold([(owner.next_offset(), own.key, own.tag, own.value) for own in out.own], now)
        for dispatch in out.dispatches:
            self._dispatch(dispatch)

    def _dispatch(self, append: Append) -> None:
        assert append.value is not None
        self.senders.take(wire.decode(Dispatch, append.value))

    def _resolved(self, what: tuple[Owner, str]) -> None:
        owner, name = what
        now = self.clock.now
        self.brain.routing.answered(name, "mx", self.domains[name].hosts, now)
        owner.partition.resolved(name, now)
        self._wake(owner, now + 0.001)

    def _sweep(self, _: object) -> None:
        for owner in self.owners.values():
            owner.sweep.step(self.clock.now)
            self._wake(owner, self.clock.now + 0.001)
        self.senders.sweep()
        self.brain.wide.tick(self.clock.now)
        self.clock.at(self.clock.now + SWEEP_SECONDS, self._sweep, None)

    # --- the receivers -------------------------------------------------------------------------------------------
    def _site(self, work: Dispatch) -> Site:
        name = work.unit.site
        site = self.sites.get(name)
        if site is None:
            scenario = self.scenario
            domain = self.domains[domain_of(work.unit.recipients[0].address)]
            large = domain.receiver < len(scenario.receivers)
            rng = self._rngs[work.queue_partition]
            greylists = "triple" if rng.random() < scenario.small.greylists else ""
            receiver = scenario.receivers[domain.receiver] if large else None
            site = self.sites[name] = Site(scenario, receiver, rng, "" if large else greylists)
        return site

    def _watch(self, source: str, site: Site) -> Watch | None:
        if site.receiver is None:
            return None
        rate = self.brain.message_rate(site.receiver.name)
        return Watch(rate, max(1.0, rate / 10.0), self.clock.now) if rate else None

    def _standings(self) -> dict[tuple[str, str], Standing]:
        return {
            (source, site.receiver.name): standing
            for site in self.sites.values()
            if site.receiver is not None
            for source, standing in site.standings.items()
        }

    def _contending(self) -> dict[Contest, dict[str, int]]:
        found: dict[Contest, dict[str, int]] = {}
        for number, owner in self.owners.items():
            for name, queue in owner.partition.scheduler.sites.items():
                site = self.sites.get(name)
                if site is None or site.receiver is None:
                    continue
                receiver = self.tally.names.index(site.receiver.name)
                at = owner.partition.shaper.learned.at(name)
                for _, flow in queue.ready.flows():
                    if at is not None and flow.tenant in at.tenants:
                        continue
                    for (stream, pool), mail in flow.queues.items():  # type: ignore[misc]
                        if stream == "bulk":
                            tenants = found.setdefault((number, receiver, pool), {})
                            tenants[flow.tenant] = len(mail.items)
        return found

    # --- what is told --------------------------------------------------------------------------------------------
    def _progress(self) -> dict[str, Any]:
        counts = self.tally.counts
        return {
            "at": self.clock.now - MIDNIGHT,
            "ended": sum(counts[kind] for kind in ("delivered", "bounced", "expired")),
            "queued": sum(map(sum, self.tally.queued)),
        }

    def _over(self) -> dict[str, Any]:
        parts = self.tally.parts()
        reasons: Counter[str] = Counter()
        left = 0
        for owner in self.owners.values():
            for held in owner.partition.ledger.units.values():
                left += 1
                reasons[self._reason(owner, held) or "NO REASON"] += 1
        watches = self.senders.watches
        standings = self._standings()
        blocks: Counter[str] = Counter()
        for (_, name), standing in standings.items():
            blocks[name] += standing.blocks
        return parts | {
            "left": left,
            "reasons": dict(reasons),
            "violations": sum(watch.violations for watch in watches.values()),
            "violations_worst": max((watch.worst for watch in watches.values()), default=0.0),
            "connection_violations": self.senders.violations,
            "watched": len(watches),
            "blocks": dict(blocks),
        }

    def _reason(self, owner: Owner, held: Any) -> str:
        if held.state == DEFERRED:
            entry = wire.decode(wire.Entry, held.raw)
            return f"deferred: {entry.last.code} {entry.last.text[:50]}" if entry.last else "deferred"
        if held.state == READY:
            return f"ready: {held.site.waits[:60]}" if held.site.waits else ""
        return why(owner.partition, held)[0]
