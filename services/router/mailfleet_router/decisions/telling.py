"""What a partition tells: events for users, DSNs for senders."""

from __future__ import annotations

from mailfleet_core.model import wire
from mailfleet_core.model.wire import Entry, Result
from mailfleet_router.decisions import dsn, story
from mailfleet_router.decisions.journal import Journal, Waiting
from mailfleet_router.decisions.outbox import Report
from mailfleet_router.decisions.policy import Policy
from mailfleet_router.decisions.settle import Ending, give_up, spared
from mailfleet_router.decisions.site_queue import ENDING, TELLING, Held
from mailfleet_router.decisions.spill.space import Spill


class Telling(Journal):
    """Every ending is told before the unit is forgotten."""

    def __init__(self, number: int, policy: Policy, spill: Spill | None = None) -> None:
        super().__init__(number, policy.recent_units, spill)
        self.policy = policy

    def _begin_story(self, held: Held, entry: Entry, now: float) -> None:
        if not held.hop and not entry.attempts:
            self.out.events.append(story.accepted(entry))
        self.out.events.append(story.queued(entry, now))

    def tell_held(self, held: Held, reason: str, until: float, by: str, now: float) -> None:
        """Say once why a unit is not tried."""
        held.reported = reason
        entry = wire.decode(Entry, held.raw)
        self.out.events.append(story.held(entry, now, reason, until, by))

    def _tell(
        self, waiting: Waiting, entry: Entry, endings: tuple[Ending, ...], result: Result | None, at: float
    ) -> None:
        """Events and DSN of what ended; `waiting` goes on when they are durable."""
        held = waiting.held
        until = waiting.entry.due_at if waiting.entry else 0.0
        for ending in endings:
            later = until if ending.kind == wire.DEFERRED else 0.0
            self.out.events.append(story.ended(entry, ending, result, at, later))
            self.out.counts.append(("recipients", ending.kind, held.stream, len(ending.recipients)))
            if ending.kind == wire.DELIVERED:
                self.out.counts.append(("seconds", held.stream, "", int((at - held.accepted_at) * 1000)))
            elif held.site is not None and ending.kind != wire.CANCELLED:
                held.site.why = f"{ending.outcome.code or ending.outcome.phase} {ending.outcome.text}"[:200]
        passed_on = result.dsn_passed_on if result else False
        mailbox = held.domain is not None and held.domain.rule.route.kind == "lmtp"
        if entry.cancelled is not None and entry.cancelled.quiet:
            return
        if due := dsn.reportable(endings, entry.unit.envelope, passed_on=passed_on, mailbox=mailbox):
            waiting.left += 1
            mx = result.mx if result else ""
            self.out.reports.append(Report(self._token_for(waiting), f"{entry.attempts}/ended", entry, due, at, mx))

    def report_delay(self, held: Held) -> None:
        """Tell the sender once that the mail is delayed; the unit goes its way meanwhile."""
        held.delay = TELLING
        entry = wire.decode(Entry, held.raw)
        last = entry.last or wire.RecipientOutcome(-1, wire.DEFERRED, 0, "4.0.0", "waiting to be sent", "")
        due = dsn.reportable((Ending(dsn.DELAYED, last, entry.unit.recipients),), entry.unit.envelope)
        if due:
            self._token += 1
            self._delays[self._token] = held
            at = held.accepted_at + self.policy.ladder(held.stream).delay_dsn_seconds
            self.out.reports.append(Report(self._token, "delayed", entry, due, at))

    def _end(self, held: Held, entry: Entry, now: float) -> None:
        """Everybody of this unit bounces, expires or is cancelled, as its durable entry says."""
        held.state = ENDING
        waiting = Waiting(held, spared(entry), None, 1)
        self._tell(waiting, entry, give_up(entry), None, entry.due_at or now)
        self._batches.setdefault(self._batch, []).append(waiting)
