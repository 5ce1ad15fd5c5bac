"""Events: what users and `trace` are told, each with an id that is the same when it is told twice."""

from __future__ import annotations

from mailfleet_core.model.wire import Entry, Event, Recipient, Result
from mailfleet_router.decisions.settle import Ending


def told(recipients: tuple[Recipient, ...]) -> tuple[tuple[int, str], ...]:
    """Recipients as events name them."""
    if len(recipients) == 1:
        return ((recipients[0].index, recipients[0].address),)
    return tuple((recipient.index, recipient.address) for recipient in recipients)


def accepted(entry: Entry, word: str) -> Event:
    """We answered 250 for these recipients. `word` is the text of the unit's id, here and below."""
    unit, envelope = entry.unit, entry.unit.envelope
    return Event(
        id=f"{word}/0/accepted/{unit.recipients[0].index}", kind="accepted", at=envelope.accepted_at,
        message_id=word[:26], unit_id=word, recipients=told(unit.recipients), tenant=envelope.tenant,
        stream=envelope.stream, reverse_path=envelope.reverse_path, header_message_id=envelope.header_message_id,
        client=envelope.client, size_bytes=envelope.body.length, expires_at=envelope.expires_at, site=unit.site,
    )  # fmt: skip


def queued(entry: Entry, word: str, now: float) -> Event:
    """The unit waits in the queue of a site."""
    unit = entry.unit
    return Event(
        id=f"{word}/{unit.hop}/queued/{unit.recipients[0].index}", kind="queued", at=now, message_id=word[:26],
        unit_id=word, recipients=told(unit.recipients), tenant=unit.envelope.tenant, stream=unit.envelope.stream,
        site=unit.site, attempt=entry.attempts,
    )  # fmt: skip


def attempted(entry: Entry, word: str) -> Event:
    """An attempt was given to a source."""
    unit = entry.unit
    return Event(
        id=f"{word}/{entry.attempts}/attempted/{unit.recipients[0].index}", kind="attempted", at=entry.attempted_at,
        message_id=word[:26], unit_id=word, recipients=told(unit.recipients), tenant=unit.envelope.tenant,
        stream=unit.envelope.stream, site=unit.site, source=entry.source, attempt=entry.attempts,
    )  # fmt: skip


def held(entry: Entry, word: str, now: float, reason: str, until: float, by: str) -> Event:
    """The unit could be tried, but we do not: no attempt is used up."""
    unit = entry.unit
    return Event(
        id=f"{word}/{entry.attempts}/held/{by}", kind="held", at=now, message_id=word[:26], unit_id=word,
        recipients=told(unit.recipients), tenant=unit.envelope.tenant, stream=unit.envelope.stream, site=unit.site,
        attempt=entry.attempts, text=reason, until=until, by=by,
    )  # fmt: skip


def in_doubt(entry: Entry, word: str, result: Result) -> Event:
    """The sender that had the attempt is gone; it may have been delivered, and is tried again."""
    unit = entry.unit
    return Event(
        id=f"{word}/{entry.attempts}/in_doubt/{unit.recipients[0].index}", kind="in_doubt", at=result.ended_at,
        message_id=word[:26], unit_id=word, recipients=told(unit.recipients), tenant=unit.envelope.tenant,
        stream=unit.envelope.stream, site=unit.site, source=entry.source, attempt=entry.attempts,
        text="the sender died before its result was durable; the mail may have been delivered and is tried again",
    )  # fmt: skip


def ended(entry: Entry, word: str, ending: Ending, result: Result | None, at: float, until: float) -> Event:
    """What became of some recipients: delivered, deferred, bounced or expired."""
    unit, outcome = entry.unit, ending.outcome
    kind, first = ending.kind, ending.recipients[0].index
    if result is None:
        return Event(
            id=f"{word}/{entry.attempts}/{kind}/{first}", kind=kind, at=at, message_id=word[:26], unit_id=word,
            recipients=told(ending.recipients), tenant=unit.envelope.tenant, stream=unit.envelope.stream,
            site=unit.site, attempt=entry.attempts, code=outcome.code, enhanced=outcome.enhanced, text=outcome.text,
            phase=outcome.phase, until=until,
        )  # fmt: skip
    return Event(
        id=f"{word}/{entry.attempts}/{kind}/{first}", kind=kind, at=at, message_id=word[:26], unit_id=word,
        recipients=told(ending.recipients), tenant=unit.envelope.tenant, stream=unit.envelope.stream, site=unit.site,
        source=result.source, attempt=entry.attempts, code=outcome.code, enhanced=outcome.enhanced, text=outcome.text,
        phase=outcome.phase, mx=result.mx, address=result.address, tls=result.tls,
        seconds=max(0.0, result.ended_at - result.started_at), until=until,
    )  # fmt: skip
