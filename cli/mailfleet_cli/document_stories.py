"""Scripted stories for the pages of docs/: events given to the real decisions, and what those made of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from mailfleet_router.decisions.shaping import backoff, reputation, site_health, warmup
from mailfleet_router.decisions.shaping.backoff import BackOff, Change, Configured, Hit
from mailfleet_router.decisions.shaping.reputation import BLOCKED, COMPLAINED, DEFERRED, DELIVERED, Counts
from mailfleet_router.decisions.shaping.site_health import Contact, Site, SiteHealth

SPEED_TEXT = (
    "Speed limit for 192.0.2.7 is 40/min: ease off. See https://help.mail.example/?p=Speed&id=8812 (7QK2M9X4T1ZB)"
)
"""What a receiver may say that no shipped rule knows."""

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


# --- reputation ----------------------------------------------------------------------------------------------------
class Answers(NamedTuple):
    """What a source was answered within one day."""

    said: str
    delivered: float = 0
    deferred: float = 0
    bounced: float = 0
    blocked: float = 0
    complained: float = 0


EXAMPLES = (
    Answers("nothing yet"),
    Answers("10,000 delivered", delivered=10_000),
    Answers("9,800 delivered, 2 % hard bounces", delivered=9_800, bounced=200),
    Answers("9,500 delivered, 5 % hard bounces", delivered=9_500, bounced=500),
    Answers("9,000 delivered, 10 % hard bounces", delivered=9_000, bounced=1_000),
    Answers("10,000 delivered, 0.1 % complaints", delivered=10_000, complained=10),
    Answers("10,000 delivered, 0.2 % complaints", delivered=10_000, complained=20),
    Answers("10,000 delivered, 0.3 % complaints", delivered=10_000, complained=30),
    Answers("9,000 delivered, 10 % deferred", delivered=9_000, deferred=1_000),
    Answers("7,000 delivered, 30 % deferred", delivered=7_000, deferred=3_000),
    Answers("1,000 delivered, 20 block replies", delivered=1_000, blocked=20),
    Answers("10,000 delivered, 20 block replies", delivered=10_000, blocked=20),
    Answers("a small sender: 47 delivered, 3 bounced", delivered=47, bounced=3),
    Answers("a small sender: 47 delivered, 1 complaint", delivered=47, complained=1),
    Answers("a small sender: 180 delivered, 20 bounced", delivered=180, bounced=20),
    Answers("all at once: 9,600 delivered, 3 % bounced, 1 % deferred, 5 complaints", 9_600, 100, 300, 0, 5),
)


def counts(answers: Answers) -> Counts:
    """The counts after such a day, none of it aged."""
    seen = [0.0] * 6
    seen[DELIVERED], seen[DEFERRED], seen[reputation.BOUNCED] = answers.delivered, answers.deferred, answers.bounced
    seen[BLOCKED], seen[COMPLAINED] = answers.blocked, answers.complained
    day = reputation.Day(0, tuple(seen), tuple(map(int, seen)))
    return Counts((day,), int(answers.blocked + answers.complained))


def standings() -> Iterator[tuple[str, str, float, float, str]]:
    """Each example: what was answered, the rates, the scores, the state."""
    for answers in EXAMPLES:
        standing, decision = reputation.judge(reputation.Standing(), counts(answers), 0.0)
        reading = decision.reading
        rates = reputation.worst_of(reading)
        yield answers.said, rates, reading.score, reading.acting, reputation.STATES[standing.state]


def way_back() -> Iterator[tuple[str, str, str, str, str]]:
    """A source that is blocked for an hour and then behaves: every change of its state, judged each quarter of an hour."""
    known, standing = counts(Answers("", delivered=2_000)), reputation.Standing(judged_at=-HOUR)
    for quarter in range(0, 14 * 24 * 4):
        at = quarter * HOUR / 4
        blocked = 40 if quarter < 4 else 0
        for kind, number in ((DELIVERED, 10), (BLOCKED, blocked)):
            for _ in range(number):
                known = reputation.observe(known, kind, at)
        standing, decision = reputation.judge(standing, known, at)
        if decision.before != decision.after:
            said = f"{blocked} block replies beside 10 delivered" if blocked else "10 delivered each quarter of an hour"
            state = reputation.STATES[decision.after]
            yield f"{at / HOUR:g}", said, f"{decision.reading.acting:.0f}", f"**{state}**", decision.reason


# --- warm-up -------------------------------------------------------------------------------------------------------
def turns() -> Iterator[tuple[str, str, str]]:
    """Days on stage 5 of the conservative plan, and what they lead to."""
    cap = warmup.CONSERVATIVE.cap(4)
    on_stage_5 = warmup.State(4, 0, 0)
    days: tuple[tuple[str, dict[str, int], float], ...] = (
        (f"{cap:,} sent, all delivered", {"sent": cap, "delivered": cap}, 1),
        ("4,700 delivered, 150 deferred", {"sent": 4_850, "delivered": 4_700, "deferred": 150}, 1),
        ("3,000 delivered: there was no more", {"sent": 3_000, "delivered": 3_000}, 1),
        ("4,650 delivered, 300 deferred", {"sent": 4_950, "delivered": 4_650, "deferred": 300}, 1),
        ("4,200 delivered, 600 deferred", {"sent": 4_800, "delivered": 4_200, "deferred": 600}, 1),
        ("5,000 delivered, 6 complaints", {"sent": 5_000, "delivered": 5_000, "complaints": 6}, 1),
        ("4,900 delivered, 1 block reply", {"sent": 4_900, "delivered": 4_900, "blocks": 1}, 1),
        ("5,000 delivered, then four days without mail", {"sent": 5_000, "delivered": 5_000}, 5),
        ("5,000 delivered, then 31 days without mail", {"sent": 5_000, "delivered": 5_000}, 32),
    )
    for said, fields, after in days:
        state = msgspec.structs.replace(on_stage_5, **fields)
        _, decision = warmup.turn(state, warmup.CONSERVATIVE, after * DAY)
        assert decision is not None
        yield said, f"{decision.action}: stage {decision.after + 1}", decision.reason


# --- back-off ------------------------------------------------------------------------------------------------------
class Step(NamedTuple):
    """One event of a story: a reply, at a minute."""

    minute: float
    kind: str
    """`slow`, `pause` or `success`."""
    said: str


CONFIGURED = Configured(rate_per_second=60 / 60, connections=10)
"""60 messages a minute on ten connections."""

STORY = (
    Step(10, "slow", "421 too fast"),
    Step(10.5, "slow", "421 too fast, again"),
    Step(12, "slow", "421 too fast"),
    Step(55, "pause", "554 blocked"),
    Step(56, "pause", "554 blocked: a reply that was under way"),
    Step(61, "pause", "554 blocked: the probe"),
    Step(72, "success", "250: the probe"),
)
UNTIL = 190


class Moment(NamedTuple):
    """What happened and what followed."""

    minute: float
    said: str
    change: Change | None


def back_off_story() -> tuple[list[Moment], list[tuple[float, float]]]:
    """All that changed, and the rate in messages a minute at each half minute (0 while paused)."""
    state, moments, rates = BackOff(), [], []
    steps = list(STORY)
    for half in range(UNTIL * 2 + 1):
        now = half * MINUTE / 2
        state, change = backoff.tick(state, now)
        if change:
            moments.append(Moment(now / MINUTE, "", change))
        while steps and steps[0].minute * MINUTE <= now:
            step = steps.pop(0)
            state, change = _after(state, step)
            moments.append(Moment(step.minute, step.said, change))
        limits = backoff.limits_now(state, CONFIGURED, now)
        rates.append((now / MINUTE, 0.0 if limits.paused_until else limits.rate_per_second * MINUTE))
    return moments, rates


def _after(state: BackOff, step: Step) -> tuple[BackOff, Change | None]:
    at = step.minute * MINUTE
    if step.kind == "success":
        return backoff.clean(state, at - 1, at)
    begun = at - (2 * MINUTE if "under way" in step.said else 1)
    return backoff.hit(state, Hit(at, begun, step.kind == "pause", "a rule", step.said, CONFIGURED.rate_per_second))


def back_off_table() -> Iterator[tuple[str, str, str, str, str]]:
    """The story in rows; the tenths that come back one after the other are told once."""
    told = ""
    for moment in back_off_story()[0]:
        change = moment.change
        what = change.what if change else "nothing: it is no news"
        if what.startswith("raised") and told.startswith("raised"):
            continue
        told = what
        until = f"{change.until / MINUTE:g}" if change and change.until else ""
        yield f"{moment.minute:g}", moment.said or "time passes", what, until, change.next if change else ""


def dead_site() -> Iterator[tuple[str, str, str]]:
    """A site with two MX hosts and two sources that send to it: one host fails, then both, then it is up again."""
    site, state = Site("mail.example", frozenset({"mx1", "mx2"}), 2), SiteHealth()
    contacts = (
        ("ip-1 is refused by mx1 alone", Contact("ip-1", 59, 60, ("mx1",))),
        ("ip-1 is refused by mx1 and mx2", Contact("ip-1", 119, 120, ("mx1", "mx2"))),
        ("ip-1 is refused by both again", Contact("ip-1", 179, 180, ("mx1", "mx2"))),
        ("ip-1 is refused by both a third time", Contact("ip-1", 239, 240, ("mx1", "mx2"))),
        ("ip-2 is refused by both", Contact("ip-2", 249, 250, ("mx1", "mx2"))),
        ("ip-2 is refused by both again", Contact("ip-2", 259, 260, ("mx1", "mx2"))),
        ("ip-2 is refused by both a third time", Contact("ip-2", 269, 270, ("mx1", "mx2"))),
        ("a probe is refused by both", Contact("ip-2", 331, 332, ("mx1", "mx2"))),
        ("a probe is answered", Contact("ip-1", 455, 456)),
    )
    for said, contact in contacts:
        state, change = site_health.observe(state, site, contact)
        believed = change.what if change else "nothing new"
        probe = state.probe_at / MINUTE if state.dead_since else 0.0
        yield f"{contact.at / MINUTE:.1f}", said, believed + (f"; next probe in minute {probe:.1f}" if probe else "")
