"""What another policy would have made of what really happened: recorded events, replayed against two policies."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from mailfleet_core.model.wire import Event
from mailfleet_router.decisions.shaping.drain import SiteQueue
from mailfleet_router.decisions.shaping.policy_file import Policy
from mailfleet_router.decisions.shaping.recorded import Begun, Held, Queued, Recorded, Step, steps
from mailfleet_router.decisions.shaping.responses import ResponseRule
from mailfleet_router.decisions.shaping.schema import Traffic
from mailfleet_router.decisions.shaping.scope_story import Moment, ScopeStory
from mailfleet_router.decisions.shaping.side import RuleCount, Sample, Side
from mailfleet_router.decisions.shaping.tally import Pairs, Waits

NOTE = (
    "This predicts our queue and not the receiver's reaction: outcomes of recorded attempts are taken as they were, and of "
    "attempts that would not have been made nothing is known."
)
"""Said with every report."""
MAX_UNMATCHED = 100
"""Texts in a report that no rule matched."""
MAX_SOURCES = 64
"""Of a site, that are learned from attempts."""
MAX_SITES = 10_000


class Plan(NamedTuple):
    """A traffic policy, and its response rules in order of precedence. Raises PolicyError when it is used and wrong."""

    traffic: Traffic
    packs: tuple[tuple[ResponseRule, ...], ...] = ()


class Matched(msgspec.Struct, frozen=True):
    """What a rule did with recorded replies."""

    replies: int = 0
    recipients: int = 0
    followed: dict[str, int] = msgspec.field(default_factory=dict)
    """Replies by what would have followed; see `side.FOLLOWED`."""


class RuleReport(msgspec.Struct, frozen=True):
    """One rule under both policies."""

    rule: str
    in_force: Matched
    tried: Matched
    samples: tuple[Sample, ...]
    """Of the policy to try; of the other one if that has none."""


class Unmatched(msgspec.Struct, frozen=True):
    """Replies of one meaning that no rule of the policy to try matched."""

    text: str
    """As `normal_text` gives it."""
    replies: int
    sample: Sample


class Imposed(msgspec.Struct, frozen=True):
    """What a policy would have done to a scope. Seconds are counted until the record ends."""

    slowed: int = 0
    slowed_seconds: float = 0.0
    paused: int = 0
    disabled: int = 0
    paused_seconds: float = 0.0
    """Of pauses and of disabled sources."""
    dead: int = 0
    dead_seconds: float = 0.0
    attempts_meanwhile: int = 0
    """What really happened: attempts that were begun while the policy would have paused the scope."""
    moments: tuple[Moment, ...] = ()
    """The first changes."""


class Really(msgspec.Struct, frozen=True):
    """What was recorded of a scope after the first thing that a policy would have done to it."""

    longest_gap_seconds: float
    """Without an attempt."""
    held: int
    """Events that a unit was held; they name site and tenant only."""


class ScopeReport(msgspec.Struct, frozen=True):
    """One scope under both policies, beside what really happened."""

    scope: str
    in_force: Imposed
    tried: Imposed
    recorded: Really


class LimitReport(msgspec.Struct, frozen=True):
    """One case of a limit with a rate over recorded attempts."""

    policy: str
    """`in_force` or `tried`."""
    limit: str
    case: int
    """From 1."""
    attempts: int
    over: int
    """Attempts that it would have put off."""
    longest_wait_seconds: float


class Queue(msgspec.Struct, frozen=True):
    """How mail of a site waits for its first attempt under one policy. Percentiles are rounded up by at most 19 %."""

    wait_p50_seconds: float
    wait_p99_seconds: float
    drained_at: float
    """When the last unit that arrived would be sent, seconds since 1970; 0: none ever."""
    drain_seconds: float
    """From the last arrival until then."""
    never: int = 0
    """Units that the limits never let go."""


class SiteReport(msgspec.Struct, frozen=True):
    """The queue of one site: as it was, and as limits and pauses of both policies would make it."""

    site: str
    arrivals: int
    attempts: int
    mean_attempt_seconds: float
    held: int
    recorded: Queue
    in_force: Queue
    tried: Queue


class Report(msgspec.Struct, frozen=True):
    """What came of it. `msgspec.to_builtins` makes it JSON."""

    note: str
    since: float
    until: float
    attempts: int
    not_made_in_force: int
    """Recorded attempts that a policy would have held by a pause or for a dead site."""
    not_made_tried: int
    rules: tuple[RuleReport, ...]
    unmatched: tuple[Unmatched, ...]
    """The commonest first."""
    scopes: tuple[ScopeReport, ...]
    limits: tuple[LimitReport, ...]
    sites: tuple[SiteReport, ...]


def plan(policy: Policy, *packs: tuple[ResponseRule, ...]) -> Plan:
    """A policy as it was read, its own rules before `packs`."""
    own = policy.packs()
    names = {rule.name for pack in own for rule in pack}
    return Plan(policy.traffic, (*own, *(tuple(rule for rule in pack if rule.name not in names) for pack in packs)))


def what_if(events: Iterable[Event], in_force: Plan, tried: Plan, sources: tuple[str, ...] = ()) -> Report:
    """Replay `events` against the policy that was in force and the one to try. Raises PolicyError, whatever the events.

    `sources` are those among which arrivals are dealt out; without any, those that attempts at a site have shown so far.
    """
    replay = _Replay(in_force, tried, sources)
    for step in steps(events):
        replay.step(step)
    return replay.report()


class _Seen:
    """What was recorded of a site."""

    def __init__(self) -> None:
        self.sources: tuple[str, ...] = ()
        self.waits = Waits()
        self.held, self.attempts = 0, 0
        self.begun_at = 0.0
        """The newest first attempt."""


class _Replay:
    def __init__(self, in_force: Plan, tried: Plan, sources: tuple[str, ...]) -> None:
        self._plans, self._given = (in_force, tried), sources
        self._seen: dict[str, _Seen] = {}
        self._sides = tuple(Side(one.traffic, one.packs, self._sources_of) for one in (in_force, tried))
        self._pairs = Pairs()
        self._since, self._until, self._attempts = math.inf, 0.0, 0

    def step(self, step: Step) -> None:
        """One thing that happened."""
        at = step.ended_at if isinstance(step, Recorded) else step.at
        self._since, self._until = min(self._since, at), max(self._until, at)
        seen = self._site(step.facts.site)
        if isinstance(step, Queued):
            self._pairs.begin(step.unit, at)
        elif isinstance(step, Held):
            seen.held += 1
        elif isinstance(step, Begun):
            self._begun(seen, step.unit, at)
        else:
            self._attempts += 1
            seen.attempts += 1
            if step.facts.source not in seen.sources and len(seen.sources) < MAX_SOURCES:
                seen.sources = tuple(sorted((*seen.sources, step.facts.source)))
            self._begun(seen, step.unit, step.started_at)
        for side in self._sides:
            _tell(side, step)

    def report(self) -> Report:
        """Everything, now that the record ends."""
        in_force, tried = self._sides
        for side in self._sides:
            for story in side.scopes.values():
                story.finish(self._until)
        return Report(
            NOTE, min(self._since, self._until), self._until, self._attempts, in_force.not_made, tried.not_made,
            tuple(_rule(name, in_force.rules.get(name), tried.rules.get(name)) for name in _names(in_force.rules, tried.rules)),
            tuple(_unmatched(tried)),
            tuple(_scope(key, in_force.scopes.get(key), tried.scopes.get(key)) for key in _names(in_force.scopes, tried.scopes)),
            (*_limits("in_force", self._plans[0], in_force), *_limits("tried", self._plans[1], tried)),
            tuple(self._site_report(site) for site in _names(in_force.drain.sites, tried.drain.sites)),
        )  # fmt: skip

    def _begun(self, seen: _Seen, unit: bytes, at: float) -> None:
        wait = self._pairs.end(unit, at)
        if wait is not None:
            seen.waits.add(wait)
            seen.begun_at = max(seen.begun_at, at)

    def _sources_of(self, site: str) -> tuple[str, ...]:
        return self._given or (self._seen[site].sources if site in self._seen else ())

    def _site(self, name: str) -> _Seen:
        if name not in self._seen:
            if len(self._seen) >= MAX_SITES:
                del self._seen[next(iter(self._seen))]
            self._seen[name] = _Seen()
        return self._seen[name]

    def _site_report(self, name: str) -> SiteReport:
        seen = self._seen.get(name) or _Seen()
        queues = [side.drain.sites.get(name) or SiteQueue() for side in self._sides]
        known, last = queues[0], queues[0].last_arrival_at
        in_force, tried = (
            _queue(queue.waits, side.drain.drained_at(name), last, queue.never)
            for queue, side in zip(queues, self._sides, strict=True)
        )
        recorded = _queue(seen.waits, seen.begun_at, last, 0)
        return SiteReport(name, known.arrivals, seen.attempts, known.mean_seconds, seen.held, recorded, in_force, tried)


def _tell(side: Side, step: Step) -> None:
    if isinstance(step, Recorded):
        side.attempt(step)
    elif isinstance(step, Queued):
        side.queued(step)
    elif isinstance(step, Held):
        side.held(step)


def _names(one: Iterable[str], other: Iterable[str]) -> list[str]:
    return sorted({*one, *other})


def _queue(waits: Waits, drained_at: float, last_arrival_at: float, never: int) -> Queue:
    after = max(0.0, drained_at - last_arrival_at) if drained_at else 0.0
    return Queue(waits.percentile(0.5), waits.percentile(0.99), drained_at, after, never)


def _rule(name: str, in_force: RuleCount | None, tried: RuleCount | None) -> RuleReport:
    samples = (tried or in_force or RuleCount()).samples
    return RuleReport(name, _matched(in_force), _matched(tried), tuple(samples))


def _matched(count: RuleCount | None) -> Matched:
    return Matched(count.replies, count.recipients, dict(sorted(count.followed.items()))) if count else Matched()


def _unmatched(side: Side) -> list[Unmatched]:
    commonest = side.unmatched.commonest()[:MAX_UNMATCHED]
    return [Unmatched(text, replies, side.unmatched_samples[text]) for text, replies in commonest]


def _scope(key: str, in_force: ScopeStory | None, tried: ScopeStory | None) -> ScopeReport:
    stories = [story for story in (in_force, tried) if story]
    really = Really(max(each.longest_gap_seconds for each in stories), max(each.held for each in stories))
    return ScopeReport(key, _imposed(in_force), _imposed(tried), really)


def _imposed(story: ScopeStory | None) -> Imposed:
    if story is None:
        return Imposed()
    return Imposed(
        story.slowed, story.slowed_seconds, story.paused, story.disabled, story.paused_seconds, story.dead,
        story.dead_seconds, story.attempts_meanwhile, tuple(story.moments),
    )  # fmt: skip


def _limits(policy: str, plan: Plan, side: Side) -> list[LimitReport]:
    return [
        LimitReport(
            policy, plan.traffic.limits[limit].name, case + 1, count.attempts, count.over, count.longest_wait_seconds
        )
        for (limit, case), count in sorted(side.limits.items())
    ]
