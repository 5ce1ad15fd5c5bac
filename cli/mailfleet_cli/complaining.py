"""From a report to the complaint that it is: which mail it is about, which recipient, and what is written of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from mailfleet_cli.arf import Report
from mailfleet_core.model import complaint, ids
from mailfleet_core.model.complaint import Complaint
from mailfleet_core.model.site import domain_of
from mailfleet_core.model.wire import DELIVERED, Event

TOLD = ("accepted", DELIVERED, "complaint")
"""Kinds of events that say which mail is meant, what became of it, and what was complained about already."""


class Found(NamedTuple):
    """A complaint about a mail that is known."""

    key: bytes
    complaint: Complaint
    event: Event
    known: bool
    """It was told before."""


class Unfound(ValueError):
    """It cannot be said which mail, or which recipient of it, a report is about."""


class Mails:
    """The events of those mails that reports are about."""

    def __init__(self, reports: Iterable[Report]) -> None:
        self._ours = {word for report in reports for word in report.message_ids}
        self._theirs = {report.header_message_id.lower() for report in reports} - {""}
        self._by_message: dict[str, dict[str, Event]] = {}
        self._by_header: dict[str, str] = {}
        self._named: set[str] = set()
        """Of those messages, our ids."""

    def marks(self) -> list[bytes]:
        """Each record of events about one of the mails that may be meant has one of these, whatever the case of letters."""
        texts = [*self._theirs, *(word.lower() for word in self._ours)]
        raw = [ids.parse(word).lower() for word in self._ours | self._named]
        return [*(text.encode("utf-8", "surrogateescape") for text in texts), *raw]

    def take(self, event: Event) -> None:
        """One event."""
        if event.kind not in TOLD:
            return
        header = event.header_message_id.strip("<>").lower()
        if header and header in self._theirs:
            self._by_header[header] = event.message_id
            self._named.add(event.message_id)
        elif event.message_id not in self._ours and event.message_id not in self._named:
            return
        self._by_message.setdefault(event.message_id, {})[event.id] = event

    @property
    def named(self) -> bool:
        """Is there a mail that is only now known by our own id, so that its other events are to be looked for?"""
        return bool(self._named - self._ours)

    def of(self, report: Report) -> list[Event]:
        """What is known of the mail of a report."""
        named = self._by_header.get(report.header_message_id.lower(), "")
        for word in (*report.message_ids, named):
            if word in self._by_message:
                return list(self._by_message[word].values())
        return []


def complaints(report: Report, events: list[Event], now: float) -> list[Found]:
    """The complaints that a report makes: one for each recipient that it names. Raises Unfound."""
    if not events:
        raise Unfound("no mail is known that it could be about (events are kept for 7 days)")
    taken = {
        index: (address, event) for event in events if event.kind == DELIVERED for index, address in event.recipients
    }
    if not taken:
        raise Unfound(f"the mail {events[0].message_id} was delivered to nobody yet")
    told = {index for event in events if event.kind == "complaint" for index, _ in event.recipients}
    return [
        _found(report, index, *taken[index], now, index in told)
        for index in _meant(report.recipients, taken, events[0])
    ]


def _meant(named: tuple[str, ...], taken: dict[int, tuple[str, Event]], event: Event) -> list[int]:
    if not named and len(taken) == 1:
        return list(taken)
    if not named:
        raise Unfound(
            f"the mail {event.message_id} went to {len(taken)} recipients, and it does not say which complains"
        )
    meant: list[int] = []
    for address in named:
        exactly = [index for index, (known, _) in taken.items() if known.lower() == address.lower()]
        nearly = [index for index, (known, _) in taken.items() if domain_of(known) == domain_of(address)]
        if not exactly and len(nearly) != 1:
            raise Unfound(f"the mail {event.message_id} was not delivered to {address}")
        meant += exactly or nearly
    return list(dict.fromkeys(meant))


def _found(report: Report, index: int, address: str, taken: Event, now: float, known: bool) -> Found:
    at = min(max(report.reported_at or now, taken.at), now)
    said = Complaint(
        at, taken.at, taken.tenant, taken.stream, taken.source, taken.site, domain_of(address), taken.mx, report.kind,
        report.by,
    )  # fmt: skip
    told = Event(
        taken.unit, "complaint", at, ((index, address),), taken.attempt, 0, taken.tenant, taken.stream, taken.site,
        taken.source, text=report.kind, mx=taken.mx, by=report.by,
    )  # fmt: skip
    return Found(complaint.key(ids.parse(taken.message_id), index), said, told, known)
