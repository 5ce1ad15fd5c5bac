"""What the clients handed in and the providers wrote down, brought together; the verdict is that of `exam.judge`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cluster.fleet import Fleet
from cluster.lab.town import Town
from exam.judge import Kill, Line, Verdict, judge

Pair = tuple[str, str]


def accepted(fleet: Fleet, mark: str) -> set[Pair]:
    """(name of the mail, recipient) of all that got a 250."""
    lines = [line for line in fleet.handed_in(mark) if line["outcome"] == "accepted"]
    return {(line["id"], to) for line in lines for to in line["rcpts"]}


def mails(town: Town, mark: str) -> list[Line]:
    """What all providers took of it, recipient by recipient."""
    return [line for each in town.providers.values() for line in each.mails() if line["id"].startswith(mark)]


def missing(fleet: Fleet, town: Town, mark: str) -> set[Pair]:
    """What was accepted and has not arrived."""
    return accepted(fleet, mark) - {(line["id"], line["rcpt"]) for line in mails(town, mark)}


def judged(fleet: Fleet, town: Town, mark: str, kills: Sequence[Kill] = (), allowed_per_kill: float = 0.0) -> Verdict:
    """The ledger of the mail whose names begin with `mark`."""
    told = [{**line, "recipients": list(enumerate(line["recipients"]))} for line in fleet.events()]
    return judge(fleet.handed_in(mark), mails(town, mark), kills, told, allowed_per_kill)


def of(town: Town, provider: str, kind: str, source: str = "", mark: str = "") -> list[dict[str, Any]]:
    """Lines of a provider's book of connections: of one address, of one mark, where these are given."""
    lines = [line for line in town.providers[provider].connections() if line["kind"] == kind]
    lines = [line for line in lines if not source or line["source"] == source]
    return [line for line in lines if not mark or named(line).startswith(mark)]


def named(line: dict[str, Any]) -> str:
    """The name of the mail that a line is about: in its reverse path (`mail`) or its first recipient (`taken`)."""
    if line["kind"] == "mail":
        return str(line["path"]).partition("@")[0]
    return str(line["recipients"][0]).partition("@")[0].partition(".")[2]


def violations(town: Town) -> list[dict[str, Any]]:
    """Where a provider's limits were not kept."""
    return [line for name in town.providers for line in of(town, name, "violation")]
