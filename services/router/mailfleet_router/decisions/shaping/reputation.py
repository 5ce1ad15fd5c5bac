"""How a site sees a source: its answers counted by day, judged now and then, and a state that changes slowly.

The score and its formula are in `mailfleet_core.model.reputation`, for whoever sums up what several owners have counted.

Counts are kept per day, each answer with the weight 2 ** (its time of the day / half-life). To age a whole day is then one
factor, nothing is lost when a clock goes wrong for a while and comes back, and counts of two partitions are merged by addition.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import reduce
from operator import add

import msgspec

from mailfleet_core.model import reputation as formula
from mailfleet_core.model.reputation import (
    ATTEMPTS,
    BLOCKED,
    BORDERS,
    BOUNCED,
    CLEAN_SECONDS,
    COMPLAINED,
    DEFERRED,
    DELIVERED,
    GOOD,
    MARGIN,
    OTHER,
    QUARANTINE,
    SLOW,
    STATES,
    TERMS,
    USUAL,
    WATCH,
    Reading,
    Term,
    Tuning,
    state_of,
    worst_of,
)
from mailfleet_core.model.wire import DEFERRED as VERDICT_DEFERRED
from mailfleet_core.model.wire import DELIVERED as VERDICT_DELIVERED
from mailfleet_core.model.wire import Struct
from mailfleet_router.decisions.shaping.values import Citation

__all__ = [  # the formula's names belong to what is said here of standings
    "ATTEMPTS", "BLOCKED", "BORDERS", "BOUNCED", "CLEAN_SECONDS", "COMPLAINED", "DEFERRED", "DELIVERED", "GOOD", "MARGIN",
    "OTHER", "QUARANTINE", "SLOW", "STATES", "TERMS", "USUAL", "WATCH", "Counts", "Day", "Decision", "Reading", "Standing",
    "Term", "Tuning", "decode_counts", "decode_decision", "decode_standing", "encode", "holds_warmup", "judge", "keys",
    "merge", "observe", "observe_all", "outcome", "rate_factor", "score", "total", "worst_of",
]  # fmt: skip

CITATIONS = (
    Citation(
        url="https://github.com/awsdocs/amazon-ses-developer-guide/blob/b90099e5927b5680ff0352f9661f97ca1eb1d081/doc-source/faqs-enforcement.md",
        date="2026-11-22",
    ),
    Citation(url="https://support.google.com/a/answer/81126", date="2026-11-22"),
    Citation(url="https://www.spamresource.com/2025/10/yahoo-sender-hub-now-with-insights.html", date="2026-11-22"),
)

DAY = 86400.0
HALF_LIFE = DAY
"""Seconds after which an answer counts half. Our design."""
DAYS = 7
"""Nothing older counts."""
DAYS_KEPT = 14
"""Twice that is stored, so that a clock that is wrong by days, and right again, has cost nothing."""
STEP_SECONDS = 900.0
"""The most that the time between two judgements counts as clean: a clock that jumps ends no quarantine."""


class Day(Struct, frozen=True):
    """The answers of one UTC day."""

    day: int
    weights: tuple[float, ...]
    """By kind; an answer in the day's first second weighs 1, one in its last almost 2."""
    seen: tuple[int, ...]
    """By kind, undecayed."""


class Counts(Struct, frozen=True):
    """What was answered, by day, oldest first."""

    days: tuple[Day, ...] = ()
    troubles: int = 0
    """Complaints and block replies ever: what ends a clean time."""
    heard: int = -1
    """Complaints up to this offset of `mail.site` are counted here."""


class Standing(Struct, frozen=True):
    """The state of a key, and how long it has been clean."""

    state: int = GOOD
    clean_seconds: float = 0.0
    judged_at: float = 0.0
    troubles: int = 0


class Decision(Struct, frozen=True):
    """One judgement with all that it rests on, for the record and for people."""

    at: float
    before: int
    after: int
    clean_seconds: float
    listed: bool
    reading: Reading
    reason: str


# --- counting ----------------------------------------------------------------------------------------------------
def keys(tenant: str, stream: str, source: str, site: str) -> tuple[tuple[str, str, str], ...]:
    """Under what one answer is counted. A source as a whole is the `total` of its sites."""
    return (("source|site", source, site), ("tenant|site", tenant, site), ("tenant|stream", tenant, stream))


def outcome(verdict: str, blame: str, block: bool, feedback: bool) -> int | None:
    """The kind of a settled recipient; None: our own failure or the network's, which says nothing about the source.

    `block` is for replies of a block class, `feedback` for sites that report complaints.
    """
    if verdict == VERDICT_DELIVERED:
        return DELIVERED if feedback else OTHER
    if block:
        return BLOCKED
    if blame in ("us", "network"):
        return None
    if verdict == VERDICT_DEFERRED:
        return DEFERRED
    return BOUNCED if blame == "recipient" else OTHER


def observe(counts: Counts, kind: int, now: float) -> Counts:
    """One more answer or complaint. The same one seen twice counts twice."""
    return observe_all(counts, tuple(int(k == kind) for k in range(6)), now)


