"""What a reply means: the first rule that matches it gives class, blame and effect."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

import msgspec

from mailfleet_core.model import reply as phases
from mailfleet_core.model.wire import RecipientOutcome
from mailfleet_router.decisions.shaping.pattern import Pattern, pattern
from mailfleet_router.decisions.shaping.reply_text import asked_wait, normal_text
from mailfleet_router.decisions.shaping.values import (
    Citation,
    Facts,
    Match,
    PolicyError,
    Spec,
    fits,
    rate_per_second,
    seconds,
)


class ReplyClass(StrEnum):
    """What happened, in twenty words that stay: reports and statistics are kept under them."""

    BAD_MAILBOX = "bad_mailbox"
    INACTIVE_MAILBOX = "inactive_mailbox"
    BAD_DOMAIN = "bad_domain"
    QUOTA = "quota"
    RATE_LIMITED = "rate_limited"
    REPUTATION_BLOCK = "reputation_block"
    POLICY_BLOCK = "policy_block"
    SPAM_CONTENT = "spam_content"
    VIRUS = "virus"
    AUTHENTICATION = "authentication"
    """SPF, DKIM, DMARC, reverse DNS, or TLS that the site demands."""
    GREYLISTED = "greylisted"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    TOO_LARGE = "too_large"
    PROTOCOL = "protocol"
    RELAYING = "relaying"
    RECEIVER_TROUBLE = "receiver_trouble"
    NETWORK = "network"
    DNS = "dns"
    EXPIRED = "expired"
    UNKNOWN = "unknown"


class Blame(StrEnum):
    """Whose doing it is. Only `recipient` may suppress an address; only `sender_*` may feed a reputation."""

    RECIPIENT = "recipient"
    CONTENT = "content"
    SENDER_IP = "sender_ip"
    SENDER_DOMAIN = "sender_domain"
    TENANT = "tenant"
    RECEIVER = "receiver"
    NETWORK = "network"
    US = "us"


class Effect(StrEnum):
    """What follows for more than this one recipient (but `bounce` and `respect_wait`, which are about the unit)."""

    NONE = "none"
    SLOW = "slow"
    PAUSE = "pause"
    DISABLE_SOURCE = "disable_source"
    """A pause of the source for every site."""
    BOUNCE = "bounce"
    """A temporary refusal that never becomes better: the recipient is bounced now."""
    RESPECT_WAIT = "respect_wait"
    """The unit is tried again after the time that the reply names."""


class Scope(StrEnum):
    """What an effect is kept for."""

    SOURCE_SITE = "source_site"
    TENANT_SITE = "tenant_site"
    SITE = "site"
    SOURCE = "source"
    DOMAIN = "domain"


class Slowed(Spec, frozen=True):
    """Fixed limits for as long as a rule's effect lasts; what is not given is left to the back-off."""

    rate: str = ""
    concurrency: int = 0


class Samples(Spec, frozen=True):
    """Replies that the rule must and must not match: an optional phase (default rcpt), code, enhanced code, text."""

    match: tuple[str, ...] = ()
    never: tuple[str, ...] = msgspec.field(name="not", default=())


class ResponseRule(Spec, frozen=True):
    """One rule as it stands in the policy file. What is not given matches everything."""

    name: str
    reply_class: ReplyClass = msgspec.field(name="class")
    blame: Blame
    applies: Match = msgspec.field(name="if", default_factory=Match)
    code: int | str | tuple[int | str, ...] = ()
    """`421`, `4xx`, `45x`, or several; `0` where no reply came (network, DNS)."""
    enhanced: str | tuple[str, ...] = ()
    """`4.7.1`, `4.7.*`, `*.7.1`, or several. A 5yz before MAIL is a deferral and carries a 4.y.z of ours."""
    text: str | tuple[str, ...] = ()
    """Regular expressions, one of which is found in the text of `normal_text`; letters' case does not matter."""
    phase: tuple[str, ...] = ()
    effect: Effect = Effect.NONE
    scope: Scope = Scope.SOURCE_SITE
    threshold: str = ""
    """`5/1h`: the effect comes with the fifth hit in an hour. Default: with the first."""
    ttl: str = ""
    """How long `to` holds, and the shortest that a pause is."""
    to: Slowed = msgspec.field(default_factory=Slowed)
    citation: Citation | None = None
    samples: Samples = msgspec.field(default_factory=Samples)


