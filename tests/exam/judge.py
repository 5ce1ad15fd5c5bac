"""The judge: from what the load handed in, what the sink took, who was killed when and what was told, the verdict.

Pure: lines in, verdict out. Mail is judged for each (message, recipient); copies are told apart by the id that Mailfleet
gave each submission (it stands in its 250 and in its Received line).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from exam.behaviours import BEHAVIOURS, BOUNCED, DELIVERED, DOMAIN, REPORTS, behaviour_of

Line = dict[str, Any]
BEFORE_SECONDS, AFTER_SECONDS = 0.3, 3.0
"""A copy taken so long after or before a sender's death may be one whose result died with it (beside the site's delay)."""

TERMINAL = frozenset({"delivered", "bounced", "expired", "suppressed", "cancelled"})


@dataclass(frozen=True, slots=True)
class Kill:
    """One process ended on purpose."""

    at: float
    name: str
    kind: str
    """ingest, router, sender or log."""
    signal: str
    """KILL or TERM."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A copy too many that is ours."""

    mailfleet: str
    recipient: str
    first_at: float
    again_at: float
    blame: str
    """The process whose end explains it, or nothing."""
    kind: str


@dataclass
class Verdict:
    """What the ledger says."""

    accepted: int = 0
    """(message, recipient) pairs that got a 250."""
    delivered: int = 0
    bounced: int = 0
    client_copies: int = 0
    """Handed in again by a client in doubt."""
    unavoidable_copies: int = 0
    """The site took it and cut the line."""
    allowed: float = 0.0
    """System duplicates that the senders' kills of this run allow."""
    wrong: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Kind of fault → where. Empty when all is well."""
    duplicates: list[Duplicate] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """No fault, and no more duplicates than allowed."""
        return not self.faults()

    def faults(self) -> list[str]:
        """One line for each kind of fault."""
        found = [f"{kind}: {len(where)}, e.g. {', '.join(where[:3])}" for kind, where in sorted(self.wrong.items())]
        ours = Counter(duplicate.kind for duplicate in self.duplicates)
        if ours.pop("sender KILL", 0) > self.allowed:
            found.append(f"duplicates by killed senders: more than {self.allowed:.1f}")
        found += [f"duplicates by {kind}: {count}" for kind, count in ours.items()]
        return found


@dataclass
class Submitted:
    """All attempts to hand in one mail."""

    recipients: tuple[str, ...]
    sha: str
    outcomes: Counter[str] = field(default_factory=Counter)
    ids: set[str] = field(default_factory=set)

    @property
    def may_exist(self) -> bool:
        """Did a dot go out that was not refused?"""
        return bool(self.outcomes["accepted"] or self.outcomes["indoubt"])


Pair = tuple[str, str]


@dataclass
class Books:
    """The lines, sorted by what they are about."""

    mails: dict[str, Submitted]
    taken: dict[Pair, list[Line]]
    reports: dict[Pair, list[Line]]


def judge(
    load: Iterable[Line],
    sink: Iterable[Line],
    kills: Sequence[Kill] = (),
    events: Iterable[Line] | None = None,
    allowed_per_kill: float = 2.0,
) -> Verdict:
    """The verdict; `events` None: what was told is not judged."""
    books = _sort(load, sink)
    verdict = Verdict(allowed=allowed_per_kill * sum(kill.kind == "sender" and kill.signal == "KILL" for kill in kills))
    for name, mail in books.mails.items():
        if mail.outcomes["accepted"]:
            for recipient in mail.recipients:
                _ends(verdict, books, name, recipient)
    for pair, lines in books.taken.items():
        _taken(verdict, books.mails.get(pair[0]), pair, lines, kills)
    for pair in books.reports:
        mail_of_report = books.mails.get(pair[0])
        if mail_of_report is None or pair[1] not in mail_of_report.recipients or not mail_of_report.may_exist:
            verdict.wrong["phantom report"].append(_text(pair))
    if events is not None:
        _told(verdict, books, events)
    return verdict


def _sort(load: Iterable[Line], sink: Iterable[Line]) -> Books:
    books = Books({}, defaultdict(list), defaultdict(list))
    for line in load:
        mail = books.mails.setdefault(line["id"], Submitted(tuple(line["rcpts"]), line["sha"]))
        mail.outcomes[line["outcome"]] += 1
        if line["mailfleet"]:
            mail.ids.add(line["mailfleet"])
    for line in sink:
        if line["kind"] == "taken":
            books.taken[line["id"], line["rcpt"]].append(line)
        elif line["action"] == "failed":
            books.reports[line["id"], line["rcpt"]].append(line)
    return books


def _ends(verdict: Verdict, books: Books, name: str, recipient: str) -> None:
    """Has this accepted recipient exactly the end that its site gives?"""
    pair = (name, recipient)
    delivered, bounced = bool(books.taken.get(pair)), bool(books.reports.get(pair))
    verdict.accepted += 1
    verdict.delivered += delivered
    verdict.bounced += bounced
    expected = BEHAVIOURS[behaviour_of(recipient.rpartition("@")[2])].ends
    if delivered and bounced:
        verdict.wrong["delivered and bounced"].append(_text(pair))
    elif not delivered and not bounced:
        verdict.wrong["LOST"].append(_text(pair))
    elif expected == DELIVERED and bounced:
        verdict.wrong["false bounce"].append(_text(pair))
    elif expected == BOUNCED and delivered:
        verdict.wrong["delivered to a site that refuses"].append(_text(pair))


def _taken(verdict: Verdict, mail: Submitted | None, pair: Pair, lines: list[Line], kills: Sequence[Kill]) -> None:
    """Was what the sink took ours to send, whole, to the right place, and once?"""
    name, recipient = pair
    if mail is None or recipient not in mail.recipients or not mail.may_exist:
        verdict.wrong["phantom"].append(_text(pair))
        return
    for line in lines:
        if line["sha"] != mail.sha:
            verdict.wrong["corrupt"].append(_text(pair))
        if f"{line['site']}.{DOMAIN}" != recipient.rpartition("@")[2]:
            verdict.wrong["misrouted"].append(f"{_text(pair)} at {line['site']}")
        if line["reverse_path"] != f"{name}@{REPORTS}.{DOMAIN}":
            verdict.wrong["another reverse path"].append(f"{_text(pair)} from {line['reverse_path']}")
    _copies(verdict, mail, pair, lines, kills)


def _copies(verdict: Verdict, mail: Submitted, pair: Pair, lines: list[Line], kills: Sequence[Kill]) -> None:
    by_submission: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        by_submission[line["mailfleet"]].append(line)
    again = len(by_submission) - 1
    verdict.client_copies += again
    if again > mail.outcomes["indoubt"]:
        verdict.wrong["more submissions delivered than were in doubt"].append(_text(pair))
    for mailfleet, copies in by_submission.items():
        copies.sort(key=lambda line: line["at"])
        excused = sum(not line["replied"] for line in copies)
        verdict.unavoidable_copies += min(excused, len(copies) - 1)
        if excused >= len(copies) - 1:
            continue
        for first, second in list(pairwise(copies))[excused:]:
            verdict.duplicates.append(_blame(mailfleet, pair[1], first["at"], second["at"], kills))


def _blame(mailfleet: str, recipient: str, first_at: float, again_at: float, kills: Sequence[Kill]) -> Duplicate:
    """Whose end explains a second copy: a sender's around the first one, else whoever ended last before the second."""
    step = BEHAVIOURS[behaviour_of(recipient.rpartition("@")[2])].at.get("dot")
    patience = AFTER_SECONDS + (step.delay if step else 0.0)
    near = [
        kill for kill in kills if first_at - BEFORE_SECONDS <= kill.at <= first_at + patience and kill.at < again_at
    ]
    senders = [kill for kill in near if kill.kind == "sender" and kill.signal == "KILL"]
    before = [kill for kill in kills if kill.at < again_at]
    guilty = max(senders or near or before, key=lambda kill: kill.at, default=None)
    kind = f"{guilty.kind} {guilty.signal}" if guilty else "nobody's end"
    return Duplicate(mailfleet, recipient, first_at, again_at, guilty.name if guilty else "", kind)


def _told(verdict: Verdict, books: Books, events: Iterable[Line]) -> None:
    """Each accepted recipient has one end in the events, and each copy of ours was told as in doubt."""
    told: dict[Pair, dict[str, str]] = defaultdict(dict)
    for event in events:
        for _, recipient in event["recipients"]:
            told[event["message_id"], recipient][event["id"]] = event["kind"]
    for mail in books.mails.values():
        for mailfleet in mail.ids:
            for recipient in mail.recipients:
                kinds = [kind for kind in told[mailfleet, recipient].values() if kind in TERMINAL]
                if len(kinds) != 1:
                    verdict.wrong["not exactly one end told"].append(f"{mailfleet} {recipient} {sorted(kinds)}")
    for (mailfleet, recipient), count in Counter((d.mailfleet, d.recipient) for d in verdict.duplicates).items():
        if list(told[mailfleet, recipient].values()).count("in_doubt") < count:
            verdict.wrong["a copy that was not told as in doubt"].append(f"{mailfleet} {recipient}")


def _text(pair: Pair) -> str:
    return f"{pair[0]} {pair[1]}"