def observe_all(counts: Counts, seen: tuple[int, ...], now: float) -> Counts:
    """So many more answers and complaints, by kind."""
    today = int(now // DAY)
    days = {day.day: day for day in counts.days if abs(day.day - today) < DAYS_KEPT}
    weight = math.exp2((now - today * DAY) / HALF_LIFE)
    more = Day(today, tuple([weight * number for number in seen]), seen)
    days[today] = _sum(days[today], more) if today in days else more
    bad = seen[BLOCKED] + seen[COMPLAINED]
    kept = tuple(days[number] for number in sorted(days))
    # What is bad pushes nothing out: a complaint or a block reply must not make the rest look better.
    return Counts(kept if sum(seen) == bad else _capped(kept, now), counts.troubles + bad, counts.heard)


def merge(first: Counts, second: Counts) -> Counts:
    """Both together, in either order: two partitions' counts of one key, or two sites of a source."""
    days = {day.day: day for day in first.days}
    for day in second.days:
        days[day.day] = _sum(days[day.day], day) if day.day in days else day
    return Counts(tuple(days[number] for number in sorted(days)), first.troubles + second.troubles)


def total(parts: Iterable[Counts]) -> Counts:
    """All of them together: a source from its sites."""
    return reduce(merge, parts, Counts())


def encode(value: Counts | Standing | Decision) -> bytes:
    """The bytes for a compacted topic."""
    return msgspec.msgpack.encode(value)


decode_counts = msgspec.msgpack.Decoder(Counts).decode
decode_standing = msgspec.msgpack.Decoder(Standing).decode
decode_decision = msgspec.msgpack.Decoder(Decision).decode


# --- judging -----------------------------------------------------------------------------------------------------
def score(counts: Counts, now: float, tuning: Tuning = USUAL) -> Reading:
    """How good it looks at `now`: 100 when nothing is known."""
    counted = _counted(counts, now)
    aged = [_factor(day, now) for day in counted]
    weights = tuple(sum(day.weights[k] * f for day, f in zip(counted, aged, strict=True)) for k in range(6))
    seen = tuple(sum(day.seen[k] for day in counted) for k in range(6))
    return formula.read(weights, seen, tuning)


def judge(
    standing: Standing, counts: Counts, now: float, listed: bool = False, tuning: Tuning = USUAL
) -> tuple[Standing, Decision]:
    """The state at `now`. Worse: at once. Better: after a clean time and well above the border.

    `listed`: a public block list names the source. To be called at least every STEP_SECONDS: of a longer time only
    so much counts as clean.
    """
    reading = score(counts, now, tuning)
    troubled = listed or counts.troubles != standing.troubles
    passed = min(max(now - standing.judged_at, 0.0), STEP_SECONDS)
    clean = 0.0 if troubled else standing.clean_seconds + passed
    before = standing.state
    after, reason = _move(before, QUARANTINE if listed else state_of(reading.acting, tuning), clean, reading, tuning)
    if listed:
        reason = "a public block list names the source"
    if after != before:
        clean = 0.0
    decision = Decision(now, before, after, clean, listed, reading, reason)
    return Standing(after, clean, now, counts.troubles), decision


def rate_factor(state: int) -> float:
    """What a state does to the rate of its key."""
    return 0.5 if state >= SLOW else 1.0


def holds_warmup(state: int) -> bool:
    """No stage is gained in this state."""
    return state >= SLOW


def _move(before: int, fits: int, clean: float, reading: Reading, tuning: Tuning) -> tuple[int, str]:
    what = f"score {reading.acting:.0f}: {worst_of(reading, tuning)}"
    hours = tuning.clean_seconds / 3600
    enough = tuning.upper(before) + tuning.margin
    if fits > before:
        return fits, f"{what}; from {STATES[before]} to {STATES[fits]}"
    if fits == before:
        return before, f"{what}; stays {STATES[before]}"
    if clean < tuning.clean_seconds:
        return before, f"{what}; {STATES[before]} until it was clean for {hours:g} hours, now {clean / 3600:.1f}"
    if reading.acting < enough:
        return before, f"{what}; {STATES[before]} until the score is {enough:.0f}"
    return fits, f"{what}; clean for {hours:g} hours, from {STATES[before]} to {STATES[fits]}"


def _counted(counts: Counts, now: float) -> list[Day]:
    """The days that count: up to seven, the last of which is that of the newest answer.

    They do not begin at `now`, or silence could make a score worse (an old good day ends before a newer bad one).
    """
    today = int(now // DAY)
    if not counts.days or today - counts.days[-1].day >= DAYS:
        return []
    newest = max((day.day for day in counts.days if any(day.seen[:BLOCKED])), default=today)
    return [day for day in counts.days if day.day > min(newest, today) - DAYS]


def _factor(day: Day, now: float) -> float:
    """What is left of a day's weights; a day that is still to come (the clock went back) is not made heavier."""
    return math.exp2(-max(0.0, now - day.day * DAY) / HALF_LIFE)


def _capped(days: tuple[Day, ...], now: float) -> tuple[Day, ...]:
    answered = sum(sum(day.weights[:BLOCKED]) * _factor(day, now) for day in days)
    if answered <= ATTEMPTS:
        return days
    k = ATTEMPTS / answered
    return tuple(Day(day.day, tuple(weight * k for weight in day.weights), day.seen) for day in days)


def _sum(first: Day, second: Day) -> Day:
    return Day(
        first.day,
        tuple(map(add, first.weights, second.weights)),
        tuple(map(add, first.seen, second.seen)),
    )