class Reading(NamedTuple):
    """A reply understood."""

    rule: str
    """Empty: none matched, and the class is `unknown`."""
    reply_class: ReplyClass
    blame: Blame
    effect: Effect = Effect.NONE
    scope: Scope = Scope.SOURCE_SITE
    hits: int = 1
    """So many within `window_seconds` bring the effect about."""
    window_seconds: float = 3600.0
    ttl_seconds: float = 0.0
    rate_per_second: float = 0.0
    """Of `to`; 0: not given."""
    concurrency: int = 0
    wait_seconds: float = 0.0
    """`respect_wait`: what the reply asks for; 0: it names no time."""


class _Compiled(NamedTuple):
    applies: Match | None
    """None: whatever the facts (but the provider, which was looked at before)."""
    providers: tuple[str, ...]
    codes: frozenset[int]
    enhanced: tuple[str, ...]
    patterns: tuple[Pattern, ...]
    phases: tuple[str, ...]
    reading: Reading

    def understands(self, enhanced: str, text: str, phase: str) -> bool:
        if self.phases and phase not in self.phases:
            return False
        if self.enhanced and not any(fits(one, enhanced) for one in self.enhanced):
            return False
        if not self.patterns:
            return True
        for one in self.patterns:  # noqa: SIM110 (a generator costs more than most of what it would ask)
            if one.found(text):
                return True
        return False


_UNKNOWN = _Compiled(
    None, (), frozenset(), (), (), (), Reading("", ReplyClass.UNKNOWN, Blame.RECEIVER)
)  # fmt: skip


class Responses:
    """All rules, ready to be asked. Packs come in order of precedence; within a pack the rules that name a provider
    come before those that do not, otherwise the order of the file decides.

    Answers are remembered by provider, code, enhanced code, phase and normal text; memory is bounded by `remember`.
    """

    def __init__(self, *packs: Iterable[ResponseRule], remember: int = 16_384) -> None:
        rules = [rule for pack in packs for rule in _providers_first(pack)]
        _check_names(rules)
        self._rules = tuple([_compile(rule) for rule in rules])
        self._candidates = lru_cache(maxsize=4096)(self._find_candidates)
        self._readings = lru_cache(maxsize=remember)(self._find)

    def classify(self, facts: Facts, reply: RecipientOutcome) -> Reading:
        """What `reply` means to an attempt of `facts`. Pure: the same question has the same answer."""
        found = self._readings(facts.provider, reply.code, reply.enhanced, reply.phase, normal_text(reply.text))
        for applies, reading in found:
            if applies is None or applies.matches(facts):
                if reading.effect is Effect.RESPECT_WAIT:
                    return reading._replace(wait_seconds=asked_wait(reply.text) or 0.0)
                return reading
        raise AssertionError("the last one always applies")

    def remembered(self) -> int:
        """How many answers are in memory."""
        return self._readings.cache_info().currsize

    def _find(
        self, provider: str, code: int, enhanced: str, phase: str, text: str
    ) -> tuple[tuple[Match | None, Reading], ...]:
        # The rules that may apply, up to the first one that does whatever the tenant, source or domain is.
        found: list[tuple[Match | None, Reading]] = []
        for rule in self._candidates(provider, code):
            if rule.understands(enhanced, text, phase):
                found.append((rule.applies, rule.reading))
                if rule.applies is None:
                    break
        return tuple(found)

    def _find_candidates(self, provider: str, code: int) -> tuple[_Compiled, ...]:
        fitting = [
            rule
            for rule in self._rules
            if (not rule.codes or code in rule.codes)
            and (not rule.providers or any(fits(one, provider) for one in rule.providers))
        ]
        return (*fitting, _UNKNOWN)


def scope_key(scope: Scope, facts: Facts) -> str:
    """Under what an effect is kept: `source_site|ip-1|google`. Different facts never share a key."""
    parts = [getattr(facts, field) for field in _SCOPE_FIELDS[scope]]
    return "|".join([scope.value, *(part.replace("%", "%25").replace("|", "%7C") for part in parts)])


