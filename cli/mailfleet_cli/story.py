"""A mail's story from its events: which mails a question means, and the lines that tell what happened to them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from mailfleet_core.model import ids
from mailfleet_core.model.wire import TERMINAL_KINDS, Event


@dataclass(frozen=True, slots=True)
class Question:
    """What somebody wants to know about: a message id, or a recipient's address, or a Message-ID."""

    text: str
    message_id: str = ""
    """Set when it is one of ours; then no search is needed."""

    def may_be_in(self, record: bytes) -> bool:
        """Can a record of events be about it? Quicker than to look at its events."""
        if self.message_id:
            return ids.parse(self.message_id) in record or self.message_id.encode() in record
        return self.text.lower().encode("utf-8", "surrogateescape") in record.lower()

    def means(self, event: Event) -> bool:
        """Is the event about it?"""
        if self.message_id:
            return event.message_id == self.message_id
        wanted = self.text.lower()
        return event.header_message_id.strip("<>").lower() == wanted or self._recipient(event)

    def _recipient(self, event: Event) -> bool:
        return any(address.lower() == self.text.lower() for _, address in event.recipients)


def question(text: str) -> Question:
    """What `text` asks for; a unit id asks for its message. Raises ValueError for what can be none of them."""
    text = text.strip().strip("<>")
    if "@" in text:
        return Question(text)
    return Question(text, ids.text(ids.parse(text)[: ids.MESSAGE_ID_BYTES]))


def stories(events: Iterable[Event], asked: Question) -> dict[str, list[Event]]:
    """Message id → its events in order, each told once; for a recipient, without what is about others only."""
    found: dict[str, dict[str, Event]] = {}
    for event in events:
        found.setdefault(event.message_id, {})[event.id] = event
    told: dict[str, list[Event]] = {}
    for message_id, by_id in sorted(found.items()):
        mine = sorted(by_id.values(), key=lambda event: (event.at, _RANK.get(event.kind, 5)))
        if not asked.message_id and any(asked._recipient(event) for event in mine):
            mine = [event for event in mine if not event.recipients or asked._recipient(event)]
        told[message_id] = mine
    return told


_RANK = {"accepted": 0, "queued": 1, "held": 2, "attempted": 3}
"""Steps that happened in the same instant are told in this order."""


def open_units(story: list[Event]) -> list[str]:
    """Units of the story that may still be in the queue: some recipient of theirs has no terminal event."""
    ended = {(e.unit_id, index) for e in story if e.kind in TERMINAL_KINDS for index, _ in e.recipients}
    seen = [(e.unit_id, index) for e in story if e.unit_id for index, _ in e.recipients]
    return sorted({unit for unit, index in seen if (unit, index) not in ended})


ALWAYS_SHOWN = ("id", "kind", "at", "message_id")
SHOWN = (
    *ALWAYS_SHOWN, "unit_id", "recipients", "tenant", "stream", "reverse_path", "header_message_id", "client",
    "size_bytes", "expires_at", "site", "source", "attempt", "code", "enhanced", "text", "phase", "mx", "address", "tls",
    "seconds", "until", "by",
)  # fmt: skip
"""What scripts see of an event, in this order."""


def as_json(event: Event) -> dict[str, object]:
    """The event for scripts: only what it says, ids as text, recipients as addresses."""
    fields = {name: getattr(event, name) for name in SHOWN}
    fields["recipients"] = [address for _, address in event.recipients]
    return {name: value for name, value in fields.items() if value or name in ALWAYS_SHOWN}


def from_json(fields: dict[str, Any]) -> Event:
    """The event that `as_json` showed so. The indexes of its recipients are not known; they are counted from 0. Raises
    ValueError, TypeError."""
    said = {name: fields[name] for name in SHOWN if name in fields and name not in _TEXTS}
    unit = ids.parse(str(fields.get("unit_id") or fields.get("message_id")))
    event = Event(unit, recipients=tuple(enumerate(fields.get("recipients", ()))), **said)
    return msgspec.convert(msgspec.structs.astuple(event), Event)


_TEXTS = frozenset({"id", "message_id", "unit_id", "recipients"})


def tell(event: Event) -> str:
    """What happened, in one line, without time and kind."""
    parts = _TELLERS.get(event.kind, _other)(event)
    return ", ".join(part for part in parts if part)


def _who(event: Event) -> str:
    addresses = [address for _, address in event.recipients]
    shown = ", ".join(addresses[:3])
    return shown + (f" and {len(addresses) - 3} more" if len(addresses) > 3 else "")


def _accepted(event: Event) -> list[str]:
    return [
        f"from <{event.reverse_path}>",
        f"for {_who(event)}" if event.recipients else "",
        f"tenant {event.tenant}" if event.tenant else "",
        f"client {event.client}" if event.client else "made here",
        f"{event.size_bytes} bytes" if event.size_bytes else "",
        f"Message-ID {event.header_message_id}" if event.header_message_id else "",
    ]


def _queued(event: Event) -> list[str]:
    return [f"for site {event.site}" if event.site else "", _who(event)]


def _held(event: Event) -> list[str]:
    return [_who(event), f"by {event.by}" if event.by else "", event.text]


def _attempted(event: Event) -> list[str]:
    return [f"attempt {event.attempt}", f"source {event.source}" if event.source else "", _where(event), _who(event)]


def _other(event: Event) -> list[str]:
    return [
        _who(event),
        _reply(event),
        f"at {event.phase}" if event.phase else "",
        _where(event),
        event.tls,
        f"attempt {event.attempt}" if event.attempt else "",
        f"{event.seconds:.2f} s" if event.seconds else "",
    ]


def _reply(event: Event) -> str:
    return " ".join(part for part in (str(event.code or ""), event.enhanced, event.text) if part)


def _where(event: Event) -> str:
    host = event.mx or (f"site {event.site}" if event.site else "")
    return f"{host} [{event.address}]" if event.address else host


def _complaint(event: Event) -> list[str]:
    source = f"source {event.source}" if event.source else ""
    return [_who(event), event.text, f"reported by {event.by}" if event.by else "", source, _where(event)]


_TELLERS = {"accepted": _accepted, "queued": _queued, "held": _held, "attempted": _attempted, "complaint": _complaint}
