"""What a reply means: the first rule that matches it gives class, blame and effect."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Annotated, NamedTuple

import msgspec

from mailfleet_core.model import reply as phases
from mailfleet_core.model.wire import RecipientOutcome
from mailfleet_router.decisions.shaping.meanings import Blame as Blame
from mailfleet_router.decisions.shaping.meanings import Effect as Effect
from mailfleet_router.decisions.shaping.meanings import ReplyClass as ReplyClass
from mailfleet_router.decisions.shaping.meanings import Scope as Scope
from mailfleet_router.decisions.shaping.pattern import Pattern, pattern
from mailfleet_router.decisions.shaping.reply_text import asked_wait, normal_text
from mailfleet_router.decisions.shaping.values import (
    Citation,
    Duration,
    Facts,
    Match,
    Name,
    PolicyError,
    Rate,
    Refusal,
    Spec,
    doc,
    fits,
    rate_per_second,
    seconds,
)

MAX_CONCURRENCY = 10_000
MAX_HITS = 1000
"""The largest count of a threshold: so many instants are kept for it at most."""
_CODE = re.compile(r"[2-5](?:\d\d|\dx|xx)\Z")
_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,4})?)\s*%\Z")
PHASES = (
    phases.DNS, phases.EGRESS, phases.CONNECT, phases.GREETING, phases.EHLO, phases.STARTTLS, phases.AUTH, phases.MAIL,
    phases.RCPT, phases.DATA, phases.DOT,
)  # fmt: skip


class Slowed(Spec, frozen=True):
    """Fixed limits for as long as a rule's effect lasts; what is not given is left to the back-off."""

    rate: Annotated[Rate | None, doc("Messages per time.", "10/m")] = None
    concurrency: Annotated[
        int, msgspec.Meta(ge=0, le=MAX_CONCURRENCY), doc("Connections at once; 0: as the back-off has it.", 2)
    ] = 0


class Samples(Spec, frozen=True):
    """Replies that show what a rule is for; `mailfleet policy check` tries them."""

    match: Annotated[
        tuple[str, ...], doc("It reads these: [phase] code [enhanced code] text; phase `rcpt`.", ["421 4.7.0 Busy"])
    ] = ()
    never: Annotated[tuple[str, ...], doc("It does not match these.", ["550 5.1.1 No such user"])] = msgspec.field(
        name="not", default=()
    )


class ResponseRule(Spec, frozen=True):
    """One rule. What is not given matches everything."""

    name: Annotated[Name, doc("Its name where it is shown why mail waits, and in statistics.", "busy")]
    reply_class: Annotated[ReplyClass, doc("What happened; statistics are kept under it.", "rate_limited")] = (
        msgspec.field(name="class", default=ReplyClass.UNKNOWN)
    )
    blame: Annotated[
        Blame, doc("Whose doing it is: `recipient` may suppress an address, `sender_…` feed a reputation.", "sender_ip")
    ] = Blame.RECEIVER
    applies: Annotated[Match, doc("What the rule is for; without it, everything.", {"provider": ["yahoo"]})] = (
        msgspec.field(name="if", default=Match())
    )
    code: Annotated[
        int | str | tuple[int | str, ...], doc("`421`, `45x`, `4xx`, or several; `0` where no reply came.", "4xx")
    ] = ()
    enhanced: Annotated[
        str | tuple[str, ...],
        doc("`4.7.1`, `4.7.*`, `*.7.1`, or several. A 5yz before MAIL is a deferral: a 4.y.z of ours.", "4.7.*"),
    ] = ()
    text: Annotated[
        str | tuple[str, ...],
        doc(
            "Regular expressions, one of which is found in the reply's text: in lower case, addresses as `@`, IP addresses "
            "as `ip`, numbers and ids as `#`, URLs without scheme and query.",
            "try again later",
        ),
    ] = ()
    phase: Annotated[tuple[str, ...], doc(f"Where in the session: {', '.join(PHASES)}.", ["rcpt", "dot"])] = ()
    effect: Annotated[Effect, doc("What follows for more than this one recipient.", "slow")] = Effect.NONE
    scope: Annotated[Scope, doc("What the effect is kept for.", "source_site")] = Scope.SOURCE_SITE
    threshold: Annotated[
        str, doc("`5/1h`: the effect comes with the fifth hit in an hour; without it, with the first.", "5/1h")
    ] = ""
    share: Annotated[
        str,
        doc("`1%`: and not before the hits are such a share of the scope's messages since the first of them.", "1%"),
    ] = ""
    ttl: Annotated[Duration | None, doc("How long `to` holds, and the shortest that a pause is.", "30m")] = None
    to: Annotated[Slowed, doc("Fixed limits instead of half of what was.", {"rate": "10/m"})] = Slowed()
    citation: Annotated[
        Citation | None,
        doc(
            "Where the reply is explained.",
            {"url": "https://senders.yahooinc.com/smtp-error-codes/", "date": "2026-11-22"},
        ),
    ] = None
    samples: Annotated[Samples, doc("Replies that show what it is for.", {"match": ["421 4.7.0 Busy"]})] = Samples()


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
    share: float = 0.0
    """And they are so much of what the scope sent meanwhile."""
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
        rules = [rule for pack in packs for rule in in_order(pack)]
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