_SCOPE_FIELDS: dict[Scope, tuple[str, ...]] = {
    Scope.SOURCE_SITE: ("source", "site"),
    Scope.TENANT_SITE: ("tenant", "site"),
    Scope.SITE: ("site",),
    Scope.SOURCE: ("source",),
    Scope.DOMAIN: ("domain",),
}


def _providers_first(pack: Iterable[ResponseRule]) -> list[ResponseRule]:
    return sorted(pack, key=lambda rule: not rule.applies.provider)


def _check_names(rules: Sequence[ResponseRule]) -> None:
    seen: set[str] = set()
    for rule in rules:
        if not rule.name or rule.name in seen:
            raise PolicyError(f"response rule {rule.name!r}: every rule has a name of its own")
        seen.add(rule.name)


def _compile(rule: ResponseRule) -> _Compiled:
    try:
        only_provider = msgspec.structs.replace(rule.applies, provider=()) == Match()
        return _Compiled(
            applies=None if only_provider else rule.applies,
            providers=rule.applies.provider,
            codes=_codes(rule.code),
            enhanced=(rule.enhanced,) if isinstance(rule.enhanced, str) else rule.enhanced,
            patterns=tuple([pattern(text) for text in ((rule.text,) if isinstance(rule.text, str) else rule.text)]),
            phases=_phases(rule.phase),
            reading=_reading(rule),
        )
    except PolicyError as error:
        raise PolicyError(f"response rule {rule.name!r}: {error}") from None


def _reading(rule: ResponseRule) -> Reading:
    if rule.effect is Effect.DISABLE_SOURCE and rule.scope is not Scope.SOURCE:
        raise PolicyError("disable_source takes the source from every site: its scope is source")
    if not 0 <= rule.to.concurrency <= MAX_CONCURRENCY:
        raise PolicyError(f"{rule.to.concurrency} is no number of connections: write 1 to {MAX_CONCURRENCY}")
    hits, window = _threshold(rule.threshold) if rule.threshold else (1, 3600.0)
    return Reading(
        rule=rule.name,
        reply_class=rule.reply_class,
        blame=rule.blame,
        effect=rule.effect,
        scope=rule.scope,
        hits=hits,
        window_seconds=window,
        ttl_seconds=seconds(rule.ttl) if rule.ttl else 0.0,
        rate_per_second=rate_per_second(rule.to.rate) if rule.to.rate else 0.0,
        concurrency=rule.to.concurrency,
    )


MAX_CONCURRENCY = 10_000
MAX_HITS = 1000
"""The largest count of a threshold: so many instants are kept for it at most."""
_CODE = re.compile(r"[2-5](?:\d\d|\dx|xx)\Z")


def _threshold(text: str) -> tuple[int, float]:
    hits, slash, window = text.partition("/")
    if not slash or not hits.isdecimal() or not 1 <= int(hits) <= MAX_HITS:
        raise PolicyError(f"{text!r} is no threshold: write hits (1 to {MAX_HITS}) and a window, such as 5/1h")
    length = seconds(window if window[:1].isdigit() else f"1{window}")
    if length <= 0:
        raise PolicyError(f"{text!r} is no threshold: its window is empty")
    return int(hits), length


def _codes(given: int | str | tuple[int | str, ...]) -> frozenset[int]:
    codes: set[int] = set()
    for one in given if isinstance(given, tuple) else (given,):
        text = str(one).lower()
        if text == "0":
            codes.add(0)
        elif _CODE.match(text):
            codes.update(range(int(text.replace("x", "0")), int(text.replace("x", "9")) + 1))
        else:
            raise PolicyError(f"{one!r} is no reply code: write 421, 45x, 4xx, or 0 where no reply came")
    return frozenset(codes)


_PHASES = (
    phases.DNS, phases.CONNECT, phases.GREETING, phases.EHLO, phases.STARTTLS, phases.AUTH, phases.MAIL, phases.RCPT,
    phases.DATA, phases.DOT,
)  # fmt: skip


def _phases(given: tuple[str, ...]) -> tuple[str, ...]:
    for phase in given:
        if phase not in _PHASES:
            raise PolicyError(f"{phase!r} is no phase: write one of {', '.join(_PHASES)}")
    return given
