"""Events: what users and `trace` are told. Their ids follow from what they say, so a step told twice has the same one."""

from __future__ import annotations

from mailfleet_core.model.shards import site_of
from mailfleet_core.model.wire import Entry, Event, Recipient, Result
from mailfleet_router.decisions.settle import Ending

# The first fields of an event are given by position, for four events a mail are made: names cost as much again.


def told(recipients: tuple[Recipient, ...]) -> tuple[tuple[int, str], ...]:
    """Recipients as events name them."""
    if len(recipients) == 1:
        return ((recipients[0].index, recipients[0].address),)
    return tuple([(recipient.index, recipient.address) for recipient in recipients])


def accepted(entry: Entry) -> Event:
    """We answered 250 for these recipients."""
    unit, envelope = entry.unit, entry.unit.envelope
    return Event(
        unit.unit_id, "accepted", envelope.accepted_at, told(unit.recipients), 0, 0, envelope.tenant, envelope.stream,
        site_of(unit.site), reverse_path=envelope.reverse_path, header_message_id=envelope.header_message_id,
        client=envelope.client, size_bytes=envelope.body.length, expires_at=envelope.expires_at,
    )  # fmt: skip


def queued(entry: Entry, now: float) -> Event:
    """The unit waits in the queue of a site."""
    unit, envelope = entry.unit, entry.unit.envelope
    return Event(
        unit.unit_id, "queued", now, told(unit.recipients), entry.attempts, unit.hop, envelope.tenant, envelope.stream,
        site_of(unit.site),
    )  # fmt: skip


def attempted(entry: Entry) -> Event:
    """An attempt was given to a source."""
    return _of_attempt(entry, "attempted", entry.attempted_at)


def held(entry: Entry, now: float, reason: str, until: float, by: str) -> Event:
    """The unit could be tried, but we do not: no attempt is used up."""
    unit, envelope = entry.unit, entry.unit.envelope
    return Event(
        unit.unit_id, "held", now, told(unit.recipients), entry.attempts, 0, envelope.tenant, envelope.stream, site_of(unit.site),
        text=reason, until=until, by=by,
    )  # fmt: skip


def in_doubt(entry: Entry, result: Result) -> Event:
    """The sender that had the attempt is gone; it may have been delivered, and is tried again."""
    text = "the sender died before its result was durable; the mail may have been delivered and is tried again"
    return _of_attempt(entry, "in_doubt", result.ended_at, text)


def _of_attempt(entry: Entry, kind: str, at: float, text: str = "") -> Event:
    unit, envelope = entry.unit, entry.unit.envelope
    return Event(
        unit.unit_id, kind, at, told(unit.recipients), entry.attempts, 0, envelope.tenant, envelope.stream, site_of(unit.site),
        entry.source, 0, "", text,
    )  # fmt: skip


def ended(entry: Entry, ending: Ending, result: Result | None, at: float, until: float) -> Event:
    """What became of some recipients: delivered, deferred, bounced or expired."""
    unit, envelope, outcome = entry.unit, entry.unit.envelope, ending.outcome
    source = mx = address = tls = ""
    seconds = 0.0
    if result is not None:
        source, mx, address, tls = result.source, result.mx, result.address, result.tls
        seconds = max(0.0, result.ended_at - result.started_at)
    return Event(
        unit.unit_id, ending.kind, at, told(ending.recipients), entry.attempts, 0, envelope.tenant, envelope.stream,
        site_of(unit.site), source, outcome.code, outcome.enhanced, outcome.text, outcome.phase, mx, address, tls, seconds, until,
    )  # fmt: skip