def in_order(pack: Iterable[ResponseRule]) -> list[ResponseRule]:
    """The rules of a pack in the order in which they are looked at."""
    return sorted(pack, key=lambda rule: not rule.applies.provider)


def _check_names(rules: Sequence[ResponseRule]) -> None:
    seen: set[str] = set()
    for rule in rules:
        if not rule.name or rule.name in seen:
            raise PolicyError(f"response rule {rule.name!r}: every rule has a name of its own")
        seen.add(rule.name)


def refusal(rule: ResponseRule) -> Refusal | None:
    """What in a rule cannot be meant, and what to write instead."""
    readings: tuple[tuple[tuple[str | int, ...], Callable[[], object]], ...] = (
        (("code",), lambda: codes(rule.code)),
        *((path, partial(pattern, text)) for path, text in _texts(rule)),
        (("phase",), lambda: _phases(rule.phase)),
        (("threshold",), lambda: threshold(rule.threshold)),
        (("share",), lambda: share(rule.share, rule.scope)),
        (("scope",), lambda: _reading(rule)),
    )
    for path, reading in readings:
        try:
            reading()
        except PolicyError as error:
            return Refusal(path, str(error))
    return None


def _texts(rule: ResponseRule) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(rule.text, str):
        yield ("text",), rule.text
    else:
        yield from ((("text", index), text) for index, text in enumerate(rule.text))


def _compile(rule: ResponseRule) -> _Compiled:
    try:
        only_provider = msgspec.structs.replace(rule.applies, provider=()) == Match()
        return _Compiled(
            applies=None if only_provider else rule.applies,
            providers=rule.applies.provider,
            codes=codes(rule.code),
            enhanced=several(rule.enhanced),
            patterns=tuple([pattern(text) for text in several(rule.text)]),
            phases=_phases(rule.phase),
            reading=_reading(rule),
        )
    except PolicyError as error:
        raise PolicyError(f"response rule {rule.name!r}: {error}") from None


def several(given: str | tuple[str, ...]) -> tuple[str, ...]:
    """One or more as several."""
    return (given,) if isinstance(given, str) else given


def _reading(rule: ResponseRule) -> Reading:
    if rule.effect is Effect.DISABLE_SOURCE and rule.scope is not Scope.SOURCE:
        raise PolicyError("disable_source takes the source from every site: its scope is source")
    if not 0 <= rule.to.concurrency <= MAX_CONCURRENCY:
        raise PolicyError(f"{rule.to.concurrency} is no number of connections: write 1 to {MAX_CONCURRENCY}")
    hits, window = threshold(rule.threshold)
    return Reading(
        rule=rule.name,
        reply_class=rule.reply_class,
        blame=rule.blame,
        effect=rule.effect,
        scope=rule.scope,
        hits=hits,
        window_seconds=window,
        share=share(rule.share, rule.scope),
        ttl_seconds=seconds(rule.ttl) if rule.ttl else 0.0,
        rate_per_second=rate_per_second(rule.to.rate) if rule.to.rate else 0.0,
        concurrency=rule.to.concurrency,
    )


def threshold(text: str) -> tuple[int, float]:
    """`5/1h` → hits and seconds; nothing: the first hit. Raises PolicyError."""
    if not text:
        return 1, 3600.0
    hits, slash, window = text.partition("/")
    if not slash or not hits.isdecimal() or not 1 <= int(hits) <= MAX_HITS:
        raise PolicyError(f"{text!r} is no threshold: write hits (1 to {MAX_HITS}) and a window, such as 5/1h")
    length = seconds(window if window[:1].isdigit() else f"1{window}")
    if length <= 0:
        raise PolicyError(f"{text!r} is no threshold: its window is empty")
    return int(hits), length


def share(text: str, scope: Scope) -> float:
    """`1%` → 0.01; nothing: 0. Raises PolicyError, also for a scope whose messages are not counted."""
    if not text:
        return 0.0
    found = _SHARE.match(text)
    if not found or not 0 < float(found[1]) <= 100:
        raise PolicyError(f"{text!r} is no share: write a percentage such as 1% or 0.5%")
    if scope in (Scope.SOURCE, Scope.DOMAIN):
        raise PolicyError(f"a share is of the messages at one site, and the scope is {scope}: leave it out")
    return float(found[1]) / 100.0


def codes(given: int | str | tuple[int | str, ...]) -> frozenset[int]:
    """`421`, `4xx` and so on → all codes that are meant; none: every code. Raises PolicyError."""
    found: set[int] = set()
    for one in given if isinstance(given, tuple) else (given,):
        text = str(one).lower()
        if text == "0":
            found.add(0)
        elif _CODE.match(text):
            found.update(range(int(text.replace("x", "0")), int(text.replace("x", "9")) + 1))
        else:
            raise PolicyError(f"{one!r} is no reply code: write 421, 45x, 4xx, or 0 where no reply came")
    return frozenset(found)


def _phases(given: tuple[str, ...]) -> tuple[str, ...]:
    for phase in given:
        if phase not in PHASES:
            raise PolicyError(f"{phase!r} is no phase: write one of {', '.join(PHASES)}")
    return given
