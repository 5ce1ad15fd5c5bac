"""What an attempt came to: which recipients end, which wait, until when."""

from __future__ import annotations

import msgspec

from mailfleet_core.model.site import domain_of
from mailfleet_core.model.wire import (
    BOUNCED,
    CANCELLED,
    DEFERRED,
    DELIVERED,
    Entry,
    Recipient,
    RecipientOutcome,
    Result,
)
from mailfleet_router.decisions.policy import MOST_ASKED_SECONDS, Ladder
from mailfleet_router.decisions.retry import next_attempt, spread
from mailfleet_router.decisions.shaping.learned import Lesson

EXPIRED = "expired"
GREYLIST_SECONDS = 300.0
"""What Postgrey waits for (https://manpages.ubuntu.com/manpages/trusty/man8/postgrey.8.html, read 2026-11-22)."""
NOTHING = Lesson()
TOO_LATE = "4.4.7"
"""RFC 3463 X.4.7: delivery time expired."""
BY_COMMAND = "5.7.1"
"""RFC 3463 X.7.1: delivery not authorized, message refused. Here it is we who refuse."""


class Ending(msgspec.Struct, frozen=True, gc=False):
    """Recipients to whom the same thing happened."""

    kind: str
    """delivered, deferred, bounced, expired or cancelled."""
    outcome: RecipientOutcome
    recipients: tuple[Recipient, ...]


class Settled(msgspec.Struct, frozen=True, gc=False):
    """A result understood: what to tell, and what waits."""

    endings: tuple[Ending, ...]
    entry: Entry | None
    """The unit as it waits now; None: nobody of it is left."""


def settle(entry: Entry, result: Result, ladder: Ladder, lesson: Lesson = NOTHING) -> Settled:
    """What `result` makes of `entry`. The same result gives the same answer, whoever settles it and whenever."""
    if lesson.spared:
        result = _spared(result, lesson.spared)
    recipients = entry.unit.recipients
    if len(recipients) == 1 and len(result.outcomes) == 1 and result.outcomes[0].index == recipients[0].index:
        outcome = result.outcomes[0]
        if outcome.verdict == DELIVERED or outcome.verdict == BOUNCED:
            return Settled((Ending(outcome.verdict, outcome, recipients),), None)
    return _settle_each(entry, result, ladder, lesson)


def _spared(result: Result, spared: frozenset[int]) -> Result:
    """Refusals of our address are no refusals of the recipient: such mail waits."""
    outcomes = [
        msgspec.structs.replace(outcome, verdict=DEFERRED) if outcome.index in spared else outcome
        for outcome in result.outcomes
    ]
    return msgspec.structs.replace(result, outcomes=tuple(outcomes))


def _settle_each(entry: Entry, result: Result, ladder: Ladder, lesson: Lesson) -> Settled:
    answers = {outcome.index: outcome for outcome in result.outcomes}
    groups: dict[tuple[object, ...], tuple[RecipientOutcome, list[Recipient]]] = {}
    for recipient in entry.unit.recipients:
        outcome = answers.get(recipient.index) or _unanswered(recipient.index)
        kind = outcome.verdict if outcome.verdict in (DELIVERED, BOUNCED) else DEFERRED
        same = (kind, outcome.code, outcome.enhanced, outcome.text, outcome.phase)
        groups.setdefault(same, (outcome, []))[1].append(recipient)
    endings = [Ending(str(key[0]), outcome, tuple(group)) for key, (outcome, group) in groups.items()]
    waiting = [ending for ending in endings if ending.kind == DEFERRED]
    if not waiting:
        return Settled(tuple(endings), None)
    rung = entry.rung + 1
    jitter = spread(entry.unit.unit_id, entry.attempts)
    due = next_attempt(
        ladder, rung, result.ended_at, entry.unit.envelope.expires_at, jitter, asked(ladder, rung, lesson)
    )
    if due is None:
        return Settled(tuple(_expire(ending) if ending in waiting else ending for ending in endings), None)
    left = {recipient.index for ending in waiting for recipient in ending.recipients}
    unit = entry.unit
    if len(left) < len(unit.recipients):
        unit = msgspec.structs.replace(unit, recipients=tuple(r for r in unit.recipients if r.index in left))
    last = waiting[0].outcome
    if lesson.refused is not None and len(left) == len(entry.unit.recipients) == len(waiting[0].recipients):
        # It is bounced once that is written: whoever owns the partition then goes on with it (see `give_up`).
        last, due = msgspec.structs.replace(last, verdict=BOUNCED), result.ended_at
    return Settled(tuple(endings), msgspec.structs.replace(entry, unit=unit, rung=rung, due_at=due, last=last))


def asked(ladder: Ladder, rung: int, lesson: Lesson) -> float:
    """Seconds that the site asks for before the next attempt; 0: it asks for nothing."""
    if lesson.greylisted and not lesson.wait_seconds:
        return GREYLIST_SECONDS if ladder.greylist and rung == 1 else 0.0
    return min(lesson.wait_seconds, MOST_ASKED_SECONDS)


def give_up(entry: Entry) -> tuple[Ending, ...]:
    """How those of an entry end that is cancelled, bouncing or expiring."""
    if entry.cancelled is not None:
        outcome = RecipientOutcome(-1, BOUNCED, 0, BY_COMMAND, entry.cancelled.text, "command")
        meant = tuple(recipient for recipient in entry.unit.recipients if _meant(entry, recipient))
        return (Ending(CANCELLED, outcome, meant),)
    last = entry.last or RecipientOutcome(-1, DEFERRED, 0, TOO_LATE, "", "")
    recipients = entry.unit.recipients
    if last.verdict == BOUNCED:
        return (Ending(BOUNCED, last, recipients),)
    return (_expire(Ending(DEFERRED, last, recipients)),)


def spared(entry: Entry) -> Entry | None:
    """What goes on of an entry after `give_up`; None: nothing."""
    if entry.cancelled is None or not entry.cancelled.domain:
        return None
    left = tuple(recipient for recipient in entry.unit.recipients if not _meant(entry, recipient))
    unit = msgspec.structs.replace(entry.unit, recipients=left)
    return msgspec.structs.replace(entry, unit=unit, due_at=0.0, cancelled=None) if left else None


def _meant(entry: Entry, recipient: Recipient) -> bool:
    domain = entry.cancelled.domain if entry.cancelled else ""
    return not domain or domain_of(recipient.address) == domain


def _expire(ending: Ending) -> Ending:
    why = f"; the last answer was: {ending.outcome.text}" if ending.outcome.text else ""
    text = f"not delivered before it expired{why}"[:1000]
    outcome = msgspec.structs.replace(ending.outcome, verdict=BOUNCED, enhanced=TOO_LATE, text=text)
    return Ending(EXPIRED, outcome, ending.recipients)


def _unanswered(index: int) -> RecipientOutcome:
    # The unknown is a deferral: trying again is safe for whoever got no answer.
    return RecipientOutcome(index, DEFERRED, 0, "4.3.0", "the sender gave no outcome for this recipient", "")
