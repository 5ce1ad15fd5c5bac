"""One policy over recorded attempts: what its rules and limits would have done, scope by scope.

Outcomes are taken as they were. An attempt that would have been held by a pause or a dead site counts as such, and its
answers have no effect, for it would not have been made; what would have come instead nobody knows. That limits would
have put an attempt off is counted, and changes nothing else, so that a stricter limit cannot make a rule do less.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache

import msgspec

from mailfleet_core.model.wire import DELIVERED
from mailfleet_router.decisions.shaping import backoff, gcra, site_health
from mailfleet_router.decisions.shaping.backoff import BackOff
from mailfleet_router.decisions.shaping.drain import Drain, bounded
from mailfleet_router.decisions.shaping.hits import HitTable, Threshold
from mailfleet_router.decisions.shaping.limits import Limits, Values, provider_of
from mailfleet_router.decisions.shaping.pace import NO_PACE, Pace
from mailfleet_router.decisions.shaping.recorded import Answer, Held, Queued, Recorded
from mailfleet_router.decisions.shaping.reply_text import normal_text
from mailfleet_router.decisions.shaping.responses import Effect, Reading, ResponseRule, Responses, Scope, scope_key
from mailfleet_router.decisions.shaping.schema import Traffic
from mailfleet_router.decisions.shaping.scope_story import ScopeStory
from mailfleet_router.decisions.shaping.site_health import Contact, SiteHealth
from mailfleet_router.decisions.shaping.slowed import limits_anything
from mailfleet_router.decisions.shaping.tally import Texts
from mailfleet_router.decisions.shaping.values import Facts

MAX_SAMPLES = 3
"""Replies that are kept of each rule, and of each text that no rule matched one."""
MAX_TEXT = 300
"""Letters of a reply that are kept."""


class Sample(msgspec.Struct, frozen=True):
    """A reply as it was recorded."""

    at: float
    source: str
    site: str
    phase: str
    code: int
    enhanced: str
    text: str


class RuleCount:
    """What one rule matched, and what followed."""

    def __init__(self) -> None:
        self.replies, self.recipients = 0, 0
        self.followed: Counter[str] = Counter()
        """Replies by what the rule would have done; see `FOLLOWED`."""
        self.samples: list[Sample] = []


NOTHING, BELOW, SLOWED, PAUSED, DISABLED, NO_CHANGE, BOUNCED, WAITED, NOT_MADE = FOLLOWED = (
    "nothing", "below the threshold", "slowed", "paused", "source disabled", "no change", "bounced", "waited as asked",
    "not made",
)  # fmt: skip
"""What may follow from a reply. `no change`: it was slow or paused enough already. `not made`: held, so no such reply."""


class LimitCount:
    """What one case of a limit would have put off."""

    def __init__(self) -> None:
        self.attempts, self.over = 0, 0
        self.longest_wait_seconds = 0.0


class Side:
    """One policy, being replayed. Memory is bounded by scopes, rules and sites."""

    def __init__(
        self, traffic: Traffic, packs: Iterable[Iterable[ResponseRule]], sources_of: Callable[[str], tuple[str, ...]]
    ):
        self.drain = Drain(traffic)
        self.rules: dict[str, RuleCount] = {}
        self.unmatched = Texts()
        self.unmatched_samples: dict[str, Sample] = {}
        self.scopes: dict[str, ScopeStory] = {}
        self.limits: dict[tuple[int, int], LimitCount] = {}
        self.not_made = 0
        self._responses, self._limits = Responses(*packs), Limits(traffic)
        self._hits = HitTable()
        self._health: dict[str, SiteHealth] = {}
        self._providers: dict[str, str] = {}
        self._known = frozenset(provider.name for provider in traffic.providers)
        self._sources_of = sources_of
        self._buckets: dict[str, tuple[float, float, float]] = {}
        self._paces: dict[str, Pace] = {}

        @lru_cache(maxsize=4096)
        def provider(mx: str, domain: str) -> str:
            return provider_of(traffic.providers, (mx,) if mx else (), domain)

        self._provider = provider

    # --- steps ---------------------------------------------------------------------------------------------------
    def attempt(self, recorded: Recorded) -> None:
        """An attempt and its answers."""
        facts = self._with_provider(recorded.facts, recorded.mx)
        self.drain.took(facts.site, recorded.ended_at - recorded.started_at)
        self._limit(facts, recorded.started_at)
        for key in _keys(facts):
            bounded(self._paces, key, Pace).count(recorded.started_at)
            if key in self.scopes:
                self.scopes[key].attempted(recorded.started_at)
        made = not self._stopped(facts, recorded.started_at)
        self.not_made += not made
        for answer in recorded.answers:
            about = facts._replace(domain=answer.domain)
            if answer.outcome.verdict != DELIVERED:
                self._answered(about, answer, recorded, made)
            elif made:
                self._clean(about, recorded)
        if made:
            self._contact(facts, recorded)

    def queued(self, queued: Queued) -> None:
        """A unit comes to the queue of its site."""
        sources = self._sources_of(queued.facts.site) or ("",)
        source = sources[self.drain.turn(queued.facts.site) % len(sources)]
        facts = self._with_provider(queued.facts._replace(source=source), "")
        states = [(key, self.scopes[key].state) for key in _keys(facts) if key in self.scopes]
        slow = tuple((key, state) for key, state in states if limits_anything(state, queued.at))
        until = max([0.0, *(state.paused_until for _, state in slow)])
        health = self._health.get(facts.site)
        if health:
            until = max(until, site_health.standing(health, source, queued.at).wait_until)
        self.drain.arrive(facts, queued.at, self._limits.effective(facts), slow, until)

    def held(self, held: Held) -> None:
        """The router did hold a unit."""
        for key in (scope_key(Scope.SITE, held.facts), scope_key(Scope.TENANT_SITE, held.facts)):
            if key in self.scopes:
                self.scopes[key].held += 1

    # --- answers -------------------------------------------------------------------------------------------------
    def _answered(self, facts: Facts, answer: Answer, recorded: Recorded, made: bool) -> None:
        reading = self._responses.classify(facts, answer.outcome)
        outcome = answer.outcome
        sample = Sample(
            recorded.ended_at, facts.source, facts.site, outcome.phase, outcome.code, outcome.enhanced,
            outcome.text[:MAX_TEXT],
        )  # fmt: skip
        if not reading.rule:
            self._not_understood(normal_text(outcome.text)[:MAX_TEXT], sample)
            return
        count = self.rules.setdefault(reading.rule, RuleCount())
        count.replies += 1
        count.recipients += answer.recipients
        count.followed[self._follow(facts, reading, outcome.text, recorded) if made else NOT_MADE] += 1
        if len(count.samples) < MAX_SAMPLES:
            count.samples.append(sample)

    def _not_understood(self, text: str, sample: Sample) -> None:
        if self.unmatched.add(text, 1):
            self.unmatched_samples[text] = sample
            if len(self.unmatched_samples) > 4000:
                kept = self.unmatched_samples.items()
                self.unmatched_samples = {text: sample for text, sample in kept if text in self.unmatched}

    def _follow(self, facts: Facts, reading: Reading, text: str, recorded: Recorded) -> str:
        if reading.effect not in (Effect.SLOW, Effect.PAUSE, Effect.DISABLE_SOURCE):
            return {Effect.BOUNCE: BOUNCED, Effect.RESPECT_WAIT: WAITED}.get(reading.effect, NOTHING)
        key, at = scope_key(reading.scope, facts), recorded.ended_at
        event = zlib.crc32(b"%b/%d" % (recorded.unit, recorded.attempt))
        threshold, pace = Threshold(reading.hits, reading.window_seconds, reading.share), self._paces.get(key, NO_PACE)
        if not self._hits.observe(reading.rule, key, threshold, at, event, pace.attempts):
            return BELOW
        pause = reading.effect is not Effect.SLOW
        hit = backoff.Hit(
            at, recorded.started_at, pause, reading.rule, text, pace.per_second(at), reading.ttl_seconds,
            reading.rate_per_second, reading.concurrency,
        )  # fmt: skip
        what = {Effect.SLOW: SLOWED, Effect.PAUSE: PAUSED}.get(reading.effect, DISABLED)
        scope = bounded(self.scopes, key, ScopeStory)
        if scope.hit(hit, what) is None:
            return NO_CHANGE
        if pause:
            self._stop(reading.scope, facts, at, scope.state.paused_until)
        return what

    def _clean(self, facts: Facts, recorded: Recorded) -> None:
        for key in _keys(facts):
            if key in self.scopes:
                self.scopes[key].clean(recorded.started_at, recorded.ended_at)

    def _stop(self, scope: Scope, facts: Facts, at: float, until: float) -> None:
        if scope in (Scope.SOURCE_SITE, Scope.SITE, Scope.SOURCE):
            site = "" if scope is Scope.SOURCE else facts.site
            self.drain.stop(at, until, site, "" if scope is Scope.SITE else facts.source)

    # --- sites ---------------------------------------------------------------------------------------------------
    def _contact(self, facts: Facts, recorded: Recorded) -> None:
        # Which hosts failed is not recorded: an attempt that reached none of them is a round.
        showed = {site_health.reached(answer.outcome) for answer in recorded.answers}
        if True not in showed and False not in showed:
            return
        host = recorded.mx or facts.site
        failed = () if True in showed else (host,)
        site = site_health.Site(facts.site, frozenset((host,)), len(self._sources_of(facts.site)) or 1)
        before = bounded(self._health, facts.site, SiteHealth)
        contact = Contact(facts.source, recorded.started_at, recorded.ended_at, failed)
        after, change = site_health.observe(before, site, contact)
        self._health[facts.site] = after
        if after.probe_at > before.probe_at:
            self.drain.stop(recorded.ended_at, after.probe_at, facts.site)
        if change:
            scope = Scope.SITE if before.dead_since or after.dead_since else Scope.SOURCE_SITE
            story = bounded(self.scopes, scope_key(scope, facts), ScopeStory)
            story.health(change, recorded.ended_at, before.dead_since, after.dead_since)

    def _stopped(self, facts: Facts, at: float) -> bool:
        """Would an attempt at `at` have been held?"""
        for key in _keys(facts):
            if key in self.scopes:
                state: BackOff = self.scopes[key].state
                if state.paused_until - state.pause_seconds < at < state.paused_until:
                    return True
        health = self._health.get(facts.site)
        if health is None:
            return False
        since = health.dead_since or next((one.round_at for one in health.failing if one.source == facts.source), 0.0)
        return at > since and site_health.standing(health, facts.source, at).wait_until > 0

    # --- limits --------------------------------------------------------------------------------------------------
    def _limit(self, facts: Facts, at: float) -> None:
        for limit in self._limits.effective(facts):
            values = limit.values
            if values.message_rate is None and not values.suspend:
                continue
            count = self.limits.setdefault((limit.limit_number, limit.case_number), LimitCount())
            count.attempts += 1
            wait = self._wait(limit.key, values, at)
            count.over += wait > 0
            if not values.suspend and values.message_rate:
                count.longest_wait_seconds = max(count.longest_wait_seconds, wait)

    def _wait(self, key: str, values: Values, at: float) -> float:
        # Attempts come in the order in which they ended, but a bucket's clock only goes on.
        rate = values.message_rate or 0.0
        if values.suspend or not rate:
            return 1.0
        state, old, newest = bounded(self._buckets, key, lambda: (0.0, rate, at))
        now = max(at, newest)
        if old != rate:
            state = gcra.changed(state, old, rate, now)
        state, wait = gcra.take(state, rate, values.burst, now)
        self._buckets[key] = (state, rate, now)
        return wait

    def _with_provider(self, facts: Facts, mx: str) -> Facts:
        if facts.site in self._known:
            return facts._replace(provider=facts.site)
        provider = self._provider(mx, facts.domain)
        if mx and provider:
            bounded(self._providers, facts.site, str)
            self._providers[facts.site] = provider
        return facts._replace(provider=provider or self._providers.get(facts.site, ""))


@lru_cache(maxsize=16_384)
def _keys(facts: Facts) -> tuple[str, ...]:
    return tuple([scope_key(scope, facts) for scope in Scope])
